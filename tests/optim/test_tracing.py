"""Rates before a training: those that the training meets, and a drawing of them."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.engine.recipe import load_recipe
from opsin.errors import InputError
from opsin.optim import list_schedules, plot_rates, trace_rates


def test_by_hand() -> None:
    found = trace_rates(0.5, "step", steps=6, steps_per_epoch=2, milestones=[1, 2])
    assert [step for step, _ in found] == [0, 1, 2, 3, 4, 5]
    assert [rate for _, rate in found] == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])
    warm = trace_rates(1.0, "plateau", steps=4, steps_per_epoch=2, warmup_epochs=1, warmup_factor=0.5)
    assert [rate for _, rate in warm] == [0.5, 0.75, 1, 1]


def test_a_recipes_section_is_passed_on_as_it_is() -> None:
    recipe = load_recipe("lenet5_digits")
    found = trace_rates(recipe.optim.lr, steps=600, steps_per_epoch=10, **recipe.schedule.model_dump())
    assert len(found) == 600 and max(rate for _, rate in found) == pytest.approx(2e-3)
    assert found[20][1] == pytest.approx(2e-3) and found[0][1] == pytest.approx(2e-5)  # two epochs of warm-up


def test_wrong_calls_are_those_of_create_schedule() -> None:
    with pytest.raises(InputError, match="schedule step needs milestones"):
        trace_rates(0.1, "step", steps=2, steps_per_epoch=1)
    with pytest.raises(InputError, match="did you mean cosine"):
        trace_rates(0.1, "cosin", steps=2, steps_per_epoch=1)


def test_drawing(tmp_path) -> None:
    options = {"step": {"milestones": [2, 3]}}
    curves = {
        name: trace_rates(0.1, name, steps=40, steps_per_epoch=10, **options.get(name, {})) for name in list_schedules()
    }
    figure = plot_rates(curves, steps_per_epoch=10)
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.get_lines()] == list(curves)
    assert np.max(axes.get_lines()[0].get_xdata()) == 3.9 and axes.get_xlabel() == "epoch"
    figure.savefig(tmp_path / "rates.svg")
    assert (tmp_path / "rates.svg").read_text().startswith("<?xml")
    with pytest.raises(InputError, match="nothing to draw"):
        plot_rates({})

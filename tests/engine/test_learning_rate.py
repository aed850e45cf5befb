"""The learning-rate range test: on a quadratic whose rates are known by hand, and on digits."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import opsin
from opsin.engine import train
from opsin.engine.learning_rate import LearningRates, Sweep, diverged, range_test, read_learning_rates, smooth, suggest
from opsin.engine.recipe import load_recipe, read_recipe
from opsin.engine.run import RunFolder
from opsin.errors import InputError

pytestmark = pytest.mark.rendered

RECIPE: dict[str, Any] = {
    "model": {"name": "lenet5"},
    "data": {"source": "digits", "limit": 400},
    "optim": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "train": {"epochs": 2, "batch_size": 32, "accelerator": "cpu", "keep": "last"},
}


def quadratic(curvature: float, rates: list[float]) -> list[float]:
    """Losses a w^2 / 2 of gradient descent from w = 1, by hand: each step multiplies w by 1 - lr a."""
    w, losses = 1.0, []
    for rate in rates:
        losses.append(curvature * w * w / 2)
        if diverged(losses):
            break
        w *= 1 - rate * curvature
    return losses


@pytest.mark.parametrize("curvature", [0.5, 10.0, 1000.0])
def test_of_a_quadratic_the_suggestion_is_below_the_rate_that_diverges(curvature: float) -> None:
    rates = np.geomspace(1e-7, 10, 100).tolist()
    losses = quadratic(curvature, rates)
    found = suggest(rates[: len(losses)], losses)
    assert 0.05 / curvature < found < 1 / curvature  # 1 / a is best of all, from 2 / a on it diverges


def test_the_average_is_without_the_bias_of_its_start() -> None:
    assert smooth([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])
    assert smooth([1.0, 2.0]) == pytest.approx([1.0, (0.09 * 1 + 0.1 * 2) / 0.19])


def test_divergence_ends_it() -> None:
    assert not diverged([2.0] * 30) and not diverged([1.0, 100.0])  # too early to tell
    assert diverged([2.0] * 20 + [200.0]) and diverged([1.0, float("nan")])


def test_where_the_loss_never_falls_nothing_is_suggested() -> None:
    rates = np.geomspace(1e-7, 10, 50).tolist()
    for losses in ([2.0] * 50, np.linspace(2, 3, 50).tolist(), []):
        with pytest.raises(InputError, match=r"finds no rate at which the loss falls.*give optim.lr"):
            suggest(rates[: len(losses)], losses)


def prepared(**settings: Any) -> tuple[Any, Any]:
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    torch.manual_seed(0)
    task, _, splits = train.prepare(load_recipe(RECIPE, overrides), lambda line: None)
    return task, splits["train"]


def test_groups_of_parameters_keep_their_ratio() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.2, 0.05)]
    trainer: Any = SimpleNamespace(optimizers=[torch.optim.SGD(groups)])
    sweep = Sweep([0.001, 0.01], base=0.2)
    sweep.on_train_start(trainer, None)  # type: ignore[arg-type]
    sweep.on_train_batch_start(trainer, None, None, 0)  # type: ignore[arg-type]
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == pytest.approx([0.001, 0.00025])


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_losses_are_those_of_a_plain_loop(accumulate: int) -> None:
    task, split = prepared(train__accumulate=accumulate)
    found = range_test(task, train.create_train_loader(task, split))
    model, loader = task.model.train(), train.create_train_loader(task, split)
    optimizer = torch.optim.SGD(model.parameters(), 1.0, momentum=0.9)
    rates, losses, now, epoch = np.geomspace(1e-7, 10, 100), [], [], 0
    while len(losses) < 40:
        loader.set_epoch(epoch)
        for place, batch in enumerate(loader, 1):
            loss = torch.nn.functional.cross_entropy(
                model(task.preprocessing.normalize(batch["image"])), batch["label"]
            )
            (loss / accumulate).backward()
            now.append(float(loss.detach()))
            if place % accumulate == 0 or place == len(loader):
                optimizer.param_groups[0]["lr"] = rates[len(losses)]
                optimizer.step()
                optimizer.zero_grad()
                losses.append(sum(now) / len(now))
                now = []
        epoch += 1
    assert found.rates[:40] == pytest.approx(rates[:40])
    assert found.losses[:40] == pytest.approx(losses[:40], rel=1e-4)


def test_the_training_that_follows_is_as_if_there_had_been_none() -> None:
    task, split = prepared(optim={"name": "adamw", "lr": 0.001})
    before, random = {k: v.clone() for k, v in task.state_dict().items()}, torch.get_rng_state()
    loader = train.create_train_loader(task, split)
    found = range_test(task, loader)
    assert all(torch.equal(before[k], v) for k, v in task.state_dict().items())
    assert torch.equal(random, torch.get_rng_state()) and task.recipe.optim.lr == 0.001
    assert 1e-4 < found.suggestion < 0.1


def test_find_lr_writes_the_curve_and_trains_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    found = opsin.find_lr(RECIPE, {"schedule.warmup_epochs": 1}, out=tmp_path / "run", say=lines.append)
    assert isinstance(found, LearningRates) and 1e-3 < found.suggestion < 1
    run = RunFolder(tmp_path / "run")
    assert not run.model.exists() and not run.last.exists()
    with (run.path / "learning_rate.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == found.losses
    assert read_learning_rates(run) == LearningRates(found.rates, found.losses, found.suggestion, run.path)
    assert (run.path / "learning_rate.png").read_bytes()[:4] == b"\x89PNG"
    assert "Learning rate</a></h2>" in run.report.read_text(encoding="utf-8")
    assert lines[-1] == f"to train with it: opsin train --resume {run.path} --lr {found.suggestion:g}"
    again = opsin.train(resume=run.path, overrides={"optim.lr": found.suggestion}, say=lambda line: None)
    assert len(again.history) == 2
    assert "Learning rate</a></h2>" in run.report.read_text(encoding="utf-8")


def test_auto_trains_as_the_number_would(tmp_path: Path) -> None:
    auto = opsin.train(RECIPE, {"optim.lr": "auto"}, out=tmp_path / "auto", say=lambda line: None)
    rate = load_recipe(read_recipe(tmp_path / "auto" / "recipe.yaml")).optim.lr
    assert rate != 0.05
    given = opsin.train(RECIPE, {"optim.lr": rate}, out=tmp_path / "given", say=lambda line: None)
    for name in ("train_loss", "val_loss", "val_accuracy"):
        assert [row[name] for row in auto.history] == [row[name] for row in given.history]


def test_the_curve_shows_the_fall_and_where_it_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a tenth of the fall below the lowest loss; what diverges does not press the rest flat."""
    found = LearningRates([1e-4, 1e-3, 1e-2, 1e-1], [3.0, 1.0, 2.0, 500.0], 1e-3)
    monkeypatch.setattr(LearningRates, "smoothed", [3.0, 1.0, 2.0, 400.0])
    canvas = Figure()
    found._draw(canvas)
    (axes,) = canvas.axes
    assert axes.get_ylim() == pytest.approx((1 - 0.2, 3 + 1))
    assert axes.get_xscale() == "log"

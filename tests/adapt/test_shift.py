"""Domains are compared before anything is trained: distances, classes, and a run that adapts by images alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from opsin import data
from opsin.adapt.adapting_run import adapt_run
from opsin.adapt.shift import check, compare_domains, label_shift, proxy_a_distance
from opsin.adapt.subspace import align_subspaces, map_spaces, oriented_gradients
from opsin.cli.which_task import task_of_options
from opsin.errors import InputError

from .tiny_domains import write_domain


def test_a_distance_of_what_can_and_cannot_be_told_apart() -> None:
    random = np.random.RandomState(0)
    one, other = random.randn(200, 3), random.randn(200, 3)
    assert proxy_a_distance(one, other) < 0.4
    assert proxy_a_distance(one, other + 10) == 2
    # N(0, 1) and N(2, 1): the best boundary is half-way, its error Phi(-1) = 0.159.
    assert proxy_a_distance(one[:, :1], other[:, :1] + 2) == pytest.approx(2 * (1 - 2 * 0.159), abs=0.2)


def test_label_shift_is_the_share_that_would_move() -> None:
    assert label_shift(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1, -1]), 2) == 0.25


def test_a_report_of_two_folders(tmp_path: Path) -> None:
    one, other = write_domain(tmp_path / "a"), write_domain(tmp_path / "c", shifted=True, names=("across", "circle"))
    found = check(data.open(str(one), "adapt"), str(one), None, {"against": str(other)})["shift"]
    assert found.a_distance > 1.5 and found.mmd > 2 * found.noise
    assert [one.kind for one in found.problems] == ["label_sets", "label_sets"]
    assert "'circle'" in found.render() and "adaptation may help" in found.advice
    assert found.classes["board"] is None and found.classes["across"] is not None
    same = compare_domains(data.open(str(one), "adapt"), data.open(str(one), "adapt"))
    assert same.a_distance < 0.5 and same.label_shift == 0 and "likely not worth it" in same.advice
    assert task_of_options(["against"]) == "adapt"
    with pytest.raises(InputError, match="takes 20 or more"):
        few = write_domain(tmp_path / "few", images=2)
        compare_domains(data.open(str(few), "adapt"), data.open(str(one), "adapt"))


def test_what_is_no_run_for_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean tent"):
        adapt_run("runs/x", "c", "tnet")


def test_subspaces_are_aligned() -> None:
    random = np.random.RandomState(0)
    basis = np.linalg.qr(random.randn(5, 5))[0]
    hidden = random.randn(300, 2) * (5, 2)
    source, target = hidden @ basis[:2], hidden @ basis[2:4] + 3
    one, other = align_subspaces(source, source + 1, 2)
    np.testing.assert_allclose(one, other, atol=1e-8)
    labels = (np.arange(300) % 3).astype(int)
    labels[:] = np.digitize(hidden[:, 0], [-2, 2])
    few = np.where(np.arange(300) < 60, labels, -1)
    space = map_spaces(source, labels, np.concatenate([target, target[:, :2]], axis=1), few, 2)
    mapped = space.of_source(source)
    wanted = space.of_target(np.concatenate([target, target[:, :2]], axis=1))
    assert np.corrcoef(mapped[:, 0], wanted[:, 0])[0, 1] > 0.9
    with pytest.raises(InputError, match="takes labels of some target examples"):
        map_spaces(source, labels, target, np.full(300, -1), 2)
    with pytest.raises(InputError, match="take fewer dimensions"):
        align_subspaces(source, target, 6)


def test_gradients_by_orientation() -> None:
    across = np.tile(np.arange(8.0), (1, 8, 1))  # brighter to the right: the gradient points along x, 0 degrees
    found = oriented_gradients(across).reshape(2, 2, 9)
    assert found[..., [0, 8]].sum() == pytest.approx(found.sum()) and np.linalg.norm(found) == pytest.approx(1)
    down = oriented_gradients(across.transpose(0, 2, 1)).reshape(2, 2, 9)
    assert down[..., 4].sum() == pytest.approx(down.sum())

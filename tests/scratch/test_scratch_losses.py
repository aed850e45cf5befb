"""Losses and distances of distributions written out, against torch's, torchvision's and hand-worked cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import Tensor
from torchvision.ops import distance_box_iou_loss, generalized_box_iou_loss, sigmoid_focal_loss

from opsin.scratch.centre_loss import centre_loss, centre_loss_backward, update_centres
from opsin.scratch.contrastive_loss import contrastive_loss, contrastive_loss_backward
from opsin.scratch.cross_entropy import one_hot
from opsin.scratch.divergences import js, kl, kl_to_softmax, kl_to_softmax_backward, wasserstein
from opsin.scratch.focal_loss import focal_loss, focal_loss_backward
from opsin.scratch.giou import diou, diou_backward, giou, giou_backward
from opsin.scratch.gumbel_softmax import gumbel, gumbel_softmax, gumbel_softmax_backward, straight_through
from opsin.scratch.label_smoothing import (
    best_gap,
    smooth,
    smoothed_cross_entropy,
    smoothed_cross_entropy_backward,
)
from opsin.scratch.smooth_l1 import smooth_l1, smooth_l1_backward
from opsin.scratch.triplet_loss import semi_hard, triplet_loss, triplet_loss_backward
from opsin.scratch.wing_loss import wing_loss, wing_loss_backward

Witness = Callable[..., tuple[np.ndarray, list[np.ndarray]]]
Rng = np.random.Generator

assert_close = partial(assert_allclose, rtol=1e-9, atol=1e-12)


def test_label_smoothing(rng: Rng, by_torch: Witness) -> None:
    logits, labels = 3 * rng.normal(size=(6, 5)), rng.integers(0, 5, 6)
    targets = one_hot(labels, 5)
    loss, (dlogits,) = by_torch(lambda z: F.cross_entropy(z, torch.tensor(labels), label_smoothing=0.2), 1.0, logits)
    assert_close(smoothed_cross_entropy(logits, targets, 0.2), loss)
    assert_close(smoothed_cross_entropy_backward(logits, targets, 0.2), dlogits)
    ahead = np.array([[best_gap(5, 0.2), 0, 0, 0, 0]])
    assert_allclose(smoothed_cross_entropy_backward(ahead, one_hot(np.array([0]), 5), 0.2), 0, atol=1e-12)
    with pytest.raises(ValueError, match=r"eps is 1\.5"):
        smooth(targets, 1.5)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.75, 0.5)])
def test_focal_loss(rng: Rng, by_torch: Witness, alpha: float, gamma: float) -> None:
    logits = np.concatenate([4 * rng.normal(size=20), [-30.0, 30.0]])
    targets = np.concatenate([rng.integers(0, 2, 20), [0, 1]]).astype(float)

    def theirs(z: Tensor) -> Tensor:
        return sigmoid_focal_loss(z, torch.tensor(targets), alpha, gamma)

    loss, (dlogits,) = by_torch(theirs, np.ones(22), logits)
    assert_close(focal_loss(logits, targets, alpha, gamma), loss)
    assert_allclose(focal_loss_backward(logits, targets, alpha, gamma), dlogits, rtol=1e-6, atol=1e-9)
    assert np.isfinite(focal_loss_backward(1000 * logits, targets, alpha, gamma)).all()


@pytest.mark.parametrize("beta", [1.0, 1 / 9])
def test_smooth_l1(rng: Rng, by_torch: Witness, beta: float) -> None:
    x, target = 2 * rng.normal(size=(2, 30))
    loss, (dx,) = by_torch(
        lambda one: F.smooth_l1_loss(one, torch.tensor(target), beta=beta, reduction="none"), np.ones(30), x
    )
    assert_close(smooth_l1(x, target, beta), loss)
    assert_close(smooth_l1_backward(x, target, beta), dx)


def test_wing_loss(rng: Rng, by_torch: Witness) -> None:
    x, target = 15 * rng.normal(size=(2, 40))

    def theirs(one: Tensor) -> Tensor:  # equation 5 of the paper
        d = (one - torch.tensor(target)).abs()
        return torch.where(d < 10, 10 * torch.log(1 + d / 2), d - (10 - 10 * math.log(1 + 10 / 2)))

    loss, (dx,) = by_torch(theirs, np.ones(40), x)
    assert_close(wing_loss(x, target), loss)
    assert_close(wing_loss_backward(x, target), dx)
    inside, beyond = wing_loss(np.array([10 - 1e-9, 10 + 1e-9]), np.zeros(2))
    assert inside == pytest.approx(beyond, abs=1e-8)  # in one piece


@pytest.mark.parametrize(
    ("ours", "backward", "theirs"),
    [(giou, giou_backward, generalized_box_iou_loss), (diou, diou_backward, distance_box_iou_loss)],
)
def test_overlaps_of_boxes_that_may_not_meet(
    rng: Rng, by_torch: Witness, ours: Callable, backward: Callable, theirs: Callable
) -> None:
    corners = rng.uniform(0, 10, (2, 60, 2))
    a, b = (np.concatenate([one, one + rng.uniform(0.5, 6, (60, 2))], axis=1) for one in corners)
    dy = rng.normal(size=60)
    # eps, which torchvision adds to areas in single precision, shifts the seventh digit.
    loss, (da,) = by_torch(lambda one: theirs(one, torch.tensor(b), eps=0.0), dy, a)
    assert_allclose(1 - ours(a, b), loss, rtol=1e-6, atol=1e-7)
    assert_allclose(-backward(dy, a, b), da, rtol=1e-5, atol=1e-6)


def test_contrastive_loss(rng: Rng, by_torch: Witness) -> None:
    a, b, same = rng.normal(size=(12, 3)), rng.normal(size=(12, 3)), rng.integers(0, 2, 12)

    def theirs(one: Tensor, other: Tensor) -> Tensor:
        d, y = (one - other).norm(dim=1), torch.tensor(same)
        return y * d**2 / 2 + (1 - y) * (2.0 - d).clamp(min=0) ** 2 / 2

    loss, gradients = by_torch(theirs, np.ones(12), a, b)
    assert_close(contrastive_loss(a, b, same, 2.0), loss)
    for mine, one in zip(contrastive_loss_backward(a, b, same, 2.0), gradients, strict=True):
        assert_close(mine, one)
    assert np.isfinite(contrastive_loss_backward(a, a, np.zeros(12))[0]).all()


def test_triplet_loss(rng: Rng, by_torch: Witness) -> None:
    given = rng.normal(size=(3, 10, 4))

    def theirs(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
        squared = torch.nn.TripletMarginWithDistanceLoss(
            distance_function=lambda x, y: ((x - y) ** 2).sum(dim=1), margin=0.2, reduction="none"
        )
        return squared(a, p, n)

    loss, gradients = by_torch(theirs, np.ones(10), *given)
    assert_close(triplet_loss(*given), loss)
    for mine, one in zip(triplet_loss_backward(*given), gradients, strict=True):
        assert_close(mine, one)
    labels = np.array([0, 0, 1, 1, 1])
    distances = np.array([[0, 0.5, 0.4, 0.65, 0.6]] + [[1.0] * 5] * 4)
    assert semi_hard(distances, labels, 0, 1) == 4  # not 2, which is nearer than the positive, nor 3
    assert semi_hard(distances, labels, 0, 1, margin=0.05) is None


def test_centre_loss(rng: Rng, by_torch: Witness) -> None:
    x, labels, centres = rng.normal(size=(7, 2)), np.array([0, 1, 1, 3, 3, 3, 0]), rng.normal(size=(4, 2))
    loss, (dx,) = by_torch(lambda one: ((one - torch.tensor(centres[labels])) ** 2).sum() / 2, 1.0, x)
    assert_close(centre_loss(x, labels, centres), loss)
    assert_close(centre_loss_backward(x, labels, centres), dx)
    # Two features at 2 and 4 of a centre at 0: it moves by half of (2 + 4) / 3.
    moved = update_centres(np.array([[2.0], [4.0]]), np.array([0, 0]), np.zeros((2, 1)), alpha=0.5)
    assert_close(moved, [[1.0], [0.0]])


def test_distances_of_distributions(rng: Rng, by_torch: Witness) -> None:
    p, q = rng.dirichlet(np.ones(6), size=(2, 5))
    assert_close(kl(p, q), F.kl_div(torch.tensor(q).log(), torch.tensor(p), reduction="none").sum(dim=1).numpy())
    assert_close(js(p, q), js(q, p))
    apart = np.array([0.5, 0.5, 0, 0]), np.array([0, 0, 0.25, 0.75])
    assert kl(*apart) == np.inf and js(*apart) == pytest.approx(math.log(2))
    # A half goes from 0 to 3 and a quarter from 1 to 3, a quarter from 1 to 2: 1.5 + 0.5 + 0.25.
    assert wasserstein(*apart, np.arange(4.0)) == pytest.approx(2.25)
    assert wasserstein(p, p, np.arange(6.0)) == pytest.approx(0)
    logits = rng.normal(size=(5, 6))
    loss, (dlogits,) = by_torch(
        lambda z: F.kl_div(z.log_softmax(dim=1), torch.tensor(p), reduction="batchmean"), 1.0, logits
    )
    assert_close(kl_to_softmax(logits, p), loss)
    assert_close(kl_to_softmax_backward(logits, p), dlogits)


def test_gumbel_softmax(rng: Rng, by_torch: Witness) -> None:
    logits, noise, dy = rng.normal(size=(3, 4)), gumbel((3, 4), rng), rng.normal(size=(3, 4))
    y, (dlogits,) = by_torch(lambda z: ((z + torch.tensor(noise)) / 0.5).softmax(dim=-1), dy, logits)
    assert_close(gumbel_softmax(logits, noise, 0.5), y)
    assert_close(gumbel_softmax_backward(dy, y, 0.5), dlogits)
    assert (straight_through(y).sum(axis=1) == 1).all() and (straight_through(y).argmax(1) == y.argmax(1)).all()
    drawn = (np.log([0.2, 0.8]) + gumbel((20_000, 2), rng)).argmax(axis=1).mean()
    assert drawn == pytest.approx(0.8, abs=0.015)  # five standard deviations

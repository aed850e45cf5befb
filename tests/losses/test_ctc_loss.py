"""CTC: torch's numbers, and clear words where torch says infinity or nothing at all."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.errors import InputError
from opsin.losses import ctc_loss
from opsin.losses.terms import Reduction

close = torch.testing.assert_close
TARGETS = torch.tensor([[1, 2, 2, 3], [4, -1, -1, -1], [3, 1, 4, -1]])


def logits(steps: int = 9, batch: int = 3, classes: int = 5) -> Tensor:
    return torch.randn(steps, batch, classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_is_torchs(reduction: Reduction) -> None:
    x = logits()
    lengths = torch.tensor([9] * 3), torch.tensor([4, 1, 3])
    expected = F.ctc_loss(x.log_softmax(2), TARGETS.clamp(min=0), *lengths, reduction=reduction)
    close(ctc_loss(x, TARGETS, reduction=reduction), expected)
    close(ctc_loss(x, TARGETS.clamp(min=1), [4, 1, 3], [9, 9, 9], reduction=reduction), expected)


def test_another_blank_and_shorter_inputs() -> None:
    x, targets = logits(), TARGETS - 1  # -1 where it was filled up is now -2
    targets[TARGETS == -1] = -1
    moved = torch.cat([x[:, :, 1:], x[:, :, :1]], dim=2)
    lengths = torch.tensor([9, 4, 6])
    close(ctc_loss(moved, targets, None, lengths, blank=4), ctc_loss(x, TARGETS, None, lengths))
    longer = torch.cat([x, logits(3) * 100])  # steps beyond a sequence's end are not read
    close(ctc_loss(longer, TARGETS, None, [9, 9, 9]), ctc_loss(x, TARGETS))


def test_an_empty_target_asks_for_blanks() -> None:
    x = logits(batch=1)
    expected = -x.log_softmax(2)[:, 0, 0].sum()
    close(ctc_loss(x, torch.full((1, 3), -1)), expected)
    close(ctc_loss(x, torch.zeros(1, 0, dtype=torch.int64)), expected)


def test_a_target_that_just_fits() -> None:
    x = logits(5)
    close(ctc_loss(x[:, :1], TARGETS[:1], reduction="none")[0], -sum(x.log_softmax(2)[range(5), 0, [1, 2, 0, 2, 3]]))


def test_a_target_that_is_too_long_is_named_with_the_fix() -> None:
    message = "target 0 has 4 labels, 1 of them repeated, and needs 5 steps, the network gives 4: widen the image"
    with pytest.raises(InputError, match=message):
        ctc_loss(logits(4), TARGETS)
    with pytest.raises(InputError, match=r"target 2 has 3 labels, 0 of them repeated, and needs 3 steps.* gives 2"):
        ctc_loss(logits(), TARGETS, None, [9, 9, 2])


def test_zero_infinity_leaves_out_what_does_not_fit() -> None:
    x = logits(4).requires_grad_()
    terms = ctc_loss(x, TARGETS, zero_infinity=True, reduction="none")
    assert terms[0] == 0
    close(terms[1:], ctc_loss(x[:, 1:], TARGETS[1:], reduction="none"))
    (gradient,) = torch.autograd.grad(terms.sum(), x)
    assert (gradient[:, 0] == 0).all()


@pytest.mark.parametrize(
    ("targets", "lengths", "message"),
    [
        ([[1, 0, 2]], None, "target 0 holds 0 at place 1; expected a class from 0 to 4 other than the blank, 0"),
        ([[1, 5, 2]], None, "target 0 holds 5 at place 1"),
        ([[1, -1, 2]], [3], "target 0 holds -1 at place 1"),
        ([[1, 2, 3]], [4], r"target_lengths hold 4 at \(0,\); expected 0 to 3"),
        ([[1, 2, 3]], [-1], "target_lengths hold -1"),
        ([[1, 2, 3]], [1, 1], r"target_lengths of shape \(2,\) do not fit a batch of 1"),
        (
            [[1, 2], [1, 2]],
            None,
            r"targets of shape \(2, 2\) do not fit logits of shape \(9, 1, 5\); expected \(B, S\)",
        ),
        ([[1.0, 2.0]], None, r"targets are class indices, got torch\.float32"),
    ],
)
def test_wrong_targets_are_named(targets: list, lengths: list | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ctc_loss(logits(batch=1), torch.tensor(targets), lengths)


def test_wrong_input_lengths_are_named() -> None:
    with pytest.raises(InputError, match=r"input_lengths hold 10 at \(1,\); expected 0 to 9"):
        ctc_loss(logits(), TARGETS, None, [9, 10, 9])


def test_certain_and_right_is_no_loss() -> None:
    x = torch.full((5, 1, 5), -100.0)
    for step, label in enumerate([1, 2, 0, 2, 3]):
        x[step, 0, label] = 100.0
    assert ctc_loss(x, TARGETS[:1]).item() == pytest.approx(0, abs=1e-6)
    assert math.isfinite(ctc_loss(-x, TARGETS[:1]).item())

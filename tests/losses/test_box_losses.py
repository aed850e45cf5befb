"""Box losses: torchvision's values and gradients where those are sound, and sense where they are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision import ops

from opsin import losses
from opsin.errors import InputError

close = torch.testing.assert_close
REFERENCE = {
    losses.giou_loss: ops.generalized_box_iou_loss,
    losses.diou_loss: ops.distance_box_iou_loss,
    losses.ciou_loss: ops.complete_box_iou_loss,
}
EVERY = [losses.iou_loss, *REFERENCE]


def random_boxes(count: int, seed: int) -> Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 10
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)


@pytest.mark.parametrize("function", REFERENCE)
def test_is_torchvisions_in_value_and_gradient(function) -> None:
    x, targets = random_boxes(200, 0).requires_grad_(), random_boxes(200, 1)
    ours = function(x, targets, reduction="none")
    theirs = REFERENCE[function](x, targets, reduction="none")
    close(ours, theirs, rtol=1e-5, atol=1e-6)  # theirs adds 1e-7 to each denominator
    close(*(torch.autograd.grad(loss.sum(), x)[0] for loss in (ours, theirs)), rtol=1e-4, atol=1e-5)


def test_iou_is_torchvisions() -> None:
    x, targets = random_boxes(50, 0), random_boxes(50, 1)
    close(losses.iou_loss(x, targets, reduction="none"), 1 - ops.box_iou(x, targets).diagonal())


@pytest.mark.parametrize("function", EVERY)
def test_the_same_box_is_zero_and_scale_does_not_matter(function) -> None:
    x, targets = random_boxes(50, 0), random_boxes(50, 1)
    close(function(x, x), torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-12)
    close(function(x * 1000, targets * 1000), function(x, targets))


def test_without_overlap_all_but_iou_pull() -> None:
    targets = torch.tensor([[0.0, 0, 2, 2]])
    for function in EVERY:
        x = torch.tensor([[5.0, 5, 7, 7]], requires_grad=True)
        (gradient,) = torch.autograd.grad(function(x, targets), x)
        if function is losses.iou_loss:
            assert (gradient == 0).all()
        else:
            assert (gradient[0, :2] > 0).all()  # a step against it moves the near corner to the target


def test_a_box_inside_another_is_iou_for_giou_and_one_on_its_centre_for_diou() -> None:
    outer = torch.tensor([[0.0, 0, 8, 8]])
    for inner in ([[1.0, 2, 3, 4]], [[3.0, 3, 5, 5]]):
        close(losses.giou_loss(torch.tensor(inner), outer), losses.iou_loss(torch.tensor(inner), outer))
    centred = torch.tensor([[3.0, 2, 5, 6]])
    close(losses.diou_loss(centred, outer), losses.iou_loss(centred, outer))


def test_by_hand() -> None:
    """Two 2x2 boxes, one step apart in x and y: 1 shared of 7, in an outer box of 3x3 with a diagonal of sqrt 18."""
    x, targets = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])
    assert losses.iou_loss(x, targets).item() == pytest.approx(6 / 7)
    assert losses.giou_loss(x, targets).item() == pytest.approx(6 / 7 + 2 / 9)
    assert losses.diou_loss(x, targets).item() == pytest.approx(6 / 7 + 2 / 18)
    assert losses.ciou_loss(x, targets).item() == pytest.approx(6 / 7 + 2 / 18)  # both square


@pytest.mark.parametrize("function", EVERY)
@pytest.mark.parametrize(
    "box", [[5.0, 5, 5, 5], [5.0, 5, 5, 9], [5.0, 5, 1, 1], [4.0, 4, 0, 0], [1e4, 1e4, 1e4, 1e4], [5.0, 1, 1, 5]]
)
def test_no_box_of_a_network_breaks_it_or_pleases_it(function, box: list[float]) -> None:
    x, targets = torch.tensor([box], requires_grad=True), torch.tensor([[0.0, 0, 4, 4]])
    loss = function(x, targets)
    (gradient,) = torch.autograd.grad(loss, x)
    assert 0.99 < loss.item() < 3
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 10


def test_targets_without_extent_are_bearable_and_turned_ones_refused() -> None:
    x = torch.tensor([[0.0, 0, 4, 4], [1, 1, 2, 2]], requires_grad=True)
    for function in EVERY:
        loss = function(x, torch.tensor([[2.0, 2, 2, 2], [5, 5, 5, 7]]))
        assert loss.isfinite()
        assert torch.autograd.grad(loss, x)[0].isfinite().all()
    with pytest.raises(InputError, match=r"the target box at \(1,\) is \[3.0, 0.0, 1.0, 1.0\]; expected x1 <= x2"):
        losses.giou_loss(x, torch.tensor([[0.0, 0, 1, 1], [3, 0, 1, 1]]))


def test_boxes_have_four_numbers() -> None:
    with pytest.raises(InputError, match=r"boxes are \(..., 4\), x1 y1 x2 y2; got \(2, 5\)"):
        losses.iou_loss(torch.zeros(2, 5), torch.zeros(2, 5))

"""The effective field: exact where the gradient is known, within the theoretical one, a Gaussian for many layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from opsin import create_model
from opsin.analyze.effective_field import effective_fields
from opsin.errors import InputError


def test_one_convolution_is_its_kernel() -> None:
    """Of one unit and one colour the gradient is the kernel itself, times a random number that the scale takes out."""
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    kernel = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, -2.0], [1.0, 0.1, 0.0]])
    with torch.no_grad():
        conv.weight.copy_(kernel[None, None])
    (found,) = effective_fields(nn.Sequential(conv), torch.zeros(2, 1, 7, 9), ["0"])
    assert (found.row, found.column) == (3, 4)
    expected = torch.zeros(7, 9)
    expected[2:5, 3:6] = kernel.abs() / 4
    torch.testing.assert_close(found.strength, expected)
    assert found.side == pytest.approx(math.sqrt(7))  # 0 and 0.1 of 4 count less than 4.55 %
    assert found.box(0.9999) == (3, 2, 6, 5)


def test_directions_add_up_to_the_whole_jacobian() -> None:
    """Over many images, the mean square of random directions is the sum of all units' squared gradients."""
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 5, 3, bias=False)
    (found,) = effective_fields(nn.Sequential(conv), torch.zeros(4000, 2, 3, 3), ["0"])
    whole = conv.weight.detach().square().sum(dim=(0, 1)).sqrt()
    torch.testing.assert_close(found.strength, whole / whole.max(), rtol=0.06, atol=0.0)


def test_many_layers_approach_a_gaussian_of_the_papers_width() -> None:
    """Section 2.2.1: n layers of k equal weights have a field of standard deviation sqrt(n (k^2 - 1) / 12)."""
    depth = 20
    model = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(depth)))
    for layer in model:
        nn.init.constant_(layer.weight, 1 / 9)  # type: ignore[arg-type]
    (found,) = effective_fields(model, torch.zeros(1, 1, 61, 61), [str(depth - 1)])
    profile = found.strength.sum(dim=0).double()
    x = torch.arange(61) - 30.0
    deviation = float((profile * x**2).sum() / profile.sum()) ** 0.5
    assert deviation == pytest.approx(math.sqrt(depth * 8 / 12), rel=1e-3)
    assert found.side < 0.6 * (1 + 2 * depth)  # the theoretical field is 41 wide


def test_nothing_counts_outside_the_theoretical_field() -> None:
    model = create_model("vgg11")
    fields = effective_fields(model, torch.randn(2, 3, 64, 64))
    sees = [3, 8, 26, 62, 134]  # two jumps more for each convolution, one for each pool, which then doubles the jump
    for found, size in zip(fields, sees, strict=True):
        rows, columns = found.strength.nonzero().unbind(dim=1)
        assert rows.max() - rows.min() < size and columns.max() - columns.min() < size
        assert found.strength.max() == 1 and found.side <= min(size, 64)
    sides = [found.side for found in fields]
    assert sides == sorted(sides)


def test_the_same_seed_gives_the_same_and_unknown_layers_are_named() -> None:
    model, images = create_model("lenet5"), torch.randn(2, 1, 32, 32)
    first, again = (effective_fields(model, images)[-1].strength for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    with pytest.raises(InputError, match=r"unknown layer 'stage\.1'; did you mean"):
        effective_fields(model, images, ["stage.1"])


def test_a_unit_without_gradient_has_an_empty_field() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    nn.init.constant_(model[0].bias, -9.0)  # type: ignore[arg-type]
    (found,) = effective_fields(model, torch.zeros(1, 1, 4, 4), ["1"])
    assert not found.strength.any() and found.side == 0

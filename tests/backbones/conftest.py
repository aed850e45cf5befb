"""How a network of ours is held against the same network of another library."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from opsin.backbones import copy_in_order


def build_empty(builder: Callable[..., nn.Module], change: Callable[[nn.Module], None] | None = None) -> nn.Module:
    """A network whose weights are not initialised, which in the large ones is what takes time."""
    with torch.device("meta"):
        model = builder()
        if change is not None:
            change(model)
    return model.to_empty(device="cpu").eval()


def randomize(model: nn.Module) -> None:
    """Weights that keep the scale of what passes through, and statistics of batch norm far from their first values."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif name.endswith(("running_var", "weight")):
                tensor.uniform_(0.5, 1.0, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.1, generator=generator)
            else:
                tensor.zero_()


@pytest.fixture
def assert_equal() -> Callable[..., None]:
    """Copy random weights from the reference and compare outputs on images of each size, to 1e-5 of the largest."""

    def compare(
        ours: Callable[..., nn.Module],
        reference: Callable[..., nn.Module],
        sizes: Sequence[tuple[int, int]],
        change_reference: Callable[[nn.Module], None] | None = None,
    ) -> None:
        model, other = build_empty(ours), build_empty(reference, change_reference)
        randomize(other)
        copy_in_order(model, other.state_dict())
        for height, width in sizes:
            images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                got, expected = model(images), other(images)
            assert expected.abs().max() > 1e-3
            assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()

    return compare

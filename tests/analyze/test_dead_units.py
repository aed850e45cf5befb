"""Dead units: planted ones are found, in modules and functions, over all batches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin import create_model
from opsin.analyze.dead_units import find_dead_units
from opsin.errors import InputError


def planted(activation: nn.Module, biases: list[float]) -> nn.Sequential:
    """A 1x1 convolution of weight 1 that adds a bias to each unit of images in [0, 1]."""
    conv = nn.Conv2d(1, len(biases), 1)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.bias.copy_(torch.tensor(biases))  # type: ignore[union-attr]
    return nn.Sequential(conv, activation)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.ReLU6(inplace=True)])
def test_rectifiers(activation: nn.Module) -> None:
    images = torch.linspace(0, 1, 16).reshape(4, 1, 2, 2)
    (found,) = find_dead_units(planted(activation, [0.5, -2.0, -0.5, -1.0]), images.split(3))
    assert found.name == "1" and found.rectifier and found.units == 4
    assert found.dead == (1, 3) and found.share == 0.5
    assert found.active == (1.0, 0.0, 0.5, 0.0)  # 8 of the 16 numbers are above 0.5


def test_a_unit_lives_when_any_batch_wakes_it() -> None:
    model = planted(nn.ReLU(), [-0.9])
    dark, bright = torch.zeros(2, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert find_dead_units(model, [dark])[0].dead == (0,)
    (found,) = find_dead_units(model, [dark, bright, dark])
    assert found.dead == () and found.active == (pytest.approx(0.2),)


@pytest.mark.parametrize(
    ("activation", "bias"), [(nn.Hardswish(), -9.0), (nn.Sigmoid(), 200.0), (nn.Tanh(), -90.0), (nn.Hardtanh(), 5.0)]
)
def test_other_activations_are_dead_when_they_never_change(activation: nn.Module, bias: float) -> None:
    (found,) = find_dead_units(planted(activation, [0.0, bias]), [torch.rand(4, 1, 3, 3)])
    assert not found.rectifier and found.dead == (1,)


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.Mish(), nn.LeakyReLU(), nn.ELU(), nn.PReLU()])
def test_every_activation_is_seen(activation: nn.Module) -> None:
    (found,) = find_dead_units(planted(activation, [0.0]), [torch.rand(4, 1, 3, 3)])
    assert found.units == 1 and not found.dead


class Functional(nn.Module):
    """Calls functions, one of them on vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.inner(x))
        return torch.relu(self.head(x.mean(dim=(2, 3))))


def test_functions_are_named_by_their_caller() -> None:
    found = find_dead_units(nn.Sequential(Functional()), [torch.rand(2, 1, 4, 4)] * 2)
    assert [(a.name, a.units) for a in found] == [("0.inner.1", 2), ("0", 2), ("0#2", 3)]


def test_networks_without_activations_and_without_images() -> None:
    assert find_dead_units(nn.Sequential(nn.Conv2d(1, 1, 1)), [torch.rand(1, 1, 4, 4)]) == []
    with pytest.raises(InputError, match="no images"):
        find_dead_units(nn.ReLU(), [])


def test_a_whole_network_in_order_and_as_it_was() -> None:
    model = create_model("resnet20").train()
    found = find_dead_units(model, [torch.randn(2, 3, 32, 32)])
    assert len(found) == 19 and found[0].name == "stem.2" and found[-1].name == "stages.2.2.relu"
    assert model.training and not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

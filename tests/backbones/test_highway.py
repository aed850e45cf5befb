from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from opsin import registry
from opsin.backbones.highway import Highway, highway_conv, highway_linear
from opsin.nn.counting import count_parameters


def build(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return registry.create_model(name, **options)


def test_a_highway_layer_is_equation_3() -> None:
    layer = highway_linear(6, gate_bias=-1.0)
    x = torch.randn(4, 6)
    (h, h_bias), (t, t_bias) = layer.transform[0].parameters(), layer.gate.parameters()  # type: ignore[index, union-attr]
    gate = 1 / (1 + torch.exp(-(x @ t.T + t_bias)))
    expected = (x @ h.T + h_bias).clamp(min=0) * gate + x * (1 - gate)
    torch.testing.assert_close(layer(x), expected)
    assert torch.equal(t_bias, torch.full((6,), -1.0)) and not h_bias.any()


def test_a_convolutional_one_too() -> None:
    layer = highway_conv(5, kernel_size=3)
    x = torch.randn(2, 5, 7, 6)
    (h, h_bias), (t, t_bias) = layer.transform[0].parameters(), layer.gate.parameters()  # type: ignore[index, union-attr]
    gate = torch.sigmoid(F.conv2d(x, t, t_bias, padding=1))
    expected = F.relu(F.conv2d(x, h, h_bias, padding=1)) * gate + x * (1 - gate)
    torch.testing.assert_close(layer(x), expected)


def test_gates_of_minus_infinity_carry_and_of_infinity_transform() -> None:
    x = torch.randn(3, 8)
    closed, opened = highway_linear(8, gate_bias=-1e4), highway_linear(8, gate_bias=1e4)
    assert torch.equal(closed(x), x)
    torch.testing.assert_close(opened(x), opened.transform(x))  # type: ignore[operator]


def test_images_stay_apart_through_100_layers_only_with_gates() -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 50)
    differences = {}
    for gates in (True, False):
        network = nn.Sequential(*(highway_linear(50, gate_bias=-4.0, gates=gates) for _ in range(100)))
        with torch.no_grad():
            y = F.normalize(network(x))
        differences[gates] = 1 - float((y @ y.T).mean())  # of cosines; 0 is one output for all
    assert differences[True] > 0.2 > 0.02 > differences[False]


@pytest.mark.parametrize(("name", "layers"), [("highway_a", 11), ("highway_b", 19), ("highway_c", 32)])
def test_layers_are_as_many_as_the_paper_states(name: str, layers: int) -> None:
    model = build(name)
    gates = sum(isinstance(m, Highway) for m in model.modules())
    weights = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules())
    assert weights - gates == layers


@pytest.mark.parametrize(
    ("name", "stated", "last_digit"),
    [
        ("highway_a", 236e3, 1e3),
        ("highway_b", 2.3e6, 0.1e6),
        ("highway_c", 1.25e6, 0.02e6),
        ("highway10_16", 39e3, 1e3),
        ("highway10_32", 151e3, 1e3),
    ],
)
def test_parameters_are_what_the_paper_rounds(name: str, stated: float, last_digit: float) -> None:
    assert count_parameters(build(name)) == pytest.approx(stated, abs=last_digit)


def test_layers_of_highway_c_alternate() -> None:
    model = build("highway_c")
    for stage in model.stages:  # type: ignore[union-attr]
        layers = [m for m in stage if isinstance(m, Highway | nn.Conv2d)]
        convolutions = [m.gate if isinstance(m, Highway) else m for m in layers]
        assert [m.weight.shape[2] for m in convolutions] == [3, 1] * 5  # type: ignore[index]
        assert isinstance(layers[0], nn.Conv2d)  # where the width changes


@pytest.mark.parametrize("name", ["highway_a", "highway_c", "highway10_16"])
def test_without_gates_half_of_the_weights_are_left(name: str) -> None:
    model, plain = build(name), build(name, gates=False)
    gates = [m.gate for m in model.modules() if isinstance(m, Highway)]
    assert count_parameters(model) - count_parameters(plain) == sum(map(count_parameters, gates))
    assert not any(isinstance(m, Highway) for m in plain.modules())
    size = 28 if name == "highway10_16" else 32
    assert plain(torch.empty(2, 1 if size == 28 else 3, size, size, device="meta")).shape == (2, 10)


def test_gates_start_where_they_are_told() -> None:
    model = registry.create_model("highway_a", gate_bias=-3.0)
    for module in model.modules():
        if isinstance(module, Highway):
            assert torch.equal(module.gate.bias, torch.full_like(module.gate.bias, -3.0))  # type: ignore[arg-type]

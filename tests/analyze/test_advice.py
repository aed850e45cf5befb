"""Each rule on networks that must and must not wake it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opsin import registry
from opsin.analyze import advice
from opsin.analyze.explain_schema import Advice
from opsin.analyze.profile import profile
from opsin.backbones import Backbone


def advised(model: nn.Module, size: tuple[int, int, int]) -> dict[str, Advice]:
    return {one.rule: one for one in advice.advise(model, profile(model, size))}


def known(name: str, **options: Any) -> dict[str, Advice]:
    with torch.device("meta"):
        model = registry.create_model(name, **options)
    return advised(model, registry.find_model(name).published.input)


class Staged(Backbone):
    """A stem of 8 maps, the given stages, and a dense head on the pooled map."""

    def __init__(self, stages: list[nn.Module], channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__(2, 3)
        self.stem, self.stages = nn.Conv2d(3, 8, 3, 1, 1), nn.ModuleList(stages)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 2))
        self.channels, self.strides = channels, strides


def convolution(ends: tuple[int, int], kernel: int = 3, stride: int = 1, **options: int) -> nn.Conv2d:
    dilation = options.get("dilation", 1)
    return nn.Conv2d(*ends, kernel, stride, dilation * (kernel // 2), bias=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", set()),
        ("resnext50_32x4d", {"many_groups"}),
        ("resnet50", {"unequal_widths"}),
        ("vgg16", {"heavy_head"}),
        ("vgg16_bn", {"heavy_head", "bias_before_norm"}),
        ("mobilenet_v2", {"unequal_widths", "elementwise"}),
        ("shufflenet_v2_x1_0", {"elementwise", "heavy_head"}),
        ("googlenet", {"unequal_widths", "fragmentation"}),
    ],
)
def test_advice_on_known_networks(name: str, expected: set[str]) -> None:
    assert set(known(name)) == expected or (name == "googlenet" and expected <= set(known(name)))


def test_unequal_widths_are_measured_against_the_least_traffic() -> None:
    found = advised(nn.Sequential(convolution((8, 72), 1), convolution((72, 8), 1)), (8, 32, 32))["unequal_widths"]
    places, weights = 1024, 8 * 72
    assert found.numbers["traffic_over_least"] == pytest.approx(
        (places * 80 + weights) / (2 * places * weights**0.5 + weights)
    )
    assert found.numbers["largest_ratio"] == 9 and found.layers == ("0", "1")
    assert "unequal_widths" not in advised(
        nn.Sequential(convolution((24, 24), 1), convolution((24, 24), 1)), (24, 32, 32)
    )
    assert "unequal_widths" not in advised(nn.Sequential(convolution((8, 72), 3)), (8, 32, 32))  # not a 1x1


def test_groups_but_not_depthwise_ones() -> None:
    found = advised(convolution((64, 64), groups=8), (64, 16, 16))["many_groups"]
    assert found.numbers["most_groups"] == 8 and found.numbers["share_of_traffic"] == pytest.approx(1)
    assert found.numbers["traffic_over_dense"] > 1
    for groups in (1, 64):
        assert "many_groups" not in advised(convolution((64, 64), groups=groups), (64, 16, 16))


class Fragments(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.first = convolution((3, 8))
        self.paths = nn.ModuleList(convolution((8, 8)) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.cat([path(x) for path in self.paths], dim=1)


def test_fragments_are_convolutions_side_by_side() -> None:
    assert "fragmentation" not in advised(Fragments(2), (3, 8, 8))
    found = advised(Fragments(4), (3, 8, 8))["fragmentation"]
    assert found.numbers["most_branches"] == 4 and found.layers == tuple(f"paths.{i}" for i in range(4))


def test_elementwise_share_leaves_batch_norms_out() -> None:
    few = nn.Sequential(convolution((8, 8)), nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.ReLU())
    many = nn.Sequential(convolution((8, 8)), nn.ReLU(), nn.Sigmoid(), nn.Tanh())
    assert "elementwise" not in advised(few, (8, 16, 16))
    found = advised(many, (8, 16, 16))["elementwise"]
    assert found.numbers["share_of_traffic"] == pytest.approx(0.75) and set(found.layers) == {"1", "2", "3"}
    assert "elementwise" in advised(nn.Sequential(convolution((8, 8), groups=8)), (8, 16, 16))


def test_a_representation_that_shrinks_too_fast() -> None:
    sudden = Staged([convolution((8, 16)), convolution((16, 8), stride=4)], (16, 8), (1, 4))
    found = advised(sudden, (3, 32, 32))["representational_bottleneck"]
    assert found.numbers == {"shrinks": 32.0, "before": 16 * 32 * 32, "after": 8 * 8 * 8}
    assert found.layers == ("stages.1",)
    gentle = Staged([convolution((8, 16), stride=2), convolution((16, 32), stride=2)], (16, 32), (2, 4))
    assert "representational_bottleneck" not in advised(gentle, (3, 32, 32))


def test_a_stage_that_does_most_of_the_work() -> None:
    heavy = nn.Sequential(*(convolution((16, 16)) for _ in range(10)))
    lopsided = Staged([convolution((8, 16)), heavy, convolution((16, 16))], (16, 16, 16), (1, 1, 1))
    assert advised(lopsided, (3, 16, 16))["unbalanced_stages"].layers == ("stages.1",)
    even = Staged([convolution((8, 16)), convolution((16, 16)), convolution((16, 16))], (16, 16, 16), (1, 1, 1))
    assert "unbalanced_stages" not in advised(even, (3, 16, 16))


def test_a_bias_that_a_norm_takes_away() -> None:
    found = advised(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), (3, 8, 8))["bias_before_norm"]
    assert found.numbers == {"layers": 1.0, "params": 8.0} and found.layers == ("0",)
    for useful in (
        nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)),
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)),
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)),
    ):
        assert "bias_before_norm" not in advised(useful, (3, 8, 8))


def test_a_dilation_wider_than_its_map() -> None:
    found = advised(convolution((4, 4), dilation=12), (4, 8, 12))["wide_dilation"]
    assert found.numbers["dilation_over_side"] == 1.5
    assert "wide_dilation" not in advised(convolution((4, 4), dilation=7), (4, 8, 12))
    assert "wide_dilation" not in advised(convolution((4, 4), 1, dilation=12), (4, 8, 12))  # has no other taps


def test_a_head_that_holds_most_parameters() -> None:
    found = known("alexnet")["heavy_head"]
    assert found.numbers["share_of_params"] == pytest.approx(58_631_144 / 61_100_840)
    assert "heavy_head" not in known("resnet18")


def test_advice_is_complete() -> None:
    for one in [*known("mobilenet_v2").values(), *known("vgg16_bn").values()]:
        assert one.title and one.finding and one.reason and one.remedy and "arXiv" in one.source
        assert one.layers and one.numbers and one.limits.keys() <= one.numbers.keys()

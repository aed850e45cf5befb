"""BiFPN against the paper's formulas wired by hand, and against the published counts of EfficientDet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.extraction import create_extractor
from opsin.necks import BiFPN
from opsin.necks.bifpn import fusion_shares
from opsin.nn.counting import count_parameters

STRIDES = (8, 16, 32)


def wire(neck: Any, given: list[Tensor]) -> list[Tensor]:
    """Section 3.3, its P6 written out for the five levels of one layer whose maps have the channels of its nodes."""
    (layer,) = neck.layers
    p3, p4, p5 = given
    p6 = pool(neck.extra[0].conv(p5))
    p7 = pool(p6)

    def fuse(node: Any, *maps: Tensor) -> Tensor:
        weights = node.weights.relu()
        mean = sum(w * x for w, x in zip(weights, maps, strict=True)) / (weights.sum() + 1e-4)
        return node.conv(F.silu(mean))

    def up(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2)

    p6_td = fuse(layer.down[0], p6, up(p7))
    p5_td = fuse(layer.down[1], p5, up(p6_td))
    p4_td = fuse(layer.down[2], p4, up(p5_td))
    p3_out = fuse(layer.down[3], p3, up(p4_td))
    p4_out = fuse(layer.up[0], p4, p4_td, pool(p3_out))
    p5_out = fuse(layer.up[1], p5, p5_td, pool(p4_out))
    p6_out = fuse(layer.up[2], p6, p6_td, pool(p5_out))
    p7_out = fuse(layer.up[3], p7, pool(p6_out))
    return [p3_out, p4_out, p5_out, p6_out, p7_out]


def pool(x: Tensor) -> Tensor:
    """3x3, stride 2, TensorFlow's SAME of an even side: one row below, one column to the right."""
    return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)


def test_the_formula() -> None:
    torch.manual_seed(0)
    neck = BiFPN((8, 8, 8), STRIDES, out_channels=8, repeats=1, extra_levels=2).eval()
    for name, parameter in neck.named_parameters():
        if name.endswith("weights"):
            nn.init.uniform_(parameter, -0.5, 1.5)
    given = [torch.randn(2, 8, side, side) for side in (32, 16, 8)]
    for x, y in zip(neck(given), wire(neck, given), strict=True):
        torch.testing.assert_close(x, y)


def test_shares() -> None:
    weights = torch.tensor([1.0, 3.0, -2.0])
    assert fusion_shares(weights, "fast").tolist() == pytest.approx([1 / 4.0001, 3 / 4.0001, 0])
    powers = weights.exp()
    torch.testing.assert_close(fusion_shares(weights, "softmax"), powers / powers.sum())
    # All weights below 0: nothing comes through, rather than a division by 0.
    assert fusion_shares(torch.tensor([-1.0, -1.0]), "fast").tolist() == [0, 0]


def test_fusions_start_alike_but_for_the_scale() -> None:
    # Two or three weights of 1: fast and softmax take the mean, sum takes twice or three times that.
    given = [torch.randn(1, 4, side, side) for side in (8, 4)]
    results = {}
    for fusion in ("fast", "softmax", "sum"):
        torch.manual_seed(0)
        neck: Any = BiFPN((4, 4), (8, 16), out_channels=4, repeats=1, fusion=fusion)  # type: ignore[arg-type]
        node = neck.layers[0].down[0]
        node.conv, node.activation = nn.Identity(), nn.Identity()
        results[fusion] = node([given[0], given[1]], given[0])
    torch.testing.assert_close(results["softmax"] * 2, results["sum"])
    torch.testing.assert_close(results["fast"], results["softmax"], rtol=1e-4, atol=1e-5)
    assert not [n for n, _ in BiFPN((4, 4), (8, 16), fusion="sum").named_parameters() if n.endswith("weights")]


def test_single_input_nodes_are_what_the_paper_removes() -> None:
    def count(single: bool) -> int:
        with torch.device("meta"):
            neck = BiFPN((64,) * 3, STRIDES, repeats=1, extra_levels=2, single_input_nodes=single)
        return count_parameters(neck)

    convolution = 64 * 9 + 64 * 64 + 64 + 2 * 64
    assert count(True) - count(False) == 2 * convolution + 1  # and the coarsest node on the way up has three maps
    neck = BiFPN((4, 4, 4), STRIDES, out_channels=4, single_input_nodes=True)
    maps = neck([torch.randn(2, 4, side, side) for side in (8, 4, 2)])
    assert [tuple(x.shape) for x in maps] == [(2, 4, 8, 8), (2, 4, 4, 4), (2, 4, 2, 2)]


def test_both_paddings_of_the_pooling() -> None:
    given = [torch.randn(1, 4, side, side) for side in (9, 5)]
    same, torch_like = (BiFPN((4, 4), (8, 16), out_channels=4, padding=p).eval() for p in ("tf", "torch"))
    torch_like.load_state_dict(same.state_dict())
    for x, y in zip(same(given), torch_like(given), strict=True):
        torch.testing.assert_close(x, y)  # of odd sides both pad alike
    given = [torch.randn(1, 4, side, side) for side in (8, 4)]
    assert not torch.equal(same(given)[1], torch_like(given)[1])


# Width, BiFPN layers, head layers, fusion, levels beyond C5, published parameters with 90 classes.
EFFICIENTDET = {
    "d0": ("b0", 64, 3, 3, "fast", 2, 3_880_067),
    "d1": ("b1", 88, 4, 3, "fast", 2, 6_625_898),
    "d2": ("b2", 112, 5, 3, "fast", 2, 8_097_039),
    "d3": ("b3", 160, 6, 4, "fast", 2, 12_032_296),
    "d4": ("b4", 224, 7, 4, "fast", 2, 20_723_675),
    "d5": ("b5", 288, 7, 4, "fast", 2, 33_653_315),
    "d6": ("b6", 384, 8, 5, "sum", 2, 51_871_782),
    "d7x": ("b7", 384, 8, 5, "sum", 3, 77_147_166),
}


@pytest.mark.parametrize("name", EFFICIENTDET)
def test_published_counts(name: str) -> None:
    size, width, repeats, depth, fusion, extra, published = EFFICIENTDET[name]
    with torch.device("meta"):
        backbone = create_extractor(f"efficientnet_{size}")
        neck = BiFPN(
            backbone.channels,
            STRIDES,
            out_channels=width,
            repeats=repeats,
            extra_levels=extra,
            fusion=fusion,  # type: ignore[arg-type]
        )
    # Two heads: separable convolutions for all levels, each level with norms of its own, and 9 anchors.
    layer, norms = width * 9 + width * width + width, 2 * width * len(neck.strides)
    heads = sum(depth * (layer + norms) + width * 9 + (width + 1) * 9 * out for out in (90, 4))
    assert count_parameters(backbone) + count_parameters(neck) + heads == published

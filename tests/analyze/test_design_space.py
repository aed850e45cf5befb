"""Design spaces against what is counted on real networks, worked by hand, and published."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from opsin import registry
from opsin.analyze.design_space import (
    SPACES,
    Sample,
    best_value,
    correlation,
    cost_of,
    draw,
    draw_one,
    error_distribution,
    fit_line,
    read_limit,
    share_below,
)
from opsin.backbones.regnet import BLOCKS, Line, Stages
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters


def built(sample: Sample, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return registry.create_model("anynetx", **sample.options(), **options)


def conv_outputs(model: nn.Module, size: tuple[int, int, int]) -> int:
    """Numbers that all convolutions of a network give, as hooks see them."""
    seen = 0

    def count(layer: nn.Module, given: Any, output: torch.Tensor) -> None:
        nonlocal seen
        seen += output[0].numel()

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    model.eval()(torch.zeros(1, *size, device="meta"))
    return seen


@pytest.mark.parametrize("block", BLOCKS)
def test_costs_are_those_of_the_network(block: Any) -> None:
    random = Random(1)
    for space, size, small in (("anynetx_a", (1, 32, 32), True), ("regnetx", (3, 45, 61), False)):
        sample = draw_one(space, random, block)
        model = built(sample, in_channels=size[0], num_classes=10, small_images=small)
        cost = cost_of(sample, size, 10, small_images=small)
        assert cost.params == count_parameters(model)
        assert cost.macs == count_macs(model, size)
        assert cost.activations == conv_outputs(model, size)


PUBLISHED = {  # pycls's model zoo: the line, the widths and depths of its stages, parameters and multiply-adds
    "regnetx_200mf": (Line(13, 24, 36.44, 2.49, 8), (24, 56, 152, 368), (1, 1, 4, 7), 2_684_792, 199_039_872),
    "regnetx_400mf": (Line(22, 24, 24.48, 2.54, 16), (32, 64, 160, 384), (1, 2, 7, 12), 5_157_512, 397_677_568),
    "regnetx_3_2gf": (Line(25, 88, 26.31, 2.25, 48), (96, 192, 432, 1008), (2, 6, 15, 2), 15_296_552, 3_176_621_952),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_costs_and_lie_on_a_line(name: str) -> None:
    line, widths, depths, params, macs = PUBLISHED[name]
    stages = line.stages()
    assert (stages.widths, stages.depths) == (widths, depths)
    cost = cost_of(Sample("regnetx", stages, line=line))
    assert (cost.params, cost.macs) == (params, macs)
    fit = fit_line(stages)
    assert fit.error < 0.08 and abs(fit.w_m - line.w_m) < 0.45
    assert np.abs(np.log(np.array(fit.widths(line.depth)) / np.repeat(widths, depths))).mean() == pytest.approx(
        fit.error
    )


def test_activations_are_the_papers() -> None:
    line = PUBLISHED["regnetx_400mf"][0]  # the paper lists 3.1 million of RegNetX-400MF, 2.2 of 200MF
    assert cost_of(Sample("regnetx", line.stages())).activations == pytest.approx(3.1e6, rel=0.02)
    line = PUBLISHED["regnetx_200mf"][0]
    assert cost_of(Sample("regnetx", line.stages())).activations == pytest.approx(2.2e6, rel=0.02)


def test_a_line_of_the_grid_is_found_and_what_shrinks_is_far_from_one() -> None:
    widths = [16, 32, 64, 128]
    assert fit_line(Stages((1, 1, 2, 4), widths, (1,) * 4, (1,) * 4)).error < 0.02  # type: ignore[arg-type]
    shrinking = Stages((2, 2, 2, 2), (512, 256, 64, 8), (1,) * 4, (1,) * 4)
    # No line falls: the best is flat, and off by at least the mean distance to the median of the logarithms.
    own = np.log([512, 256, 64, 8])
    assert fit_line(shrinking).error >= np.abs(own - np.median(own)).mean() - 0.02


def test_a_distribution_by_hand() -> None:
    errors = [0.3, 0.1, 0.2, 0.2]
    x, y = error_distribution(errors)
    assert x.tolist() == [0.1, 0.2, 0.2, 0.3] and y.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert [share_below(errors, e) for e in (0.1, 0.15, 0.2, 0.25, 0.31)] == [0, 0.25, 0.25, 0.75, 1]


def test_the_bootstrap_by_hand() -> None:
    # One of four is drawn: each is the best as often as it is drawn, so that the median is the middle of the values.
    found = best_value([1, 2, 3, 4, 5], [9, 9, 9, 9, 9], share=0.2)
    assert (found.low, found.median, found.high) == (1, 3, 5)
    # All are drawn with replacement: the best is missed with (3/4)^4 = 0.32, the best two with (1/2)^4 = 0.06.
    found = best_value([10, 20, 30, 40], [0.1, 0.2, 0.3, 0.4], share=1.0)
    assert (found.low, found.median, found.high) == (10, 10, 30)
    with pytest.raises(InputError, match="2 values and 1 errors"):
        best_value([1, 2], [0.1])


def test_samples_are_within_the_limits_and_more_begin_with_fewer() -> None:
    limits = [read_limit("macs=4M"), read_limit("params=10k..1M")]
    options: dict[str, Any] = {"input_size": (1, 32, 32), "num_classes": 10, "small_images": True}
    for space in SPACES:
        drawn = draw(space, 4, limits, **options)
        for one in drawn:
            cost = cost_of(one, (1, 32, 32), 10, small_images=True)
            assert 3.6e6 <= cost.macs <= 4e6 and 1e4 <= cost.params <= 1e6
        assert draw(space, 2, limits, **options) == drawn[:2] and len({one.stages for one in drawn}) == 4
        assert drawn != draw(space, 4, limits, seed=1, **options)
    with pytest.raises(InputError, match=r"regnetx has hardly a network with macs=900..1k; widen --limit"):
        draw("regnetx", 1, [read_limit("macs=1k")], **options)


def test_limits_are_read() -> None:
    one = read_limit("macs = 360M..0.4G")
    assert (one.what, one.low, one.high, str(one)) == ("macs", 360e6, 400e6, "macs=360M..400M")
    assert read_limit("activations=2.5k").low == pytest.approx(2250)
    for text, message in (
        ("macs", "takes COST=NUMBER"),
        ("flops=4M", "unknown cost to limit 'flops'"),
        ("macs=4M..3M", "the smaller number comes first"),
        ("macs=0", "holds nothing"),
    ):
        with pytest.raises(InputError, match=message):
            read_limit(text)
    for space, block, message in (("anynetx_f", "vgg", "unknown design space"), ("regnetx", "x", "unknown block 'x'")):
        with pytest.raises(InputError, match=message):
            draw_one(space, Random(0), block)  # type: ignore[arg-type]


def test_a_correlation_is_numpys_where_there_is_one() -> None:
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1) and correlation([1, 2, 4], [3, 1, 0]) == pytest.approx(
        np.corrcoef([1, 2, 4], [3, 1, 0])[0, 1]
    )
    assert correlation([1, 1, 1], [1, 2, 3]) is None and correlation([1, 2], [1, 2]) is None


@pytest.mark.parametrize("block", ["vgg", "inverted_residual"])
def test_blocks_are_checked(block: Any) -> None:
    with pytest.raises(InputError, match=f"a block '{block}' has no .*group_widths"):
        registry.create_model("anynetx", block=block)
    with pytest.raises(InputError, match="unknown block 'basic'"):
        registry.create_model("anynetx", block="basic")

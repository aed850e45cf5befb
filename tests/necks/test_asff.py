"""ASFF against its formula, and the count that it adds to its authors' YOLOv3."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.necks import ASFF
from opsin.nn.counting import count_parameters

STRIDES = (8, 16, 32)


def maps(channels: tuple[int, ...] = (4, 6, 8)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, 16 >> i, 24 >> i, generator=generator) for i, c in enumerate(channels)]


def test_the_formula() -> None:
    torch.manual_seed(0)
    neck: Any = ASFF((4, 6, 8), STRIDES, expand=False).eval()
    p3, p4, p5 = given = maps()
    level3, level4, level5 = neck.levels
    at3 = [p3, F.interpolate(level3.match[1](p4), scale_factor=2), F.interpolate(level3.match[2](p5), scale_factor=4)]
    at4 = [level4.match[0](p3), p4, F.interpolate(level4.match[2](p5), scale_factor=2)]
    at5 = [level5.match[0][-1](F.max_pool2d(p3, 3, 2, 1)), level5.match[1][-1](p4), p5]
    got, shares = neck(given), neck.weights(given)
    for level, at, x, share in zip(neck.levels, (at3, at4, at5), got, shares, strict=True):
        squeezed = torch.cat([squeeze(y) for squeeze, y in zip(level.squeeze, at, strict=True)], dim=1)
        logits = F.conv2d(squeezed, level.score.weight, level.score.bias)
        alpha = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
        torch.testing.assert_close(share, alpha)
        torch.testing.assert_close(x, sum(alpha[:, n : n + 1] * y for n, y in enumerate(at)))
        torch.testing.assert_close(share.sum(dim=1), torch.ones_like(share[:, 0]))


def test_equal_scores_give_the_mean() -> None:
    neck: Any = ASFF((4, 4), (8, 16), expand=False).eval()
    for level in neck.levels:
        nn.init.zeros_(level.score.weight)
        nn.init.zeros_(level.score.bias)
    fine, coarse = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 3, 3)
    got, _ = neck([fine, coarse])
    torch.testing.assert_close(got, (fine + F.interpolate(coarse, scale_factor=2)) / 2)


def test_a_score_may_choose_one_level_at_one_place() -> None:
    neck: Any = ASFF((4, 4), (8, 16), weight_channels=None, expand=False).eval()
    level = neck.levels[0]
    with torch.no_grad():
        level.score.weight.zero_()
        level.score.bias.zero_()
        level.score.weight[1, 0] = 1.0  # the coarse level where channel 0 of the fine one is large
    fine, coarse = torch.zeros(1, 4, 2, 2), torch.full((1, 4, 1, 1), 7.0)
    fine[0, 0, 0, 1], fine[0, 0, 1, 0] = 50.0, -50.0
    share = neck.weights([fine, coarse])[0][0, 1]
    torch.testing.assert_close(share, torch.tensor([[0.5, 1.0], [0.0, 0.5]]))
    got = neck([fine, coarse])[0][0, 0]
    torch.testing.assert_close(got, torch.tensor([[3.5, 7.0], [-50.0, 3.5]]))


def test_what_it_adds_to_the_authors_yolov3() -> None:
    # 75,554,428 without and 79,409,493 with it. Its last 3x3s take the place of two that the heads had: 256 -> 512 and
    # 512 -> 1024, each with its norm.
    with torch.device("meta"):
        neck = ASFF((256, 256, 512), STRIDES, out_channels=(256, 512, 1024))
    replaced = 256 * 512 * 9 + 2 * 512 + 512 * 1024 * 9 + 2 * 1024
    assert neck.channels == (256, 512, 1024)
    assert count_parameters(neck) - replaced == 79_409_493 - 75_554_428


def test_channels_inside() -> None:
    neck: Any = ASFF((4, 6, 8), STRIDES, out_channels=5)
    assert [level.expand[0].in_channels for level in neck.levels] == [5, 5, 5]
    neck = ASFF((4, 6, 8), STRIDES, out_channels=5, inner_channels=3)
    assert [level.expand[0].in_channels for level in neck.levels] == [3, 3, 3]
    assert [x.shape[1] for x in neck(maps())] == [5, 5, 5]

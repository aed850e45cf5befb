"""MLFPN and its parts against their formulas, sizes and counts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.necks import MLFPN
from opsin.necks.mlfpn import SFAM, TUM, FFMv1, FFMv2
from opsin.nn.counting import count_parameters


def test_ffm_v1() -> None:
    torch.manual_seed(0)
    ffm = FFMv1((3, 5), (4, 6)).eval()
    fine, coarse = torch.randn(2, 3, 8, 6), torch.randn(2, 5, 4, 3)
    base = ffm([fine, coarse])
    assert ffm.out_channels == 10
    torch.testing.assert_close(base[:, :4], ffm.reduce(fine))
    torch.testing.assert_close(base[:, 4:], F.interpolate(ffm.up_reduce[0](coarse), scale_factor=2))
    assert FFMv1((3,), (4, 6)).out_channels == 4


def test_ffm_v2() -> None:
    ffm = FFMv2(10, 4).eval()
    base, finest = torch.randn(2, 10, 8, 6), torch.randn(2, 8, 8, 6)
    assert torch.equal(ffm(base), ffm.leach(base))
    assert torch.equal(ffm(base, finest), torch.cat([ffm.leach(base), finest], dim=1))


def test_tum_is_a_u() -> None:
    torch.manual_seed(0)
    tum = TUM(6, planes=4, scales=3).eval()
    x = torch.randn(2, 6, 9, 7)
    down1 = tum.down[0](x)
    down2 = tum.down[1](down1)
    up2 = tum.top(down2)
    lateral = tum.laterals[1](down1)
    up1 = lateral + F.interpolate(up2, size=lateral.shape[2:])
    up0 = tum.laterals[0](x) + F.interpolate(up1, size=(9, 7))
    expected = [tum.smooth[0](up0), tum.smooth[1](up1), up2]  # the coarsest is not smoothed
    for got, wanted in zip(tum(x), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_tum_has_m2dets_sizes() -> None:
    with torch.device("meta"):
        tum = TUM(4, planes=4, scales=6, shrink_last=True)
        for side, sides in ((40, [40, 20, 10, 5, 3, 1]), (64, [64, 32, 16, 8, 4, 2]), (100, [100, 50, 25, 13, 7, 5])):
            assert [y.shape[2] for y in tum(torch.zeros(1, 4, side, side))] == sides


def test_sfam_weighs_channels_of_one_scale() -> None:
    torch.manual_seed(0)
    pyramids = [[torch.randn(2, 16, side, side) for side in (4, 2)] for _ in range(2)]
    sfam: Any = SFAM(32, 2)
    got = sfam(pyramids)
    for scale, block in enumerate(sfam.excite):
        x = torch.cat([pyramid[scale] for pyramid in pyramids], dim=1)
        z = x.mean(dim=(2, 3))
        first, second = block.fc1, block.fc2
        hidden = (z @ first.weight.flatten(1).T + first.bias).relu()
        weights = (hidden @ second.weight.flatten(1).T + second.bias).sigmoid()
        torch.testing.assert_close(got[scale], x * weights[:, :, None, None])
    plain = SFAM(32, 2, weigh=False)(pyramids)
    assert torch.equal(plain[1], torch.cat([pyramids[0][1], pyramids[1][1]], dim=1))


def test_pyramids_follow_on_each_other() -> None:
    torch.manual_seed(0)
    neck = MLFPN((3, 5), (8, 16), out_channels=24, levels=3, extra_levels=1, base_channels=(4, 6)).eval()
    given = [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)]
    base = neck.ffm_v1(given)
    pyramids: list[list[Tensor]] = []
    for fuse, tum in zip(neck.ffm_v2, neck.tums, strict=True):
        pyramids.append(tum(fuse(base, pyramids[-1][0]) if pyramids else fuse(base)))
    first, *others = neck.sfam(pyramids)
    for x, y in zip(neck(given), [neck.norm(first), *others], strict=True):
        torch.testing.assert_close(x, y)


def test_counts_of_m2det() -> None:
    def count(**options: Any) -> int:
        with torch.device("meta"):
            return count_parameters(MLFPN((512, 1024), (8, 16), extra_levels=4, shrink_last=True, **options))

    # Published, less VGG-16 with convolutional fc6 and fc7, and six heads of 3x3 on 2048 maps for 6 anchors.
    vgg = 14_714_688 + (512 * 9 + 1) * 1024 + 1025 * 1024
    heads = 6 * (2048 * 9 + 1) * 6 * (81 + 4)
    assert count(shared=True) == 133_159_604 - vgg - heads
    assert count(shared=True, sfam=False) == 132_633_140 - vgg - heads
    excite = 2 * 2048 * 128 + 128 + 2048
    assert count() == 133_849_524 - vgg - heads + 5 * excite

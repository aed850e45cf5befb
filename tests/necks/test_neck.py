"""What holds for every neck: sizes, channels, strides, gradients, export, refusals; and no neck at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.errors import InputError
from opsin.necks import Neck, create_neck, list_necks

SMALL = {"sfam": {"levels": 2, "base_channels": (6, 12)}, "bifpn": {"repeats": 2}}
NAMES = list_necks()
CHANNELS, STRIDES = (3, 5, 6, 8), (4, 8, 16, 32)


def build(name: str | None, levels: int = 3, **options: Any) -> Neck:
    torch.manual_seed(0)
    return create_neck(
        name, CHANNELS[-levels:], STRIDES[-levels:], **{"out_channels": 16, **SMALL.get(str(name), {}), **options}
    )


def pyramid(neck: Neck, height: int, width: int, batch: int = 2) -> list[Tensor]:
    """Maps as a backbone gives them: each stride rounds up."""
    images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
    maps = [F.avg_pool2d(images, stride, ceil_mode=True) for stride in neck.in_strides]
    return [x.repeat(1, 3, 1, 1)[:, :channels] for x, channels in zip(maps, neck.in_channels, strict=True)]


def test_the_names_are_all_there() -> None:
    assert NAMES == ["asff", "bifpn", "fpn", "none", "panet", "panet_concat", "sfam"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("levels", [2, 4])
def test_any_number_of_levels_of_any_size(name: str, levels: int) -> None:
    neck = build(name, levels, extra_levels=1).eval()
    given = pyramid(neck, 97, 131)
    maps = neck(given)
    assert neck.channels == (16,) * (levels + 1)
    assert neck.strides == (*STRIDES[-levels:], 64)
    assert [x.shape[1] for x in maps] == list(neck.channels)
    sizes = [tuple(x.shape[2:]) for x in maps]
    assert sizes[:-1] == [tuple(x.shape[2:]) for x in given]
    assert sizes[-1] == tuple(-(-side // 2) for side in sizes[-2])


@pytest.mark.parametrize("name", NAMES)
def test_maps_that_round_down_fit_too(name: str) -> None:
    neck = build(name).eval()
    given = [torch.randn(1, c, *size) for c, size in zip(neck.in_channels, [(13, 15), (6, 7), (3, 3)], strict=True)]
    maps = neck(given)
    assert [x.isfinite().all() for x in maps] == [True] * 3
    if name != "sfam":  # its scales are made from the finest map, each half of the one before, rounded up
        assert [x.shape[2:] for x in maps] == [x.shape[2:] for x in given]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    neck = build(name, extra_levels=2, **({"out_channels": 128} if name == "sfam" else {}))  # an SE block has 1/16
    maps = neck(pyramid(neck, 256, 256))
    torch.stack([(x * torch.randn_like(x)).sum() for x in maps]).sum().backward()
    assert not [n for n, p in neck.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_two_is_two_batches_of_one(name: str) -> None:
    neck = build(name, extra_levels=1).eval()
    given = pyramid(neck, 64, 96)
    both = neck(given)
    with torch.no_grad():
        for place in range(2):
            alone = neck([x[place : place + 1] for x in given])
            for x, y in zip(both, alone, strict=True):
                torch.testing.assert_close(x[place : place + 1], y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_one_image_whose_coarsest_map_is_one_place_trains(name: str) -> None:
    options: dict[str, Any] = {} if name in ("bifpn", "sfam") else {"norm": "batch"}
    neck = build(name, extra_levels=1, **options)
    given = pyramid(neck, 32, 32, batch=1)
    maps = neck([x * 3 for x in given])
    assert maps[-1].shape[2:] == (1, 1) and all(x.isfinite().all() for x in maps)
    torch.stack([x.sum() for x in maps]).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in neck.parameters())


class Whole(nn.Module):
    """Images -> the maps of a neck."""

    def __init__(self, neck: Neck) -> None:
        super().__init__()
        self.neck = neck

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.neck([F.avg_pool2d(images, stride) for stride in self.neck.in_strides])


@pytest.mark.parametrize("name", NAMES)
def test_it_exports_with_an_open_batch(name: str) -> None:
    small = {"repeats": 1} if name == "bifpn" else {}
    model = Whole(create_neck(name, (3, 3), (8, 16), **{"out_channels": 16, **SMALL.get(name, {}), **small})).eval()
    batch = torch.export.Dim("batch", max=64)
    program = torch.export.export(model, (torch.randn(2, 3, 48, 80),), dynamic_shapes=({0: batch},))
    images = torch.randn(3, 3, 48, 80)
    for x, y in zip(program.module()(images), model(images), strict=True):
        torch.testing.assert_close(x, y)


def test_no_neck_gives_the_maps_as_they_came() -> None:
    neck = create_neck(None, (3, 5), (8, 16))
    given = [torch.randn(1, 3, 4, 4), torch.randn(1, 5, 2, 2)]
    maps = neck(given)
    assert all(x is y for x, y in zip(maps, given, strict=True))
    assert neck.channels == (3, 5) and not list(neck.parameters())


def test_no_neck_may_bring_all_maps_to_as_many_channels() -> None:
    neck = create_neck("none", (3, 5), (8, 16), out_channels=7)
    given = [torch.randn(1, 3, 4, 4), torch.randn(1, 5, 2, 2)]
    weights = [p for p in neck.parameters() if p.ndim == 4]
    for x, weight, given_map in zip(neck(given), weights, given, strict=True):
        torch.testing.assert_close(x, torch.einsum("oc,bchw->bohw", weight[:, :, 0, 0], given_map))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_neck("fnp", (8,), (8,)), "unknown neck 'fnp'; did you mean fpn?"),
        (lambda: create_neck(3, (8,), (8,)), "neck must be a name such as 'fpn' or None, got 3"),  # type: ignore[arg-type]
        (lambda: create_neck("fpn", (8,), (8,), out_chanels=3), "did you mean out_channels"),
        (lambda: create_neck("fpn", (8, 8), (8,)), "channels and the stride of each map"),
        (lambda: create_neck("fpn", (8, 8), (16, 8)), "strides must grow; got \\[16, 8\\]"),
        (lambda: create_neck("fpn", (), ()), "channels and the stride of each map"),
        (lambda: create_neck("fpn", (0,), (8,)), "channels must be a whole number of at least 1"),
        (lambda: create_neck("fpn", (8,), (8,), extra_levels=-1), "extra_levels must be a whole number of at least 0"),
        (lambda: create_neck("fpn", (8,), (8,), extra_from="c6"), "unknown extra_from 'c6'"),
        (lambda: create_neck("panet_concat", (8, 8), (8, 16), out_channels=(4,)), "one number or 2"),
        (lambda: create_neck("asff", (8, 8), (8, 16), inner_channels=(4,)), "inner_channels must be one number or 2"),
        (lambda: create_neck("asff", (8, 8), (8, 16), inner_channels=4, out_channels=8, expand=False), "expand=False"),
        (lambda: create_neck("bifpn", (8,), (8,)), "at least two levels"),
        (lambda: create_neck("bifpn", (8,), (8,), extra_levels=1, fusion="fasst"), "did you mean fast"),
        (lambda: create_neck("sfam", (8, 8), (8, 16), out_channels=24), "multiple of 16"),
        (lambda: create_neck("sfam", (8, 8, 8), (8, 16, 32), base_channels=(8, 9)), "dealt out to 2 coarser maps"),
        (lambda: create_neck("sfam", (8,), (8,), base_channels=(8, 8)), "scales must be a whole number of at least 2"),
    ],
)
def test_what_cannot_be_is_refused(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_wrong_maps_are_refused() -> None:
    neck = create_neck("fpn", (3, 5), (8, 16))
    with pytest.raises(InputError, match="FPN was built for 2 maps, got 1"):
        neck([torch.randn(1, 3, 4, 4)])
    with pytest.raises(InputError, match=r"map 1 of FPN has 5 channels, \(B, 5, H, W\); got \(1, 3, 4, 4\)"):
        neck([torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)])

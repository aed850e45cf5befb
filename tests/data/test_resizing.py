"""Resizing and grey against torchvision's transforms, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from opsin.data import resizing

WAYS = {
    "nearest": InterpolationMode.NEAREST_EXACT,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}


@pytest.mark.parametrize("vectorised", [True, False])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.int16])
@pytest.mark.parametrize("layout", ["planes", "interleaved", "one row"])
@pytest.mark.parametrize("name", list(WAYS))
def test_resize_equals_torchvision(
    name: str, layout: str, kind: torch.dtype, vectorised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    capability = "AVX2" if vectorised else "DEFAULT"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    resizing._vectorised.cache_clear()
    channels, size = (1, (1, 23)) if layout == "one row" else (3, (37, 23))
    image = torch.randint(0, 256, (channels, *size), generator=torch.Generator().manual_seed(0)).to(kind)
    if layout == "interleaved":
        image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for height, width in ((12, 9), (80, 50), (37, 60), (2, 3)):
        expected = F.resize(image, [height, width], WAYS[name], antialias=True)
        resized = resizing.resize(image, height, width, name)
        assert torch.equal(resized, expected)
        assert resized.dtype == kind
        assert resized.stride() == expected.stride()
    resizing._vectorised.cache_clear()


def test_grey_equals_torchvision() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    image = torch.cartesian_prod(values[::5], values[::3], values[::7]).T.reshape(3, -1, 2)
    assert torch.equal(resizing.to_grey(image), F.rgb_to_grayscale(image))

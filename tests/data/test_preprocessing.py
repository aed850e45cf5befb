"""Preprocessing against Pillow, torchvision and arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from opsin.data import Preprocessing
from opsin.errors import InputError

RANDOM = np.random.RandomState(0)
PHOTO = np.asarray(
    Image.fromarray(RANDOM.randint(0, 256, (8, 11, 3), dtype=np.uint8)).resize((150, 100), Image.Resampling.BICUBIC)
)
IMAGE = torch.from_numpy(PHOTO.copy()).permute(2, 0, 1)
COLOUR = Preprocessing(size=(32, 48), channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
GREY = replace(COLOUR, channels=1, mean=(0.3,), std=(0.2,))


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 48), (100, 60), (200, 300)])
def test_squash_equals_pillow(name: str, size: tuple[int, int]) -> None:
    prepared = replace(COLOUR, size=size, interpolation=name).prepare(IMAGE)
    expected = np.asarray(Image.fromarray(PHOTO).resize((size[1], size[0]), Image.Resampling[name.upper()]))
    assert prepared.dtype == torch.uint8
    assert np.abs(prepared.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1  # both round


@pytest.mark.parametrize("shape", [(100, 150), (150, 100), (64, 64), (20, 31), (301, 299), (224, 224)])
@pytest.mark.parametrize(("size", "ratio"), [(56, 0.875), (32, 1.0), (299, 0.9)])
def test_crop_equals_torchvision(shape: tuple[int, int], size: int, ratio: float) -> None:
    image = v2.functional.resize(IMAGE, list(shape))
    resize = v2.Resize(round(size / ratio), InterpolationMode.BILINEAR, antialias=True)
    expected = v2.functional.center_crop(resize(image), [size, size])
    prepared = replace(COLOUR, size=(size, size), fit="crop", crop_ratio=ratio).prepare(image)
    assert torch.equal(prepared, expected)


def test_crop_to_another_shape_covers_and_centres() -> None:
    ramp = torch.arange(200, dtype=torch.uint8).expand(1, 50, 200)
    prepared = replace(GREY, size=(50, 100), fit="crop", crop_ratio=1.0).prepare(ramp)
    assert torch.equal(prepared[0, 0], torch.arange(50, 150, dtype=torch.uint8))
    for shape in ((7, 300), (300, 7), (1, 1)):
        tiny = torch.full((3, *shape), 9, dtype=torch.uint8)
        assert replace(COLOUR, fit="crop").prepare(tiny).unique().tolist() == [9]


def test_endless_images_do_not_fill_the_memory() -> None:
    for shape in ((1, 50_000), (50_000, 1)):
        assert (
            replace(COLOUR, size=(224, 224), fit="crop").prepare(torch.zeros(3, *shape, dtype=torch.uint8)).shape[0]
            == 3
        )


def test_pad_shrinks_but_never_enlarges() -> None:
    pad = replace(GREY, size=(6, 8), fit="pad")
    small = pad.prepare(torch.full((1, 2, 4), 7, dtype=torch.uint8))
    expected = torch.zeros(1, 6, 8, dtype=torch.uint8)
    expected[:, 2:4, 2:6] = 7
    assert torch.equal(small, expected)
    large = pad.prepare(torch.full((1, 12, 4), 7, dtype=torch.uint8))  # to 6x2, in columns 3 and 4
    expected.zero_()[:, :, 3:5] = 7
    assert torch.equal(large, expected)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_channels_are_matched(fit: str) -> None:
    grey, colour = replace(GREY, fit=fit), replace(COLOUR, fit=fit)
    made_grey = grey.prepare(IMAGE)
    assert made_grey.shape == (1, 32, 48)
    repeated = colour.prepare(IMAGE[:1])
    assert repeated.shape == (3, 32, 48) and all(torch.equal(c, repeated[0]) for c in repeated)
    assert torch.equal(repeated[:1], grey.prepare(IMAGE[:1]))


def test_grey_is_that_of_pillow() -> None:
    whole = replace(GREY, size=(100, 150)).prepare(IMAGE)[0].numpy().astype(int)
    assert np.abs(whole - np.asarray(Image.fromarray(PHOTO).convert("L"))).max() <= 1


def test_right_size_is_left_alone() -> None:
    for fit in ("squash", "pad"):
        assert torch.equal(replace(COLOUR, size=(100, 150), fit=fit).prepare(IMAGE), IMAGE)


@pytest.mark.parametrize(("preprocessing", "channels"), [(COLOUR, 3), (GREY, 1)])
def test_normalize_is_the_formula(preprocessing: Preprocessing, channels: int) -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(2, channels, 1)[..., None]
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (preprocessing.mean, preprocessing.std))
    expected = (images.double() / 255 - mean) / std
    for dtype, tolerance in (
        (torch.float64, 1e-12),
        (torch.float32, 2e-6),
        (torch.bfloat16, 0.02),
        (torch.float16, 3e-3),
    ):
        normal = preprocessing.normalize(images, dtype)
        assert normal.dtype == dtype and (normal.double() - expected).abs().max() < tolerance
    assert images.dtype == torch.uint8 and images[0, 0, 255, 0] == 255  # the input is untouched


def test_survives_json() -> None:
    stored = json.loads(json.dumps(COLOUR.to_dict()))
    assert Preprocessing.from_dict(stored) == COLOUR
    with pytest.raises(InputError, match="unknown key of preprocessing 'chanels'; did you mean channels"):
        Preprocessing.from_dict({**stored, "chanels": 3})
    del stored["mean"]
    with pytest.raises(InputError, match="incomplete"):
        Preprocessing.from_dict(stored)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (0, 3)}, "size is"),
        ({"size": (3,)}, "size is"),
        ({"channels": 4}, "channels is 4"),
        ({"mean": (0.5,)}, "must be 3 numbers"),
        ({"std": (0.5, 0.0, 1.0)}, "std above 0"),
        ({"fit": "crob"}, "did you mean crop"),
        ({"interpolation": "bilinaer"}, "did you mean bilinear"),
        ({"crop_ratio": 1.5}, "crop_ratio is 1.5"),
    ],
)
def test_wrong_values(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(COLOUR, **change)

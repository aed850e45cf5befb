"""How large images are cut into tiles, and how large a tile is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from opsin.data import Preprocessing
from opsin.data.formats.digit_scenes import open_scenes
from opsin.engine.tiles import QUANTILES, ObjectSizes, Tiling, choose_tiling, measure_objects, read_tile
from opsin.errors import InputError

SQUARE = Preprocessing(size=(64, 64), channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)


def sizes(largest: float = 60.0, scale: tuple[float, float] = (0.5, 0.25)) -> dict[str, Any]:
    image = [(largest * share, largest * share) for share in (0.1, 0.3, 0.5, 0.8, 1.0)]
    placed = [(height * scale[0], width * scale[1]) for height, width in image]
    return ObjectSizes(9, scale, image, placed).to_dict()


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (100, 37), (131, 200), (257, 95)])
@pytest.mark.parametrize("overlap", [0, 1, 13, 32])
def test_tiles_cover_an_image_exactly_and_hold_every_object_whole(size: tuple[int, int], overlap: int) -> None:
    places = Tiling((64, 50), (overlap, min(overlap, 25))).places(size)
    seen = np.zeros(size, int)
    for one in places:
        assert one.top >= 0 and one.left >= 0 and one.top + one.height <= size[0] and one.left + one.width <= size[1]
        assert (one.height, one.width) == (min(64, size[0]), min(50, size[1]))
        seen[one.top : one.top + one.height, one.left : one.left + one.width] += 1
    assert seen.min() == 1 or len(places) > 1
    assert (seen > 0).all()
    height, width = min(overlap, size[0]), min(overlap, 25, size[1])  # of an object, anywhere
    for top in range(size[0] - height + 1):
        for left in range(0, size[1] - width + 1, 3):
            assert any(
                one.top <= top
                and one.left <= left
                and top + height <= one.top + one.height
                and left + width <= one.left + one.width
                for one in places
            )


def test_no_more_tiles_than_it_takes() -> None:
    assert [p.top for p in Tiling((64, 64), (14, 14)).places((114, 10))] == [0, 50]
    assert [p.top for p in Tiling((64, 64), (14, 14)).places((115, 10))] == [0, 25, 51]


def test_a_narrow_image_is_filled_up_where_it_would_be_stretched() -> None:
    image = torch.arange(2 * 30 * 100, dtype=torch.float32).reshape(2, 30, 100)
    tiling = Tiling((64, 64), (10, 10), filled=True)
    last = tiling.places((30, 100))[-1]
    part = tiling.cut(image, last)
    assert part.shape == (2, 64, 64)
    assert torch.equal(part[:, :30], image[:, :, 36:]) and not part[:, 30:].any()
    assert Tiling((64, 64), (10, 10)).cut(image, last).shape == (2, 30, 64)


def test_auto_shows_objects_as_large_as_they_were() -> None:
    # 64 pixels of the input for 128 of the image down and 256 across; objects of 60 at most.
    tiling = choose_tiling("auto", sizes(), SQUARE, "net")
    assert tiling is not None and (tiling.size, tiling.overlap) == ((128, 256), (60, 60))
    # 99 of 100 objects fit into a tile, and an overlap is at most half of one.
    tiling = choose_tiling("auto", sizes(largest=1000.0), SQUARE, "net")
    assert tiling is not None and (tiling.size, tiling.overlap) == ((800, 800), (400, 400))


def test_a_size_of_ones_own() -> None:
    # The largest object is 30 of 64 pixels of the input high, 15 wide: so much of a tile is its overlap.
    tiling = choose_tiling(100, sizes(), SQUARE, "net")
    assert tiling is not None and (tiling.size, tiling.overlap) == ((100, 100), (47, 24))
    tiling = choose_tiling(100, {}, SQUARE, "net")
    assert tiling is not None and tiling.overlap == (25, 25)
    assert choose_tiling("off", sizes(), SQUARE, "net") is None


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match=r"net was saved without them; give the side of a tile in pixels.*tile=64"):
        choose_tiling("auto", {}, SQUARE, "net")
    with pytest.raises(InputError, match="damaged"):
        choose_tiling("auto", {**sizes(), "scale": [0.5, -1.0]}, SQUARE, "net")
    crop = Preprocessing(size=(64, 64), channels=3, mean=(0.0,) * 3, std=(1.0,) * 3, fit="crop")
    with pytest.raises(InputError, match="gaps"):
        choose_tiling(64, {}, crop, "net")
    for wrong in ("huge", "7", 0, -3, 12.5, True, "64.0"):
        with pytest.raises(InputError, match="expected auto, off, or the side"):
            read_tile(wrong)  # type: ignore[arg-type]
    assert [read_tile(one) for one in (None, "auto", "off", "640", 640)] == [None, "auto", "off", 640, 640]


def test_the_sizes_of_the_training_objects() -> None:
    """Against plain numpy, of images of 160x160 in an input of 40x80."""
    split = open_scenes("scenes:12").splits["train"]
    preprocessing = Preprocessing(size=(40, 80), channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    found = measure_objects(split, preprocessing)
    assert found is not None and split.instances is not None
    boxes = np.concatenate([one.boxes.numpy() for one in split.instances])
    heights, widths = boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]
    assert found.count == len(boxes) and found.scale == (0.25, 0.5)
    expected = np.stack([np.quantile(heights, QUANTILES), np.quantile(widths, QUANTILES)], axis=1)
    np.testing.assert_allclose(found.image, expected, rtol=1e-6)
    np.testing.assert_allclose(found.input, expected * [0.25, 0.5], rtol=1e-6)
    assert ObjectSizes.from_dict(found.to_dict()).count == found.count
    assert measure_objects(split.with_truth(None), preprocessing) is None

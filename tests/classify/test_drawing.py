"""Annotated images: the image stays itself, the caption is there, fits, and tells the probability."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from opsin.classify.drawing import annotate

BAR = (86, 180, 233)


def rows_with_a_bar(image: Image.Image) -> dict[int, int]:
    """Row -> length of the probability's bar."""
    found = (np.asarray(image) == BAR).all(axis=2).sum(axis=1)
    return {int(row): int(found[row]) for row in found.nonzero()[0]}


def test_a_tiny_image_is_enlarged_pixel_by_pixel() -> None:
    image = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8) * 3
    drawn = np.asarray(annotate(image, {"label": "7", "score": 0.993}))
    factor = drawn.shape[1] // 8
    assert drawn.shape[1] == 224
    expected = image[0].numpy().repeat(factor, axis=0).repeat(factor, axis=1)
    np.testing.assert_array_equal(drawn[: 8 * factor], np.stack([expected] * 3, axis=2))


def test_a_large_image_keeps_its_pixels() -> None:
    image = torch.randint(0, 255, (3, 300, 400), dtype=torch.uint8)
    drawn = annotate(image, {"label": "cat", "score": 0.5})
    assert drawn.width == 400
    assert drawn.height > 300
    np.testing.assert_array_equal(np.asarray(drawn)[:300], image.permute(1, 2, 0).numpy())


def test_a_narrow_image_gets_margins() -> None:
    image = np.asarray(annotate(torch.full((3, 800, 8), 200, dtype=torch.uint8), {"label": "pole", "score": 1.0}))
    assert image.shape[1] == 224
    assert image.shape[0] < 900
    assert (image[400, 108:116] == 200).all()
    assert (image[400, :108] < 40).all()


@pytest.mark.parametrize(("score", "length"), [(0.0, 0), (0.25, 56), (1.0, 224)])
def test_the_bar_is_as_long_as_the_probability(score: float, length: int) -> None:
    bars = rows_with_a_bar(annotate(torch.zeros(1, 8, 8, dtype=torch.uint8), {"label": "7", "score": score}))
    assert set(bars.values()) == ({length} if length else set())


def test_the_caption_is_written() -> None:
    blank = torch.zeros(1, 32, 32, dtype=torch.uint8)
    one, two = (np.asarray(annotate(blank, {"label": label, "score": 0.5})) for label in ("cat", "dog"))
    assert one.shape == two.shape
    assert (one != two).any()
    assert (one[224:] > 200).all(axis=2).sum() > 50


def test_several_labels_have_a_row_each() -> None:
    blank = torch.zeros(3, 64, 64, dtype=torch.uint8)
    labels = [{"label": f"class {i}", "score": 0.9 - 0.1 * i} for i in range(7)]
    heights = [annotate(blank, {"labels": labels[:n]}).height for n in (1, 2, 5, 7)]
    strip = heights[1] - heights[0]
    assert np.diff(heights).tolist() == [strip, 3 * strip, strip]  # five rows, and one for the two others
    assert len(set(rows_with_a_bar(annotate(blank, {"labels": labels})).values())) == 5


def test_no_label_is_said() -> None:
    image = np.asarray(annotate(torch.zeros(3, 64, 64, dtype=torch.uint8), {"labels": [], "top": []}))
    assert (image[256:] > 200).all(axis=2).any()


@pytest.mark.parametrize(
    "name", ["x" * 5000, "two\nlines\tand tabs", "", "\u72d7", "a very long name of a class indeed"]
)
def test_any_name_fits(name: str) -> None:
    """The name leaves the probability alone: the right end of the strip is the same as with a short name."""
    blank = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image = np.asarray(annotate(blank, {"label": name, "score": 0.123}))
    plain = np.asarray(annotate(blank, {"label": "a", "score": 0.123}))
    assert image.shape == plain.shape
    np.testing.assert_array_equal(image[:, -58:], plain[:, -58:])

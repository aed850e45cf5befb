"""Boxes go where the image's pixels go, for every fit and size, and come back."""

from __future__ import annotations

import itertools

import pytest
import torch

from opsin.data import Preprocessing
from opsin.data.coordinates import keep_inside, place_masks, return_masks
from opsin.errors import InputError
from opsin.structures import Instances

FITS = ("squash", "pad", "crop")
SIZES = [(32, 48), (64, 64), (31, 97)]
IMAGES = [(100, 150), (150, 100), (20, 30), (7, 500), (500, 7), (64, 64), (33, 33)]


def preprocessing(fit: str, size: tuple[int, int] = (32, 48), **options: object) -> Preprocessing:
    return Preprocessing(size=size, channels=1, mean=(0.5,), std=(0.5,), fit=fit, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("fit", "size"), list(itertools.product(FITS, SIZES)))
def test_return_is_the_inverse_of_place(fit: str, size: tuple[int, int]) -> None:
    made, generator = preprocessing(fit, size), torch.Generator().manual_seed(0)
    for image in IMAGES:
        corners = torch.rand(50, 4, generator=generator, dtype=torch.float64) * torch.tensor(image[::-1] * 2)
        boxes = torch.cat([corners[:, :2].minimum(corners[:, 2:]), corners[:, :2].maximum(corners[:, 2:])], dim=1)
        assert torch.allclose(made.return_boxes(made.place_boxes(boxes, image), image), boxes, atol=1e-9)
        scale_x, scale_y, shift_x, shift_y = made.transform(*image)
        x = boxes[:, 0] * scale_x + shift_x
        y = boxes[:, 3] * scale_y + shift_y
        placed = made.place_boxes(boxes, image)
        assert torch.equal(placed[:, 0], x) and torch.equal(placed[:, 3], y)
    assert made.place_boxes(torch.zeros(0, 4), (10, 10)).shape == (0, 4)


@pytest.mark.parametrize("fit", FITS)
def test_a_box_lies_where_prepare_puts_its_pixels(fit: str) -> None:
    made = preprocessing(fit)
    for height, width in IMAGES[:3]:
        x1, y1, x2, y2 = width // 3, height // 4, width // 3 + width // 4, height // 4 + height // 2
        image = torch.zeros(1, height, width, dtype=torch.uint8)
        image[:, y1:y2, x1:x2] = 255
        prepared = made.prepare(image)[0] > 127
        rows, columns = (prepared.any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
        seen = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
        box = torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32)
        placed = keep_inside(Instances(made.place_boxes(box, (height, width))), made.size).boxes[0]
        assert (placed - seen).abs().max() <= 0.75, (fit, height, width)


def test_known_places() -> None:
    assert preprocessing("squash").transform(64, 96) == (0.5, 0.5, 0.0, 0.0)
    assert preprocessing("pad").transform(64, 64) == (0.5, 0.5, 8.0, 0.0)  # 32x32 in the middle of 32x48
    assert preprocessing("pad").transform(10, 20) == (1.0, 1.0, 14.0, 11.0)  # never enlarged
    assert preprocessing("crop", (8, 8), crop_ratio=0.5).transform(16, 32) == (1.0, 1.0, -12.0, -4.0)
    with pytest.raises(InputError, match="has no pixels"):
        preprocessing("pad").transform(0, 5)


def test_what_leaves_the_image_is_cut_or_dropped() -> None:
    boxes = torch.tensor([[-5.0, 0, 5, 10], [20, 20, 30, 30], [2, 2, 4, 4], [-9, 0, 1, 10], [10, 3, 12, 5]])
    instances = Instances(boxes, torch.tensor([0, 1, -1, 2, 3]))
    kept = keep_inside(instances, (10, 10))
    assert kept.boxes.tolist() == [[0, 0, 5, 10], [2, 2, 4, 4], [0, 0, 1, 10]]
    assert kept.labels is not None and kept.labels.tolist() == [0, -1, 2]
    assert instances.boxes[0, 0] == -5  # the given ones are untouched
    assert len(keep_inside(Instances(torch.zeros(0, 4)), (10, 10))) == 0


@pytest.mark.parametrize("fit", FITS)
def test_masks_come_back_to_where_they_were(fit: str) -> None:
    """A rectangle, up to the half pixels that nearest neighbours lose, and never amid what the input did not show."""
    made = preprocessing(fit)
    for height, width in [(64, 96), (128, 96), (32, 48), (100, 37)]:
        mask = torch.zeros(2, height, width, dtype=torch.bool)
        mask[0, height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = True
        mask[1] = True
        placed = place_masks(mask, made)
        back = return_masks(placed, made, (height, width))
        assert back.shape == mask.shape
        scale_x, scale_y, shift_x, shift_y = made.transform(height, width)
        for y, x in itertools.product(range(0, height, 5), range(0, width, 5)):
            row, column = (y + 0.5) * scale_y + shift_y, (x + 0.5) * scale_x + shift_x
            inside = 0 <= row < made.size[0] and 0 <= column < made.size[1]
            wanted = placed[:, int(row), int(column)] if inside else torch.tensor([False, False])
            assert torch.equal(back[:, y, x], wanted)
        if fit != "crop":
            step = int(1 / min(scale_x, scale_y)) + 1
            assert (back[0] ^ mask[0]).sum() <= step * (height + width)
            assert back[1].all()
    assert return_masks(torch.zeros(0, 32, 48, dtype=torch.bool), made, (10, 20)).shape == (0, 10, 20)

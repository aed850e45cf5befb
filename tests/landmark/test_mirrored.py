"""Points get each other's names in mirror images alone, whatever step has made them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from opsin.data import Preprocessing, create_augmentation
from opsin.data.transforms.augmentation import _BLIND, _GEOMETRY, _KNOWN
from opsin.data.transforms.points import Points
from opsin.errors import InputError
from opsin.landmark.mirrored import WithFlipPairs

from ..data.transforms.test_kinds import OPTIONS

SIZE = (64, 80)
PREPROCESSING = Preprocessing(size=SIZE, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
FLIP = (1, 0, 2)
COLOURS = torch.tensor([[250, 20, 20], [20, 250, 20], [20, 20, 250]], dtype=torch.uint8)
STEPS = sorted(
    {*_GEOMETRY, "random_horizontal_flip", "random_vertical_flip", "scale_jitter", "expand", "random_zoom_out"}
)


def sample() -> dict[str, Any]:
    """Three coloured squares: left, right and below; a square's colour says which point it is."""
    height, width = 90, 120
    image = torch.full((3, height, width), 120, dtype=torch.uint8)
    points = torch.tensor([[42.0, 34], [82, 38], [62, 60]])
    for colour, (x, y) in zip(COLOURS, points.long().tolist(), strict=True):
        image[:, y - 7 : y + 7, x - 7 : x + 7] = colour[:, None, None]
    return {
        "image": image,
        "points": Points(points, canvas_size=(height, width)),
        "visible": np.array([True, False, True]),
    }


def colour_at(image: Tensor, point: Tensor) -> int | None:
    x, y = point.tolist()
    if not (3 < x < image.shape[2] - 3 and 3 < y < image.shape[1] - 3):
        return None
    return int((image[:, int(y), int(x)].long() - COLOURS.long()).abs().sum(dim=1).argmin())


def run(steps: list[Any], seed: int, flip: tuple[int, ...] | None = FLIP) -> dict[str, Any]:
    augmentation = create_augmentation(steps, PREPROCESSING)
    assert augmentation is not None
    torch.manual_seed(seed)
    return WithFlipPairs(augmentation, PREPROCESSING, flip)(sample())


@pytest.mark.parametrize("name", STEPS)
def test_every_step_leaves_each_point_on_its_colour_but_for_mirror_images(name: str) -> None:
    options = dict(OPTIONS.get(name, {}))
    resized = ["random_crop"] if name in ("random_resize", "random_shortest_size") else []
    mirrors, seen = "flip" in name, 0
    for seed in range(6):
        changed = run([{name: options}, *resized], seed)
        for place in range(3):
            colour = colour_at(changed["image"], changed["points"][place].as_subclass(Tensor))
            # In a mirror image the point called 0 lies where the mirror shows 1.
            if colour is not None:
                seen += 1
                assert colour == (FLIP[place] if mirrors else place)
        assert changed["visible"].tolist() == ([False, True, True] if mirrors else [True, False, True])
        assert set(changed) == {"image", "points", "visible"}
    assert seen >= 8


def test_two_flips_are_a_turn_and_exchange_nothing() -> None:
    both = [{"random_horizontal_flip": {"p": 1.0}}, {"random_vertical_flip": {"p": 1.0}}]
    assert run(both, 0)["visible"].tolist() == [True, False, True]
    assert colour_at(run(both, 0)["image"], run(both, 0)["points"][0]) == 0


def test_a_mirror_image_without_pairs_is_refused() -> None:
    with pytest.raises(InputError, match=r"give landmark\.flip_pairs"):
        run([{"random_horizontal_flip": {"p": 1.0}}], 0, None)
    assert run([{"random_horizontal_flip": {"p": 0.0}}], 0, None)["visible"].tolist() == [True, False, True]


def test_no_step_is_forgotten() -> None:
    mixing, blind = {"mosaic", "mixup"}, set(_BLIND)
    boxes = {"random_iou_crop", "letterbox", "keep"}  # of objects, or moving nothing but scale and place
    from opsin.data.transforms.augmentation import _PIXELS

    assert set(_KNOWN) - set(_PIXELS) - blind - mixing - boxes == set(STEPS)

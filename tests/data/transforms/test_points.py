"""Points: torchvision's own where it has them and they agree, its boxes, and pixels where neither does."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from opsin.data.transforms.class_map import ClassMap
from opsin.data.transforms.points import Points

SIZE = (60, 90)
PLACES = torch.rand(7, 3, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([90.0, 60.0])
CALLS: dict[str, Any] = {
    "resize": lambda value: F.resize(value, [30, 120]),
    "resize shorter": lambda value: F.resize(value, [40], max_size=50),
    "crop": lambda value: F.crop(value, 5, -8, 40, 70),
    "center crop": lambda value: F.center_crop(value, [33, 51]),
    "resized crop": lambda value: F.resized_crop(value, 3, 4, 30, 50, [64, 64]),
    "pad": lambda value: F.pad(value, [3, 4, 5, 6]),
    "pad by two": lambda value: F.pad(value, [3, 4]),
    "pad by one": lambda value: F.pad(value, [3]),
    "affine": lambda value: F.affine(value, 20.0, [4, -3], 1.2, [10.0, 5.0]),
    "affine about": lambda value: F.affine(value, -30.0, [0, 2], 0.7, [0.0, 8.0], center=[10.0, 20.0]),
    "rotate": lambda value: F.rotate(value, 33.0),
    "rotate about": lambda value: F.rotate(value, -15.0, center=[0.0, 60.0]),
    "perspective": lambda value: F.perspective(
        value, [[0, 0], [89, 0], [89, 59], [0, 59]], [[5, 3], [80, 6], [85, 50], [2, 57]]
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_points_are_torchvisions(name: str) -> None:
    if not hasattr(tv_tensors, "KeyPoints"):
        pytest.skip("torchvision has points since 0.23")
    make: Any = tv_tensors.KeyPoints
    expected = CALLS[name](make(PLACES, canvas_size=SIZE))
    moved = CALLS[name](Points(PLACES, canvas_size=SIZE))
    assert isinstance(moved, Points) and moved.canvas_size == tuple(expected.canvas_size)
    assert torch.allclose(moved.as_subclass(Tensor), expected.as_subclass(Tensor), atol=1e-3)


def test_flips_by_hand() -> None:
    points = Points([[10.0, 5.0], [0.0, 60.0]], canvas_size=SIZE)
    assert F.horizontal_flip(points).tolist() == [[80, 5], [90, 60]]
    assert F.vertical_flip(points).tolist() == [[10, 55], [0, 0]]


@pytest.mark.parametrize("functional", [F.horizontal_flip, F.vertical_flip])
def test_flips_are_those_of_boxes(functional: Any) -> None:
    low, high = PLACES.amin(dim=1), PLACES.amax(dim=1)
    make: Any = tv_tensors.BoundingBoxes
    boxes = functional(make(torch.cat([low, high], dim=1), format="XYXY", canvas_size=SIZE)).as_subclass(Tensor)
    places = functional(Points(PLACES, canvas_size=SIZE)).as_subclass(Tensor)
    assert torch.allclose(torch.cat([places.amin(dim=1), places.amax(dim=1)], dim=1), boxes, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: F.rotate(value, 30.0, expand=True),
        lambda value: F.rotate(value, 90.0, expand=True),
        lambda value: F.rotate(value, 20.0, expand=True, center=[5.0, 9.0]),
        lambda value: F.center_crop(value, [97, 51]),
        lambda value: F.center_crop(value, [33, 120]),
        lambda value: F.center_crop(value, [34, 52]),
    ],
)
def test_points_and_maps_go_where_pixels_go(change: Any) -> None:
    """A square of nine pixels and its middle."""
    for x, y in ((20, 15), (70, 12), (33, 50)):
        image = torch.zeros(1, *SIZE, dtype=torch.uint8)
        image[:, y - 1 : y + 2, x - 1 : x + 2] = 200
        moved = change(image)[0] > 100
        places = moved.nonzero().float() + 0.5
        classes = change(ClassMap(image[0].clone()))
        point = change(Points([[x + 0.5, y + 0.5]], canvas_size=SIZE))
        assert point.canvas_size == tuple(moved.shape) == tuple(classes.shape)
        assert torch.equal(classes.as_subclass(Tensor) == 200, moved)
        if len(places) >= 7:
            assert (places.mean(dim=0).flip(0) - point[0]).abs().max() < 0.35


def test_copies_are_of_the_same_image() -> None:
    points = Points(PLACES, canvas_size=SIZE)
    copies = [points.clone(), points.to(torch.float64), points.detach(), copy.deepcopy(points)]
    for one in (*copies, pickle.loads(pickle.dumps(points)), tv_tensors.wrap(PLACES, like=points)):  # type: ignore[call-arg]
        assert isinstance(one, Points) and one.canvas_size == SIZE
    assert type(points + 1) is Tensor and "canvas_size=(60, 90)" in repr(points)
    assert Points([[1, 2]], canvas_size=SIZE).is_floating_point()
    with pytest.raises(ValueError, match=r"points must be \(\.\.\., 2\), got \(3,\)"):
        Points([1.0, 2.0, 3.0], canvas_size=SIZE)


def test_nothing_at_all() -> None:
    for name, call in CALLS.items():
        assert call(Points(torch.zeros(0, 4, 2), canvas_size=SIZE)).shape == (0, 4, 2), name

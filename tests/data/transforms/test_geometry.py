"""Changes of place: boxes, masks and points go where the image goes, seen by drawing them into it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from opsin.data.transforms.augmentation import _KNOWN
from opsin.data.transforms.geometry import (
    ElasticGrid,
    ElasticTransform,
    ScaleJitterCrop,
    ThinPlateSpline,
    follow,
    spline_weights,
)
from opsin.data.transforms.points import Points, find_places

HEIGHT, WIDTH = 90, 120
POINTS = torch.tensor([[30.5, 20.25], [60.0, 45.0], [85.75, 30.5], [40.0, 70.0], [90.25, 66.75]])
BOXES = torch.tensor([[20.0, 15.0, 50.0, 40.0], [55.0, 30.0, 100.0, 75.0], [30.0, 50.0, 45.0, 80.0]])

MOVES: dict[str, dict[str, Any]] = {
    "random_rotation": {"degrees": 30, "interpolation": InterpolationMode.BILINEAR},
    "random_affine": {"degrees": 15, "translate": (0.1, 0.1), "scale": (0.8, 1.2), "shear": 8,
                      "interpolation": InterpolationMode.BILINEAR},
    "random_perspective": {"distortion_scale": 0.4, "p": 1.0},
    "random_crop": {"size": (70, 100)},
    "random_resized_crop": {"size": (64, 96), "scale": (0.4, 1.0)},
    "scale_jitter_crop": {"size": (64, 96), "min": 96, "max": 140},
    "elastic_transform": {"alpha": 100.0, "sigma": 7.0},
    "thin_plate_spline": {"distortion": 0.1},
    "moving_least_squares": {"radius": 4.0},
}  # fmt: skip

FLIPS: dict[str, Any] = {"horizontal": v2.RandomHorizontalFlip, "vertical": v2.RandomVerticalFlip}


def make_boxes(values: Any, form: str = "XYXY", size: tuple[int, int] = (HEIGHT, WIDTH)) -> Any:
    kind: Any = tv_tensors.BoundingBoxes
    return kind(values, format=form, canvas_size=size)


def make_points(values: Any) -> Any:
    return Points(values, canvas_size=(HEIGHT, WIDTH))


def convert(boxes: Any, form: str) -> Any:
    return v2.functional.convert_bounding_box_format(boxes, new_format=tv_tensors.BoundingBoxFormat[form])


def scene() -> dict[str, Any]:
    """An image with a channel of its own for a blob at every point, and a mask for every box."""
    y, x = (torch.arange(side) + 0.5 for side in (HEIGHT, WIDTH))
    blobs = [torch.exp(-((x - px) ** 2 + (y[:, None] - py) ** 2) / 8) for px, py in POINTS.tolist()]
    inside = [(x > x1) & (x < x2) & (y[:, None] > y1) & (y[:, None] < y2) for x1, y1, x2, y2 in BOXES.tolist()]
    return {
        "image": tv_tensors.Image(torch.stack(blobs)),
        "points": make_points(POINTS),
        "boxes": make_boxes(BOXES),
        "masks": tv_tensors.Mask(torch.stack(inside).to(torch.uint8)),
        "label": 3,
    }


def centres(image: Tensor) -> Tensor:
    """The centre of each channel's blob, in continuous pixels; cubed, so that its core counts, which bends little."""
    image = image**3
    mass = image.sum(dim=(1, 2))
    y, x = (torch.arange(side) + 0.5 for side in image.shape[1:])
    return torch.stack([(image.sum(1) * x).sum(1) / mass, (image.sum(2) * y).sum(1) / mass], dim=1)


def outlines(masks: Tensor) -> Tensor:
    """The box around each mask, NaN where there is none."""
    found = []
    for mask in masks:
        y, x = mask.nonzero().unbind(1)
        found.append([x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [math.nan] * 4)
    return torch.tensor(found)


@pytest.mark.parametrize("name", [*MOVES, *FLIPS])
def test_points_and_boxes_go_where_the_image_goes(name: str) -> None:
    transform = FLIPS[name](p=1.0) if name in FLIPS else _KNOWN[name](**MOVES[name])
    seen = 0
    for seed in range(12):
        torch.manual_seed(seed)
        moved = transform(scene())
        size = tuple(moved["image"].shape[-2:])
        points, boxes = moved["points"], moved["boxes"]
        assert isinstance(points, Points) and isinstance(boxes, tv_tensors.BoundingBoxes)
        assert isinstance(moved["image"], tv_tensors.Image) and isinstance(moved["masks"], tv_tensors.Mask)
        assert points.canvas_size == boxes.canvas_size == size == tuple(moved["masks"].shape[-2:])
        assert moved["label"] == 3
        # Blobs that lie wholly inside, so that their centre of mass is their centre.
        whole = ((points > 9) & (points < torch.tensor(size[::-1]) - 9)).all(dim=1)
        seen += int(whole.sum())
        assert (centres(moved["image"]) - points)[whole].abs().max() < 0.5
        drawn = outlines(moved["masks"])
        known = ~drawn.isnan().any(dim=1)
        assert (drawn - boxes)[known].abs().max() <= 1.5
    assert seen >= 20


def test_flips_are_exact() -> None:
    sample = scene()
    for flip, axis, side in ((v2.RandomHorizontalFlip, 0, WIDTH), (v2.RandomVerticalFlip, 1, HEIGHT)):
        moved = flip(p=1.0)(sample)
        expected = POINTS.clone()
        expected[:, axis] = side - expected[:, axis]
        assert torch.equal(moved["points"], expected)
        assert torch.equal(flip(p=1.0)(moved)["boxes"], BOXES)
        assert torch.equal(moved["image"], sample["image"].flip(2 - axis))
        assert torch.equal(flip(p=0.0)(sample)["points"], POINTS)


def test_flips_of_boxes_and_points_agree() -> None:
    corners = make_points(BOXES.view(-1, 2, 2))
    sample = {"boxes": scene()["boxes"], "points": corners}
    moved = v2.RandomHorizontalFlip(p=1.0)(sample)
    points = moved["points"]
    assert torch.equal(torch.cat([points.amin(1), points.amax(1)], dim=1), moved["boxes"])


def test_scale_jitter_crop_of_a_very_long_image_with_boxes() -> None:
    sample = {
        "image": tv_tensors.Image(torch.zeros(3, 8, 4000, dtype=torch.uint8)),
        "boxes": make_boxes([[2000.0, 0.0, 2004.0, 8.0]], size=(8, 4000)),
    }
    moved = ScaleJitterCrop((8, 8), min=8, max=16)(sample)
    assert moved["image"].shape == (3, 8, 8) and moved["boxes"].canvas_size == (8, 8)


# Elastic


def test_elastic_pixels_are_torchvisions() -> None:
    image = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (3, 60, 80), dtype=np.uint8))
    cases: list[dict[str, Any]] = [
        {},
        {"alpha": [30.0, 90.0], "sigma": 3.0},
        {"sigma": [2.0, 4.0]},
        {"sigma": 0.0, "alpha": 5.0},
    ]
    for options in cases:
        torch.manual_seed(1)
        ours = ElasticTransform(**options)
        params = ours.make_params([image])
        torch.manual_seed(1)
        theirs = v2.ElasticTransform(**options)
        expected = theirs.make_params([image])
        assert torch.allclose(params["displacement"], expected["displacement"], atol=1e-6)
        difference = ours.transform(image, params).int() - theirs.transform(image, expected).int()
        assert difference.abs().max() <= 1


def test_elastic_field_is_the_papers() -> None:
    torch.manual_seed(0)
    displacement = ElasticTransform(alpha=68.0, sigma=4.0).make_params([torch.zeros(1, 29, 29)])["displacement"]
    torch.manual_seed(0)
    for axis in (0, 1):
        noise = (torch.rand(29, 29) * 2 - 1).numpy()
        expected = 34 * gaussian_filter(noise, 4.0, mode="mirror", truncate=4.0)
        assert np.abs(displacement[0, ..., axis].numpy() * 29 / 2 - expected).max() < 1e-3


def test_elastic_of_images_smaller_than_its_blur() -> None:
    assert ElasticTransform()(torch.zeros(1, 8, 8, dtype=torch.uint8)).shape == (1, 8, 8)


# Thin-plate spline


def test_spline_by_bookstein() -> None:
    """His own example: figure 4 and the page beside it, five points of which one moves."""
    before = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    after = torch.tensor([[0.0, 0.75], [-1.0, 0.25], [0.0, -1.25], [1.0, 0.25]], dtype=torch.float64)
    assert torch.allclose(spline_weights(before, before) @ after, after, atol=1e-12)
    # The kite: the centre stays, and the map is symmetric in x.
    inside = torch.tensor([[0.0, 0.0], [0.3, 0.4], [-0.3, 0.4]], dtype=torch.float64)
    moved = spline_weights(inside, before) @ after
    assert torch.allclose(moved[0], torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(moved[1] * torch.tensor([-1.0, 1.0]), moved[2], atol=1e-12)


def test_spline_equals_scipys() -> None:
    random = np.random.RandomState(0)
    controls, values, points = random.rand(9, 2), random.rand(9, 2), random.rand(50, 2)
    expected = RBFInterpolator(controls, values, kernel="thin_plate_spline", degree=1)(points)
    weights = spline_weights(torch.from_numpy(points), torch.from_numpy(controls))
    assert np.allclose(weights @ torch.from_numpy(values), expected, atol=1e-9)
    assert torch.allclose(weights.sum(1), torch.ones(50, dtype=torch.float64))  # a constant stays what it is
    assert np.allclose(weights @ torch.from_numpy(controls), points)  # so do places: affine maps bend nothing


def test_spline_of_no_distortion_changes_nothing() -> None:
    sample = scene()
    moved = ThinPlateSpline(distortion=0.0)(sample)
    assert torch.allclose(moved["image"], sample["image"], atol=1e-5)
    assert torch.allclose(moved["points"], POINTS, atol=1e-3) and torch.allclose(moved["boxes"], BOXES, atol=1e-3)
    assert torch.equal(moved["masks"], sample["masks"])


def test_fill_of_images_and_masks() -> None:
    sample = {"image": tv_tensors.Image(torch.full((3, 40, 40), 9.0)), "mask": tv_tensors.Mask(torch.ones(40, 40))}
    transform = ThinPlateSpline(distortion=0.16, fill=[1.0, 2.0, 3.0], mask_fill=255)
    values: set[float] = set()
    for seed in range(5):
        torch.manual_seed(seed)
        moved = transform(sample)
        values |= set(moved["mask"].unique().tolist())
        assert moved["mask"].shape == (40, 40)
        outside = moved["mask"] == 255
        assert [float(channel[outside].median()) for channel in moved["image"]] == [1, 2, 3]
    assert values == {1.0, 255.0}


# The inverse


def test_places_read_the_points_that_were_asked_for() -> None:
    torch.manual_seed(0)
    displacement = ElasticTransform(alpha=150.0, sigma=6.0).make_params([torch.zeros(1, HEIGHT, WIDTH)])["displacement"]
    points = torch.rand(200, 2) * torch.tensor([WIDTH - 20.0, HEIGHT - 20.0]) + 10
    places = find_places(points, displacement)
    ramp = torch.stack(torch.meshgrid(torch.arange(WIDTH) + 0.5, torch.arange(HEIGHT) + 0.5, indexing="xy"))
    moved = v2.functional.elastic(ramp, displacement)  # an image of its own coordinates
    grid = (2 * places / torch.tensor([WIDTH, HEIGHT]) - 1)[None, None]
    read = torch.nn.functional.grid_sample(moved[None], grid, align_corners=False)[0, :, 0].T
    kept = ((places > 2) & (places < torch.tensor([WIDTH, HEIGHT]) - 2)).all(dim=1)
    assert kept.sum() > 150 and (read - points)[kept].abs().max() < 0.05
    assert (places - points).abs().max() > 1.5  # it was not the identity


def test_folds_put_a_point_where_it_is_seen() -> None:
    torch.manual_seed(0)
    displacement = ElasticTransform(alpha=2000.0, sigma=5.0).make_params([torch.zeros(1, 60, 60)])["displacement"]
    points = torch.rand(40, 2) * 30 + 15
    places = find_places(points, displacement)
    assert bool(places.isfinite().all())
    field = displacement[0] * 30 + torch.stack(
        torch.meshgrid(torch.arange(60) + 0.5, torch.arange(60) + 0.5, indexing="xy"), dim=-1
    )
    for place, point in zip(places, points, strict=True):
        if bool(((place > 0) & (place < 60)).all()):
            best = (field - point).norm(dim=-1).min()
            x, y = place.long().tolist()
            assert (field[y, x] - point).norm() <= best + 12  # a pixel of such a field is that far from the next


def test_formats_types_and_nothing_at_all() -> None:
    torch.manual_seed(0)
    displacement = ThinPlateSpline(0.1).make_params([torch.zeros(1, HEIGHT, WIDTH)])["displacement"]
    expected = follow(scene()["boxes"], displacement)
    for form in ("XYWH", "CXCYWH"):
        moved = follow(convert(scene()["boxes"], form), displacement)
        assert moved.format.value == form
        assert torch.allclose(convert(moved, "XYXY"), expected, atol=1e-3)
    for shape in ((0, 2), (4, 17, 2)):
        points = make_points(torch.rand(*shape) * 80)
        assert v2.functional.elastic(points, displacement).shape == shape
    assert follow(make_boxes(torch.zeros(0, 4)), displacement).shape == (0, 4)
    assert follow(make_boxes(BOXES.long()), displacement).dtype == torch.int64
    rotated = make_boxes([[50.0, 40.0, 9.0, 9.0, 30.0]], "CXCYWHR")
    with pytest.raises(ValueError, match="CXCYWHR cannot be bent; give their corners as points"):
        follow(rotated, displacement)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"grid": 1}, "expected 2 points or more"), ({"distortion": 0.2}, "less than 0.166667, half a step of the grid")],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ThinPlateSpline(**options)


def test_elastic_grid_is_the_published_deformation() -> None:
    """Section 3.1 of U-Net: displacements of a 3x3 grid, 10 pixels of deviation, bicubic between, each its own axis."""
    torch.manual_seed(0)
    drawn = [ElasticGrid().make_params([torch.zeros(1, 48, 96)])["displacement"] for _ in range(400)]
    fields = torch.cat(drawn) * torch.tensor([96, 48]) / 2  # in pixels
    assert fields.shape == (400, 48, 96, 2)
    corners = fields[:, [0, 0, -1, -1, 0], [0, -1, 0, -1, 0]]
    assert float(corners.std()) == pytest.approx(10, rel=0.05) and abs(float(corners.mean())) < 0.5
    torch.manual_seed(1)
    field = ElasticGrid(grid=4, sigma=3.0).make_params([torch.zeros(1, 31, 61)])["displacement"][0]
    torch.manual_seed(1)
    moves = 3.0 * torch.randn(2, 4, 4)
    # At the grid's own points the field is what was drawn, in torch's unit of half an image's side.
    torch.testing.assert_close(field[::10, ::20], (moves * 2).permute(1, 2, 0) / torch.tensor([61, 31]))
    with pytest.raises(ValueError, match="grid is 1"):
        ElasticGrid(grid=1)

"""Augmentation of detectors: rectangles are drawn, image and boxes transformed, and compared; torchvision agrees."""

# pyright: reportOptionalMemberAccess=false, reportArgumentType=false
# Every scene here has instances.

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from opsin.data import Preprocessing
from opsin.data.transforms.augmentation import (
    _BLIND,
    _KNOWN,
    _PIXELS,
    PRESETS,
    Augmentation,
    create_augmentation,
    create_detection_augmentation,
    describe_augmentation,
    describe_detection_augmentation,
)
from opsin.data.transforms.colour import PhotometricDistort
from opsin.data.transforms.crops import Expand, Letterbox, RandomIoUCrop, ScaleJitter
from opsin.data.transforms.geometry import Geometric, RandomHorizontalFlip, RandomVerticalFlip
from opsin.data.transforms.mosaic import Mosaic
from opsin.data.transforms.sample import Frame, Scene
from opsin.data.transforms.sample import begin as begin_sample
from opsin.errors import InputError
from opsin.structures import Instances

Example = tuple[Tensor, Instances]
COLOUR = Preprocessing(size=(96, 128), channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
PADDED = Preprocessing(size=(96, 128), channels=3, mean=(0.5,) * 3, std=(0.2,) * 3, fit="pad")
CROPPED = Preprocessing(size=(96, 128), channels=3, mean=(0.5,) * 3, std=(0.2,) * 3, fit="crop", crop_ratio=1.0)
GREY = Preprocessing(size=(64, 64), channels=1, mean=(0.5,), std=(0.2,))
NEEDED: dict[str, Any] = {
    "random_affine": {"degrees": 15, "translate": [0.2, 0.2], "scale": [0.8, 1.2], "shear": 10},
    "random_posterize": {"bits": 4},
    "random_rotation": {"degrees": 30},
    "random_solarize": {"threshold": 128},
    "gaussian_blur": {"kernel_size": 3},
    "random_adjust_sharpness": {"sharpness_factor": 2},
    "jpeg": {"quality": 50},
    "elastic_transform": {"alpha": 40.0},
    "scale_jitter_crop": {"min": 128, "max": 200},
}
# What moves things, always: each must put boxes, points, polygons and masks where it puts pixels.
MOVING: dict[str, list[Any]] = {
    "nothing": [{"keep": {}}],
    "horizontal": [{"random_horizontal_flip": {"p": 1.0}}],
    "vertical": [{"random_vertical_flip": {"p": 1.0}}],
    "expand": [{"expand": {"p": 1.0, "side_range": [1.2, 2.0]}}],
    "crop": [{"random_iou_crop": {"sampler_options": [0.0]}}],
    "jitter": [{"scale_jitter": {"scale": [0.5, 2.0]}}],
    "letterbox": [{"letterbox": {"grow": True, "centre": False}}],
    "affine": [{"random_affine": {**NEEDED["random_affine"], "interpolation": "bilinear"}}],
    "rotation": [{"random_rotation": {"degrees": 30, "interpolation": "bilinear"}}],
    "perspective": [{"random_perspective": {"p": 1.0, "distortion_scale": 0.3}}],
    "bent": [{"thin_plate_spline": {"distortion": 0.08}}],
    "borders": [{"moving_least_squares": {"radius": 5}}],
    "mosaic": [{"mosaic": {"p": 1.0}}],
    "random crop": [{"random_crop": {"padding": [30, 20]}}],
    "resized crop": [{"random_resized_crop": {"scale": [0.4, 1.0]}}],
    "jitter crop": [{"scale_jitter_crop": {"min": 130, "max": 180}}],
    "all": [
        {"random_vertical_flip": {"p": 1.0}},
        {"expand": {"p": 1.0, "side_range": [1.0, 1.5]}},
        "random_iou_crop",
        {"mosaic": {"p": 1.0}},
        {"scale_jitter": {"scale": [0.8, 1.2]}},
        {"random_affine": {"degrees": 10}},
        {"random_horizontal_flip": {"p": 1.0}},
    ],
}


def draw(seed: int, size: tuple[int, int] = (120, 150), count: int = 4) -> Example:
    """Rectangles, one to a quarter of the image, each of its own colour; masks, corners and outlines of them."""
    random = np.random.RandomState(seed)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    boxes, masks = [], []
    for k in range(count):
        top, left = (k // 2) * size[0] // 2, (k % 2) * size[1] // 2
        y, x = top + random.randint(4, 14), left + random.randint(4, 14)
        h, w = random.randint(18, 40), random.randint(18, 50)
        image[:, y : y + h, x : x + w] = COLOURS[k][:, None, None]
        boxes.append([x, y, x + w, y + h])
        masks.append(torch.zeros(size, dtype=torch.bool))
        masks[-1][y : y + h, x : x + w] = True
    made = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    corners = made[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    return image, Instances(
        made,
        torch.arange(len(boxes)),
        masks=torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool),
        points=corners,
        polygons=list(corners),
    )


COLOURS = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 250]], dtype=torch.uint8)


def extent(image: Tensor) -> Tensor:
    """The box around what is set in (H, W)."""
    places = image.nonzero()
    low, high = places.amin(dim=0), places.amax(dim=0) + 1
    return torch.stack([low[1], low[0], high[1], high[0]]).float()


def create(spec: Any, preprocessing: Preprocessing = COLOUR) -> Augmentation:
    augmentation = create_augmentation(spec, preprocessing)
    assert augmentation is not None
    return augmentation


def run(augmentation: Augmentation, example: Example, *partners: Example) -> Example:
    samples = [{"image": image, "instances": instances} for image, instances in (example, *partners)]
    image, instances = augmentation(samples[0], samples[1:]).values()
    return image, instances


def begin(image: Tensor, instances: Instances) -> Scene:
    return begin_sample({"image": image, "instances": instances})


def apply(spec: Any, example: Example, seed: int = 0, preprocessing: Preprocessing = COLOUR) -> Example:
    augmentation = create(spec, preprocessing)
    torch.manual_seed(seed)
    return run(augmentation, example, *[example] * augmentation.partners)


@pytest.mark.parametrize("preprocessing", [COLOUR, PADDED, CROPPED], ids=["squash", "pad", "crop"])
@pytest.mark.parametrize("name", MOVING)
def test_boxes_go_where_their_pixels_go(name: str, preprocessing: Preprocessing) -> None:
    found = 0
    for seed in range(6):
        # One rectangle in the corner of a dark image, so that every coloured pixel is its own.
        image, instances = draw(seed, count=1)
        example = image, instances
        augmentation = create(MOVING[name], preprocessing)
        dark = torch.zeros_like(image), instances[torch.zeros(0, dtype=torch.int64)]
        torch.manual_seed(seed)
        moved, left = run(augmentation, example, *[dark] * augmentation.partners)
        assert moved.shape == (3, *preprocessing.size) and moved.dtype == torch.uint8
        for k in range(len(left)):
            red = (moved[0].float() - moved[1].float()).abs() > 100
            assert left.masks is not None and left.points is not None and left.polygons is not None
            # The box of a turned or bent rectangle is around its corners, which antialiasing rounds off.
            slack = 2.0 if name in ("affine", "rotation", "perspective", "bent", "borders", "all") else 1.0
            assert (extent(red) - left.boxes[k]).abs().max() <= slack, (name, seed)
            assert (extent(left.masks[k]) - left.boxes[k]).abs().max() <= slack
            assert torch.equal(left.polygons[k], left.points[k])
            height, width = preprocessing.size
            around = torch.cat([left.points[k].amin(dim=0), left.points[k].amax(dim=0)])
            around[0::2], around[1::2] = around[0::2].clamp(0, width), around[1::2].clamp(0, height)
            bent = 2.0 if name in ("bent", "borders") else 0.01
            if name not in ("crop", "mosaic", "all"):  # there it is cut where the part or the quarter ends
                assert (around - left.boxes[k]).abs().max() <= bent
            found += 1
    assert found >= 2


@pytest.mark.parametrize("name", [name for name in MOVING if name not in ("affine", "all")])
def test_labels_stay_with_their_boxes(name: str) -> None:
    found = 0
    for seed in range(5):
        image, instances = apply([*MOVING[name], {"keep": {"visible": 0.5, "least": 6}}], draw(seed), seed)
        assert instances.labels is not None and instances.masks is not None
        for box, label, mask in zip(instances.boxes.tolist(), instances.labels, instances.masks, strict=True):
            x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
            assert (image[:, y, x].int() - COLOURS[label].int()).abs().max() <= 5
            assert mask[y, x]
            found += 1
    assert found >= 5


@pytest.mark.parametrize("kind", [RandomHorizontalFlip, RandomVerticalFlip])
def test_two_flips_are_none(kind: type) -> None:
    image, instances = draw(3)
    scene = begin(image, instances)
    once = kind(p=1.0)(scene, Frame(COLOUR))
    twice = kind(p=1.0)(once, Frame(COLOUR))
    assert not torch.equal(once.image, image) and not torch.equal(once.instances.boxes, instances.boxes)
    assert torch.equal(twice.image, image) and torch.equal(twice.instances.boxes, instances.boxes)
    assert instances.points is not None and instances.masks is not None
    assert torch.equal(twice.instances.points, instances.points)
    assert torch.equal(twice.instances.masks, instances.masks)


def test_a_flip_by_hand() -> None:
    instances = Instances(torch.tensor([[10.0, 5, 30, 20]]), torch.tensor([0]), points=torch.tensor([[[10.0, 5]]]))
    scene = begin(torch.zeros(3, 40, 100, dtype=torch.uint8), instances)
    flipped = RandomHorizontalFlip(1.0)(scene, Frame(COLOUR)).instances
    assert flipped.boxes.tolist() == [[70, 5, 90, 20]] and flipped.points.tolist() == [[[90, 5]]]
    flipped = RandomVerticalFlip(1.0)(scene, Frame(COLOUR)).instances
    assert flipped.boxes.tolist() == [[10, 20, 30, 35]] and flipped.points.tolist() == [[[10, 35]]]


# Equality with torchvision


def sample(example: Example) -> dict[str, Any]:
    image, instances = example
    size: Any = tuple(image.shape[-2:])
    boxes = tv_tensors.BoundingBoxes(instances.boxes, format="XYXY", canvas_size=size)  # type: ignore[call-overload]
    return {"image": tv_tensors.Image(image), "boxes": boxes, "labels": instances.labels}


def test_expand_is_torchvisions_zoom_out() -> None:
    example = draw(1)
    for seed in range(20):
        torch.manual_seed(seed)
        expected = v2.RandomZoomOut(fill={tv_tensors.Image: [10, 20, 30], "others": 0})(sample(example))
        torch.manual_seed(seed)
        scene = Expand(fill=[10, 20, 30])(begin(*example), Frame(COLOUR))
        assert torch.equal(scene.image, expected["image"]) and torch.equal(scene.instances.boxes, expected["boxes"])


def test_expand_fills_with_the_mean() -> None:
    preprocessing = Preprocessing(size=(32, 32), channels=3, mean=(0.485, 0.456, 0.406), std=(0.2,) * 3)
    scene = Expand(p=1.0, side_range=(3, 3))(begin(*draw(0)), Frame(preprocessing))
    assert scene.image[:, 0, 0].tolist() == [124, 116, 104] or scene.image[:, -1, -1].tolist() == [124, 116, 104]
    assert Expand(p=1.0)(begin(*draw(0)), Frame(COLOUR)).sized is False


def test_iou_crop_cuts_as_torchvision() -> None:
    random = np.random.RandomState(0)
    corners = random.uniform(0, 110, (60, 2))
    boxes = torch.from_numpy(np.hstack([corners, corners + random.uniform(4, 40, (60, 2))])).float()
    boxes = torch.minimum(boxes, torch.tensor([150.0, 120, 150, 120]))
    example = draw(0)[0], Instances(boxes, torch.arange(60))
    step = RandomIoUCrop()
    for seed in range(20):
        torch.manual_seed(seed)
        crop = step._find(boxes, (120, 150), 0.1)
        assert crop is not None
        left, top, right, bottom = (int(value) for value in crop)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        within = ((centre > crop[:2]) & (centre < crop[2:])).all(dim=1)
        torchvisions = v2.RandomIoUCrop()
        where = {"top": top, "left": left, "height": bottom - top, "width": right - left}
        torchvisions.make_params = lambda _, p={**where, "is_within_crop_area": within}: p  # type: ignore[method-assign, misc]
        expected = v2.SanitizeBoundingBoxes(labels_getter="default")(torchvisions(sample(example)))
        scene = step._cut(begin(*example), begin(*example).instances, crop, Frame(COLOUR))
        kept = Frame(COLOUR).finish(scene)
        large = (expected["boxes"][:, 2:] - expected["boxes"][:, :2] >= 1).all(dim=1)
        assert torch.equal(scene.image, expected["image"]) and torch.equal(
            kept.instances.boxes, expected["boxes"][large]
        )
        assert kept.instances.labels is not None
        assert torch.equal(kept.instances.labels, expected["labels"][large])


def test_iou_crop_has_torchvisions_distribution() -> None:
    image, instances = draw(2)
    instances = Instances(instances.boxes, instances.labels)
    ours, theirs = [], []
    for seed in range(100):
        torch.manual_seed(seed)
        ours.append(RandomIoUCrop()(begin(image, instances), Frame(COLOUR)).size)
        torch.manual_seed(seed)
        theirs.append(v2.RandomIoUCrop()(sample((image, instances)))["image"].shape[-2:])
    for statistic in (lambda s: np.prod(s, axis=1) / image[0].numel(), lambda s: s[:, 1] / s[:, 0]):
        first, second = statistic(np.array(ours)), statistic(np.array(theirs))
        error = np.sqrt((first.var() + second.var()) / 100)
        assert abs(first.mean() - second.mean()) < 3.5 * error


def test_iou_crop_keeps_its_promise() -> None:
    instances = draw(5)[1]
    for overlap in (0.1, 0.3, 0.5):
        for seed in range(15):
            torch.manual_seed(seed)
            crop = RandomIoUCrop()._find(instances.boxes, (120, 150), overlap)
            if crop is None:
                continue
            sides = crop[2:] - crop[:2]
            assert (crop == crop.floor()).all() and 0.5 <= sides[0] / sides[1] <= 2
            shared = torch.minimum(crop[2:], instances.boxes[:, 2:]) - torch.maximum(crop[:2], instances.boxes[:, :2])
            inner = shared.clamp(min=0).prod(dim=1)
            area = (instances.boxes[:, 2:] - instances.boxes[:, :2]).prod(dim=1)
            assert (inner / (sides.prod() + area - inner)).max() >= overlap


def test_iou_crop_ends_where_no_crop_fits() -> None:
    strip = begin(
        torch.zeros(3, 10, 400, dtype=torch.uint8), Instances(torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([0]))
    )
    never = RandomIoUCrop(sampler_options=[0.9])(strip, Frame(COLOUR))
    assert never is strip
    dot = begin(torch.zeros(3, 1, 1, dtype=torch.uint8), Instances(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([0])))
    for seed in range(5):
        torch.manual_seed(seed)
        assert RandomIoUCrop()(dot, Frame(COLOUR)).size == (1, 1)


def test_photometric_distortion_is_torchvisions_within_rounding() -> None:
    image = torch.randint(75, 150, (3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = 0
    for seed in range(60):
        torch.manual_seed(seed)
        expected = v2.RandomPhotometricDistort(hue=(0, 0))(image)
        torch.manual_seed(seed)
        changed = PhotometricDistort(hue=(0, 0))(image)
        if expected.min() > 0 and expected.max() < 255:  # nothing was clipped
            assert (changed.int() - expected.int()).abs().max() <= 3
            seen += 1
    assert seen > 20


def test_affine_is_torchvisions_and_boxes_are_cut_by_the_rule() -> None:
    example = draw(4)
    transform = v2.RandomAffine([-40, 40], translate=(0.3, 0.3), scale=(0.7, 1.3))
    dropped = 0
    for seed in range(20):
        torch.manual_seed(seed)
        expected = transform(sample(example))
        torch.manual_seed(seed)
        scene = Geometric(transform, ("affine",))(begin(*example), Frame(COLOUR, visible=0.25))
        assert torch.equal(scene.image, expected["image"])
        hard = F.clamp_bounding_boxes(expected["boxes"], clamping_mode="hard").as_subclass(Tensor)
        assert torch.allclose(scene.instances.boxes, hard[scene.instances.labels], atol=1e-3)
        dropped += 4 - len(scene.instances)
    assert dropped > 0


@pytest.mark.parametrize("size", [(50, 200), (200, 50), (30, 40), (96, 128), (97, 300)])
def test_letterbox_is_fit_pad(size: tuple[int, int]) -> None:
    example = draw(0, size=(max(size[0], 60), max(size[1], 60)), count=1)
    image, instances = example[0][..., : size[0], : size[1]], Instances(example[1].boxes, example[1].labels)
    moved, left = apply(["letterbox"], (image, instances))
    assert torch.equal(moved, PADDED.prepare(image))
    whole = begin(image, instances).instances.boxes
    assert torch.allclose(left.boxes, PADDED.place_boxes(whole, size), atol=1e-4)


def test_without_cropping_it_is_what_the_preprocessing_does() -> None:
    image, instances = draw(0)
    for preprocessing in (COLOUR, PADDED, CROPPED):
        moved, left = apply([{"random_grayscale": {"p": 0.0}}], (image, instances), preprocessing=preprocessing)
        assert torch.equal(moved, preprocessing.prepare(image))
        assert instances.labels is not None and left.labels is not None
        placed = preprocessing.place_boxes(instances.boxes, (120, 150))[left.labels]
        height, width = preprocessing.size
        cut = torch.minimum(placed.clamp(min=0), torch.tensor([width, height] * 2))
        assert torch.allclose(left.boxes, cut, atol=1e-4)


# The rule


def test_the_rule_by_hand() -> None:
    """Three quarters, a tenth and nothing of three boxes are in the image; and a region of which little is left."""
    boxes = torch.tensor([[-10.0, 0, 30, 10], [-36, 0, 4, 10], [-40, 0, 0, 10], [-1000, 0, 5, 10]])
    scene = begin(torch.zeros(3, 50, 50, dtype=torch.uint8), Instances(torch.zeros(0, 4), torch.zeros(0)))
    scene = Scene(scene.image, Instances(boxes, torch.tensor([0, 1, 2, -1])), torch.ones(4))
    for visible, labels in ((0.0, [0, 1, -1]), (0.09, [0, 1, -1]), (0.11, [0, -1]), (0.75, [0, -1]), (0.76, [-1])):
        cut = Frame(COLOUR, visible=visible).cut(scene)
        assert cut.instances.labels.tolist() == labels
    cut = Frame(COLOUR).cut(scene)
    assert cut.instances.boxes.tolist() == [[0, 0, 30, 10], [0, 0, 4, 10], [0, 0, 5, 10]]
    assert torch.allclose(cut.share, torch.tensor([0.75, 0.1, 5 / 1005]))


def test_shares_of_several_cuts_multiply() -> None:
    """Half, and of that half again: a quarter is left, and goes by a rule of 0.3."""
    image = torch.zeros(3, 50, 50, dtype=torch.uint8)
    frame = Frame(COLOUR, visible=0.3)
    scene = begin(image, Instances(torch.tensor([[0.0, 0, 40, 10]]), torch.tensor([0])))
    for kept in (1, 0):
        shifted = type(scene)(
            scene.image, Instances(scene.instances.boxes - torch.tensor([20.0, 0, 20, 0])), scene.share
        )
        shifted.instances.boxes[:, 2] = 40 - 20 if kept else 10
        shifted.instances.boxes[:, 0] = -20 if kept else -10
        scene = frame.cut(shifted)
        assert len(scene.instances) == kept


def test_regions_to_ignore_stay_in_a_crop_that_misses_their_centre() -> None:
    boxes = torch.tensor([[10.0, 10, 30, 30], [0, 0, 120, 90], [100, 80, 130, 110]])
    scene = begin(torch.zeros(3, 120, 150, dtype=torch.uint8), Instances(boxes, torch.tensor([0, -1, 1])))
    part = RandomIoUCrop._cut(scene, scene.instances, torch.tensor([5.0, 5, 45, 40]), Frame(COLOUR))
    assert part.instances.labels.tolist() == [0, -1]
    assert part.instances.boxes.tolist() == [[5, 5, 25, 25], [0, 0, 40, 35]]
    only = begin(scene.image, Instances(boxes, torch.tensor([-1, -1, -1])))
    assert RandomIoUCrop()(only, Frame(COLOUR)) is only


def wild(random: np.random.RandomState, count: int, size: tuple[int, int]) -> Instances:
    """Boxes as bad files have them: some flat, inverted, outside, or as small as a speck."""
    centres = random.uniform(-0.2, 1.2, (count, 2)) * size[::-1]
    sides = random.choice([0.0, 0.01, 1, 5, 40, 500, -3], (count, 2))
    boxes = np.hstack([centres - sides / 2, centres + sides / 2]).astype(np.float32)
    return Instances(torch.from_numpy(boxes), torch.from_numpy(random.randint(-1, 3, count)))


@pytest.mark.parametrize("name", [*MOVING, *(name for name in PRESETS if name != "none")])
def test_nothing_degenerate_comes_out(name: str) -> None:
    random = np.random.RandomState(0)
    for preprocessing in (COLOUR, PADDED, CROPPED):
        augmentation = create(MOVING.get(name, name), preprocessing)
        for seed, size in enumerate([(1, 1), (1, 300), (300, 2), (40, 40), (200, 90)]):
            examples = []
            for count in (30, *random.randint(0, 3, augmentation.partners) * 20):
                image = torch.from_numpy(random.randint(0, 256, (random.choice([1, 3]), *size), dtype=np.uint8))
                examples.append((image, wild(random, count, size)))
            before = [(image.clone(), instances.boxes.clone()) for image, instances in examples]
            torch.manual_seed(seed)
            image, left = run(augmentation, *examples)
            height, width = preprocessing.size
            assert image.shape == (3, height, width) and image.dtype == torch.uint8
            x1, y1, x2, y2 = left.boxes.unbind(1)
            assert bool((x2 - x1 >= 1).all() and (y2 - y1 >= 1).all() and torch.isfinite(left.boxes).all())
            assert bool((x1 >= 0).all() and (y1 >= 0).all() and (x2 <= width).all() and (y2 <= height).all())
            assert left.boxes.dtype == torch.float32 and left.labels is not None and left.labels.dtype == torch.int64
            for (drawn, boxes), (same, instances) in zip(before, examples, strict=True):
                assert torch.equal(drawn, same) and torch.equal(boxes, instances.boxes)


@pytest.mark.parametrize("name", [*MOVING, *(name for name in PRESETS if name != "none")])
def test_images_without_objects(name: str) -> None:
    image, instances = apply(MOVING.get(name, name), draw(0, count=0))
    assert image.shape == (3, 96, 128) and instances.boxes.shape == (0, 4)
    assert instances.labels is not None and instances.labels.dtype == torch.int64
    assert instances.masks is None or instances.masks.shape == (0, 96, 128)


def test_thousands_of_boxes() -> None:
    random = np.random.RandomState(0)
    corners = random.uniform(0, 400, (5000, 2)).astype(np.float32)
    boxes = torch.from_numpy(np.hstack([corners, corners + random.uniform(2, 60, (5000, 2)).astype(np.float32)]))
    example = torch.zeros(3, 480, 480, dtype=torch.uint8), Instances(boxes, torch.arange(5000))
    for name in ("ssd", "yolo", "light_boxes"):
        augmentation = create(name, COLOUR)
        begun = time.perf_counter()
        for seed in range(5):
            torch.manual_seed(seed)
            run(augmentation, example, *[example] * augmentation.partners)
        assert (time.perf_counter() - begun) / 5 < 1.0  # some 20 ms; the rest is for a busy machine


# The recipe


@pytest.mark.parametrize("name", sorted(set(_KNOWN) - set(_BLIND) - {"random_resize", "random_shortest_size"}))
def test_every_name_works(name: str) -> None:
    for preprocessing in (COLOUR, GREY):
        if preprocessing is GREY and name == "pca_lighting":
            continue
        for seed in range(3):
            example = draw(seed)
            image, instances = apply([{name: NEEDED.get(name)}], example, seed, preprocessing)
            assert image.shape == (preprocessing.channels, *preprocessing.size) and image.dtype == torch.uint8
            if name in _PIXELS:
                assert len(instances) == 4


@pytest.mark.parametrize("name", _BLIND)
def test_what_moves_pixels_unsaid_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"augmentation {name} moves pixels, not the instances in them"):
        apply([name], draw(0))


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    for preprocessing in (COLOUR, GREY):
        if name == "none":
            assert create_augmentation(name, preprocessing) is None
        else:
            assert len(describe_augmentation(name)) == len(PRESETS[name])
            image, _ = apply(name, draw(0), preprocessing=preprocessing)
            assert image.shape == (preprocessing.channels, *preprocessing.size)
    assert create_augmentation(None, COLOUR) is None and create_augmentation([], COLOUR) is None


def test_described_in_plain_words() -> None:
    spec = ["mosaic", {"scale_jitter": {"scale": [0.5, 1.5]}}, {"keep": {"visible": 0.3}}]
    assert describe_augmentation(spec) == [
        "mosaic (probability 0.5)",
        "scale jitter (scale [0.5, 1.5])",
        "keep (visible 0.3)",
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sdd", "augmentation preset"),
        (["mosiac"], "mosaic"),
        (["expand", "random_resized_crop"], "must come first"),
        ([{"expand": {"sides": [1, 2]}}], "side_range"),
        ([{"expand": {"side_range": [0.5, 2]}}], "1 or more"),
        ([{"expand": {"side_range": [3, 2]}}], "in order"),
        ([{"random_iou_crop": {"min_scale": 0.5, "max_scale": 2}}], "from 0 to 1"),
        ([{"random_iou_crop": {"sampler_options": []}}], "sampler_options"),
        ([{"scale_jitter": {"scale": 0.5}}], "scale_jitter"),
        ([{"mosaic": {"cut": [0.5, 1.5]}}], "from 0 to 1"),
        ([{"mixup": {"alpha": 0}}], "above 0"),
        ([{"keep": {"visible": 2}}], "share of the area"),
        ([{"random_rotation": {"degrees": [45, 45], "expand": True}}], "leave out the step that changes the size"),
        ([{"random_affine": {"degrees": 5, "interpolation": "best"}}], "interpolation of random_affine"),
    ],
)
def test_errors(spec: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create(spec)


def test_the_rule_is_set_by_keep() -> None:
    augmentation = create([{"keep": {"visible": 0.4, "least": 3}}, "random_horizontal_flip"])
    assert (augmentation.frame.visible, augmentation.frame.least) == (0.4, 3)
    boxes = torch.tensor([[0.0, 0, 2, 60], [20, 20, 60, 60]])
    blank = torch.zeros(3, 96, 128, dtype=torch.uint8)
    instances = run(augmentation, (blank, Instances(boxes, torch.tensor([0, 1]))))[1]
    assert instances.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("spec", "kinds"),
    [
        (["random_horizontal_flip"], ["Sizing", "RandomHorizontalFlip"]),
        ("ssd", ["Pixels", "Expand", "RandomIoUCrop", "Sizing", "RandomHorizontalFlip"]),
        (["mosaic", "random_invert"], ["Mosaic", "Sizing", "Pixels"]),
        (["mosaic", "letterbox"], ["Mosaic", "Letterbox"]),
        (["letterbox", "expand"], ["Letterbox", "Expand", "Sizing"]),
        (["random_resized_crop", "random_invert"], ["Geometric", "Pixels"]),
        (["scale_jitter_crop", "expand"], ["Geometric", "Expand", "Sizing"]),
    ],
)
def test_where_the_image_is_sized(spec: Any, kinds: list[str]) -> None:
    assert [type(step).__name__ for step in create(spec).steps] == kinds


def test_scale_jitter_stays_in_the_shape_of_the_preprocessing() -> None:
    example = (
        torch.zeros(3, 100, 100, dtype=torch.uint8),
        Instances(torch.tensor([[40.0, 40, 60, 60]]), torch.tensor([0])),
    )
    for preprocessing, ratio in ((COLOUR, 128 / 96), (PADDED, 1.0)):
        for seed in range(5):
            torch.manual_seed(seed)
            scene = ScaleJitter((0.5, 0.9))(begin(*example), Frame(preprocessing))
            sides = scene.instances.boxes[0, 2:] - scene.instances.boxes[0, :2]
            assert abs(float(sides[0] / sides[1]) - ratio) < 0.03


def test_an_exact_size_needs_no_resampling() -> None:
    image = torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)
    scene = begin(image, draw(0)[1])
    for step in (ScaleJitter((1, 1)), Letterbox(grow=True)):
        assert torch.equal(step(scene, Frame(COLOUR)).image, image)
    tile = Mosaic()._tile(scene, Frame(COLOUR), (96, 128))
    assert tile.size == (96, 128)


def test_the_old_names_stay() -> None:
    assert create_detection_augmentation is create_augmentation
    assert describe_detection_augmentation is describe_augmentation


def test_the_recipe_for_detectors_works() -> None:
    page = (Path(__file__).parents[3] / "docs" / "blocks" / "augmentation.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^``` yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert create(yaml.safe_load(block)["augment"]).partners >= 3

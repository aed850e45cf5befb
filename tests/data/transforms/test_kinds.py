"""Every step on every kind of field, by marked pixels: all of it goes where the image goes, or the step says no."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from opsin.data import Preprocessing
from opsin.data.transforms.augmentation import _BLIND, _GEOMETRY, _KNOWN, _PIXELS, Augmentation, create_augmentation
from opsin.data.transforms.augmentation import prepare_sample as prepare
from opsin.data.transforms.class_map import ClassMap
from opsin.data.transforms.points import Points
from opsin.data.transforms.sample import Sample
from opsin.errors import InputError
from opsin.structures import Instances

SQUASH = Preprocessing(size=(80, 64), channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
FITS = [
    SQUASH,
    Preprocessing(size=(80, 64), channels=3, mean=(0.5,) * 3, std=(0.2,) * 3, fit="pad"),
    Preprocessing(size=(80, 64), channels=3, mean=(0.5,) * 3, std=(0.2,) * 3, fit="crop"),
]
# Options that make each step happen; those of torchvision's that interpolate take whole pixels, to compare exactly.
OPTIONS: dict[str, dict[str, Any]] = {
    "random_horizontal_flip": {"p": 1.0},
    "random_vertical_flip": {"p": 1.0},
    "expand": {"p": 1.0, "side_range": [1.2, 1.6], "fill": 0},
    "random_zoom_out": {"p": 1.0, "side_range": [1.2, 1.6], "fill": 0},
    "scale_jitter": {"scale": [0.6, 1.5]},
    "mosaic": {"p": 1.0},
    "random_iou_crop": {"sampler_options": [0.0, 0.1]},
    "random_affine": {"degrees": 20, "translate": [0.1, 0.1], "scale": [0.8, 1.2], "shear": 8, "fill": 0},
    "random_rotation": {"degrees": 40},
    "random_perspective": {"p": 1.0, "distortion_scale": 0.3, "interpolation": "nearest"},
    "elastic_grid": {"sigma": 6.0, "interpolation": "nearest"},
    "elastic_transform": {"alpha": 60.0, "sigma": 6.0, "interpolation": "nearest"},
    "thin_plate_spline": {"interpolation": "nearest"},
    "random_crop": {"padding": [9, 5]},
    "scale_jitter_crop": {"min": 80, "max": 100},
    "random_resize": {"min_size": 80, "max_size": 90},
    "random_shortest_size": {"min_size": [80, 90]},
    "random_posterize": {"bits": 4},
    "random_solarize": {"threshold": 128},
    "gaussian_blur": {"kernel_size": 3},
    "jpeg": {"quality": 50},
    "random_adjust_sharpness": {"sharpness_factor": 2},
}
RESIZED = ("random_resize", "random_shortest_size")
MOVING = sorted(set(_KNOWN) - set(_PIXELS) - set(_BLIND) - {"mixup"})


def create(name: str, preprocessing: Preprocessing = SQUASH, **options: Any) -> Augmentation:
    spec: list[Any] = [{name: OPTIONS.get(name, {}) | options}, *(["random_crop"] if name in RESIZED else [])]
    augmentation = create_augmentation(spec, preprocessing)
    assert augmentation is not None
    return augmentation


def marked(height: int = 60, width: int = 90) -> Sample:
    """A bright rectangle in a grey image, off its middle: of class 3, an instance, with its corners and its middle."""
    top, left, bottom, right = 14, 20, 38, 62
    image = torch.full((3, height, width), 60, dtype=torch.uint8)
    image[:, top:bottom, left:right] = 240
    classes = (image[0] > 200) * 3
    places = [[left, top], [right, top], [right, bottom], [left, bottom], [(left + right) / 2, (top + bottom) / 2]]
    box = torch.tensor([[float(left), top, right, bottom]])
    size = (height, width)
    return {
        "image": image,
        "instances": Instances(box, torch.tensor([3]), masks=classes[None] > 0, points=torch.tensor([places])),
        "small": ClassMap(classes.to(torch.uint8)),
        "large": ClassMap(classes[None].long()),
        "mask": tv_tensors.Mask(classes > 0),
        "points": Points([places], canvas_size=size),
        "index": 5,
    }


def dark(sample: Sample) -> Sample:
    """The sample with nothing in it."""
    blank = dict(sample)
    blank["image"] = torch.full_like(sample["image"], 60)
    blank["instances"] = sample["instances"][torch.zeros(0, dtype=torch.int64)]
    for key in ("small", "large", "mask"):
        blank[key] = torch.zeros_like(sample[key].as_subclass(Tensor)).as_subclass(type(sample[key]))
    blank["points"] = Points(torch.full((1, 5, 2), torch.nan), canvas_size=sample["image"].shape[-2:])
    return blank


def changed(augmentation: Augmentation, sample: Sample, seed: int) -> Sample:
    torch.manual_seed(seed)
    return augmentation(sample, [dark(sample)] * augmentation.partners)


@pytest.mark.parametrize("preprocessing", FITS, ids=["squash", "pad", "crop"])
@pytest.mark.parametrize("name", MOVING)
def test_every_kind_goes_where_its_pixels_go(name: str, preprocessing: Preprocessing) -> None:
    augmentation, size, seen = create(name, preprocessing), preprocessing.size, 0
    for seed in range(8):
        moved = changed(augmentation, marked(), seed)
        assert moved.keys() == marked().keys() and moved["index"] == 5 and moved["image"].shape[-2:] == size
        bright, outside = moved["image"][0] > 150, moved["image"][0] < 20
        near = bright.sum().sqrt() * 8 + 30  # pixels along the border of what is marked, where images are smoothed
        for key, ignore in (("small", 255), ("large", -1)):
            classes = moved[key].as_subclass(Tensor).reshape(size)
            assert isinstance(moved[key], ClassMap) and set(classes.unique().tolist()) <= {0, 3, ignore}
            assert ((classes == 3) != bright).sum() < near
            assert ((classes == ignore) != outside).sum() < near
        assert type(moved["mask"]) is tv_tensors.Mask and moved["mask"].dtype == torch.bool
        assert torch.equal(moved["mask"].as_subclass(Tensor), moved["small"].as_subclass(Tensor) == 3)
        points = moved["points"]
        assert isinstance(points, Points) and points.canvas_size == size
        if len(moved["instances"]):
            own = moved["instances"].masks[0]
            known = ~points[0].isnan()  # a quarter of a mosaic does not show them all
            assert (own != bright).sum() < near
            assert torch.allclose(moved["instances"].points[0][known], points[0][known], atol=1e-3)
        for x, y in points[0, 4:].tolist():  # the middle of what is marked
            if 2 < x < size[1] - 2 and 2 < y < size[0] - 2:
                assert bright[int(y), int(x)]
                seen += 1
    assert seen


@pytest.mark.parametrize("name", sorted(_PIXELS))
def test_steps_of_colour_leave_every_kind_where_it_is(name: str) -> None:
    moved, expected = changed(create(name), marked(), 0), prepare(marked(), SQUASH)
    for key in ("small", "large", "mask", "points"):
        assert torch.equal(moved[key], expected[key])
    assert torch.equal(moved["instances"].boxes, expected["instances"].boxes)


@pytest.mark.parametrize("preprocessing", FITS, ids=["squash", "pad", "crop"])
def test_preparing_moves_every_kind(preprocessing: Preprocessing) -> None:
    prepared = prepare(marked(), preprocessing)
    bright = prepared["image"][0] > 150
    for key in ("small", "large", "mask"):
        here = prepared[key].as_subclass(Tensor).reshape(preprocessing.size)
        assert ((here == 3) | ((here == 1) & (key == "mask")) != bright).sum() < 60
    assert torch.equal(prepared["small"] == 255, prepared["image"][0] == 0)
    assert torch.equal(prepared["mask"].as_subclass(Tensor), prepared["instances"].masks[0])
    x, y = prepared["points"][0, 4].tolist()
    assert bright[int(y), int(x)] and torch.allclose(prepared["points"], prepared["instances"].points)


@pytest.mark.parametrize("size", [(20, 30), (120, 270), (44, 64), (60, 90), (80, 62)])
@pytest.mark.parametrize("axis", [0, 1])
def test_flip_then_resize_is_resize_then_flip(axis: int, size: tuple[int, int]) -> None:
    """No size here puts the middle of a new pixel on the border of two old ones, where there are two nearest."""
    resized, same = (
        Preprocessing(size=one, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3, interpolation="nearest")
        for one in (size, (60, 90))
    )
    name = ("random_horizontal_flip", "random_vertical_flip")[axis]
    sample = marked()
    generator = torch.Generator().manual_seed(0)
    sample["small"] = ClassMap(torch.randint(0, 9, (60, 90), dtype=torch.uint8, generator=generator))
    one = changed(create(name, resized), sample, 0)
    other = prepare(changed(create(name, same), sample, 0), resized)
    assert torch.equal(one["image"], other["image"])
    for key in ("small", "large", "mask"):
        assert torch.equal(one[key], other[key]), key
    assert torch.allclose(one["points"], other["points"], atol=1e-4)
    for field in ("boxes", "points"):
        first, second = (getattr(result["instances"], field) for result in (one, other))
        assert torch.allclose(first, second, atol=1e-4)
    assert torch.equal(one["instances"].masks, other["instances"].masks)


@pytest.mark.parametrize(
    "name", sorted({*_GEOMETRY} - {"random_resize", "random_shortest_size", "random_resized_crop"})
)
def test_what_comes_in_from_outside_is_ignored_and_no_class(name: str) -> None:
    image = torch.full((3, 80, 64), 200, dtype=torch.uint8)
    for dtype, ignore in ((torch.uint8, 255), (torch.int64, -1), (torch.bool, 0)):
        sample = {"image": image, "classes": ClassMap(torch.ones(80, 64).to(dtype))}
        outside = 0
        for seed in range(4):
            torch.manual_seed(seed)
            moved = create(name)(sample)
            assert torch.equal(moved["classes"].long() == ignore, moved["image"][0] == 0)
            assert set(moved["classes"].long().unique().tolist()) <= {1, ignore}
            outside += int((moved["image"] == 0).sum())
        assert outside > 0 or name in ("scale_jitter_crop", "moving_least_squares")  # which repeats the border


@pytest.mark.parametrize("fill", [1, 3])
def test_the_fill_of_an_image_is_not_that_of_a_map(fill: int) -> None:
    sample = marked()
    augmentation = create("random_affine", fill=fill)
    for seed in range(3):
        moved, black = changed(augmentation, sample, seed), changed(create("random_affine"), sample, seed)
        for key in ("small", "large", "mask"):
            assert torch.equal(moved[key], black[key])
        assert torch.equal(moved["instances"].masks, black["instances"].masks)


# What cannot be moved


class Depths(tv_tensors.TVTensor):
    """A kind of another package, with the kernels that the preprocessing wants, and no others."""


class Heights(tv_tensors.TVTensor):
    """One without any."""


def _keep_type(functional: Any) -> Any:
    def kernel(inpt: Any, *args: Any, **options: Any) -> Any:
        return functional(inpt.as_subclass(Tensor), *args, **options).as_subclass(Depths)

    return kernel


for _one in (F.crop, F.resize):
    F.register_kernel(_one, Depths)(_keep_type(_one))


@pytest.mark.parametrize("name", MOVING)
def test_a_kind_without_a_kernel_is_refused_by_name(name: str) -> None:
    image = marked()["image"]
    sample = {"image": image, "depth": Depths(torch.zeros(1, 60, 90))}
    augmentation = create(name)
    missing = {kernel for step in augmentation.steps for kernel in step.kernels} - {"crop", "resize"}  # type: ignore[attr-defined]
    if name == "mosaic":
        with pytest.raises(InputError, match="mosaic cannot put together the field depth, a Depths"):
            changed_with(augmentation, sample)
    elif missing:
        with pytest.raises(
            InputError, match=rf"^augmentation ({name}|random_crop) cannot move the field depth, Depths: it has no"
        ):
            changed_with(augmentation, sample)
    else:
        moved = changed_with(augmentation, sample)
        assert isinstance(moved["depth"], Depths) and moved["depth"].shape == (1, 80, 64)
    with pytest.raises(InputError, match=r"cannot move the field height, Heights: it has no kernel for"):
        changed_with(augmentation, {"image": image, "height": Heights(torch.zeros(1, 60, 90))})


def changed_with(augmentation: Augmentation, sample: Sample) -> Sample:
    return augmentation(sample, [sample] * augmentation.partners)


@pytest.mark.parametrize("name", sorted(_BLIND))
@pytest.mark.parametrize("key", ["instances", "small", "mask", "points"])
def test_steps_that_do_not_say_what_they_move_are_refused(name: str, key: str) -> None:
    sample = {"image": marked()["image"], key: marked()[key]}
    with pytest.raises(InputError, match=f"^augmentation {name} moves .*; leave it out$"):
        create(name)(sample)


@pytest.mark.parametrize("key", ["small", "mask", "points"])
def test_classes_and_points_are_not_blended(key: str) -> None:
    sample = {"image": marked()["image"], key: marked()[key]}
    with pytest.raises(InputError, match=f"augmentation mixup blends images, not the field {key}"):
        create("mixup", p=1.0)(sample, [sample])


def test_points_are_not_mirrored_into_a_border() -> None:
    sample = {"image": marked()["image"], "points": marked()["points"]}
    with pytest.raises(InputError, match="random_crop fails on an image of 80x64: padding mode reflect"):
        create("random_crop", padding_mode="reflect")(sample)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("boxes", tv_tensors.BoundingBoxes([[1, 2, 3, 4]], format="XYXY", canvas_size=(60, 90)), "give Instances"),  # type: ignore[call-overload]
        ("objects", Instances(torch.zeros(0, 4)), "in the field instances, not in objects"),
        ("several", [Points([[1.0, 2.0]], canvas_size=(60, 90))], "give each a field of its own"),
        ("classes", ClassMap(torch.zeros(60, 90)), "expected uint8, int64"),
        ("classes", ClassMap(torch.zeros(90, 60, dtype=torch.uint8)), "is of an image of 90x60, its own is 60x90"),
        ("points", Points([[1.0, 2.0]], canvas_size=(90, 60)), "is of an image of 90x60, its own is 60x90"),
    ],
)
def test_fields_that_nothing_could_move_are_named(field: str, value: Any, message: str) -> None:
    sample = {"image": marked()["image"], field: value}
    for call in (create("random_rotation"), lambda sample: prepare(sample, SQUASH)):
        with pytest.raises(InputError, match=message):
            call(sample)


def test_mosaic_puts_maps_and_points_together() -> None:
    def whole(label: int) -> Sample:
        image = torch.full((3, 60, 90), label, dtype=torch.uint8)
        return {
            "image": image,
            "classes": ClassMap(image[0].clone()),
            "dots": Points([[45.0, 30.0], [label, 1000.0]], canvas_size=(60, 90)),
        }

    for seed in range(6):
        torch.manual_seed(seed)
        moved = create("mosaic")(whole(10), [whole(20), whole(30), whole(40)])
        assert torch.equal(moved["classes"].as_subclass(Tensor), moved["image"][0])
        assert moved["dots"].shape == (8, 2) and moved["dots"].canvas_size == (80, 64)
        for label, (x, y) in zip((10, 20, 30, 40), moved["dots"][::2].tolist(), strict=True):
            assert x != x or moved["image"][0, int(y), int(x)] == label
        assert moved["dots"][1::2].isnan().all()


NUMBERS = (0, 7, 100, 254)


def noisy(dtype: torch.dtype, seed: int) -> tuple[Sample, set[int]]:
    """An image and a map of single pixels of far numbers, where any mixture of two is a number that is none of them."""
    generator = torch.Generator().manual_seed(seed)
    size = (61, 89)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
    drawn = torch.tensor(NUMBERS)[torch.randint(0, 4, size, generator=generator)]
    if dtype == torch.bool:
        maps = torch.stack([drawn == number for number in NUMBERS])
        return {"image": image, "class_map": ClassMap(maps)}, {0, 1}
    known = {number for number in NUMBERS if number < 255}
    return {"image": image, "class_map": ClassMap(drawn.to(dtype))}, {*known, 255 if dtype == torch.uint8 else -1}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.bool], ids=str)
@pytest.mark.parametrize("name", [*MOVING, *sorted(_PIXELS)])
def test_no_step_invents_a_class(name: str, dtype: torch.dtype) -> None:
    augmentation = create(name)
    for seed in range(3):
        sample, known = noisy(dtype, seed)
        others = [noisy(dtype, 10 + k)[0] for k in range(augmentation.partners)]
        torch.manual_seed(seed)
        moved = augmentation(sample, others)["class_map"]
        assert isinstance(moved, ClassMap) and moved.dtype == dtype and moved.shape[-2:] == SQUASH.size
        assert set(moved.long().unique().tolist()) <= known
        if dtype == torch.bool:  # a pixel is of one of the layers still, or of none where it came from outside
            assert int(moved.long().sum(dim=0).max()) == 1


@pytest.mark.parametrize("preprocessing", FITS, ids=["squash", "pad", "crop"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.bool], ids=str)
def test_preparing_invents_no_class(dtype: torch.dtype, preprocessing: Preprocessing) -> None:
    sample, known = noisy(dtype, 0)
    assert set(prepare(sample, preprocessing)["class_map"].long().unique().tolist()) <= known

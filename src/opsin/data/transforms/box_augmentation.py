"""Random changes of training images that take boxes, masks and points along, by name: the `augment` of a detector.

One rule says what leaves an image, `Frame`'s, and `keep: {visible: ..., least: ...}` in a recipe sets it. Only SSD's
random crop evaluates by another, its paper's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from opsin.data.loading import Annotated
from opsin.data.preprocessing import Preprocessing
from opsin.data.transforms.augmentation import Spec, create_step, describe_steps, parse_steps
from opsin.data.transforms.colour import FusedColorJitter, PCALighting, jitter_colours
from opsin.data.transforms.crops import (
    Expand,
    Letterbox,
    RandomIoUCrop,
    ScaleJitter,
    Sizing,
    between,
    check_range,
    happens,
    zoomed,
)
from opsin.data.transforms.geometry import ElasticTransform, ThinPlateSpline
from opsin.data.transforms.scene import Frame, Scene, begin, join, mirror, place
from opsin.errors import InputError
from opsin.structures import Instances

Step = Callable[..., Scene]  # (scene, frame), and for one with `partners`: (scene, frame, partner)
Partner = Callable[[int], Scene]  # the k-th of a step's partners, as far along as the scene that it is for

PRESETS: dict[str, list[dict[str, dict[str, Any]]]] = {
    "none": [],
    # Liu et al. 2016 (SSD, arXiv:1512.02325), sec. 2.2 and, for the expansion, 3.6.
    "ssd": [{"photometric_distort": {}}, {"expand": {}}, {"random_iou_crop": {}}, {"random_horizontal_flip": {}}],
    # Bochkovskiy et al. 2020 (YOLOv4, arXiv:2004.10934), the colours as in its published configuration; scale and
    # place by as much as in YOLOv1 (Redmon et al. 2016, arXiv:1506.02640), sec. 2.2.
    "yolo": [
        {"mosaic": {}},
        {"scale_jitter": {"scale": [0.8, 1.2]}},
        {"random_horizontal_flip": {}},
        {"fused_color_jitter": {"brightness": [0.67, 1.5], "saturation": [0.67, 1.5], "hue": 0.1}},
    ],
    # For small data on which objects have much the same size: nothing is turned over or cut far.
    "light_boxes": [
        {"scale_jitter": {"scale": [0.8, 1.25]}},
        {"random_horizontal_flip": {}},
        {"fused_color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}},
    ],
}


class SceneAugmentation:
    """An image as it was read and its instances -> input, uint8 (channels, height, width), and instances in it.

    What `opsin.data.loading.DetectionAugmentation` asks for. The first steps may see the image as it was read; the
    preprocessing sizes it before all others, unless a step does so itself. Boxes that come out lie within the input and
    have sides of `frame.least` pixels or more.
    """

    def __init__(self, frame: Frame, steps: Sequence[Step]) -> None:
        self.frame, self.steps = frame, tuple(steps)
        self.partners = self._needed(len(self.steps))

    def __call__(self, image: Tensor, instances: Instances, /, *partners: Sequence[Annotated]) -> Annotated:
        others = partners[0] if partners else ()
        scene = self.frame.finish(self._run((image, instances), len(self.steps), others))
        return scene.image, scene.instances

    def _run(self, example: Annotated, count: int, partners: Sequence[Annotated]) -> Scene:
        """An example after the first `count` steps. Partners go through the steps before the one that mixes them."""
        image, instances = example
        scene = begin(self.frame.preprocessing.match_channels(image), instances)
        used = 0
        for index, step in enumerate(self.steps[:count]):
            wanted = getattr(step, "partners", 0)
            if not wanted:
                scene = step(scene, self.frame)
                continue
            each = 1 + self._needed(index)
            own, used = partners[used : used + wanted * each], used + wanted * each
            scene = step(scene, self.frame, self._partner(own, each, index))
        return scene

    def _partner(self, partners: Sequence[Annotated], each: int, count: int) -> Partner:
        def read(k: int) -> Scene:
            return self._run(partners[k * each], count, partners[k * each + 1 : (k + 1) * each])

        return read

    def _needed(self, count: int) -> int:
        """How many partners the first `count` steps can want, those of partners included."""
        needed = 0
        for step in self.steps[:count]:
            needed += getattr(step, "partners", 0) * (1 + needed)
        return needed


def create_detection_augmentation(spec: Spec, preprocessing: Preprocessing) -> SceneAugmentation | None:
    """The augmentation that a detector's recipe names, None where it names none.

    spec: a preset (none, ssd, yolo, light_boxes), or a list of names and {name: options}, in the order in which they
    are done; `keep` sets the rule for all of them. Raises InputError for an unknown name or option, and for what cannot
    work.
    """
    parsed = parse_steps(spec, _KNOWN, PRESETS)
    if not parsed:
        return None
    frame, steps = Frame(preprocessing), []
    for name, options in parsed:
        made = create_step(name, options, _KNOWN[name])
        if isinstance(made, Keep):
            frame = replace(frame, visible=made.visible, least=made.least)
        else:
            steps.append(Pixels(made) if name in _PIXELS else Bending(made) if name in _BENDING else made)
    augmentation = SceneAugmentation(frame, _with_sizing(steps))
    _try(augmentation, [name for name, _ in parsed])
    return augmentation


def describe_detection_augmentation(spec: Spec) -> list[str]:
    """One line in plain words for each step, as `describe_augmentation` for images with labels."""
    return describe_steps(parse_steps(spec, _KNOWN, PRESETS), _KNOWN)


@dataclass(frozen=True)
class Keep:
    """The rule for all steps, no step itself; see `Frame`."""

    visible: float = 0.1
    least: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.visible <= 1 or not self.least > 0:
            raise ValueError("visible is a share of the area, from 0 to 1, and least a number of pixels above 0")


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Left to right; x becomes width - x."""

    p: float = 0.5

    def __call__(self, scene: Scene, frame: Frame) -> Scene:
        return mirror(scene, axis=0) if happens(self.p) else scene


@dataclass(frozen=True)
class RandomVerticalFlip:
    """Upside down; y becomes height - y."""

    p: float = 0.5

    def __call__(self, scene: Scene, frame: Frame) -> Scene:
        return mirror(scene, axis=1) if happens(self.p) else scene


class PhotometricDistort(v2.RandomPhotometricDistort):
    """torchvision's, the distortion of SSD, as one affine map of the colours: see `FusedColorJitter`. Draw for draw."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        contrast = ("contrast", params["contrast_factor"])
        steps = [(name, params[f"{name}_factor"]) for name in ("brightness", "saturation", "hue")]
        steps.insert(1 if params["contrast_before"] else 3, contrast)
        grey = inpt.shape[-3] == 1
        drawn = [step for step in steps if step[1] is not None and not (grey and step[0] in ("saturation", "hue"))]
        if drawn:
            changed = jitter_colours(inpt.expand(3, -1, -1) if grey else inpt, drawn)
            inpt = changed[:1] if grey else changed
        order = params["channel_permutation"]
        return inpt if order is None else inpt[order]


@dataclass(frozen=True)
class Mosaic:
    """Four images in one, each cut at random to its quarter. Bochkovskiy et al. 2020 (YOLOv4, arXiv:2004.10934).

    cut: where the quarters meet, as parts of both sides. scale: of each image, times the size that the preprocessing
    gives it, but so large at least that it fills its quarter. An image that is not drawn (p) goes on as it is. p and
    cut are those of the authors' darknet.
    """

    p: float = 0.5
    cut: Sequence[float] = (0.2, 0.8)
    scale: Sequence[float] = (0.5, 1.5)
    partners: ClassVar[int] = 3

    def __post_init__(self) -> None:
        check_range("cut", self.cut, least=0.0, most=1.0)
        check_range("scale", self.scale, least=0.0)

    def __call__(self, scene: Scene, frame: Frame, partner: Partner) -> Scene:
        if not happens(self.p):
            return scene
        ends = [(0, min(max(1, round(side * between(self.cut))), side - 1), side) for side in frame.size]
        image = scene.image.new_empty(frame.preprocessing.channels, *frame.size)
        tiles = []
        for k in range(4):
            (top, bottom), (left, right) = ends[0][k // 2 : k // 2 + 2], ends[1][k % 2 : k % 2 + 2]
            tile = self._tile(partner(k - 1) if k else scene, frame, (bottom - top, right - left))
            image[:, top:bottom, left:right] = tile.image
            moved = place(tile.instances, (1, 1), (left, top))
            if moved.masks is not None:
                masks = moved.masks.new_zeros(len(moved), *frame.size)
                masks[:, top:bottom, left:right] = moved.masks
                moved.masks = masks
            tiles.append(replace(tile, instances=moved, sized=True))
        return join(tiles, image)

    def _tile(self, scene: Scene, frame: Frame, size: tuple[int, int]) -> Scene:
        least = max(
            side / (length * scale) for side, length, scale in zip(size, scene.size, frame.scale(scene), strict=True)
        )
        zoom = max(between(self.scale), least)
        return frame.cut(zoomed(scene, frame, zoom, size, frame.colour(0)))


@dataclass(frozen=True)
class MixUp:
    """The sum of two images, and the objects of both. Zhang et al. 2019, arXiv:1902.04103, sec. 3.1.

    alpha: of the Beta distribution that the share is drawn from; the paper's 1.5 makes both visible, mostly. The two
    lie on each other as they are, not deformed, at the size of the input. Every object counts in full; the paper
    weights the loss of each by its image's share.
    """

    p: float = 0.5
    alpha: float = 1.5
    partners: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise ValueError("alpha must be above 0")

    def __call__(self, scene: Scene, frame: Frame, partner: Partner) -> Scene:
        if not happens(self.p):
            return scene
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        other = partner(0)
        image = torch.lerp(other.image.float(), scene.image.float(), share).round_().to(torch.uint8)
        return join([scene, other], image)


@dataclass(frozen=True)
class Pixels:
    """A v2 transform that moves nothing."""

    transform: v2.Transform

    def __call__(self, scene: Scene, frame: Frame) -> Scene:
        return replace(scene, image=self.transform(scene.image))


@dataclass(frozen=True)
class Bending:
    """A v2 transform that turns or bends: a box becomes the one around where its outline goes."""

    transform: v2.Transform

    def __call__(self, scene: Scene, frame: Frame) -> Scene:
        instances = scene.instances
        sample: dict[str, Any] = {"image": tv_tensors.Image(scene.image)}
        size: dict[str, Any] = {"canvas_size": scene.size}
        if len(instances):
            size_and_form = size | _UNCLAMPED | {"format": "XYXY"}
            sample["boxes"] = tv_tensors.BoundingBoxes(instances.boxes, **size_and_form)  # type: ignore[call-arg]
            if instances.masks is not None:
                sample["masks"] = tv_tensors.Mask(instances.masks)
            if (parts := _outlines(instances)) and sum(map(len, parts)):
                sample["points"] = tv_tensors.KeyPoints(torch.cat(parts), **size)  # type: ignore[call-arg]
        bent = {key: value.as_subclass(Tensor) for key, value in self.transform(sample).items()}
        if "boxes" in bent:
            instances = replace(instances, boxes=bent["boxes"], masks=bent.get("masks"))
        if "points" in bent:
            instances = _with_outlines(instances, bent["points"])
        return frame.cut(replace(scene, image=bent["image"], instances=instances))


# torchvision before 0.23 cuts boxes by itself, so that what is cut here does not count as lost.
_CLAMPS = "clamping_mode" in inspect.signature(tv_tensors.BoundingBoxes.__new__).parameters
_UNCLAMPED: dict[str, Any] = {"clamping_mode": None} if _CLAMPS else {}


def _outlines(instances: Instances) -> list[Tensor]:
    """Points and polygons, each (any, 2)."""
    points = [] if instances.points is None else [instances.points.flatten(0, 1)]
    return points + (instances.polygons or [])


def _with_outlines(instances: Instances, places: Tensor) -> Instances:
    parts = list(places.split([len(part) for part in _outlines(instances)]))
    points = None if instances.points is None else parts.pop(0).view_as(instances.points)
    return replace(instances, points=points, polygons=None if instances.polygons is None else parts)


_OURS: dict[str, Any] = {
    "expand": Expand,
    "keep": Keep,
    "letterbox": Letterbox,
    "mixup": MixUp,
    "mosaic": Mosaic,
    "random_horizontal_flip": RandomHorizontalFlip,
    "random_iou_crop": RandomIoUCrop,
    "random_vertical_flip": RandomVerticalFlip,
    "random_zoom_out": Expand,
    "scale_jitter": ScaleJitter,
}
_PIXELS: dict[str, Any] = {
    "color_jitter": v2.ColorJitter,
    "fused_color_jitter": FusedColorJitter,
    "gaussian_blur": v2.GaussianBlur,
    "jpeg": v2.JPEG,
    "pca_lighting": PCALighting,
    "photometric_distort": PhotometricDistort,
    "random_adjust_sharpness": v2.RandomAdjustSharpness,
    "random_autocontrast": v2.RandomAutocontrast,
    "random_channel_permutation": v2.RandomChannelPermutation,
    "random_equalize": v2.RandomEqualize,
    "random_erasing": v2.RandomErasing,
    "random_grayscale": v2.RandomGrayscale,
    "random_invert": v2.RandomInvert,
    "random_photometric_distort": PhotometricDistort,
    "random_posterize": v2.RandomPosterize,
    "random_solarize": v2.RandomSolarize,
}
_BENDING: dict[str, Any] = {
    "elastic_transform": ElasticTransform,
    "random_affine": v2.RandomAffine,
    "random_perspective": v2.RandomPerspective,
    "random_rotation": v2.RandomRotation,
    "thin_plate_spline": ThinPlateSpline,
}
_KNOWN = _OURS | _PIXELS | _BENDING
_UNSIZE = (Expand, RandomIoUCrop)


def _with_sizing(steps: Sequence[Step]) -> list[Step]:
    """The steps, and the preprocessing where it must size the image: as early as they allow."""
    steps = list(steps)
    resizing = [i for i, step in enumerate(steps) if isinstance(step, (*_UNSIZE, Mosaic))]
    first = resizing[-1] + 1 if resizing else 0
    if not any(isinstance(step, (ScaleJitter, Letterbox)) for step in steps[first:]):
        steps.insert(first, Sizing())
    sized = False
    for step in steps:
        if isinstance(step, (Sizing, ScaleJitter, Letterbox)):
            sized = True
        elif isinstance(step, _UNSIZE):
            sized = False
        elif isinstance(step, MixUp) and not sized:
            raise InputError(
                "augmentation mixup adds images of one size; put it behind expand, random_iou_crop, mosaic, "
                "scale_jitter and letterbox"
            )
    return steps


def _try(augmentation: SceneAugmentation, names: list[str]) -> None:
    """Run a blank image through, to learn now and not in the first epoch what does not work."""
    preprocessing = augmentation.frame.preprocessing
    expected = height, width = preprocessing.size
    blank = torch.zeros(preprocessing.channels, height, width, dtype=torch.uint8)
    boxes = torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * torch.tensor([width, height] * 2)
    example = blank, Instances(boxes, torch.zeros(1, dtype=torch.int64))
    with torch.random.fork_rng(devices=[]):
        for _ in range(3):
            try:
                image, _instances = augmentation(*example, [example] * augmentation.partners)
            except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
                reason = " ".join(str(error).split())
                raise InputError(
                    f"augmentation {', '.join(names)} fails on images of shape {tuple(blank.shape)}: {reason}"
                ) from error
            if image.shape != (preprocessing.channels, *expected) or image.dtype != torch.uint8:
                raise InputError(
                    f"augmentation {', '.join(names)} turns images of shape {tuple(blank.shape)} into "
                    f"{tuple(image.shape)} {image.dtype}; leave out the step that changes the size"
                )

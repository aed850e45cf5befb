"""Random changes of training samples, by name: torchvision's v2 transforms, and those that it lacks.

One list of steps for every kind of truth: what has a place in the image moves with it, and a step that cannot move a
field says so. One rule says what leaves an image, that of `Frame`, and `keep: {visible: ..., least: ...}` in a recipe
sets it. Only the random crop of SSD has another, its paper's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import torch
from torch import Tensor
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode, v2

from opsin.data.coordinates import keep_inside, prepare_field, prepare_instances
from opsin.data.preprocessing import INTERPOLATIONS, Preprocessing
from opsin.data.resizing import MODES
from opsin.data.transforms.colour import FusedColorJitter, PCALighting, PhotometricDistort, Pixels
from opsin.data.transforms.crops import Expand, Letterbox, RandomIoUCrop, ScaleJitter, Sizing
from opsin.data.transforms.geometry import (
    ElasticGrid,
    ElasticTransform,
    Geometric,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    ScaleJitterCrop,
    ThinPlateSpline,
)
from opsin.data.transforms.mosaic import MixUp, Mosaic, Partner
from opsin.data.transforms.moving_points import MovingLeastSquares
from opsin.data.transforms.sample import Frame, Sample, Scene, begin, end, missing_kernel
from opsin.errors import InputError, unknown

Spec = Sequence[str | Mapping[str, Mapping[str, Any] | None]] | str | None
Step = Callable[..., Scene]  # (scene, frame), and for one with `partners`: (scene, frame, partner)

PRESETS: dict[str, list[dict[str, dict[str, Any]]]] = {
    "none": [],
    # Small shifts, turns and sizes, as hands and scanners make them; no flips, which would make other digits.
    "digits": [
        {"random_affine": {"degrees": 10, "translate": [0.1, 0.1], "scale": [0.9, 1.1], "interpolation": "bilinear"}}
    ],
    # CIFAR's since Lee et al. 2015 (arXiv:1409.5185) and He et al. 2016, sec. 4.2, there with 4 of 32 pixels.
    "light": [{"random_crop": {"padding": 4}}, {"random_horizontal_flip": {}}],
    # Inception's: Szegedy et al. 2015 (arXiv:1409.4842), sec. 6.
    "imagenet": [{"random_resized_crop": {}}, {"random_horizontal_flip": {}}],
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


class Augmentation:
    """A sample as it was read -> prepared and randomly changed: image uint8 (channels, height, width), the rest in it.

    partners: the most other samples that one call can want (mosaic, MixUp), 0 for most. It draws from torch's global
    CPU generator alone, and changes none of what it is given. The first steps may see the image as it was read; the
    preprocessing sizes it before all others, unless a step does so itself. Boxes that come out lie within the input and
    have sides of `frame.least` pixels or more. Raises InputError where a step cannot move what a sample holds.
    """

    def __init__(self, frame: Frame, steps: Sequence[tuple[str, Step]]) -> None:
        self.frame = frame
        self.names, self.steps = tuple(name for name, _ in steps), tuple(step for _, step in steps)
        self._wanted = [getattr(step, "partners", 0) for step in self.steps]
        self.partners = self._needed(len(self.steps))
        # A step that sizes the image as it was read takes one of any number of channels; fewer pixels are matched then.
        self._sizes_first = bool(self.steps) and getattr(self.steps[0], "any_channels", False)
        self._checked: set[tuple[type, ...]] = set()

    @overload
    def __call__(self, sample: Tensor, partners: Sequence[Sample] = ()) -> Tensor: ...

    @overload
    def __call__(self, sample: Sample, partners: Sequence[Sample] = ()) -> Sample: ...

    def __call__(self, sample: Sample | Tensor, partners: Sequence[Sample] = ()) -> Sample | Tensor:
        """The sample changed; of an image alone, the image."""
        if isinstance(sample, Tensor):
            return self({"image": sample}, partners)["image"]
        if len(partners) < self.partners:
            raise InputError(f"the augmentation mixes up to {self.partners} other samples, and got {len(partners)}")
        return end(self.frame.finish(self._run(sample, len(self.steps), partners)), sample)

    def _run(self, sample: Sample, count: int, partners: Sequence[Sample]) -> Scene:
        """A sample after the first `count` steps. Partners go through the steps before the one that mixes them."""
        scene = begin(sample)
        if len(sample) > 1:
            self._check(sample, scene)
        if not (count and self._sizes_first):
            scene = self._match_channels(scene)
        used = 0
        for index, step in enumerate(self.steps[:count]):
            try:
                if wanted := self._wanted[index]:
                    each = 1 + self._needed(index)
                    own, used = partners[used : used + wanted * each], used + wanted * each
                    scene = step(scene, self.frame, self._partner(own, each, index))
                else:
                    scene = step(scene, self.frame)
            except (TypeError, ValueError) as error:
                size = "x".join(map(str, scene.size))
                reason = " ".join(str(error).split())
                raise InputError(f"augmentation {self.names[index]} fails on an image of {size}: {reason}") from error
            if index == 0 and self._sizes_first:
                scene = self._match_channels(scene)
        return scene

    def _match_channels(self, scene: Scene) -> Scene:
        image = self.frame.preprocessing.match_channels(scene.image)
        return scene if image is scene.image else scene._replace(image=image)

    def _partner(self, partners: Sequence[Sample], each: int, count: int) -> Partner:
        def read(k: int) -> Scene:
            return self._run(partners[k * each], count, partners[k * each + 1 : (k + 1) * each])

        return read

    def _needed(self, count: int) -> int:
        """How many partners the first `count` steps can want, those of partners included."""
        needed = 0
        for wanted in self._wanted[:count]:
            needed += wanted * (1 + needed)
        return needed

    def _check(self, sample: Sample, scene: Scene) -> None:
        """Raise InputError for a step that cannot do to a sample's other fields what it does to the image."""
        kinds = tuple(map(type, sample.values()))
        if kinds in self._checked:
            return
        for name, step in zip(self.names, self.steps, strict=True):
            who = "the preprocessing" if isinstance(step, Sizing) else f"augmentation {name}"
            kernels, blends = step.kernels, getattr(step, "blends", False)  # type: ignore[attr-defined]
            if getattr(step, "partners", 0) and scene.plain:
                carried = ", ".join(key for key in sample if key != "image")
                raise InputError(
                    f"{who} mixes images, and {carried} of a whole image cannot be mixed so; "
                    "leave it out, or take the recipe's mixing"
                )
            if kernels is None and not blends and scene.instances is not None:
                raise InputError(f"{who} moves pixels, not the instances in them; leave it out")
            for key, value in scene.moving.items():
                kind = f"the field {key}, {type(sample[key]).__name__}"
                if kernels is None:
                    raise InputError(f"{who} {'blends' if blends else 'moves'} images, not {kind}; leave it out")
                if missing := missing_kernel(value, kernels):
                    raise InputError(
                        f"{who} cannot move {kind}: it has no kernel for {missing}; "
                        "register one with torchvision's register_kernel, or leave the step out"
                    )
        self._checked.add(kinds)


def prepare_sample(sample: Sample, preprocessing: Preprocessing) -> Sample:
    """A sample as it was read, as the network takes it, without a random change: in validation and use.

    Boxes are cut at the border of the input and those outside it are dropped, which only fit "crop" makes happen.
    Raises InputError for a field that cannot be moved.
    """
    image = sample["image"]
    prepared = {**sample, "image": preprocessing.prepare(image)}
    if len(sample) == 1:
        return prepared
    scene, size = begin({**sample, "instances": None}), tuple(image.shape[-2:])
    moving = {}
    for key, value in scene.moving.items():
        if missing := missing_kernel(value, ("crop", "resize")):
            kind = type(value).__name__
            raise InputError(f"the preprocessing cannot move the field {key}, {kind}: it has no kernel for {missing}")
        moving[key] = prepare_field(value, size, preprocessing)
    prepared = end(scene._replace(image=prepared["image"], moving=moving), sample)
    instances = sample.get("instances")
    if instances is not None:
        prepared["instances"] = keep_inside(prepare_instances(instances, size, preprocessing), preprocessing.size)
    return prepared


def create_augmentation(spec: Spec, preprocessing: Preprocessing) -> Augmentation | None:
    """The augmentation that a recipe names, None where it names none.

    spec: a preset, or a list of names and {name: options}, in the order in which they are done; `keep` sets the rule
    for all of them. A name is that of a torchvision.transforms.v2 class in snake_case, or one of ours.
    random_resized_crop and scale_jitter_crop must come first. Raises InputError for an unknown name or option, and for
    what cannot work.
    """
    parsed = _parse(spec)
    if not parsed:
        return None
    frame, steps = Frame(preprocessing), []
    for name, options in parsed:
        if name in _SIZING and steps:
            raise InputError(f"augmentation {name} sets the size of the image and must come first")
        made = _create(name, options, preprocessing)
        if isinstance(made, Keep):
            frame = replace(frame, visible=made.visible, least=made.least)
        else:
            steps.append((name, made))
    augmentation = Augmentation(frame, _with_sizing(steps))
    _try(augmentation, [name for name, _ in parsed])
    return augmentation


def describe_augmentation(spec: Spec) -> list[str]:
    """One line in plain words for each step, with its options and the probability that the reader cannot see."""
    lines = []
    for name, options in _parse(spec):
        defaults = inspect.signature(_kind(name, options)).parameters.items()
        shown = {k: p.default for k, p in defaults if k == "p" and p.default is not p.empty} | options
        if "p" in shown:
            shown["probability"] = shown.pop("p")
        told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())
        lines.append(name.replace("_", " ") + (f" ({told})" if told else ""))
    return lines


create_detection_augmentation, describe_detection_augmentation = create_augmentation, describe_augmentation  # old names


# The table of steps


@dataclass(frozen=True)
class Keep:
    """The rule for all steps, no step itself; see `Frame`."""

    visible: float = 0.1
    least: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.visible <= 1 or not self.least > 0:
            raise ValueError("visible is a share of the area, from 0 to 1, and least a number of pixels above 0")


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
# Of v2's kind, and moving nothing.
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
# Of v2's kind, and moving things by these of torchvision's functionals.
_GEOMETRY: dict[str, tuple[Any, tuple[str, ...]]] = {
    "elastic_grid": (ElasticGrid, ("elastic",)),
    "elastic_transform": (ElasticTransform, ("elastic",)),
    "moving_least_squares": (MovingLeastSquares, ("elastic",)),
    "random_affine": (v2.RandomAffine, ("affine",)),
    "random_crop": (v2.RandomCrop, ("pad", "crop")),
    "random_perspective": (v2.RandomPerspective, ("perspective",)),
    "random_resize": (v2.RandomResize, ("resize",)),
    "random_resized_crop": (v2.RandomResizedCrop, ("resized_crop",)),
    "random_rotation": (v2.RandomRotation, ("rotate",)),
    "random_shortest_size": (v2.RandomShortestSize, ("resize",)),
    "scale_jitter_crop": (ScaleJitterCrop, ("center_crop", "resize", "crop")),
    "thin_plate_spline": (ThinPlateSpline, ("elastic",)),
}
# Of torchvision's, and moving pixels without saying where.
_BLIND: dict[str, Any] = {
    "aug_mix": v2.AugMix,
    "auto_augment": v2.AutoAugment,
    "rand_augment": v2.RandAugment,
    "trivial_augment_wide": v2.TrivialAugmentWide,
}
_KNOWN = _OURS | _PIXELS | {name: kind for name, (kind, _) in _GEOMETRY.items()} | _BLIND
_SIZING = ("random_resized_crop", "scale_jitter_crop")
_SIZED = (*_SIZING, "random_crop")  # they get the size from the preprocessing
_BENDING = ("elastic_grid", "elastic_transform", "moving_least_squares", "thin_plate_spline")
_UNSIZE = (Expand, RandomIoUCrop)


def _kind(name: str, options: Mapping[str, Any]) -> Any:
    """What a step is made of. torchvision's ScaleJitter, which sizes to a target, is recognised by that."""
    return v2.ScaleJitter if name == "scale_jitter" and "target_size" in options else _KNOWN[name]


def _parse(spec: Spec) -> list[tuple[str, dict[str, Any]]]:
    """The (name, options) that a recipe lists. Raises InputError."""
    if spec is None:
        return []
    if isinstance(spec, str):
        if spec not in PRESETS:
            raise unknown("augmentation preset", spec, PRESETS)
        spec = PRESETS[spec]
    parsed = []
    for step in spec:
        if isinstance(step, Mapping) and len(step) != 1:
            raise InputError(f"an augmentation step is a name or one {{name: options}}, got {dict(step)}")
        name, options = next(iter(step.items())) if isinstance(step, Mapping) else (step, {})
        if name not in _KNOWN:
            raise unknown("augmentation", name, _KNOWN)
        parsed.append((name, dict(options or {})))
    return parsed


def _create(name: str, options: dict[str, Any], preprocessing: Preprocessing) -> Any:
    """A step, or the rule."""
    options = dict(options)
    if name in _SIZED:
        options.setdefault("size", preprocessing.size)
    if name in _SIZING:
        options.setdefault("interpolation", preprocessing.interpolation)
    kind = _kind(name, options)
    made = _make(name, options, kind)
    if kind is v2.ScaleJitter:
        return Geometric(made, ("resize",))
    if name in _GEOMETRY:
        return Geometric(made, _GEOMETRY[name][1], bends=name in _BENDING, sizes=name in _SIZING)
    if name in _OURS:
        return made
    return Pixels(made, None if name in _BLIND else ())


def _samples(name: str) -> bool:
    return name in _GEOMETRY and not {"affine", "rotate", "perspective", "elastic"}.isdisjoint(_GEOMETRY[name][1])


def _make(name: str, options: dict[str, Any], kind: Any) -> Any:
    """What a recipe's options make of a kind of step. Raises InputError for those that it does not take."""
    known = inspect.signature(kind).parameters
    for key in options:
        if key not in known:
            raise unknown(f"option of {name}", key, known)
    if options.get("interpolation") is not None:
        if options["interpolation"] not in INTERPOLATIONS:
            raise unknown(f"interpolation of {name}", options["interpolation"], INTERPOLATIONS)
        options["interpolation"] = InterpolationMode(MODES[options["interpolation"]])
        if options["interpolation"] is InterpolationMode.NEAREST_EXACT and _samples(name):
            options["interpolation"] = InterpolationMode.NEAREST  # places between pixels know but one kind of nearest
    if name == "auto_augment" and isinstance(options.get("policy"), str):
        policies = {policy.value: policy for policy in AutoAugmentPolicy}
        if options["policy"] not in policies:
            raise unknown("policy of auto_augment", options["policy"], policies)
        options["policy"] = policies[options["policy"]]
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"augmentation {name} cannot be made with {options}: {error}") from error


def _with_sizing(steps: Sequence[tuple[str, Step]]) -> list[tuple[str, Step]]:
    """The steps, and the preprocessing where it must size the image: as early as they allow."""
    steps = list(steps)
    resizing = [i for i, (_, step) in enumerate(steps) if isinstance(step, (*_UNSIZE, Mosaic))]
    first = resizing[-1] + 1 if resizing else 0
    if not any(_sizes(step) for _, step in steps[first:]):
        steps.insert(first, ("preprocessing", Sizing()))
    sized = False
    for _, step in steps:
        if _sizes(step):
            sized = True
        elif isinstance(step, _UNSIZE):
            sized = False
        elif isinstance(step, MixUp) and not sized:
            raise InputError(
                "augmentation mixup adds images of one size; put it behind expand, random_iou_crop, mosaic, "
                "scale_jitter and letterbox"
            )
    return steps


def _sizes(step: Step) -> bool:
    return isinstance(step, Sizing | ScaleJitter | Letterbox) or (isinstance(step, Geometric) and step.sizes)


def _try(augmentation: Augmentation, names: list[str]) -> None:
    """Run a blank image through, to learn now and not in the first epoch what does not work."""
    preprocessing = augmentation.frame.preprocessing
    expected = (preprocessing.channels, *preprocessing.size)
    blank: Sample = {"image": torch.zeros(expected, dtype=torch.uint8)}
    with torch.random.fork_rng(devices=[]):
        for _ in range(3):
            try:
                image = augmentation(blank, [blank] * augmentation.partners)["image"]
            except (RuntimeError, NotImplementedError) as error:
                reason = " ".join(str(error).split())
                raise InputError(
                    f"augmentation {', '.join(names)} fails on images of shape {expected}: {reason}"
                ) from error
            if tuple(image.shape) != expected or image.dtype != torch.uint8:
                raise InputError(
                    f"augmentation {', '.join(names)} turns images of shape {expected} into {tuple(image.shape)} "
                    f"{image.dtype}; end it with random_crop or leave out the step that changes the size"
                )

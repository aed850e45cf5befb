"""Random changes of training images, by name: torchvision's v2 transforms, and those that it lacks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import AutoAugmentPolicy, v2

from opsin.data.preprocessing import INTERPOLATIONS, Preprocessing
from opsin.data.transforms.colour import FusedColorJitter, PCALighting
from opsin.data.transforms.geometry import (
    ElasticTransform,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    ScaleJitterCrop,
    ThinPlateSpline,
)
from opsin.errors import InputError, unknown

Spec = Sequence[str | Mapping[str, Mapping[str, Any] | None]] | str | None

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
}


class Augmentation:
    """An image as it was read, uint8 (C, H, W) -> prepared and randomly changed, uint8 (channels, height, width).

    Draws from torch's global CPU generator. A first step that sizes the image stands in the place of `prepare`.
    """

    def __init__(
        self, preprocessing: Preprocessing, sizing: v2.Transform | None, steps: Sequence[v2.Transform]
    ) -> None:
        self.preprocessing, self.sizing, self.steps = preprocessing, sizing, tuple(steps)

    def __call__(self, image: Tensor) -> Tensor:
        if self.sizing is None:
            image = self.preprocessing.prepare(image)
        else:
            image = self.preprocessing.match_channels(self.sizing(image))
        for step in self.steps:
            image = step(image)
        return image


def create_augmentation(spec: Spec, preprocessing: Preprocessing) -> Augmentation | None:
    """The augmentation that a recipe names, None where it names none.

    spec: a preset (none, digits, light, imagenet), or a list of names and {name: options}; a name is that of a
    torchvision.transforms.v2 class in snake_case, or pca_lighting, fused_color_jitter, scale_jitter_crop or
    thin_plate_spline. random_resized_crop and scale_jitter_crop must come first. Raises InputError for an unknown name
    or option, and for what cannot work.
    """
    parsed = parse_steps(spec, _KNOWN, PRESETS)
    if not parsed:
        return None
    sizing, steps = None, []
    for place, (name, options) in enumerate(parsed):
        step = _create(name, options, preprocessing)
        if name not in _SIZING:
            steps.append(step)
        elif place == 0:
            sizing = step
        else:
            raise InputError(f"augmentation {name} sets the size of the image and must come first")
    augmentation = Augmentation(preprocessing, sizing, steps)
    _try(augmentation, [name for name, _ in parsed])
    return augmentation


def describe_augmentation(spec: Spec) -> list[str]:
    """One line in plain words for each step, with its options and the probability that the reader cannot see."""
    return describe_steps(parse_steps(spec, _KNOWN, PRESETS), _KNOWN)


def describe_steps(steps: Sequence[tuple[str, dict[str, Any]]], known: Mapping[str, Any]) -> list[str]:
    """`describe_augmentation` of parsed steps, which are `known` by those names."""
    lines = []
    for name, options in steps:
        defaults = inspect.signature(known[name]).parameters.items()
        shown = {k: p.default for k, p in defaults if k == "p" and p.default is not p.empty} | options
        if "p" in shown:
            shown["probability"] = shown.pop("p")
        told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())
        lines.append(name.replace("_", " ") + (f" ({told})" if told else ""))
    return lines


# Those that torchvision has too are its own, but for what they do to boxes and points.
_OURS = {
    "elastic_transform": ElasticTransform,
    "fused_color_jitter": FusedColorJitter,
    "pca_lighting": PCALighting,
    "random_horizontal_flip": RandomHorizontalFlip,
    "random_vertical_flip": RandomVerticalFlip,
    "scale_jitter_crop": ScaleJitterCrop,
    "thin_plate_spline": ThinPlateSpline,
}
_SIZING = ("random_resized_crop", "scale_jitter_crop")
_SIZED = (*_SIZING, "random_crop")  # they get the size from the preprocessing
# Of torchvision's: all that are called Random..., but for containers and what needs boxes; and these.
_NO_AUGMENTATIONS = ("RandomApply", "RandomChoice", "RandomOrder", "RandomIoUCrop")
_NOT_CALLED_RANDOM = (
    "AugMix AutoAugment ColorJitter ElasticTransform GaussianBlur JPEG RandAugment ScaleJitter TrivialAugmentWide"
)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


_KNOWN: dict[str, Any] = {
    _snake(name): value
    for name, value in vars(v2).items()
    if (name.startswith("Random") and name not in _NO_AUGMENTATIONS) or name in _NOT_CALLED_RANDOM.split()
} | _OURS


def parse_steps(
    spec: Spec, known: Mapping[str, Any], presets: Mapping[str, Sequence[Any]]
) -> list[tuple[str, dict[str, Any]]]:
    """The (name, options) that a recipe lists, of the names `known`. Raises InputError."""
    if spec is None:
        return []
    if isinstance(spec, str):
        if spec not in presets:
            raise unknown("augmentation preset", spec, presets)
        spec = presets[spec]
    parsed = []
    for step in spec:
        if isinstance(step, Mapping) and len(step) != 1:
            raise InputError(f"an augmentation step is a name or one {{name: options}}, got {dict(step)}")
        name, options = next(iter(step.items())) if isinstance(step, Mapping) else (step, {})
        if name not in known:
            raise unknown("augmentation", name, known)
        parsed.append((name, dict(options or {})))
    return parsed


def _create(name: str, options: dict[str, Any], preprocessing: Preprocessing) -> v2.Transform:
    options = dict(options)
    if name in _SIZED:
        options.setdefault("size", preprocessing.size)
    if name in _SIZING:
        options.setdefault("interpolation", preprocessing.interpolation)
    return create_step(name, options, _KNOWN[name])


def create_step(name: str, options: Mapping[str, Any], kind: Any) -> Any:
    """A step of a kind, with options as a recipe has them. Raises InputError for those that it does not take."""
    options, known = dict(options), inspect.signature(kind).parameters
    for key in options:
        if key not in known:
            raise unknown(f"option of {name}", key, known)
    if options.get("interpolation") is not None:
        if options["interpolation"] not in INTERPOLATIONS:
            raise unknown(f"interpolation of {name}", options["interpolation"], INTERPOLATIONS)
        options["interpolation"] = INTERPOLATIONS[options["interpolation"]]
    if name == "auto_augment" and isinstance(options.get("policy"), str):
        policies = {policy.value: policy for policy in AutoAugmentPolicy}
        if options["policy"] not in policies:
            raise unknown("policy of auto_augment", options["policy"], policies)
        options["policy"] = policies[options["policy"]]
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"augmentation {name} cannot be made with {options}: {error}") from error


def _try(augmentation: Augmentation, names: list[str]) -> None:
    """Run a blank image through, to learn now and not in the first epoch what does not work."""
    preprocessing = augmentation.preprocessing
    expected = (preprocessing.channels, *preprocessing.size)
    with torch.random.fork_rng(devices=[]):
        for _ in range(3):
            try:
                image = augmentation(torch.zeros(expected, dtype=torch.uint8))
            except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
                reason = " ".join(str(error).split())
                raise InputError(
                    f"augmentation {', '.join(names)} fails on images of shape {expected}: {reason}"
                ) from error
            if tuple(image.shape) != expected or image.dtype != torch.uint8:
                raise InputError(
                    f"augmentation {', '.join(names)} turns images of shape {expected} into {tuple(image.shape)} "
                    f"{image.dtype}; end it with random_crop or leave out the step that changes the size"
                )

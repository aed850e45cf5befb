"""Random changes of colour that torchvision lacks: PCA lighting, and its two distortions of colours in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from opsin.data.transforms.sample import Frame, Scene

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision rounds it


@dataclass(frozen=True)
class Pixels:
    """A transform of v2's kind that moves nothing, as a step; kernels None: it may move pixels, and says not where."""

    transform: v2.Transform
    kernels: Sequence[str] | None = ()

    def __call__(self, scene: Scene, frame: Frame) -> Scene:
        return scene._replace(image=self.transform(scene.image))


class PCALighting(v2.Transform):
    """Shift all pixels along the principal colours of ImageNet. Krizhevsky et al. 2012 (AlexNet), sec. 4.1.

    RGB in [0, 1] gets sum_i alpha_i lambda_i p_i, with alpha_i from N(0, std) drawn once for each image.
    """

    # Standard deviations and principal components (columns) of ImageNet's RGB values; of the paper's authors none are
    # published, these are the ones of fb.resnet.torch, which the field uses.
    _DEVIATIONS = torch.tensor([0.2175, 0.0188, 0.0045])
    _COMPONENTS = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])

    def __init__(self, std: float = 0.1) -> None:
        super().__init__()
        self.std = std

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"shift": self._COMPONENTS @ (torch.randn(3) * self.std * self._DEVIATIONS)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not _is_image(inpt):
            return inpt
        if inpt.shape[-3] != 3:
            raise ValueError(f"it shifts colours and needs 3 channels, got {inpt.shape[-3]}")
        shift = params["shift"][:, None, None].to(inpt.device)
        if inpt.is_floating_point():
            shifted = (inpt + shift.to(inpt.dtype)).clamp_(0, 1)
        else:
            shifted = inpt.float().add_(255 * shift).round_().clamp_(0, 255).to(inpt.dtype)
        return _wrap(shifted, inpt)


class FusedColorJitter(v2.ColorJitter):
    """torchvision's ColorJitter as one affine map of the colours: one pass over the image, no trip to HSV.

    The same options, the same random draws and order. Brightness, contrast and saturation between 0.6 and 1.4 are
    within 2 grey levels of torchvision's wherever no step in between leaves [0, 255]: what it cuts off after each step
    is allowed for on average, and the result is clipped once, at its end. Hue turns colours about the grey axis by the
    same angle: it keeps R + G + B, where HSV keeps max(R, G, B); at multiples of a third of a turn the two are equal.
    uint8 or float RGB, (..., 3, H, W); all else is left to torchvision.
    """

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not _is_image(inpt) or inpt.shape[-3] != 3 or not (inpt.dtype == torch.uint8 or inpt.is_floating_point()):
            return super().transform(inpt, params)
        names = ("brightness", "contrast", "saturation", "hue")
        factors = [(names[i], params[f"{names[i]}_factor"]) for i in params["fn_idx"].tolist()]
        steps = [(name, factor) for name, factor in factors if factor is not None]
        return _wrap(jitter_colours(inpt, steps), inpt)


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


def jitter_colours(image: Tensor, steps: Sequence[tuple[str, float]]) -> Tensor:
    """The steps of a jitter, one after the other, as one affine map of the colours of (..., 3, H, W).

    steps: ("brightness", "contrast", "saturation" or "hue"; factor). image: uint8, or float in [0, 1].
    """
    if not image.numel():
        return image
    if image.ndim > 3:  # contrast is about the mean of each one
        return torch.stack([jitter_colours(one, steps) for one in image])
    whole_levels = image.dtype == torch.uint8
    colours = image.contiguous().flatten(1).to(torch.float32 if whole_levels else image.dtype)
    rows = colour_map(steps, colours.mean(dim=1).tolist(), 0.5 if whole_levels else 0.0)
    matrix = torch.tensor(rows, dtype=colours.dtype, device=image.device)
    changed = torch.addmm(matrix[:, 3:], matrix[:, :3], colours)
    if whole_levels:
        # By way of int16: torch's own conversion of floats to uint8 takes three times as long.
        changed = changed.clamp_(0, 255).to(torch.int16).to(torch.uint8)
    else:
        changed = changed.clamp_(0, 1)
    return changed.view(image.shape)


def colour_map(steps: Sequence[tuple[str, float]], mean: Sequence[float], cut: float = 0.0) -> list[list[float]]:
    """The matrix, 3 rows of 4, that takes [r, g, b, 1] through all steps of a jitter on an image of that mean colour.

    Brightness, contrast and saturation are factor * colour + (1 - factor) * goal: black, the image's mean grey, and
    the colour's own grey. Hue is `rotation`. cut: what torchvision loses on average where it cuts off the fractions of
    greys, and of levels after each of these steps; 0.5 for uint8, 0 for float.
    """
    rows = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    for name, factor in steps:
        if name == "hue":
            rows = [_mixed(weights, rows) for weights in rotation(factor)]
            continue
        goal = [0.0, 0.0, 0.0, 0.0]
        if name != "brightness":
            goal = _mixed(_LUMA, rows)
            goal[3] -= cut
        if name == "contrast":
            goal = [0.0, 0.0, 0.0, sum(weight * value for weight, value in zip(goal, [*mean, 1.0], strict=True))]
        rows = [[factor * value + (1 - factor) * to for value, to in zip(row, goal, strict=True)] for row in rows]
        for row in rows:
            row[3] -= cut
    for row in rows:
        row[3] += cut  # the last step's fractions are cut off by us too
    return rows


def rotation(turns: float) -> list[list[float]]:
    """The rotation, 3 rows of 3, of RGB about the grey axis (1, 1, 1) by a part of a turn; 1/3 takes red to green."""
    sine, cosine = math.sin(2 * math.pi * turns) / math.sqrt(3), math.cos(2 * math.pi * turns)
    side = (1 - cosine) / 3
    own, before, after = cosine + side, side - sine, side + sine
    return [[own, before, after], [after, own, before], [before, after, own]]


def _mixed(weights: Sequence[float], rows: Sequence[Sequence[float]]) -> list[float]:
    """The weighted sum of three rows."""
    return [sum(w * value for w, value in zip(weights, column, strict=True)) for column in zip(*rows, strict=True)]


def _is_image(inpt: Any) -> bool:
    """A tensor that holds colours: not a mask, boxes or points; a plain tensor that comes here is an image."""
    return isinstance(inpt, Tensor) and (
        not isinstance(inpt, tv_tensors.TVTensor) or isinstance(inpt, tv_tensors.Image | tv_tensors.Video)
    )


def _wrap(output: Tensor, inpt: Tensor) -> Tensor:
    """As what came in: an Image stays one, for the next transform to know it by."""
    return tv_tensors.wrap(output, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else output  # type: ignore[call-arg]

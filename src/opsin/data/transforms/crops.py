"""Steps that choose what part of an image is seen, and how large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from opsin.data.coordinates import prepare_field, prepare_instances
from opsin.data.transforms.draws import between, check_probability, check_range, happens
from opsin.data.transforms.sample import Frame, Scene, Span, lay, regions, span
from opsin.ops import pairwise_iou
from opsin.structures import Instances


@dataclass(frozen=True)
class Expand:
    """SSD's "zoom out": the image at a random place of a larger one. Liu et al. 2016, arXiv:1512.02325, sec. 3.6.

    side_range: how many times as wide and high. fill: "mean", as in SSD, or a grey level, or one of each channel. It is
    torchvision's RandomZoomOut, draw for draw, which fills with black by default.
    """

    kernels: ClassVar[Sequence[str]] = ("crop", "resize")
    p: float = 0.5
    side_range: Sequence[float] = (1.0, 4.0)
    fill: Literal["mean"] | float | Sequence[float] = "mean"

    def __post_init__(self) -> None:
        check_probability(self.p)
        check_range("side_range", self.side_range, least=1.0)

    def __call__(self, scene: Scene, frame: Frame) -> Scene:
        if not happens(self.p):
            return scene
        ratio = between(self.side_range)
        size = int(scene.size[0] * ratio), int(scene.size[1] * ratio)
        across, down = torch.rand(2).tolist()
        rows, columns = (
            Span(0, length, int((side - length) * chance), length)
            for length, side, chance in zip(scene.size, size, (down, across), strict=True)
        )
        return lay(scene, rows, columns, size, frame, frame.colour(self.fill))._replace(sized=False)


@dataclass(frozen=True)
class RandomIoUCrop:
    """SSD's random crop, which some object must overlap enough. Liu et al. 2016, arXiv:1512.02325, sec. 2.2.

    One of `sampler_options` is drawn: the least IoU of the crop and an object whose centre is in it; 1 leaves the
    image as it is. Up to `trials` crops are drawn; if none does, another option is. scale: of each side. **An object
    stays if its centre is in the crop**, however little of it that is, and counts as whole from then on.

    torchvision's RandomIoUCrop, with the same distribution; it looks for ever if no option is 1. An image without
    objects is left as it is. The paper's patches have 0.1 to 1 of the image's size; 0.3 for the sides, as in the
    authors' code, is 0.09 of the area. That code keeps one crop of each option, and then chooses among those it found.
    """

    min_scale: float = 0.3
    max_scale: float = 1.0
    min_aspect_ratio: float = 0.5
    max_aspect_ratio: float = 2.0
    sampler_options: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    trials: int = 40
    kernels: ClassVar[Sequence[str]] = ("crop", "resize")
    _ROUNDS: ClassVar[int] = 50  # one of 7 options ends it: more are wanted once in 2,000 images that no crop suits

    def __post_init__(self) -> None:
        check_range("min_scale, max_scale", (self.min_scale, self.max_scale), least=0.0, most=1.0)
        check_range("min_aspect_ratio, max_aspect_ratio", (self.min_aspect_ratio, self.max_aspect_ratio), least=0.0)
        if not self.sampler_options or self.trials < 1:
            raise ValueError("sampler_options must name an overlap, and trials be 1 or more")

    def __call__(self, scene: Scene, frame: Frame) -> Scene:
        if scene.instances is None:
            return scene
        objects = scene.instances.boxes[~regions(scene.instances)]
        if not len(objects):
            return scene
        for _ in range(self._ROUNDS):
            overlap = self.sampler_options[int(torch.randint(0, len(self.sampler_options), ()))]
            if overlap >= 1:
                return scene
            found = self._find(objects, scene.size, overlap)
            if found is not None:
                return self._cut(scene, scene.instances, found, frame)
        return scene

    def _find(self, boxes: Tensor, size: tuple[int, int], overlap: float) -> Tensor | None:
        """A crop (4,) that fits, all trials at once."""
        whole = torch.tensor([size[1], size[0]], dtype=torch.float32)
        draws = torch.rand(self.trials, 4)
        sides = (whole * (self.min_scale + (self.max_scale - self.min_scale) * draws[:, :2])).floor()
        corners = ((whole - sides) * draws[:, 2:]).floor()
        ratio = sides[:, 0] / sides[:, 1]
        fits = (sides > 0).all(dim=1) & (ratio >= self.min_aspect_ratio) & (ratio <= self.max_aspect_ratio)
        crops = torch.cat([corners, corners + sides], dim=1)[fits]
        if not len(crops):
            return None
        overlaps = torch.where(_holds(crops, boxes), pairwise_iou(crops, boxes), -1.0)
        fitting = (overlaps.amax(dim=1) >= overlap).nonzero()
        return crops[fitting[0, 0]] if len(fitting) else None

    @staticmethod
    def _cut(scene: Scene, instances: Instances, crop: Tensor, frame: Frame) -> Scene:
        left, top, right, bottom = (int(value) for value in crop)
        stays = _holds(crop[None], instances.boxes)[0] | regions(instances)
        rows, columns = Span(top, bottom - top, 0, bottom - top), Span(left, right - left, 0, right - left)
        size = bottom - top, right - left
        part = lay(scene.keep(stays), rows, columns, size, frame, frame.colour(0))
        cut = replace(frame, visible=0.0).cut(part)
        return cut._replace(share=torch.ones(len(cut.instances or ())), sized=False)


@dataclass(frozen=True)
class ScaleJitter:
    """Large scale jitter: the image scaled at random, then cut or padded at random to the input's size.

    Du et al. 2021 (arXiv:2107.00057), Ghiasi et al. 2021 (arXiv:2012.07177), whose range is 0.1 to 2. scale: times the
    size that the preprocessing gives the image, and in its shape: stretched if its fit is "squash". fill: as in
    `Expand`; black by default, as with fit "pad".
    """

    kernels: ClassVar[Sequence[str]] = ("crop", "resize")
    scale: Sequence[float] = (0.1, 2.0)
    fill: Literal["mean"] | float | Sequence[float] = 0

    def __post_init__(self) -> None:
        check_range("scale", self.scale, least=0.0)

    def __call__(self, scene: Scene, frame: Frame) -> Scene:
        zoom = between(self.scale)
        laid = zoomed(scene, frame, zoom, frame.size, frame.colour(self.fill))
        return frame.cut(laid._replace(sized=True))


@dataclass(frozen=True)
class Letterbox:
    """The whole image, in its own shape, amid a border: the preprocessing's fit "pad", for training alone.

    grow: enlarge small images too. centre: in the middle, else at a random place. fill: as in `Expand`. With the
    defaults it is fit "pad" itself, which validation and use have only if the recipe's data.fit says so.
    """

    kernels: ClassVar[Sequence[str]] = ("crop", "resize")
    grow: bool = False
    centre: bool = True
    fill: Literal["mean"] | float | Sequence[float] = 0

    def __call__(self, scene: Scene, frame: Frame) -> Scene:
        scale = min(side / length for side, length in zip(frame.size, scene.size, strict=True))
        scale = scale if self.grow else min(1.0, scale)
        spans = []
        for length, side in zip(scene.size, frame.size, strict=True):
            extent = min(side, max(1, round(length * scale)))
            free = side - extent
            spans.append(Span(0, length, free // 2 if self.centre else int(torch.randint(0, free + 1, ())), extent))
        rows, columns = spans
        return lay(scene, rows, columns, frame.size, frame, frame.colour(self.fill))._replace(sized=True)


@dataclass(frozen=True)
class Sizing:
    """The preprocessing, for a scene that does not have the input's size yet."""

    kernels: ClassVar[Sequence[str]] = ("crop", "resize")
    any_channels: ClassVar[bool] = True

    def __call__(self, scene: Scene, frame: Frame) -> Scene:
        if scene.sized:
            return scene
        preprocessing = frame.preprocessing
        image = preprocessing.prepare(scene.image)
        if scene.plain:
            return scene._replace(image=image, sized=True)
        size = scene.size
        moving = {key: prepare_field(value, size, preprocessing) for key, value in scene.moving.items()}
        instances = scene.instances
        if instances is not None:
            instances = prepare_instances(instances, size, preprocessing)
        return frame.cut(scene._replace(image=image, instances=instances, moving=moving, sized=True))


def zoomed(scene: Scene, frame: Frame, zoom: float, size: tuple[int, int], fill: Tensor) -> Scene:
    """The image at `zoom` times its size in the input, at a random place of `size`, or a random part of it there."""
    rows, columns = (
        span(length, scale * zoom, side, chance)
        for length, scale, side, chance in zip(
            scene.size, frame.scale(scene), size, torch.rand(2).tolist(), strict=True
        )
    )
    return lay(scene, rows, columns, size, frame, fill)


def _holds(crops: Tensor, boxes: Tensor) -> Tensor:
    """Whether crops (T, 4) hold the centres of boxes (N, 4): (T, N)."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((crops[:, None, :2] < centres) & (centres < crops[:, None, 2:])).all(dim=2)

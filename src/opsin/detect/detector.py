"""What every detector is: images -> dense predictions -> losses or instances."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from opsin.backbones.backbone import check_images
from opsin.checks import check_count
from opsin.detect.postprocess import Selection, select
from opsin.errors import InputError
from opsin.nn.capabilities import ClassRows
from opsin.ops import clip_boxes
from opsin.structures import Instances

Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Assignment:
    """Which truth each anchor or cell of one image is matched to, to be drawn and counted.

    boxes: (A, 4), the anchors, or the cells of a detector without anchors, in pixels of its input. matched: (A,) int64,
    the place of the truth, -1 for background, -2 where the loss ignores it.
    """

    boxes: Tensor
    matched: Tensor


# What the names of a classification network's tensors begin with in detectors: in most, and in R-CNN and SPP-Net.
_NETWORKS = ("backbone.backbone.", "network.")


class Detector(nn.Module, ABC):
    """A network of `backbone -> neck -> head`. Boxes are xyxy in pixels of its input, labels 0-based, no background.

    A subclass sets, in its constructor, strides: of the maps it predicts on. divisor: what both sides of an input must
    be multiples of, 1 if anything goes. fixed_size: the only side of its input, where its head allows no other.
    needs_masks: its loss learns from the truth's masks. takes_polygons: it finds lines of text: its loss learns from
    the truth's polygons where there are some, its answers have some, and ICDAR's protocols evaluate it too.
    dense_names: what `dense` gives. score_threshold: the least score of an answer, fitted in validation after its
    training; None before. preprocessing: what the published weights in it expect.
    Of the class are: learns_somewhere, its loss can use truths that say what an image shows and not where, whose boxes
    are NaN. class_agnostic, it finds objects of whatever class, so that the classes of its data are made one, called
    object_name, before training and evaluation. network_prefix, what the names of its classification network's tensors
    begin with. export_refusal, why `opsin export` cannot write it, "" where it can. candidates_of: what
    `Selection.candidates` are counted in, "all" places, each of the "classes", or each of the "levels", which outputs
    then name. clips_first: boxes are cut at the border of the input before duplicates are suppressed, not after.

    `forward` is pure: the same in train and eval, exportable, and never sees a target. What it gives is `Outputs`:
    named tensors, batch first but for "anchors", (A, 4) where there are any.
    """

    num_classes: int
    in_channels: int
    strides: tuple[int, ...]
    divisor: int = 1
    fixed_size: int | None = None
    needs_masks: bool = False
    takes_polygons: bool = False
    score_threshold: float | None = None
    needs_proposals: ClassVar[bool] = False
    proposals: Any = None
    proposal_options: Mapping[str, Any] = MappingProxyType({})
    preprocessing: Mapping[str, Any] | None = None
    learns_somewhere: ClassVar[bool] = False
    class_agnostic: ClassVar[bool] = False
    object_name: ClassVar[str] = "object"
    network_prefix: ClassVar[str] = "backbone.backbone."
    export_refusal: ClassVar[str] = ""
    dense_names: tuple[str, ...] = ("boxes", "scores")
    candidates_of: ClassVar[Literal["all", "classes", "levels"]] = "all"
    clips_first: ClassVar[bool] = False

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.num_classes = check_count("num_classes", num_classes)
        self.in_channels = check_count("in_channels", in_channels)
        self.selection = Selection()

    @abstractmethod
    def forward(self, images: Tensor) -> Outputs:
        """images: (B, in_channels, H, W) float, normalised."""

    @abstractmethod
    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """Named terms whose sum is minimised, finite for images without truth. targets: boxes and labels of each image.

        A label of -1 marks a region to ignore: no prediction there is wrong.
        """

    @abstractmethod
    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Boxes (B, A, 4) in pixels of the input, and scores (B, A, num_classes) in [0, 1]."""

    def dense(self, outputs: Outputs) -> dict[str, Tensor]:
        """What an exported file gives, batch first: boxes and scores of `predictions`, and whatever decoding needs."""
        boxes, scores = self.predictions(outputs)
        return {"boxes": boxes, "scores": scores}

    def decoding(self) -> dict[str, Any]:
        """What `decode` does with dense predictions beyond a `Selection`, as plain JSON for an exported file."""
        return {}

    @abstractmethod
    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        """What the loss makes of the truth of each image."""

    @property
    def second_stage_counts(self) -> dict[str, int]:
        """What `second_stage` is run on, of an image at most, such as {"proposals": 1000}; nothing for one stage."""
        return {}

    def second_stage(self, outputs: Outputs) -> Any:
        """The part of the network that `decode` runs after `forward`, on as many regions as `second_stage_counts` says.

        To count what an answer costs: on the meta device, where outputs have shapes only, and so has what it gives.
        """
        return outputs

    def decode(self, outputs: Outputs, selection: Selection | None = None, **options: Any) -> list[Instances]:
        """The instances of each image, best first: boxes, labels, scores. options: fields of `Selection` to change.

        A place gives one instance for each class that is certain enough. Boxes are cut at the border of the input where
        the outputs say its size, as "size" (2,), height and width.
        """
        selection = Selection(**{**vars(selection or self.selection), **options})
        boxes, scores = self.predictions(outputs)
        size = outputs.get("size")
        found = []
        for one, certain in zip(boxes.float(), scores.float(), strict=True):
            instances = select(one, certain, selection)
            if size is not None:
                instances.boxes = clip_boxes(instances.boxes, size.tolist())
            found.append(instances)
        return found

    def saved_state(self) -> dict[str, Any]:
        """What answers follow beside the weights: `score_threshold`."""
        return {"score_threshold": self.score_threshold}

    def restore_state(self, values: Mapping[str, Any]) -> None:
        """Take what `saved_state` gave. Raises ValueError for a threshold that is no number from 0 to 1."""
        fitted = values.get("score_threshold")
        self.score_threshold = None if fitted is None else float(fitted)
        if self.score_threshold is not None and not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold is {fitted}; expected a number from 0 to 1")

    def initialize_from(self, state: Mapping[str, Tensor]) -> list[str]:
        """Copy every tensor whose name and shape fit. Returns the names of our tensors that were not filled.

        The names are those of this detector; or of a classification network, alone or as another detector has it, and
        go to ours: whichever reading fills more tensors, for one may have a "head" too.
        """
        own = self.state_dict()
        readings = [dict(state)]
        for prefix in ("", *_NETWORKS):
            inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            readings.append({f"{self.network_prefix}{name}": tensor for name, tensor in inner.items()})
        fitting = max((_fitting(own, reading) for reading in readings), key=len)
        self.load_state_dict(fitting, strict=False)
        return [k for k in own if k not in fitting]

    def class_rows(self) -> dict[str, ClassRows]:
        """Which rows of the head's tensors belong to which class; none, here: then other classes start fresh."""
        return {}

    def learned_parts(self) -> list[nn.Module]:
        """The classification network inside."""
        try:
            return [self.get_submodule(self.network_prefix.removesuffix("."))]
        except AttributeError:
            return []

    def _check(self, images: Tensor) -> None:
        if torch.compiler.is_compiling():
            return  # a comparison of sizes would fix in the exported program what it may leave open
        name = type(self).__name__
        check_images(name, images, self.in_channels, self.fixed_size)
        height, width = images.shape[-2:]
        if height % self.divisor or width % self.divisor:
            up = [-(-side // self.divisor) * self.divisor for side in (height, width)]
            raise InputError(
                f"{name} takes images whose sides are multiples of {self.divisor}, got {height}x{width}; "
                f"pad or resize them to {up[0]}x{up[1]} (data.size=[{up[0]}, {up[1]}])"
            )


def _fitting(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}

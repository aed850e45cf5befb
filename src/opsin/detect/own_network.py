"""Detectors of the user's own: an `nn.Module` with the three verbs, as a `Detector`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.detect.postprocess import Selection
from opsin.errors import InputError
from opsin.nn.capabilities import learned_parts
from opsin.structures import Instances

_VERBS = ("forward", "loss", "decode")


class OwnDetector(Detector):
    """A network with the three verbs as a detector; its weights are those of `network`, under that name.

    network: forward(images (B, C, H, W) float) -> named tensors, the same in training; loss(outputs, targets) ->
    {name: term}, targets being `Instances` of each image with boxes (n, 4) x1 y1 x2 y2 in pixels of the input and
    labels (n,) from 0; decode(outputs) -> of each image `Instances`, or a dict, of boxes, labels and scores (n,), with
    duplicates suppressed already.
    """

    export_refusal: ClassVar[str] = "its decode is a method of your own"

    def __init__(self, network: nn.Module, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.network: Any = network
        self.strides = ()

    @classmethod
    def claims(cls, module: nn.Module) -> bool:
        """Whether it is a `Detector`."""
        return isinstance(module, Detector)

    @classmethod
    def accept(cls, module: nn.Module) -> None:
        """Raise InputError for a network that lacks one of the three verbs."""
        lacking = [name for name in _VERBS if not callable(getattr(module, name, None))]
        if lacking:
            raise InputError(
                f"{type(module).__name__} has no method {' and '.join(lacking)}; a detector has forward(images), "
                "loss(outputs, targets) and decode(outputs)"
            )

    @classmethod
    def adapt(cls, module: nn.Module, num_classes: int | None, in_channels: int | None) -> nn.Module:
        """A `Detector` as it is, any other with the three verbs as one. Raises InputError where one is lacking."""
        if num_classes is None or in_channels is None:
            raise InputError(f"{type(module).__name__} needs data with classes and images")
        if isinstance(module, Detector):
            if module.num_classes != num_classes:
                raise InputError(
                    f"{type(module).__name__} was built for {module.num_classes} classes, and the data has "
                    f"{num_classes}; build it with num_classes={num_classes}"
                )
            return module
        return cls(module, num_classes, in_channels)

    @classmethod
    def check(cls, outputs: Any, num_classes: int | None, name: str) -> None:
        """Raise InputError for outputs that are no named tensors."""
        if not isinstance(outputs, Mapping) or not all(isinstance(one, Tensor) for one in outputs.values()):
            shown = type(outputs).__name__
            raise InputError(f"{name} gives {shown} for images; expected a dict of tensors, batch first")

    def forward(self, images: Tensor) -> Outputs:
        return self.network(images)

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        return dict(self.network.loss(outputs, targets))

    def decode(self, outputs: Outputs, selection: Selection | None = None, **options: Any) -> list[Instances]:
        """The instances of each image, best first, of those that the network's own decode gives.

        Of a selection the least score and the limit are followed; duplicates are the network's to suppress.
        """
        chosen = Selection(**{**vars(selection or self.selection), **options})
        return [_selected(_as_instances(one), chosen) for one in self.network.decode(outputs)]

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        raise InputError(f"{type(self.network).__name__} has no dense predictions, only its own decode")

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        """Nothing of each image: what the loss makes of the truth is the network's own."""
        none = torch.zeros(0, dtype=torch.int64)
        return [Assignment(torch.zeros(0, 4), none) for _ in targets]

    def learned_parts(self) -> list[nn.Module]:
        """What the network itself says an earlier training has taught."""
        return learned_parts(self.network)


def _as_instances(found: Any) -> Instances:
    if isinstance(found, Instances):
        one = found
    elif isinstance(found, Mapping) and {"boxes", "labels", "scores"} <= found.keys():
        one = Instances(found["boxes"], found["labels"], found["scores"])
    else:
        raise InputError("decode gives something else than Instances, or dicts of boxes, labels and scores")
    if one.labels is None or one.scores is None:
        raise InputError("decode gives instances without labels or scores")
    return one


def _selected(one: Instances, selection: Selection) -> Instances:
    assert one.scores is not None
    order = one.scores.argsort(descending=True, stable=True)
    order = order[one.scores[order] >= selection.score_threshold][: selection.limit]
    return one[order]

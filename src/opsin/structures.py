"""The data types that packages share: a batch, and the instances in an image.

One coordinate convention everywhere: boxes are xyxy in continuous pixels, x2 and y2 exclusive, so pixel `i` spans
`[i, i + 1)` and a horizontal flip is `width - x`. Labels are 0-based without a background class; -1 means ignore.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict

import torch
from torch import Tensor


class Batch(TypedDict, total=False):
    """Collated samples; a key that a task does not use is absent. What is ragged is a list.

    image: uint8 (B, C, H, W), C = 1 or 3. label: (B,) int64 or (B, num_classes) float. index: (B,) int64, places in the
    split. path: where each came from, for messages and galleries. size: (B, 2) int64, height and width of each image as
    it was read, before it was prepared. instances: in pixels of `image`. somewhere: labels of what an image shows of
    which nobody knows where; None for an image whose instances are known. proposals: (P, 4) each, boxes that may hold
    an object, in pixels of `image`, best first. class_map: (B, H, W) uint8 with 255, or int16 with -1, where nothing is
    known; or (B, K, H, W) bool; of the pixels of `image`. text: (B, longest) int32 code points, filled up with -1.
    identity: (B,) int64, -1 of nobody known.
    """

    image: Tensor
    label: Tensor
    index: Tensor
    path: list[str]
    size: Tensor
    instances: list[Instances]
    somewhere: list[list[int] | None]
    proposals: list[Tensor]
    class_map: Tensor
    text: Tensor
    identity: Tensor


@dataclass
class Instances:
    """The objects of one image, truth or prediction alike. Every field but `boxes` is optional; all have length N.

    boxes: (N, 4) float, xyxy; NaN of what is somewhere in the image. labels: (N,) int64. scores: (N,) float in [0, 1].
    masks: (N, H, W) bool. points: (N, P, 2) float. polygons, texts: lists of N. ids: (N,) int64, identities of tracks.
    """

    boxes: Tensor
    labels: Tensor | None = None
    scores: Tensor | None = None
    masks: Tensor | None = None
    points: Tensor | None = None
    polygons: list[Tensor] | None = None
    texts: list[str] | None = None
    ids: Tensor | None = None

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ValueError(f"boxes must be (N, 4), got {tuple(self.boxes.shape)}")
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and len(value) != len(self.boxes):
                raise ValueError(f"{field.name} has length {len(value)}, boxes have {len(self.boxes)}")

    @classmethod
    def somewhere(cls, labels: Sequence[int]) -> Instances:
        """The truth of an image that says what it shows, not where: its boxes are NaN."""
        return cls(torch.full((len(labels), 4), torch.nan), torch.tensor(labels, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Tensor | slice) -> Instances:
        """The chosen instances, all fields together. index: a slice, or a 1-D tensor of bool or int64."""
        chosen: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list) and isinstance(index, Tensor):
                places = index.nonzero()[:, 0] if index.dtype is torch.bool else index
                chosen[field.name] = [value[i] for i in places.tolist()]
            elif value is not None:
                chosen[field.name] = value[index]
        return replace(self, **chosen)

    def to(self, device: torch.device | str) -> Instances:
        """The same instances on another device."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = value.to(device)
        if self.polygons is not None:
            moved["polygons"] = [polygon.to(device) for polygon in self.polygons]
        return replace(self, **moved)

"""Images with boxes, and images of which only the classes are known, in one training split.

Redmon and Farhadi 2016, YOLO9000, arXiv:1612.08242, section 4: a detector learns what things look like from the second,
which are many and cheap, and where they are from the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from opsin.data.boxes import Boxes
from opsin.data.inputs import Concatenated
from opsin.data.labels import ClassLabels, match_classes
from opsin.data.source import Source, Split, listed
from opsin.data.splits import stratified
from opsin.data.truth import Size, Summary, Truth
from opsin.errors import InputError
from opsin.structures import Instances


class JointBoxes(Truth):
    """Of some images the boxes, of the others the classes alone. places: of both, counted one after the other.

    Batches then have `somewhere` too: of each image None, or the labels of what it shows, nobody knows where. An image
    without boxes is mixed with itself alone: beside others, nobody could say any more which part of it is background.
    labels: (N,) one class an image, the rarest of several: with a million images of a thousand classes there is no
    room for rows of 0 and 1.
    """

    def __init__(
        self, known: Boxes, unknown: ClassLabels, places: np.ndarray, labels: np.ndarray | None = None
    ) -> None:
        self.parts, self.places = (known, unknown), places
        self.labels = np.concatenate([known.strata(), unknown.strata()])[places] if labels is None else labels
        self.boxed = places < len(known)
        self._pool = np.flatnonzero(self.boxed)

    @property
    def meaning(self) -> Mapping[str, Any]:
        return self.parts[0].meaning

    @property
    def presence(self) -> np.ndarray:
        """(N,) int64: one class an image."""
        return self.labels

    def __len__(self) -> int:
        return len(self.places)

    def select(self, places: np.ndarray) -> JointBoxes:
        return JointBoxes(*self.parts, self.places[places], self.labels[places])

    def match(self, meaning: Mapping[str, Any]) -> JointBoxes:
        known = list(meaning["classes"])
        places = match_classes(self.meaning["classes"], known)
        return self.relabel(range(len(known)) if places is None else places, known)

    def relabel(self, places: Sequence[int] | np.ndarray, classes: Sequence[str]) -> JointBoxes:
        """With class k called `places[k]` of `classes`. Classes with the same place become one."""
        known, unknown = self.parts
        return JointBoxes(known.relabel(places, classes), unknown.relabel(places, classes), self.places)

    def at(self, i: int) -> Instances:
        """The objects of an image, none where they are not known."""
        if self.boxed[i]:
            return self.parts[0].at(int(self.places[i]))
        return Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))

    @property
    def instances(self) -> list[Instances]:
        """The objects of each image."""
        return [self.at(i) for i in range(len(self))]

    def shown(self, i: int) -> list[int]:
        """The classes of an image."""
        known, unknown = self.parts
        place = int(self.places[i])
        return known.shown(place) if self.boxed[i] else unknown.shown(place - len(known))

    def strata(self) -> np.ndarray:
        return self.labels

    def partners(self, i: int) -> np.ndarray:
        return self._pool if self.boxed[i] else np.array([i])

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        shown = None if self.boxed[i] else self.shown(i)
        return {"label": self.labels[i], "instances": self.at(i), "somewhere": shown, "size": size}

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return self.parts[0].collate(samples)

    def unpack(self, batch: dict[str, Any]) -> None:
        self.parts[0].unpack(batch)

    def extents(self, i: int) -> torch.Tensor | None:
        return self.parts[0].extents(int(self.places[i])) if self.boxed[i] else None

    def misfit(self, i: int, size: Size) -> str | None:
        return self.parts[0].misfit(int(self.places[i]), size) if self.boxed[i] else None

    def summary(self) -> Summary:
        return replace(self.parts[0].summary(), kind="boxes, and labels of images without")

    def digest(self, i: int) -> bytes:
        known, unknown = self.parts
        place = int(self.places[i])
        return known.digest(place) if self.boxed[i] else unknown.digest(place - len(known))

    def draw(self, image: Any, i: int, scale: tuple[float, float] = (1.0, 1.0)) -> Any:
        return self.parts[0].draw(image, int(self.places[i]), scale) if self.boxed[i] else image

    def draw_batch(self, image: Any, batch: Mapping[str, Any], k: int, scale: tuple[float, float] = (1.0, 1.0)) -> Any:
        from opsin.data.drawing import Line, add_caption

        shown = batch["somewhere"][k]
        if shown is None:
            return self.parts[0].draw_batch(image, batch, k, scale)
        names = ", ".join(str(self.meaning["classes"][label]) for label in shown)
        return add_caption(image, [Line(f"somewhere: {names}")], narrowest=image.width)


def join(source: Source, joint: Source, ratio: float, limit: int | None = None) -> tuple[Source, str]:
    """A divided source of boxes that is trained on one of class labels as well, and what was done, in words.

    Of `joint` the training images are taken, all where it has no splits, `limit` of them at most. Its classes are
    matched by name; those that `source` lacks come last. ratio: images without boxes for each with boxes, at most.
    Where there are more, those with boxes are repeated, each as often; the paper's is 4. What is evaluated on stays the
    source's own. Raises InputError where `joint` has nothing to train on.
    """
    own, other = source.splits["train"], joint.splits.get("train", joint.splits.get("all"))
    chosen = np.arange(0) if other is None else np.flatnonzero(other.kind.strata() >= 0)
    if other is None or not len(chosen):
        raise InputError(f"joint training: {joint.name} has no training images with a class")
    silent = len(other) - len(chosen)
    if limit is not None:
        chosen = chosen[stratified(other.kind.presence[chosen], limit)]
    classes = list(dict.fromkeys([*source.classes, *joint.classes]))
    number = {name: k for k, name in enumerate(classes)}
    unboxed = other.subset(chosen)
    unknown = unboxed.kind.relabel([number[name] for name in joint.classes], classes)
    repeats = math.ceil(len(unboxed) / (ratio * len(own)))
    places = np.concatenate([np.repeat(np.arange(len(own)), repeats), len(own) + np.arange(len(unboxed))])
    kept = np.arange(len(source.classes))
    parts = {name: split.with_truth(split.kind.relabel(kept, classes)) for name, split in source.splits.items()}
    inputs = Concatenated([own.inputs, unboxed.inputs], places)
    splits = {**parts, "train": Split(inputs, JointBoxes(parts["train"].kind, unknown, places))}
    new = classes[len(source.classes) :]
    told = (
        f"joint training: {len(unboxed)} images of {joint.name} ({joint.format}) say what they show, not where; "
        f"{len(joint.classes)} classes, "
        + (f"{len(new)} of them without boxes: {listed(new)}" if new else "all with boxes")
    )
    if silent:
        told += f"; {silent} that name no class are left out"
    if repeats > 1:
        told += f"; the {len(own)} images with boxes come {repeats} times each"
    return replace(source, splits=splits), told

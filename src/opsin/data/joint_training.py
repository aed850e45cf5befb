"""Images with boxes, and images of which only the classes are known, in one training split.

Redmon and Farhadi 2016, YOLO9000, arXiv:1612.08242, section 4: a detector learns what things look like from the second,
which are many and cheap, and where they are from the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from opsin.data.source import Source, Split, listed
from opsin.data.splits import strata, stratified
from opsin.errors import InputError
from opsin.structures import Instances


class JointSplit(Split):
    """Images with instances and images without as one split. places: of both, counted one after the other.

    labels: (N,) one class an image, the rarest of several: with a million images of a thousand classes there is no
    room for rows of 0 and 1.
    """

    def __init__(self, boxed: Split, unboxed: Split, places: np.ndarray, labels: np.ndarray | None = None) -> None:
        assert boxed.instances is not None
        nothing = Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
        instances = boxed.instances + [nothing] * len(unboxed)
        if labels is None:
            labels = np.concatenate([strata(boxed.labels), strata(unboxed.labels)])[places]
        self.parts, self.places, self.labels = (boxed, unboxed), places, labels
        self.boxed = places < len(boxed)
        self.instances = [instances[place] for place in places.tolist()]

    def read(self, index: int) -> Tensor:
        part, place = self._find(index)
        return part.read(place)

    def name(self, index: int) -> str:
        part, place = self._find(index)
        return part.name(place)

    def shown(self, index: int) -> list[int]:
        part, place = self._find(index)
        return part.shown(place)

    def select(self, indices: np.ndarray, labels: np.ndarray) -> JointSplit:
        return JointSplit(*self.parts, self.places[indices], labels)

    def relabel(self, places: Sequence[int] | np.ndarray, num_classes: int) -> JointSplit:
        boxed, unboxed = (part.relabel(places, num_classes) for part in self.parts)
        return JointSplit(boxed, unboxed, self.places)

    def _find(self, index: int) -> tuple[Split, int]:
        place, count = int(self.places[index]), len(self.parts[0])
        return (self.parts[0], place) if place < count else (self.parts[1], place - count)


def join(source: Source, joint: Source, ratio: float, limit: int | None = None) -> tuple[Source, str]:
    """A divided detection source that is trained on a classification source as well, and what was done, in words.

    Of `joint` the training images are taken, all where it has no splits, `limit` of them at most. Its classes are
    matched by name; those that `source` lacks come last. ratio: images without boxes for each with boxes, at most.
    Where there are more, those with boxes are repeated, each as often; the paper's is 4. What is evaluated on stays the
    source's own. Raises InputError where `joint` has nothing to train on.
    """
    own, other = source.splits["train"], joint.splits.get("train", joint.splits.get("all"))
    chosen = np.arange(0) if other is None else np.flatnonzero(strata(other.labels) >= 0)
    if other is None or not len(chosen):
        raise InputError(f"data.joint: {joint.name} has no training images with a class")
    silent = len(other) - len(chosen)
    if limit is not None:
        chosen = chosen[stratified(other.labels[chosen], limit)]
    classes = list(dict.fromkeys([*source.classes, *joint.classes]))
    number = {name: k for k, name in enumerate(classes)}
    unboxed = other.subset(chosen).relabel([number[name] for name in joint.classes], len(classes))
    repeats = math.ceil(len(unboxed) / (ratio * len(own)))
    places = np.concatenate([np.repeat(np.arange(len(own)), repeats), len(own) + np.arange(len(unboxed))])
    kept = np.arange(len(source.classes))
    evaluated = {name: split.relabel(kept, len(classes)) for name, split in source.splits.items() if name != "train"}
    splits = {"train": JointSplit(own, unboxed, places), **evaluated}
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
    return replace(source, classes=classes, splits=splits), told

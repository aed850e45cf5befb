"""What the doctor says of boxes: how many and how large, and which are odd, each with its image and its number.

What a format's reader finds wrong (see `annotations`) is told with the annotation's file and line when the source is
opened. Here is what shows only over all images; what shows against a detector is in `opsin.detect.anchor_coverage`.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from opsin.data.source import Problem, Source, Split, listed
from opsin.structures import Instances

_TINY = 4.0  # pixels, and
_TINY_SHARE = 0.01  # of the image's side: what is smaller is hard to see for any network

Size = tuple[int, int]


def count_objects(split: Split, num_classes: int) -> np.ndarray:
    """How many boxes each class has: (num_classes,) int64. Regions to ignore count for none."""
    labels = [one.labels for one in split.instances or [] if one.labels is not None]
    everything = torch.cat(labels) if labels else torch.zeros(0, dtype=torch.int64)
    return torch.bincount(everything[everything >= 0], minlength=num_classes).numpy()


def measure(source: Source) -> dict[str, float]:
    """Facts of all boxes: objects, ignored, most_in_an_image, images_without; shortest, median and longest side."""
    instances = [one for split in source.splits.values() for one in split.instances or []]
    real = [_boxes(one) for one in instances]
    facts: dict[str, float] = {
        "objects": sum(len(boxes) for boxes in real),
        "ignored": sum(len(one) for one in instances) - sum(len(boxes) for boxes in real),
        "most_in_an_image": max((len(boxes) for boxes in real), default=0),
        "images_without": sum(len(boxes) == 0 for boxes in real),
    }
    sides = torch.cat([boxes[:, 2:] - boxes[:, :2] for boxes in real]).flatten() if facts["objects"] else None
    if sides is not None:
        shortest, middle, longest = sides.min(), sides.median(), sides.max()
        facts |= {"shortest_side": float(shortest), "median_side": float(middle), "longest_side": float(longest)}
    return facts


def box_problems(source: Source, sizes: Mapping[tuple[str, int], Size]) -> list[Problem]:
    """Images without boxes, very small objects, and class names that differ in case or spaces alone.

    sizes: (height, width) of the image at (split, index), where it could be read.
    """
    problems = _alike(source)
    for key, split in source.splits.items():
        for index, one in enumerate(split.instances or []):
            if not len(_boxes(one)):
                what = "only regions to ignore" if len(one) else "no boxes"
                problems.append(Problem("no_boxes", split.name(index), f"in {key}, it has {what}", "note"))
            elif (key, index) in sizes:
                problems += _tiny(source, split, index, sizes[key, index])
    return problems


def same_truth(split: Split, index: int, other: Split, place: int) -> bool:
    """Whether two equal images have the same boxes and labels, in any order."""
    assert split.instances is not None and other.instances is not None
    return _sorted(split.instances[index]) == _sorted(other.instances[place])


def _tiny(source: Source, split: Split, index: int, size: Size) -> list[Problem]:
    assert split.instances is not None
    one, (height, width) = split.instances[index], size
    assert one.labels is not None
    sides = one.boxes[:, 2:] - one.boxes[:, :2]
    small = (sides < _TINY) | (sides < _TINY_SHARE * sides.new_tensor([width, height]))
    found = []
    for number in (small.any(dim=1) & _is_real(one)).nonzero()[:, 0].tolist():
        w, h = sides[number].tolist()
        what = f"object {number + 1}, a {source.classes[one.labels[number]]}, is {w:g}x{h:g} pixels of {width}x{height}"
        found.append(Problem("tiny_object", split.name(index), what, "warning"))
    return found


def _alike(source: Source) -> list[Problem]:
    """Classes that are likely one: "RBC", "rbc" and "R B C"."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in source.classes:
        groups["".join(c for c in name.casefold() if c.isalnum()) or name].append(name)
    pairs = itertools.chain.from_iterable(itertools.combinations(names, 2) for names in groups.values())
    reason = "are likely one class; give both one name"
    return [Problem("alike_classes", source.name, f"the classes {listed(pair)} {reason}", "warning") for pair in pairs]


def _is_real(one: Instances) -> Tensor:
    return one.labels >= 0 if one.labels is not None else torch.ones(len(one), dtype=torch.bool)


def _boxes(one: Instances) -> Tensor:
    return one.boxes[_is_real(one)]


def _sorted(one: Instances) -> list[tuple[float, ...]]:
    labels = one.labels.tolist() if one.labels is not None else [0] * len(one)
    return sorted((label, *box) for label, box in zip(labels, one.boxes.tolist(), strict=True))

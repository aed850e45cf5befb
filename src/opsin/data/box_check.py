"""What the data check says of boxes: how many and how large, and which are odd, each with its image and its number.

What a format's reader finds wrong (see `annotations`) is listed with the annotation's file and line when the source is
opened. Here is what shows only over all images.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from opsin.data.source import listed
from opsin.data.truth import Problem, Size, Summary
from opsin.structures import Instances

_TINY = 4.0  # pixels, and
_TINY_SHARE = 0.01  # of the image's side: what is smaller is hard to see for any network


@dataclass(frozen=True)
class BoxSummary(Summary):
    """boxes: (T, 4) of all objects, but for regions to ignore. per_image: (N,) of them. ignored: such regions."""

    boxes: Tensor = field(default_factory=lambda: torch.zeros(0, 4))
    per_image: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    ignored: int = 0

    def facts(self, others: Sequence[BoxSummary] = ()) -> dict[str, float]:
        """objects, ignored, most_in_an_image, images_without; shortest_side, median_side and longest_side."""
        everything = [self, *others]
        per_image = np.concatenate([one.per_image for one in everything])
        facts: dict[str, float] = {
            "objects": sum(len(one.boxes) for one in everything),
            "ignored": sum(one.ignored for one in everything),
            "most_in_an_image": int(per_image.max(initial=0)),
            "images_without": int((per_image == 0).sum()),
        }
        if facts["objects"]:
            sides = torch.cat([one.boxes[:, 2:] - one.boxes[:, :2] for one in everything]).flatten()
            shortest, middle, longest = sides.min(), sides.median(), sides.max()
            facts |= {"shortest_side": float(shortest), "median_side": float(middle), "longest_side": float(longest)}
        return facts

    def lines(self, facts: Mapping[str, float]) -> list[str]:
        ignored = f", {facts['ignored']:,} regions to ignore" if facts["ignored"] else ""
        most, without = facts["most_in_an_image"], facts["images_without"]
        lines = [f"boxes: {facts['objects']:,}{ignored}, at most {most:,} in an image, {without:,} images without"]
        if facts["objects"]:
            shortest, middle, longest = (facts[f"{which}_side"] for which in ("shortest", "median", "longest"))
            lines.append(f"  sides of {shortest:g} to {longest:g} pixels, {middle:g} in the middle")
        return lines


def find_alike(classes: Sequence[str]) -> list[Problem]:
    """Classes that are likely one: "RBC", "rbc" and "R B C"."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups["".join(c for c in name.casefold() if c.isalnum()) or name].append(name)
    pairs = itertools.chain.from_iterable(itertools.combinations(names, 2) for names in groups.values())
    reason = "are likely one class; give both one name"
    return [Problem("alike_classes", "", f"the classes {listed(pair)} {reason}", "warning") for pair in pairs]


def find_odd(index: int, one: Instances, size: Size | None, classes: Sequence[str]) -> Iterator[Problem]:
    """That an image has no boxes, or some of its objects are very small. size: of the image; None if unreadable."""
    assert one.labels is not None
    real = one.labels >= 0
    if not real.any():
        what = "only regions to ignore" if len(one) else "no boxes"
        yield Problem("no_boxes", "", f"in {{split}}, it has {what}", "note", index)
    elif size is not None:
        height, width = size
        sides = one.boxes[:, 2:] - one.boxes[:, :2]
        small = (sides < _TINY) | (sides < _TINY_SHARE * sides.new_tensor([width, height]))
        for number in (small.any(dim=1) & real).nonzero()[:, 0].tolist():
            w, h = sides[number].tolist()
            what = (
                f"object {number + 1}, a {classes[int(one.labels[number])]}, is {w:g}x{h:g} pixels of {width}x{height}"
            )
            yield Problem("tiny_object", "", what, "warning", index)

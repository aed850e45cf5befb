"""What the data check says of maps of classes: classes' shares, what occurs together, and what is wrong with maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from opsin.data.box_check import find_alike
from opsin.data.map_counts import Tally
from opsin.data.truth import Problem, Summary

_MOSTLY_UNKNOWN = 0.5  # of a map's pixels, from which on that is worth a look
_MOST_CLASSES = 20  # whose shares are listed


@dataclass(frozen=True)
class MapSummary(Summary):
    """pixels: (K + 1,) of each class, then of none that is known. shown: (K, K) images that show both classes.

    images: how many there are; without: of how many nothing is known.
    """

    pixels: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    shown: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    images: int = 0
    without: int = 0
    overlapping: bool = False

    @classmethod
    def of(
        cls, counts: np.ndarray, classes: list[str], overlapping: bool, colours: Sequence[tuple[int, int, int]]
    ) -> MapSummary:
        """counts: (N, K + 1), see `ClassMaps.counts`."""
        present = (counts[:, :-1] > 0).astype(np.int64)
        pixels = counts.sum(axis=0)
        return cls(
            kind="classes of each pixel, which overlap" if overlapping else "a class of each pixel",
            counts=dict(zip(classes, present.sum(axis=0).tolist(), strict=True)),
            noun="pixels",
            objects=dict(zip(classes, pixels[:-1].tolist(), strict=True)),
            advice="; a loss that weighs classes, or Dice, may help",
            section="maps",
            pixels=pixels,
            shown=present.T @ present,
            colours=colours,
            images=len(counts),
            without=int((counts[:, :-1].sum(axis=1) == 0).sum()),
            overlapping=overlapping,
        )

    def facts(self, others: Sequence[MapSummary] = ()) -> dict[str, Any]:
        """unlabelled, the share of pixels of no known class; images_without any; shares of the classes' pixels.

        together: of each class the share of its images that show each other class.
        """
        everything = [self, *others]
        pixels = np.sum([one.pixels for one in everything], axis=0)
        shown = np.sum([one.shown for one in everything], axis=0)
        known = max(1, int(pixels[:-1].sum()))
        share = pixels[:-1] / known
        own = np.diag(shown)
        together = {
            name: {other: round(float(shown[k, j] / own[k]), 4) for j, other in enumerate(self.counts) if j != k}
            for k, name in enumerate(self.counts)
            if own[k]
        }
        return {
            "unlabelled": float(pixels[-1] / max(1, int(pixels.sum()))),
            "images_without": sum(one.without for one in everything),
            "shares": dict(zip(self.counts, [round(float(one), 6) for one in share], strict=True)),
            "together": together,
        }

    def lines(self, facts: Mapping[str, Any]) -> list[str]:
        what = "of no class" if self.overlapping else "unlabelled, left out of training and scores"
        lines = [f"pixels: {100 * facts['unlabelled']:.2f} % {what}"]
        if facts["images_without"]:
            lines.append(f"  {facts['images_without']:,} images without a pixel of a class")
        width = max((len(name) for name in facts["shares"]), default=0)
        for name, share in list(facts["shares"].items())[:_MOST_CLASSES]:
            near = sorted(facts["together"].get(name, {}).items(), key=lambda pair: -pair[1])
            never = [other for other, part in near if part == 0]
            with_ = f"; never with {', '.join(never[:4])}" if never and len(never) <= 4 else ""
            lines.append(f"  {name:<{width}}  {100 * share:5.2f} %{with_}")
        if len(facts["shares"]) > _MOST_CLASSES:
            lines.append(f"  ... and {len(facts['shares']) - _MOST_CLASSES} more")
        return lines


def find_faults(
    tallies: Sequence[Tally], name: Callable[[int], str], classes: Sequence[str], overlapping: bool
) -> list[Problem]:
    """What is wrong with the maps of a split. name: of each map where it lies."""
    found = find_alike(classes)
    for i, tally in enumerate(tallies):
        found += [
            Problem(fault.kind, name(i), fault.reason, fault.severity, i)
            for fault in tally.faults
            if not fault.unreadable  # which `Truth.unreadable` says
        ]
        total = int(tally.counts.sum())
        unknown = tally.counts[-1] / total if total else 0.0
        if overlapping or not total or any(fault.severity == "error" for fault in tally.faults):
            continue
        if unknown == 1:
            reason = "no pixel of it is labelled; nothing can be learned from it, and it counts in no score"
            found.append(Problem("nothing_labelled", name(i), reason, "warning", i))
        elif unknown > _MOSTLY_UNKNOWN:
            reason = f"{100 * unknown:.1f} % of its pixels are unlabelled"
            found.append(Problem("mostly_unlabelled", name(i), reason, "note", i))
    return found


def refuse_maps(
    tallies: Sequence[Tally], name: Callable[[int], str], classes: Sequence[str], overlapping: bool
) -> list[Problem]:
    """The first of what makes training on the maps of a split impossible."""
    if len(classes) < 2 and not overlapping:
        only = f"only the class {classes[0]!r}" if classes else "no class"
        return [Problem("one_class", "", f"{{source}} has {only}; of one thing to find, set overlapping=true")]
    for i, tally in enumerate(tallies):
        for fault in tally.faults:
            if fault.severity == "error":
                where = "" if fault.unreadable else f"{name(i)}: "  # which its reason names
                return [Problem(fault.kind, "", f"{where}{fault.reason}", index=i)]
    if tallies and not any(tally.counts[:-1].any() for tally in tallies):
        what = "no mask of the {split} split has a pixel set"
        if not overlapping:
            what = "no pixel of the {split} split has a class: all are ignored; is the setting ignore right?"
        return [Problem("nothing_labelled", "", f"{{source}}: {what}")]
    return []

"""Trainings side by side: each side with the same seeds, means with intervals, differences paired by seed.

`ablate` holds a recipe against itself with one switch turned at a time; `race` holds recipes against each other. What
both have is here: what a side is, what was found of it, and how a difference is put into words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opsin.engine.intervals import Interval, mean_interval, paired_difference
from opsin.engine.trainings import Trained
from opsin.rooms import Room

_NOISE = "no difference beyond the noise"


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a recipe and overrides, as `opsin.train` takes them, and what it is called."""

    name: str
    recipe: Mapping[str, Any]
    overrides: Mapping[str, Any]


@dataclass
class Found:
    """What was found of a side. trainings: one a seed, in the order of the seeds, also those that failed."""

    name: str
    trainings: list[Trained]
    level: float = 0.95

    @property
    def values(self) -> list[float]:
        """Of the trainings that ended well."""
        return [one.value for one in self.trainings if one.value is not None]

    @property
    def mean(self) -> Interval | None:
        """The mean of the values and its interval; None where every training failed."""
        return mean_interval(self.values, self.level) if self.values else None

    @property
    def seconds(self) -> float:
        """Of a training, on average."""
        done = [one.seconds for one in self.trainings if one.value is not None]
        return sum(done) / max(len(done), 1)

    def against(self, other: Found) -> Interval | None:
        """The difference to another side over the seeds that both have; None where there is none."""
        pairs = [
            (one.value, two.value)
            for one, two in zip(self.trainings, other.trainings, strict=False)
            if one.value is not None and two.value is not None
        ]
        if not pairs:
            return None
        return paired_difference([one for one, _ in pairs], [two for _, two in pairs], self.level)


@dataclass
class Comparison:
    """Sides that were trained with the same seeds, and how they differ. The first side is the reference.

    kind: "ablation" or "race". metric: without its split; mode: "max" or "min". split: that was evaluated. settings:
    what the comparison was begun with, plain values. report: its page, None where it is not written yet.
    """

    path: Path
    kind: str
    metric: str
    mode: str
    split: str
    room: Room
    sides: list[Found]
    seeds: list[int]
    level: float = 0.95
    report: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def reference(self) -> Found:
        """What the others are held against: the recipe itself, or of a race the side with the best mean."""
        if self.kind != "race":
            return self.sides[0]
        return self.ranked()[0]

    def ranked(self) -> list[Found]:
        """The sides, the best mean first, those without a value last."""
        sign = -1.0 if self.mode == "max" else 1.0
        return sorted(self.sides, key=lambda one: (one.mean is None, sign * (one.mean.mean if one.mean else 0.0)))

    def others(self) -> list[Found]:
        """The sides but the reference: as they were given, or of a race by rank."""
        order = self.ranked() if self.kind == "race" else self.sides
        return [one for one in order if one is not self.reference]

    def difference(self, side: Found) -> Interval | None:
        """Of a side to the reference."""
        return side.against(self.reference)

    def verdict(self, side: Found) -> str:
        """What its difference to the reference means: better, worse, or none that these seeds show."""
        failed = [one for one in side.trainings if one.error]
        if side.mean is None:
            return f"failed: {failed[0].error}" if failed else "not trained"
        found = self.difference(side)
        if found is None:
            return "no seed in common with the reference"
        if found.half is None:
            return "one seed: nothing is known of the noise"
        if not found.beyond_noise:
            return _NOISE
        return "better" if (found.mean > 0) == (self.mode == "max") else "worse"

    def format(self, value: float | None) -> str:
        """The metric for people."""
        return self.room.format(self.metric, value)

    def format_mean(self, found: Interval | None) -> str:
        """A mean with its interval: `98.61 % ± 0.52`."""
        if found is None:
            return "-"
        return self._with_half(self.format(found.mean), found)

    def format_difference(self, found: Interval | None) -> str:
        """A difference with its sign and its interval, in points of the metric's unit: `+0.21 ± 0.40`."""
        if found is None:
            return "-"
        metric = self.room.metric(self.metric)
        scale, digits = (metric.scale, metric.digits) if metric else (1.0, 4)
        return self._with_half(f"{found.mean * scale:+.{digits}f}", found)

    def _with_half(self, text: str, found: Interval) -> str:
        if found.half is None:
            return text
        metric = self.room.metric(self.metric)
        scale, digits = (metric.scale, metric.digits) if metric else (1.0, 4)
        return f"{text} ± {found.half * scale:.{digits}f}"

    def lines(self) -> list[str]:
        """The table for a terminal."""
        rows = [["", f"{self.split} {self.metric}", "difference", ""]]
        rows.append([self.reference.name, self.format_mean(self.reference.mean), "", "the reference"])
        for side in self.others():
            shown = self.format_difference(self.difference(side))
            rows.append([side.name, self.format_mean(side.mean), shown, self.verdict(side)])
        widths = [max(len(row[k]) for row in rows) for k in range(4)]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

    def summary(self) -> str:
        """One sentence: of an ablation how many switches matter, of a race who is ahead."""
        if self.kind == "race":
            leader, (second, *_) = self.reference, [*self.others(), None]
            if leader.mean is None:
                return "no training ended well"
            if second is None or second.mean is None:
                return f"{leader.name} alone has a value"
            if self.verdict(second) == "worse":
                return f"{leader.name} is ahead: {second.name} is behind by {self._gap(second)}"
            found = self.difference(second)
            if found is None or found.half is None:
                return f"{leader.name} has the best value of one seed each: nothing is known of the noise"
            return f"{leader.name} has the best mean, and {second.name} is not behind beyond the noise"
        others = self.others()
        verdicts = [self.verdict(one) for one in others]
        clear = [one.name for one, verdict in zip(others, verdicts, strict=True) if verdict in ("better", "worse")]
        within = verdicts.count(_NOISE)
        if clear:
            return f"beyond the noise: {', '.join(clear)}; {within} of {len(others)} within it"
        if within:
            return "no switch differs from the reference beyond the noise"
        return "nothing is known of the noise: it takes two seeds of each side, better three"

    def _gap(self, side: Found) -> str:
        return self.format_difference(self.difference(side)).lstrip("+-")

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        sides = []
        for side in self.sides:
            sides.append(
                {
                    "name": side.name,
                    "mean": _plain(side.mean),
                    "difference": None if side is self.reference else _plain(self.difference(side)),
                    "verdict": "the reference" if side is self.reference else self.verdict(side),
                    "trainings": [
                        {"seed": seed, **one.to_dict()} for seed, one in zip(self.seeds, side.trainings, strict=False)
                    ],
                }
            )
        return {
            "kind": self.kind,
            "path": str(self.path),
            "report": None if self.report is None else str(self.report),
            "metric": self.metric,
            "better": "higher" if self.mode == "max" else "lower",
            "split": self.split,
            "level": self.level,
            "reference": self.reference.name,
            "summary": self.summary(),
            "sides": sides,
        }


def _plain(found: Interval | None) -> dict[str, Any] | None:
    if found is None:
        return None
    ends = (None, None) if found.half is None else (found.low, found.high)
    return {"value": found.mean, "low": ends[0], "high": ends[1], "count": found.count}


def measured_names(sides: Sequence[Found]) -> list[str]:
    """Every metric that a training of these gave, in their order."""
    return list(dict.fromkeys(name for side in sides for one in side.trainings for name in one.metrics))

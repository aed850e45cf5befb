"""What a comparison of design spaces was begun with, and what was found: networks, their errors and the trends."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from opsin import registry, rooms
from opsin.analyze.design_space import SPACES, Best, Cost, Fit, Sample, best_value, correlation, read_limit
from opsin.backbones.regnet import BLOCKS
from opsin.engine.intervals import Interval, unpaired_difference
from opsin.engine.recipe import Recipe, load_recipe
from opsin.engine.trainings import Trained
from opsin.errors import InputError, unknown

MODEL = "anynetx"  # every network of every space is one


@dataclass
class Settings:
    """What was asked for, as design.yaml holds it. recipe: values, whose model is replaced by each sample."""

    spaces: list[str]
    recipe: dict[str, Any]
    overrides: dict[str, Any] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)
    samples: int = 50
    epochs: int = 10
    block: str = "bottleneck"
    seed: int = 0
    cache: str | None = None

    def values(self) -> dict[str, Any]:
        """The recipe with the model that all samples are."""
        small = bool(dict(self.recipe.get("model") or {}).get("small_images", True))
        return {**self.recipe, "model": {"name": MODEL, "small_images": small}}

    def keys(self) -> dict[str, Any]:
        """What is set for all: the epochs, of which a fifth at most is the warm-up."""
        warmup = load_recipe(self.values(), self.overrides).schedule.warmup_epochs
        found = {"train.epochs": self.epochs, **self.overrides}
        return {"schedule.warmup_epochs": min(warmup, found["train.epochs"] / 5), **found}

    def check(self) -> Recipe:
        """The recipe. Raises InputError for what cannot be, before anything is trained."""
        for space in self.spaces:
            if space not in SPACES:
                raise unknown("design space", space, SPACES)
        if not self.spaces:
            raise InputError(f"say which design spaces, for example anynetx_a regnetx; there are {', '.join(SPACES)}")
        if len(set(self.spaces)) < len(self.spaces):
            raise InputError("a design space is given twice")
        if self.block not in BLOCKS:
            raise unknown("block", self.block, BLOCKS)
        for name in ("samples", "epochs"):
            if not 1 <= getattr(self, name) <= 10_000:
                raise InputError(f"{name} is {getattr(self, name)}; take 1 or more")
        if not self.limits:
            raise InputError("without a limit large networks would win; give one, for example --limit macs=4M")
        for limit in self.limits:
            read_limit(limit)
        task = registry.find_model(MODEL).task
        if (given := self.recipe.get("task", rooms.DEFAULT_TASK)) != task:
            raise InputError(f"design spaces are of networks for {task}, and the recipe is of {given}")
        return load_recipe(self.values(), self.keys())


@dataclass
class Network:
    """A sample, its cost, how it ended, the line nearest to its widths. seconds: of a forward pass of 16 images."""

    sample: Sample
    cost: Cost
    fit: Fit
    trained: Trained
    error: float | None = None
    seconds: float | None = None

    def numbers(self) -> dict[str, float]:
        """What the trends are of: depth, and bottleneck ratio and group width as means over blocks.

        And the width multiplier: w_m of a RegNet, else of the nearest line, where that rises.
        """
        stages, depth = self.sample.stages, sum(self.sample.stages.depths)
        found = {"depth": float(depth)}
        for name, each in (("bottleneck ratio", stages.bottleneck_ratios), ("group width", stages.group_widths)):
            found[name] = sum(value * blocks for value, blocks in zip(each, stages.depths, strict=True)) / depth
        if self.sample.line is not None:
            found["width multiplier"] = self.sample.line.w_m
        elif len(set(self.fit.widths(depth))) > 1:
            found["width multiplier"] = self.fit.w_m
        return found

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        line = self.sample.line
        return {
            "space": self.sample.space,
            **self.sample.options(),
            **asdict(self.cost),
            "line": None if line is None else asdict(line),
            "fit": asdict(self.fit),
            "error": self.error,
            "seconds": self.seconds,
            "run": str(self.trained.path),
            "failed": self.trained.error,
        }


@dataclass
class Design:
    """What was found of some spaces. metric: whose error is meant; shape: (C, H, W) of the input."""

    path: Path
    settings: Settings
    metric: str
    networks: list[Network]
    shape: tuple[int, int, int]
    report: Path | None = None

    def of(self, space: str) -> list[Network]:
        """The networks of a space that ended well, the best first."""
        found = [one for one in self.networks if one.sample.space == space and one.error is not None]
        return sorted(found, key=lambda one: one.error or 0.0)

    def errors(self, space: str) -> list[float]:
        """Of a space, in order."""
        return [one.error for one in self.of(space) if one.error is not None]

    def difference(self, space: str) -> Interval | None:
        """The mean error of a space less that of the first one, with Welch's interval."""
        mine, first = self.errors(space), self.errors(self.settings.spaces[0])
        return unpaired_difference(mine, first) if mine and first else None

    def trends(self, space: str) -> dict[str, Best]:
        """Which depth, ratio, width multiplier and group width the best networks of a space have."""
        found = self.of(space)
        if not found:
            return {}
        trends = {}
        for name in ("depth", "bottleneck ratio", "group width", "width multiplier"):
            known = [(one.numbers()[name], one.error or 0.0) for one in found if name in one.numbers()]
            if known:
                trends[name] = best_value([value for value, _ in known], [error for _, error in known])
        return trends

    def predictors(self) -> dict[str, float | None]:
        """How each cost goes along with the seconds of a forward pass, over all networks: Pearson's r."""
        timed = [one for one in self.networks if one.seconds is not None]
        seconds = [one.seconds or 0.0 for one in timed]
        return {name: correlation([getattr(one.cost, name) for one in timed], seconds) for name in
                ("activations", "macs", "params")}  # fmt: skip

    def lines(self) -> list[str]:
        """The table for a terminal."""
        rows = [["space", "networks", "least error", "median", "mean to the first"]]
        for space in self.settings.spaces:
            wrong = self.errors(space)
            found = self.difference(space)
            shown = [f"{100 * value:.2f} %" for value in (wrong[0], median(wrong))] if wrong else ["-", "-"]
            rows.append([space, str(len(wrong)), *shown, describe_difference(found, space == self.settings.spaces[0])])
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "path": str(self.path),
            "report": None if self.report is None else str(self.report),
            "settings": asdict(self.settings),
            "metric": self.metric,
            "input": list(self.shape),
            "errors": {space: self.errors(space) for space in self.settings.spaces},
            "trends": {
                space: {name: asdict(best) for name, best in self.trends(space).items()}
                for space in self.settings.spaces
            },
            "predictors": self.predictors(),
            "networks": [one.to_dict() for one in self.networks],
        }


def describe_difference(found: Interval | None, first: bool) -> str:
    """The difference of a space's mean error to the first one's, in words."""
    if first or found is None:
        return "the first" if first else "-"
    shown = f"{100 * found.mean:+.2f}"
    if found.half is None:
        return shown
    word = "better" if found.high < 0 else "worse" if found.low > 0 else "no difference beyond the noise"
    return f"{shown} ± {100 * found.half:.2f}, {word}"

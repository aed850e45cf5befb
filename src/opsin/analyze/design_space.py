"""Spaces of networks instead of networks: samples, what they cost, and how their errors are distributed.

Radosavovic, Kosaraju, Girshick, He and Dollar 2020, Designing Network Design Spaces, arXiv:2003.13678. A space is as
good as the networks that are drawn from it: many are trained briefly, and the distributions of their errors compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from opsin.backbones.regnet import BLOCKS, BlockName, Line, Stages, sample_anynetx, sample_regnetx
from opsin.errors import InputError, unknown

SPACES = ("anynetx_a", "anynetx_b", "anynetx_c", "anynetx_d", "anynetx_e", "regnetx")
COSTS = ("macs", "params", "activations")

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_NUMBER = r"(\d+(?:\.\d+)?)([kKmMgG]?)"
_LIMIT = re.compile(rf"(\w+)=(?:{_NUMBER}\.\.)?{_NUMBER}")
_TRIES = 20_000  # draws for one network within the limits


@dataclass(frozen=True)
class Sample:
    """A network of a space. line: its six numbers, where the space is RegNet's."""

    space: str
    stages: Stages
    block: BlockName = "bottleneck"
    line: Line | None = None

    def options(self) -> dict[str, Any]:
        """The options of the model `anynetx` that build it."""
        names = ("depths", "widths", "bottleneck_ratios", "group_widths", "strides")
        return {**{name: list(getattr(self.stages, name)) for name in names}, "block": self.block}


@dataclass(frozen=True)
class Cost:
    """What a network costs. activations: numbers in the outputs of all convolutions, the paper's section 4."""

    macs: int
    params: int
    activations: int


@dataclass(frozen=True)
class Limit:
    """A range of one of the costs, both ends included."""

    what: str
    low: float
    high: float

    def holds(self, cost: Cost) -> bool:
        """Whether a cost is within."""
        return self.low <= getattr(cost, self.what) <= self.high

    def __str__(self) -> str:
        return f"{self.what}={_short(self.low)}..{_short(self.high)}"


def read_limit(text: str) -> Limit:
    """`macs=360M..400M`; of `macs=400M` the lower end is nine tenths, as in the paper. Raises InputError."""
    found = _LIMIT.fullmatch(text.replace(" ", ""))
    if found is None:
        raise InputError(f"--limit takes COST=NUMBER, for example macs=400M or params=1M..2M; got {text!r}")
    if found[1] not in COSTS:
        raise unknown("cost to limit", found[1], COSTS)
    high = float(found[4]) * _UNITS[found[5].lower()]
    low = 0.9 * high if found[2] is None else float(found[2]) * _UNITS[found[3].lower()]
    if not 0 <= low <= high or not high:
        raise InputError(f"--limit {text} holds nothing; the smaller number comes first")
    return Limit(found[1], low, high)


def _short(number: float) -> str:
    for sign, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= unit:
            return f"{number / unit:g}{sign}"
    return f"{number:g}"


def cost_of(
    sample: Sample,
    input_size: tuple[int, int, int] = (3, 224, 224),
    num_classes: int = 1000,
    *,
    small_images: bool = False,
    stem_width: int = 32,
) -> Cost:
    """What an AnyNet costs, by arithmetic, so that a hundred thousand are counted in seconds; (C, H, W)."""
    channels, height, width = input_size
    macs = params = activations = 0
    stride = 1 if small_images else 2
    for into, out, kernel, step, groups in _convolutions(sample, channels, stem_width, stride):
        height, width = -(-height // step), -(-width // step)
        weights = out * (into // groups) * kernel**2
        # A shortcut's convolution reads the larger map, and stands behind the body's here: its step is 1.
        macs += weights * height * width
        params += weights + 2 * out  # scale and shift of the norm
        activations += out * height * width
    last = sample.stages.widths[-1]
    return Cost(macs + last * num_classes, params + (last + 1) * num_classes, activations)


def _convolutions(
    sample: Sample, channels: int, stem_width: int, stride: int
) -> Iterator[tuple[int, int, int, int, int]]:
    """(channels in, channels out, kernel size, stride, groups) of every convolution of an AnyNet without squeezes.

    The first 1x1 of a block reads the map before the stride; it comes before the 3x3 that has it.
    """
    yield channels, stem_width, 3, stride, 1
    into = stem_width
    for depth, out, ratio, group_width, step in sample.stages.rows():
        inside = round(out / ratio)
        for place in range(depth):
            own = step if place == 0 else 1
            if sample.block == "vgg":
                yield into, out, 3, own, 1
            elif sample.block == "inverted_residual":
                if inside != into:
                    yield into, inside, 1, 1, 1
                yield inside, inside, 3, own, inside
                yield inside, out, 1, 1, 1
            else:
                yield into, inside, 1, 1, 1
                yield inside, inside, 3, own, inside // group_width
                yield inside, out, 1, 1, 1
                if own != 1 or into != out:
                    yield into, out, 1, 1, 1
            into = out


def draw_one(space: str, random: Random, block: BlockName = "bottleneck") -> Sample:
    """A network of a space by its name. Raises InputError for an unknown one."""
    if space not in SPACES:
        raise unknown("design space", space, SPACES)
    if block not in BLOCKS:
        raise unknown("block", block, BLOCKS)
    if space == "regnetx":
        line = sample_regnetx(random, block)
        return Sample(space, line.stages(), block, line)
    letter: Any = space[-1].upper()
    return Sample(space, sample_anynetx(letter, random, block), block)


def draw(
    space: str,
    count: int,
    limits: Sequence[Limit],
    *,
    seed: int = 0,
    block: BlockName = "bottleneck",
    input_size: tuple[int, int, int] = (3, 224, 224),
    num_classes: int = 1000,
    small_images: bool = False,
) -> list[Sample]:
    """Different networks of a space within some limits; the first of more are those of fewer.

    Raises InputError where 20,000 draws in a row are outside.
    """
    random = Random(f"{space} {block} {seed}")  # each space its own numbers
    found: dict[Stages, Sample] = {}
    misses = 0
    while len(found) < count:
        sample = draw_one(space, random, block)
        cost = cost_of(sample, input_size, num_classes, small_images=small_images)
        if sample.stages not in found and all(limit.holds(cost) for limit in limits):
            found[sample.stages] = sample
            misses = 0
            continue
        misses += 1
        if misses >= _TRIES:
            listed = " and ".join(map(str, limits))
            raise InputError(f"{space} has hardly a network with {listed}; widen --limit, or take fewer --samples")
    return list(found.values())


# What the paper does with errors


def error_distribution(errors: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The errors in order, and the share of networks with an error no larger than each. Section 3.1, equation 1.

    The paper's F(e) is the share below e, that is the value of the step before.
    """
    ordered = np.sort(np.asarray(errors, np.float64))
    return ordered, np.arange(1, len(ordered) + 1) / max(len(ordered), 1)


def share_below(errors: Sequence[float], error: float) -> float:
    """F(e), the share of networks whose error is below e. Equation 1."""
    return float(np.mean(np.asarray(errors) < error)) if len(errors) else 0.0


@dataclass(frozen=True)
class Best:
    """The value of a number that is best, by the bootstrap: its median, and what holds it with a confidence of 95 %."""

    low: float
    median: float
    high: float


def best_value(
    values: Sequence[float], errors: Sequence[float], *, draws: int = 10_000, share: float = 0.25, seed: int = 0
) -> Best:
    """Which value of a number the best networks have. The empirical bootstrap of figure 2.

    A quarter of the networks is drawn with replacement, the one with the least error gives its value, many times over;
    of these values the median and the middle 95 %. Raises InputError for none, or for lists of different lengths.
    """
    known, wrong = np.asarray(values, np.float64), np.asarray(errors, np.float64)
    if not len(known) or len(known) != len(wrong):
        raise InputError(f"{len(known)} values and {len(wrong)} errors; there must be as many of each, at least one")
    picked = np.random.default_rng(seed).integers(len(known), size=(draws, max(1, round(share * len(known)))))
    best = known[picked[np.arange(draws), wrong[picked].argmin(axis=1)]]
    low, median, high = np.quantile(best, (0.025, 0.5, 0.975), method="nearest")
    return Best(float(low), float(median), float(high))


@dataclass(frozen=True)
class Fit:
    """The line of quantised widths that is nearest to a network's, and how far off it is: e_fit of section 3.3."""

    w_0: int
    w_a: float
    w_m: float
    error: float

    def widths(self, depth: int) -> list[int]:
        """Of every block, by the fit."""
        return Line(depth, self.w_0, self.w_a, self.w_m, 1).block_widths()


_W_0 = np.arange(8, 257, 8)
_W_A = np.concatenate([[0.0], np.geomspace(1, 256, 49)])
_W_M = np.arange(1.1, 3.01, 0.05)


def fit_line(stages: Stages) -> Fit:
    """The best of a grid of w_0, w_a and w_m: least mean |log(predicted / own width)| over the blocks. Section 3.3."""
    own = np.repeat(np.asarray(stages.widths, np.float64), stages.depths)
    wanted = _W_0[:, None, None] + _W_A[None, :, None] * np.arange(len(own))  # equation 2, (w_0, w_a, block)
    steps = np.log(wanted / _W_0[:, None, None])
    best = Fit(8, 0.0, 2.0, math.inf)
    for w_m in _W_M:
        exponents = np.rint(steps / math.log(w_m))  # equation 3
        widths = 8 * np.rint(_W_0[:, None, None] * w_m**exponents / 8)  # equation 4
        off = np.abs(np.log(np.maximum(widths, 8) / own)).mean(axis=2)
        row, column = np.unravel_index(off.argmin(), off.shape)
        if off[row, column] < best.error - 1e-12:
            best = Fit(int(_W_0[row]), float(_W_A[column]), round(float(w_m), 2), float(off[row, column]))
    return best


def correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Pearson's r of two costs; None for fewer than three networks, and where one of them never changes."""
    if len(one) < 3 or len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return float(np.corrcoef(np.asarray(one, np.float64), np.asarray(other, np.float64))[0, 1])

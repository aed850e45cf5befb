"""An exported file held against the model that it was made of: its outputs, and the answers that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.engine.exported import Run
from opsin.engine.program import FreeSides, Program
from opsin.errors import JobError

HALF_TOLERANCE = 0.05  # of weights rounded to 16 bits, whose answers must be the same besides
TOLERANCE = 1e-4  # of the value, or where that is below 1, or below the input's longer side for boxes, of that
_CHUNK = 32  # examples that are compared at a time


@dataclass(frozen=True)
class Compared:
    """An output of the file and how far it is from PyTorch's: `relative` is what `tolerance` bounds."""

    name: str
    shape: tuple[int, ...]  # without the batch
    absolute: float
    relative: float


def tolerance(half: bool) -> float:
    """What differences of outputs are bounded by: TOLERANCE, or that of weights of 16 bits."""
    return HALF_TOLERANCE if half else TOLERANCE


def _of_another_size(images: Tensor, sides: FreeSides) -> Tensor:
    """Two of the images, higher and wider by unequal amounts, repeated where they end."""
    height = sides.after(images.shape[-2])
    width = sides.after(sides.after(images.shape[-1] + images.shape[-1] // 4))
    rows, columns = torch.arange(height) % images.shape[-2], torch.arange(width) % images.shape[-1]
    return images[:2].index_select(-2, rows).index_select(-1, columns)


def _worse(one: Compared, other: Compared) -> Compared:
    """The shape of one with the larger differences of two."""
    largest = max(one.absolute, other.absolute), max(one.relative, other.relative)
    return Compared(one.name, one.shape, *largest)


def compare(program: Program, run: Run, images: Tensor, path: Path) -> list[Compared]:
    """Every output on the images, and where the program takes other sizes on two of another one too.

    path: of the file in messages. Raises JobError for a mismatch.
    """
    outputs = _compare(program, run, images, path)
    if program.sides is None:
        return outputs
    others = _compare(program, run, _of_another_size(images, program.sides), path)
    return [_worse(*pair) for pair in zip(outputs, others, strict=True)]


@torch.inference_mode()
def _compare(program: Program, run: Run, images: Tensor, path: Path) -> list[Compared]:
    """Every output on the first example alone and on the others together."""
    batches = [images[:1], *images[1:].split(_CHUNK)] if len(images) > 1 else [images]
    moments = [program.given(batch) for batch in batches]
    compared = list[Compared]()
    for at_once in zip(*moments, strict=True):
        found = _compare_moment(program, run, at_once, path)
        compared = [_worse(*pair) for pair in zip(found, compared or found, strict=True)]
    return compared


def _compare_moment(program: Program, run: Run, batches: Sequence[tuple[Tensor, ...]], path: Path) -> list[Compared]:
    """Every output of the same moment of several batches."""
    pairs = [(program.module(*batch), run(*batch)) for batch in batches]
    compared: list[Compared] = []
    ours: dict[str, Tensor] = {}
    theirs: dict[str, Tensor] = {}
    for name in pairs[0][0]:
        wanted, got = (torch.cat([pair[side][name] for pair in pairs]) for side in (0, 1))
        if wanted.shape != got.shape:
            raise JobError(f"{path} was not written: {name} came out as {tuple(got.shape)}, not {tuple(wanted.shape)}")
        ours[name], theirs[name] = wanted, got
        if not wanted.numel():  # as a state before the first step
            compared.append(Compared(name, tuple(wanted.shape[1:]), 0.0, 0.0))
            continue
        apart = (got - wanted).abs()
        relative = float((apart / wanted.abs().clamp(min=program.units.get(name, 1.0))).max())
        compared.append(Compared(name, tuple(wanted.shape[1:]), float(apart.max()), relative))
        if not relative <= tolerance(program.half):
            raise JobError(
                f"{path} was not written: its {name} differ from PyTorch's by up to {float(apart.max()):.2g}, "
                f"relatively {relative:.2g}, more than {tolerance(program.half):g}"
            )
    if program.decode is not None:
        _compare_answers(program.decode(ours), program.decode(theirs), path)
    if program.exact is not None:
        _compare_exactly(program.exact(ours), program.exact(theirs), path)
    return compared


def _compare_answers(wanted: list[dict[str, Any]], got: list[dict[str, Any]], path: Path) -> None:
    """Raise JobError where the file's outputs, decoded, give other answers than the model's.

    One example in eight may: of two predictions that are equally certain but for rounding, either may come first.
    """
    differing = sum(not _alike(one, other) for one, other in zip(wanted, got, strict=True))
    if differing > -(-len(wanted) // 8):
        raise JobError(f"{path} was not written: {differing} of {len(wanted)} examples get other answers from it")


def _compare_exactly(wanted: list[Any], got: list[Any], path: Path) -> None:
    """Raise JobError where a single example gets another answer."""
    differing = [(one, other) for one, other in zip(wanted, got, strict=True) if one != other]
    if differing:
        one, other = differing[0]
        raise JobError(
            f"{path} was not written: {len(differing)} of {len(wanted)} examples get another answer from it, the first "
            f"{other!r} for {one!r}; none may"
        )


def _alike(one: Any, other: Any) -> bool:
    """Whether two answers, plain values, say the same, numbers to about three digits."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-3 * max(10.0, abs(one), abs(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and bool((abs(one - other) <= 1e-3 * np.maximum(10.0, abs(one))).all())
    return one == other

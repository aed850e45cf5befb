"""Splits: kept where a source has them, else cut from it: by a hash of each name, or stratified and seeded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from opsin.data.hash_division import divide_by_hash
from opsin.data.labels import strata
from opsin.data.source import Source, Split
from opsin.errors import InputError


def divide(
    source: Source,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    split: Literal["hash", "stratified"] = "stratified",
) -> dict[str, Split]:
    """The splits "train", "val" and "test" of a source.

    Its own splits are kept. A missing val is cut from train: `val_fraction` of it; 0 gives none. A source without
    splits is cut into all three, fractions of the whole. One with train but no test stays without a test.
    split: how it is cut. "stratified": classes in proportion, sizes rounded up; another file divides all anew. "hash":
    see `opsin.data.hash_division`; another file moves no other.
    The truth says what is kept in proportion and what is kept together; see `Truth.strata` and `Truth.groups`.
    """
    return divide_source(source, fractions_of(val_fraction, test_fraction), seed, split)[0]


def fractions_of(val_fraction: float, test_fraction: float) -> dict[str, float]:
    """The shares of "test" and "val", in the order in which they are cut. Raises InputError for impossible ones."""
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise InputError(f"{name} is {fraction}; expected a number from 0 to below 1")
    if val_fraction + test_fraction >= 1:
        raise InputError(f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing to train on")
    return {"test": test_fraction, "val": val_fraction}


def cut_split(source: Source) -> tuple[str, tuple[str, ...]]:
    """The split of a source that others are cut from, and those in order; "" and none of one that has all."""
    if "all" in source.splits:
        return "all", ("test", "val")
    if "train" in source.splits and "val" not in source.splits:
        return "train", ("val",)
    return "", ()


def divide_source(
    source: Source, fractions: Mapping[str, float], seed: int, split: str
) -> tuple[dict[str, Split], list[str]]:
    """What `divide` gives, and a line for what was done so that no class is left empty.

    fractions: of `fractions_of`. split: how it is cut.
    """
    key, cut = cut_split(source)
    if not cut:
        return ordered(source.splits), []
    whole, shares, lines = source.splits[key], {name: fractions[name] for name in cut}, []
    if split == "hash":
        number, lines = divide_by_hash(source, whole, shares, seed)
        parts = {name: np.flatnonzero(number == place) for place, name in enumerate(("train", *cut))}
    else:
        *others, train = _cut(whole, list(shares.values()), seed)
        parts = {"train": train, **dict(zip(cut, others, strict=True))}
    rest = {name: one for name, one in source.splits.items() if name not in (key, "train")}
    return ordered({**rest, **{name: whole.subset(part) for name, part in parts.items() if len(part)}}), lines


def _cut(split: Split, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """`stratify` by what a split's truth says. Groups count as one example each, of the class of their first."""
    truth = split.truth
    classes = None if truth is None else truth.strata()
    classes = np.zeros(len(split), np.int64) if classes is None else classes
    groups = None if truth is None else truth.groups()
    if groups is None:
        return stratify(classes, fractions, seed)
    _, first, number = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    parts = stratify(classes[first], fractions, seed)
    return [np.flatnonzero(np.isin(number, part)) for part in parts]


def stratify(labels: np.ndarray, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Cut places 0..N-1 into one part a fraction, and the rest last. Each part is sorted.

    A part has ceil(N * fraction) places, shared among the classes in proportion (largest remainders), but each class
    leaves one for the rest. Multi-label rows count as their rarest class. labels: (N,) int or (N, K) of 0 and 1.
    """
    groups = strata(labels)
    random = np.random.RandomState(seed)  # its stream is frozen: the same split with every NumPy
    members = [random.permutation(np.flatnonzero(groups == k)) for k in np.unique(groups)]
    sizes = np.array([len(m) for m in members], dtype=np.int64)
    taken = np.zeros_like(sizes)
    parts = []
    for fraction in fractions:
        shares = _shares(sizes, sizes - taken - 1, math.ceil(round(len(labels) * fraction, 6)))
        parts.append(_joined([m[a : a + n] for m, a, n in zip(members, taken, shares, strict=True)]))
        taken = taken + shares
    return [*parts, _joined([m[a:] for m, a in zip(members, taken, strict=True)])]


def stratified(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """`count` places of a split, stratified, sorted; all of them where there are no more."""
    if count >= len(labels):
        return np.arange(len(labels))
    taken = stratify(labels, [count / len(labels)], seed)[0]
    if len(taken) < count:  # where classes have no more than the one that `stratify` leaves
        rest = np.setdiff1d(np.arange(len(labels)), taken)
        evenly = np.linspace(0, len(rest) - 1, count - len(taken)).round().astype(np.int64)
        taken = np.sort(np.concatenate([taken, rest[evenly]]))
    return taken


def _shares(sizes: np.ndarray, free: np.ndarray, total: int) -> np.ndarray:
    """How many of each class make up a part of `total`, in proportion to `sizes`, at most `free` of each."""
    free = np.maximum(free, 0)
    total = min(total, int(free.sum()))
    quota = sizes * (total / max(1, sizes.sum()))
    shares = np.minimum(np.floor(quota).astype(np.int64), free)
    while (missing := total - int(shares.sum())) > 0:
        remainder = np.where(shares < free, quota - shares, -np.inf)
        best = np.argsort(-remainder, kind="stable")[:missing]
        shares[best[shares[best] < free[best]]] += 1
    return shares


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate(parts)) if parts else np.arange(0)


def ordered(splits: Mapping[str, Split]) -> dict[str, Split]:
    """The splits "train", "val" and "test" of those that there are, in this order."""
    return {name: splits[name] for name in ("train", "val", "test") if name in splits}

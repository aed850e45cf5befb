"""Splits: kept where a source has them, else cut from it, stratified and seeded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from opsin.data.labels import strata
from opsin.data.source import Source, Split
from opsin.errors import InputError


def divide(source: Source, *, val_fraction: float = 0.1, test_fraction: float = 0.2, seed: int = 0) -> dict[str, Split]:
    """The splits "train", "val" and "test" of a source.

    Its own splits are kept. A missing val is cut from train: `val_fraction` of it, rounded up; 0 gives none. A source
    without splits is cut into all three, fractions of the whole. One with train but no test stays without a test.
    The truth says what is kept in proportion and what is kept together; see `Truth.strata` and `Truth.groups`.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise InputError(f"{name} is {fraction}; expected a number from 0 to below 1")
    if val_fraction + test_fraction >= 1:
        raise InputError(f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing to train on")
    splits = dict(source.splits)
    if "all" in splits:
        whole = splits.pop("all")
        test, val, train = _cut(whole, [test_fraction, val_fraction], seed)
    elif "train" in splits and "val" not in splits:
        whole = splits["train"]
        test, (val, train) = np.arange(0), _cut(whole, [val_fraction], seed)
    else:
        return _ordered(splits)
    splits |= {name: whole.subset(part) for name, part in (("train", train), ("val", val), ("test", test)) if len(part)}
    return _ordered(splits)


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
    return stratify(labels, [count / len(labels)], seed)[0]


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


def _ordered(splits: dict[str, Split]) -> dict[str, Split]:
    return {name: splits[name] for name in ("train", "val", "test") if name in splits}

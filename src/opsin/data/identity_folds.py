"""Folds of identities: k of n, so that each identity is tested once by a model that never saw it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from opsin.data.hash_division import hash_of
from opsin.data.identities import Identities
from opsin.data.inputs import Concatenated
from opsin.data.source import Source, Split
from opsin.errors import InputError


def take_fold(source: Source, fold: str) -> Source:
    """A source with the k-th of n folds of its identities as test and all others as train: fold is "k/n".

    Whatever splits it had are joined. Identities are in the order of a hash of their names and dealt out in turn, so
    that folds differ by one identity at most, and the n folds together are all. Raises InputError for a fold that there
    is not.
    """
    number, count = _parse(fold)
    splits = list(source.splits.values())
    names = sorted({str(name) for split in splits for name in _shown(split)})
    if count > len(names):
        raise InputError(f"fold is {fold}, and {source.name} has {len(names):,} identities; give as many folds at most")
    ranked = sorted(names, key=lambda name: (hash_of(name, 0), name))
    tested = {name for rank, name in enumerate(ranked) if rank % count == number - 1}
    place = {name: k for k, name in enumerate(names)}
    labels = np.concatenate([_labels(split, place) for split in splits])
    whole = Split(
        splits[0].inputs if len(splits) == 1 else Concatenated([split.inputs for split in splits]),
        Identities(labels, names),
    )
    test = np.isin(labels, [place[name] for name in tested])
    return replace(
        source,
        splits={
            "train": whole.subset(np.flatnonzero(~test)),
            "test": whole.subset(np.flatnonzero(test)),
        },
    )


def _parse(fold: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*(\d{1,4})\s*/\s*(\d{1,4})\s*", str(fold))
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count or count < 2:
        raise InputError(f"fold is {fold!r}; expected which of how many, 1/5 to 5/5")
    return number, count


def _shown(split: Split) -> Sequence[str]:
    """The names of the identities that a split shows."""
    return [split.kind.names[k] for k in np.unique(split.kind.labels[split.kind.labels >= 0]).tolist()]


def _labels(split: Split, place: dict[str, int]) -> np.ndarray:
    """A split's labels by the places of all names; nobody known stays nobody."""
    own = np.array([place.get(str(name), -1) for name in split.kind.names] + [-1], np.int64)
    return own[split.kind.labels]

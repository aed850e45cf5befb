"""A division by hash: each group of examples goes where a hash of its name says, so that a new file moves no other.

A group is what the truth keeps together (an identity, a scene, a page), else one example, by its name within the data.
Its hash, of (seed, name) alone, is a number in [0, 1): the lowest are the test split, the next ones val, all others
train. Examples with the same pixels are one group, by the shortest of their names and of these the first: the copy of
an image is seldom called shorter, and so moves nothing either.

A class that a split has no example of gets its group with the lowest hash, of a split that keeps another of that class;
the same holds for a split that would be empty.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from opsin.data.names import names_within
from opsin.data.source import Source, Split

_ROUNDS = 3  # in which classes are looked at: of several labels, what one class was given may help another
_SURE = 21.0  # examples that a split is to have on average until no class is left empty: exp(-21) is 1e-9


def hash_of(name: str, seed: int) -> float:
    """The place of a name in [0, 1)."""
    text = f"{seed}:{name}".encode("utf-8", "surrogatepass")
    return (int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 11) / (1 << 53)


@dataclass(frozen=True)
class Groups:
    """What is divided as one. number: (N,) int64, of each example its group. place: (G,) in [0, 1), their hashes."""

    number: np.ndarray
    place: np.ndarray


def group(names: Sequence[str], split: Split, seed: int) -> Groups:
    """The groups of a split's examples: by its truth, else by their names; those with equal pixels are one."""
    said = None if split.truth is None else split.truth.groups()
    keys = list(names) if said is None else [str(one) for one in said]
    known = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    number = np.array([known[key] for key in keys], np.int64)
    component = _together(number, len(known), split.digests)
    first: dict[int, str] = {}
    for key, one in zip(known, component, strict=True):
        first[one] = min(first.get(one, key), key, key=lambda name: (len(name), name))
    place = {one: k for k, one in enumerate(first)}
    return Groups(
        np.array([place[one] for one in component], np.int64)[number],
        np.array([hash_of(key, seed) for key in first.values()]),
    )


def _together(number: np.ndarray, count: int, digests: np.ndarray | None) -> list[int]:
    """Of each of `count` keys the component that it belongs to. number: (N,), of each example its key."""
    pixels = np.zeros(0, np.uint64) if digests is None else digests[:, 1]
    known = np.flatnonzero(pixels)
    _, first, inverse = np.unique(pixels[known], return_index=True, return_inverse=True)
    one, other = number[known], number[known[first[inverse]]]
    component = list(range(count))

    def root(place: int) -> int:
        while component[place] != place:
            component[place] = component[component[place]]
            place = component[place]
        return place

    for left, right in sorted({pair for pair in zip(one.tolist(), other.tolist(), strict=True) if pair[0] != pair[1]}):
        roots = sorted((root(left), root(right)))
        component[roots[1]] = roots[0]
    return [root(place) for place in range(count)]


def divide_by_hash(
    source: Source, split: Split, fractions: Mapping[str, float], seed: int
) -> tuple[np.ndarray, list[str]]:
    """Of each example of a source's split where it goes, (N,) int64: 0 for train, k for the k-th of `fractions`.

    And a line for what was done so that no class is left empty.
    """
    names = names_within(source, split)
    groups = group(names, split, seed)
    filling = _Filling(by_hash(groups, fractions), groups)
    wanted = [0, *(k for k, share in enumerate(fractions.values(), 1) if share > 0)]
    least = min([share for share in fractions.values() if share > 0], default=1.0)
    filled = filling.run(_classes(split, _SURE / least if len(groups.place) == len(names) else np.inf), wanted)
    return filling.part[groups.number], _describe(filled, [*fractions], names, groups.number)


def place_new(source: Source, split: Split, fractions: Mapping[str, float], seed: int, known: np.ndarray) -> np.ndarray:
    """Where the examples go that are in no split yet, (M,) int64 as of `divide_by_hash`: beside their group or equals.

    known: (N,) int64, of each example where it is, -1 of the M new ones.
    """
    groups = group(names_within(source, split), split, seed)
    count, old, others = len(groups.place), known >= 0, len(fractions)
    rank = np.concatenate([[0], np.arange(others, 0, -1)])  # train, then val, then test
    there = np.full(count, others + 1)
    np.minimum.at(there, groups.number[old], rank[known[old]])  # where equal ones are on several sides: to the first
    unrank = np.argsort(rank)
    part = np.where(there <= others, unrank[np.minimum(there, others)], by_hash(groups, fractions))
    return part[groups.number[~old]]


def by_hash(groups: Groups, fractions: Mapping[str, float]) -> np.ndarray:
    """(G,) int64: where the hash of each group alone says: 0 for train, k for the k-th of `fractions`."""
    bounds = np.cumsum([round(share, 12) for share in fractions.values()])
    part = np.searchsorted(bounds, groups.place, side="right") + 1
    return np.where(part > len(bounds), 0, part)


def _classes(split: Split, most: float) -> dict[str, np.ndarray]:
    """The places of the examples of each class that has at most `most`, the smallest first."""
    truth = split.truth
    counts = {} if truth is None else truth.summary().counts
    few = sorted((name for name, count in counts.items() if 0 < count <= most), key=lambda name: counts[name])
    return {} if truth is None else {name: truth.members(name) for name in few}


@dataclass
class _Filling:
    """Groups, and where they go, (G,)."""

    part: np.ndarray
    groups: Groups

    def run(self, classes: Mapping[str, np.ndarray], wanted: Sequence[int]) -> list[tuple[str, int, int]]:
        """Give each class a unit in every part, where it has enough, and each part one. Returns (class, part, unit)."""
        held = {name: np.unique(self.groups.number[places]) for name, places in classes.items()}
        of_unit: dict[int, list[str]] = {}
        for name, units in held.items():
            for one in units.tolist():
                of_unit.setdefault(one, []).append(name)
        found: dict[int, tuple[str, int, int]] = {}
        named = [*held.items(), ("", np.arange(len(self.part)))]
        for (name, units), part in itertools.product(named * _ROUNDS, wanted):
            if not len(units) or bool((self.part[units] == part).any()):
                continue
            chosen = self._choose(units, part, held, of_unit)
            if chosen is not None:
                self.part[chosen] = part
                found[chosen] = name, part, chosen
        return list(found.values())

    def _choose(
        self, units: np.ndarray, part: int, held: Mapping[str, np.ndarray], of_unit: Mapping[int, list[str]]
    ) -> int | None:
        """The unit of the lowest hash whose part can spare it; for train, which must have one, any."""
        ranked = units[np.lexsort((units, self.groups.place[units]))].tolist()
        for one in ranked:
            own = self.part == self.part[one]
            left = [int(own[units].sum()), *(int(own[held[name]].sum()) for name in of_unit.get(one, ()))]
            if min(left) > 1:
                return one
        return ranked[0] if part == 0 else None


def _describe(
    filled: Sequence[tuple[str, int, int]], others: Sequence[str], names: Sequence[str], unit: np.ndarray
) -> list[str]:
    """What was moved, in a line."""
    if not filled:
        return []
    texts = []
    for name, part, chosen in filled[:3]:
        split, first = ["train", *others][part], names[int(np.flatnonzero(unit == chosen)[0])]
        texts.append(f"{f'no {name!r}' if name else 'nothing'} was in {split}, which got {first}")
    more = f"; and {len(filled) - 3} more" if len(filled) > 3 else ""
    return [f"by their hashes {'; '.join(texts)}{more}: of what there is, the lowest hash"]

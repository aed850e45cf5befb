"""Edit distance of strings, words or labels: of one pair, and of many at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opsin.errors import InputError

Array: TypeAlias = NDArray[Any]
Elements: TypeAlias = Sequence[Hashable] | Tensor  # a string, words, labels

_WORD = 64
# Pairs at a time: their 64 comparisons a step are a megabyte, which stays in a cache.
_CHUNK = 1 << 14


def edit_distance(first: Elements, second: Elements) -> int:
    """The least number of insertions, deletions and substitutions that turn one sequence into the other.

    Levenshtein 1966, by the bit-parallel algorithm of Myers 1999 (J. ACM 46(3)) as Hyyro 2003 simplified it: a column
    of the table of distances is two integers, the bits of which say where it rises and where it falls. A column takes
    some fifteen operations, on integers of as many bits as the longer sequence has elements.
    """
    shorter, longer = sorted((_elements(first), _elements(second)), key=len)
    if not shorter:
        return len(longer)
    places: defaultdict[Hashable, int] = defaultdict(int)
    for place, element in enumerate(longer):
        places[element] |= 1 << place
    last, full = 1 << len(longer) - 1, (1 << len(longer)) - 1
    rises, falls, distance = full, 0, len(longer)
    for element in shorter:
        equal = places.get(element, 0)
        diagonal = equal | falls
        across = (((equal & rises) + rises) ^ rises) | equal
        more, less = falls | (full & ~(across | rises)), rises & across
        distance += bool(more & last) - bool(less & last)
        more, less = more << 1 | 1, less << 1
        rises, falls = full & (less | ~(diagonal | more)), full & more & diagonal
    return distance


def edit_distances(first: Sequence[Elements], second: Sequence[Elements]) -> Tensor:
    """`edit_distance` of each pair, (N,) int64.

    The same columns, of many pairs in one operation, where the shorter sequence of a pair has up to 64 elements.
    Raises InputError for lists of different lengths.
    """
    if len(first) != len(second):
        raise InputError(f"{len(first)} sequences cannot be compared with {len(second)}; give one of each for a pair")
    both = zip(map(_elements, first), map(_elements, second), strict=True)
    pairs = [(a, b) if len(a) <= len(b) else (b, a) for a, b in both]
    short = np.array([len(a) for a, _ in pairs], np.int64)
    distances = np.array([len(b) for _, b in pairs], np.int64)  # of an empty sequence
    for place in np.flatnonzero(short > _WORD).tolist():
        distances[place] = edit_distance(*pairs[place])
    several = np.flatnonzero((short > 0) & (short <= _WORD))
    several = several[np.argsort(-distances[several], kind="stable")]  # longest first
    codes = None if all(isinstance(element, str) for pair in pairs for element in pair) else dict[Hashable, int]()
    for begin in range(0, len(several), _CHUNK):
        part = several[begin : begin + _CHUNK]
        chosen = [pairs[place] for place in part.tolist()]
        patterns = _padded([a for a, _ in chosen], codes, _WORD, -1)
        texts = _padded([b for _, b in chosen], codes, int(distances[part[0]]), -2)
        distances[part] = _columns(patterns, short[part], texts, distances[part])
    return torch.from_numpy(distances)


def _columns(patterns: Array, heights: Array, texts: Array, lengths: Array) -> Array:
    """Distances of N pairs. patterns: (N, 64); texts: (N, longest), the longest first; heights, lengths: (N,)."""
    one = np.uint64(1)
    last = one << (heights - 1).astype(np.uint64)
    rises, falls = np.full(len(texts), ~np.uint64(0)), np.zeros(len(texts), np.uint64)
    distances = heights.copy()
    for step in range(texts.shape[1]):
        n = int(np.searchsorted(-lengths, -step))  # those with an element left
        up, down = rises[:n], falls[:n]
        equal = np.packbits(patterns[:n] == texts[:n, step, None], axis=1, bitorder="little").view(np.uint64).ravel()
        diagonal = equal | down
        across = (((equal & up) + up) ^ up) | equal
        more, less = down | ~(across | up), up & across
        distances[:n] += (more & last[:n] != 0).astype(np.int64) - (less & last[:n] != 0)
        more, less = more << one | one, less << one
        rises[:n], falls[:n] = less | ~(diagonal | more), more & diagonal
    return distances


def _elements(sequence: Elements) -> Sequence[Hashable]:
    # The elements of a tensor are tensors, which differ even where their numbers are equal.
    return sequence.tolist() if isinstance(sequence, Tensor) else sequence


def _padded(sequences: list[Any], codes: dict[Hashable, int] | None, width: int, padding: int) -> Array:
    """Sequences as rows of numbers, equal ones for equal elements: (N, width). Without codes all are strings."""
    lengths = np.array([len(sequence) for sequence in sequences])
    if codes is None:
        numbers = np.frombuffer("".join(sequences).encode("utf-32-le", "surrogatepass"), np.int32)
    else:
        numbers = [codes.setdefault(element, len(codes)) for element in chain.from_iterable(sequences)]
    rows = np.full((len(sequences), width), padding, np.int32)
    rows[np.arange(width) < lengths[:, None]] = numbers
    return rows

"""What is known of texts before an image is seen: a list of words, and how often labels follow each other."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from opsin.errors import InputError

Array: TypeAlias = NDArray[Any]


class Lexicon:
    """A tree of words for `ctc_prefix_beam`: after a prefix, only labels that lead to a word.

    words: sequences of labels. separator: a label between words, a space for example; without one a text is one word.
    """

    def __init__(self, words: Iterable[Sequence[int]], separator: int | None = None) -> None:
        children: list[dict[int, int]] = [{}]
        ends = set()
        for word in words:
            state = 0
            for label in word:
                state = children[state].setdefault(int(label), len(children))
                if state == len(children):
                    children.append({})
            ends.add(state)
        ends.discard(0)
        if not ends:
            raise InputError("the lexicon has no words; give at least one that is not empty")
        if separator is not None:
            for state in ends:
                children[state].setdefault(separator, 0)
        self.complete = np.zeros(len(children), bool)
        self.complete[list(ends)] = True
        self._counts = np.array([len(family) for family in children])
        self._starts = np.cumsum(self._counts) - self._counts
        self._labels = np.array([label for family in children for label in family], np.int64)
        self._states = np.array([state for family in children for state in family.values()], np.int64)

    def fits(self, num_classes: int, blank: int) -> bool:
        """Whether all labels are classes and none is the blank."""
        labels = self._labels
        return bool(labels.min() >= 0 and labels.max() < num_classes and not (labels == blank).any())

    def next_states(self, states: Array, num_classes: int) -> Array:
        """The state after each label, -1 where no word goes on so. states: (N,), 0 at first. Gives (N, num_classes)."""
        found = np.full((len(states), num_classes), -1)
        counts = self._counts[states]
        row = np.repeat(np.arange(len(states)), counts)
        place = np.arange(len(row)) + np.repeat(self._starts[states] - (np.cumsum(counts) - counts), counts)
        found[row, self._labels[place]] = self._states[place]
        return found


class CharacterModel:
    """How probable each label is after the ones before it, counted in texts: an n-gram language model.

    texts: sequences of labels. order: labels looked at, the new one included. Interpolated absolute discounting, Ney,
    Essen and Kneser 1994: every count gives up `discount`, which is shared out as the shorter context says,

        p(c | h) = max(n(h, c) - d, 0) / n(h) + d m(h) / n(h) p(c | h without its first label),

    m(h) the number of different labels seen after h; at last all labels but the blank are equally probable.
    A function for `ctc_prefix_beam`: N prefixes -> log-probabilities (N, num_classes), -inf for the blank.
    """

    def __init__(
        self,
        texts: Iterable[Sequence[int]],
        num_classes: int,
        *,
        order: int = 4,
        discount: float = 0.75,
        blank: int = 0,
    ) -> None:
        if order < 1:
            raise InputError(f"order={order} must be at least 1; 1 counts single labels")
        if not 0 < discount < 1:
            raise InputError(f"discount={discount} must be between 0 and 1, for example 0.75")
        self._order, self._discount, self._num_classes = order, discount, num_classes
        self._counts: dict[tuple[int, ...], dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for text in texts:
            labels = (*[_START] * (order - 1), *(int(label) for label in text))
            if any(not 0 <= label < num_classes or label == blank for label in labels[order - 1 :]):
                raise InputError(f"a text has labels outside 0..{num_classes - 1} or the blank {blank}: {list(text)}")
            for place in range(order - 1, len(labels)):
                for length in range(order):
                    self._counts[labels[place - length : place]][labels[place]] += 1
        self._counts.default_factory = None
        uniform = np.full(num_classes, 1 / (num_classes - 1))
        uniform[blank] = 0
        self._uniform = uniform
        self._rows: dict[tuple[int, ...], Array] = {}

    def __call__(self, prefixes: Sequence[tuple[int, ...]]) -> Array:
        rows = np.empty((len(prefixes), self._num_classes))
        for row, prefix in zip(rows, prefixes, strict=True):
            row[:] = self._log_row(prefix)
        return rows

    def log_prob(self, text: Sequence[int]) -> float:
        """The log-probability of a text, its end not counted."""
        labels = tuple(int(label) for label in text)
        return math.fsum(float(self._log_row(labels[:place])[label]) for place, label in enumerate(labels))

    def _log_row(self, prefix: tuple[int, ...]) -> Array:
        length = self._order - 1
        context = ((_START,) * length + prefix[-length:])[-length:] if length else ()
        row = self._rows.get(context)
        if row is None:
            with np.errstate(divide="ignore"):
                row = self._rows[context] = np.log(self._probabilities(context))
        return row

    def _probabilities(self, context: tuple[int, ...]) -> Array:
        shorter = self._probabilities(context[1:]) if context else self._uniform
        counts = self._counts.get(context)
        if not counts:
            return shorter
        row = self._discount * len(counts) * shorter
        labels, numbers = list(counts), np.array(list(counts.values()))
        row[labels] += numbers - self._discount
        return row / numbers.sum()


# Stands before a text; no label is negative.
_START = -1

"""What each kind of error costs in average precision. TIDE, Bolya et al. 2020, arXiv:2008.08115.

A wrong prediction is of the first kind that fits, with IoU thresholds of 0.5 and 0.1 as in the paper:

- localisation: overlaps an object of its class by 0.1 to 0.5.
- class: overlaps an object of another class by 0.5 or more.
- duplicate: overlaps an object of its class by 0.5 or more, which a surer prediction has found.
- background: overlaps no object by more than 0.1.
- both: all others; they overlap an object of another class by 0.1 to 0.5.

An object is missed that nothing found and at which no error of class or localisation was aimed. The cost of a kind is
what AP at IoU 0.5 would gain, were the errors of that kind alone fixed: a class or a box put right, where the object
is still free, and else the prediction taken away; other wrong predictions taken away; missed objects taken away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from opsin.detect.average_precision import Array, Objects, Ranking, average_precision
from opsin.ops.iou import numpy_iou

KINDS = ("class", "localisation", "both", "duplicate", "background", "missed")
_FOREGROUND, _BACKGROUND = 0.5, 0.1


@dataclass(frozen=True)
class Mistake:
    """One error. place: of the prediction in its image; None if missed. truth: the object aimed at or missed."""

    kind: str
    image: int
    place: int | None
    truth: int | None
    score: float
    iou: float


@dataclass(frozen=True)
class Budget:
    """costs: kind -> what fixing it would add to AP at IoU 0.5. mistakes: kind -> its errors, the surest first.

    Missed objects come largest first.
    """

    costs: dict[str, float]
    mistakes: dict[str, list[Mistake]]

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(found) for kind, found in self.mistakes.items()}


def error_budget(truth: Sequence[Objects], found: Sequence[Objects], rankings: Sequence[Ranking]) -> Budget:
    """The errors of a detector by kind, and what each kind costs. rankings: of each class, by the rule "coco"."""
    taken: dict[int, set[int]] = defaultdict(set)  # image -> objects that were found
    for ranking in rankings:
        for image, which in zip(ranking.image[ranking.right], ranking.truth[ranking.right], strict=True):
            taken[int(image)].add(int(which))
    mistakes: dict[str, list[Mistake]] = {kind: [] for kind in KINDS}
    rows: dict[int, Array] = {}  # image -> IoU of its predictions with its objects
    for label, ranking in enumerate(rankings):
        for row in np.flatnonzero(~ranking.right):
            image, place = int(ranking.image[row]), int(ranking.place[row])
            if image not in rows:
                rows[image] = numpy_iou(found[image].boxes, truth[image].boxes)
            mistake = _explain(truth[image], rows[image][place], image, place, label)
            mistake = replace(mistake, score=float(ranking.scores[row]))
            mistakes[mistake.kind].append(mistake)
    for same in mistakes.values():
        same.sort(key=lambda m: -m.score)
    aimed = {(m.image, m.truth) for kind in ("class", "localisation") for m in mistakes[kind]}
    mistakes["missed"] = _missed(truth, taken, aimed)
    kind_of = {(m.image, m.place): m for same in mistakes.values() for m in same if m.place is not None}
    before = _mean_precision([(r.scores, r.right, r.count) for r in rankings])
    costs = {
        kind: _mean_precision(_mended(kind, truth, rankings, kind_of, taken, mistakes["missed"])) - before
        for kind in KINDS
    }
    return Budget(costs, mistakes)


def _explain(truth: Objects, row: Array, image: int, place: int, label: int) -> Mistake:
    """The kind of a wrong prediction. row: its IoU with every object and region of the image."""
    row = np.where(truth.labels >= 0, row, 0.0)
    same = np.where(truth.labels == label, row, 0.0)
    other = np.where(truth.labels != label, row, 0.0)

    def aimed(kind: str, values: Array) -> Mistake:
        best = int(values.argmax())
        return Mistake(kind, image, place, best, 0.0, float(values[best]))

    if _BACKGROUND <= same.max(initial=0.0) < _FOREGROUND:
        return aimed("localisation", same)
    if other.max(initial=0.0) >= _FOREGROUND:
        return aimed("class", other)
    if same.max(initial=0.0) >= _FOREGROUND:
        return aimed("duplicate", same)
    if row.max(initial=0.0) < _BACKGROUND:
        return Mistake("background", image, place, None, 0.0, float(row.max(initial=0.0)))
    return aimed("both", row)


def _missed(truth: Sequence[Objects], taken: dict[int, set[int]], aimed: set[tuple[int, int | None]]) -> list[Mistake]:
    missed = [
        (objects.areas[place], Mistake("missed", image, None, int(place), 0.0, 0.0))
        for image, objects in enumerate(truth)
        for place in np.flatnonzero(objects.labels >= 0)
        if int(place) not in taken[image] and (image, int(place)) not in aimed
    ]
    return [mistake for _, mistake in sorted(missed, key=lambda pair: -pair[0])]


def _mended(
    kind: str,
    truth: Sequence[Objects],
    rankings: Sequence[Ranking],
    kind_of: Mapping[tuple[int, int], Mistake],
    taken: dict[int, set[int]],
    missed: Sequence[Mistake],
) -> list[tuple[Array, Array, int]]:
    """Scores, hits and count of every class, were the errors of one kind fixed."""
    counts = [ranking.count for ranking in rankings]
    rows: list[list[tuple[float, bool]]] = [[] for _ in rankings]
    corrected: list[Mistake] = []
    for label, ranking in enumerate(rankings):
        for score, right, image, place in zip(
            ranking.scores.tolist(),
            ranking.right.tolist(),
            ranking.image.tolist(),
            ranking.place.tolist(),
            strict=True,
        ):
            mistake = kind_of.get((image, place))
            if mistake is None or mistake.kind != kind:
                rows[label].append((score, right))
            elif kind in ("class", "localisation"):
                corrected.append(mistake)
    claimed = {(image, place) for image, places in taken.items() for place in places}
    for mistake in sorted(corrected, key=lambda m: -m.score):  # the surest gets the object, the others go
        assert mistake.truth is not None
        if (mistake.image, mistake.truth) not in claimed:
            claimed.add((mistake.image, mistake.truth))
            rows[int(truth[mistake.image].labels[mistake.truth])].append((mistake.score, True))
    if kind == "missed":
        for mistake in missed:
            counts[int(truth[mistake.image].labels[mistake.truth])] -= 1
    return [_sorted(found, count) for found, count in zip(rows, counts, strict=True)]


def _sorted(rows: list[tuple[float, bool]], count: int) -> tuple[Array, Array, int]:
    rows = sorted(rows, key=lambda row: -row[0])
    return np.array([score for score, _ in rows]), np.array([right for _, right in rows], bool), count


def _mean_precision(classes: Sequence[tuple[Array, Array, int]]) -> float:
    """The mean over the classes that have objects; 1 where nothing is left to be found."""
    values = [average_precision(right, count) for _, right, count in classes]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 1.0

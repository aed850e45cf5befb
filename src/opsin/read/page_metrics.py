"""How well whole pages are read: words of a page, lines found, and lines found with the right text.

Words, as in SROIE's second task (Huang et al. 2019, ICDAR): those between blanks of a page, wherever they lie, each
counted as often as it occurs; precision, recall and F1 over all pages together. Lines and their texts, as in ICDAR
2015's end-to-end task (Karatzas et al. 2015): a line is found by what overlaps it by an IoU above 0.5, one to one; what
lies by more than half in a region to ignore, or is matched to one, counts neither way; end to end, the text has to be
equal too. cer: over all true lines, each against the text of the line that it was matched to, or against none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from opsin.ops.quads import clockwise, is_convex, quad_of, smallest_rectangle
from opsin.ops.sequence import edit_distances

IOU = 0.5
_IGNORED = 0.5  # of a line's area, from which on a region to ignore covers it


@dataclass(frozen=True)
class Written:
    """The lines of a page, true or found. quads: (4, 2) each. ignored: of the true ones that count neither way."""

    quads: Sequence[np.ndarray] = ()
    texts: Sequence[str] = ()
    ignored: Sequence[bool] = ()


@dataclass
class PageCounts:
    """Counts of pages, which add up. pairs: a true text, and what was read there; "" where nothing was found."""

    words: list[int] = field(default_factory=lambda: [0, 0, 0])  # in both, found, true
    lines: list[int] = field(default_factory=lambda: [0, 0, 0])
    equal: int = 0
    pairs: list[tuple[str, str]] = field(default_factory=list)


def count_page(true: Written, found: Written, *, ignore_case: bool = False) -> PageCounts:
    """The counts of one page. ignore_case: upper and lower case are one."""
    written, read = ([one.lower() if ignore_case else one for one in page.texts] for page in (true, found))
    kept = [i for i, ignored in enumerate(true.ignored) if not ignored]
    matched, free = match_lines(true, found)
    pairs = [(written[i], read[matched[i]] if i in matched else "") for i in kept]
    there, seen = _words(written, kept), _words(read, free)
    return PageCounts(
        [sum((there & seen).values()), sum(seen.values()), sum(there.values())],
        [len(matched), len(free), len(kept)],
        sum(written[i] == read[j] for i, j in matched.items()),
        pairs,
    )


def match_lines(true: Written, found: Written) -> tuple[dict[int, int], list[int]]:
    """Of true lines that count the found one that each is matched to, and all found ones that count.

    The pairs of the greatest overlap are matched first.
    """
    overlaps = [(*_overlap(a, b), i, j) for i, a in enumerate(true.quads) for j, b in enumerate(found.quads)]
    matched: dict[int, int] = {}
    taken: set[int] = set()
    for iou, _, i, j in sorted(overlaps, key=lambda one: (-one[0], one[2], one[3])):
        if iou > IOU and not true.ignored[i] and i not in matched and j not in taken:
            matched[i] = j
            taken.add(j)
    dropped = {j for iou, share, i, j in overlaps if true.ignored[i] and (share > _IGNORED or iou > IOU)} - taken
    return matched, [j for j in range(len(found.quads)) if j not in dropped]


def measure_pages(pages: Sequence[PageCounts]) -> dict[str, float]:
    """All metrics over pages; what has nothing to divide by is absent."""
    metrics: dict[str, float] = {}
    words = np.sum([page.words for page in pages] or [[0, 0, 0]], axis=0)
    lines = np.sum([page.lines for page in pages] or [[0, 0, 0]], axis=0)
    _add(metrics, "word_precision", "word_recall", "word_f1", words)
    _add(metrics, "precision", "recall", "hmean", lines)
    equal = sum(page.equal for page in pages)
    _add(metrics, "end_to_end_precision", "end_to_end_recall", "end_to_end_f1", [equal, *lines[1:]])
    pairs = [pair for page in pages for pair in page.pairs]
    length = sum(len(truth) for truth, _ in pairs)
    if length:
        distances = edit_distances([truth for truth, _ in pairs], [text for _, text in pairs])
        metrics["cer"] = float(distances.sum()) / length
        metrics["line_accuracy"] = sum(truth == text for truth, text in pairs) / len(pairs)
    return metrics


def _words(texts: Sequence[str], places: Sequence[int]) -> Counter[str]:
    return Counter(word for place in places for word in texts[place].split())


def _add(metrics: dict[str, float], precision: str, recall: str, f1: str, counts: Sequence[int] | np.ndarray) -> None:
    both, found, true = (int(count) for count in counts)
    metrics |= {precision: both / found} if found else {}
    metrics |= {recall: both / true} if true else {}
    metrics |= {f1: 2 * both / (found + true)} if found + true else {}


def _overlap(true: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """The IoU of two quads, and the share of the found one that lies in the true one."""
    apart = (true.min(axis=0) >= found.max(axis=0)).any() or (found.min(axis=0) >= true.max(axis=0)).any()
    if apart:
        return 0.0, 0.0
    both, first, second = _area(clip_convex(found, true)), _area(true), _area(found)
    union = first + second - both
    return (both / union if union > 0 else 0.0), (both / second if second > 0 else 0.0)


def clip_convex(polygon: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The part (n, 2) of a convex polygon within another, both clockwise. Sutherland and Hodgman 1974."""
    kept = [tuple(corner) for corner in polygon.tolist()]
    for (x1, y1), (x2, y2) in zip(window.tolist(), np.roll(window, -1, axis=0).tolist(), strict=True):
        corners, kept = kept, []
        sides = [(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for x, y in corners]
        for place, (corner, side) in enumerate(zip(corners, sides, strict=True)):
            before, earlier = corners[place - 1], sides[place - 1]
            if (side >= 0) != (earlier >= 0):
                share = earlier / (earlier - side)
                kept.append((before[0] + share * (corner[0] - before[0]), before[1] + share * (corner[1] - before[1])))
            if side >= 0:
                kept.append(corner)
    return np.array(kept, np.float64).reshape(-1, 2)


def as_quad(polygon: np.ndarray) -> np.ndarray:
    """A polygon's quad, convex and clockwise."""
    quad = quad_of(np.asarray(polygon, np.float64))
    return clockwise(quad if is_convex(quad) else smallest_rectangle(np.asarray(polygon, np.float64)))


def written_of(lines: Sequence[Mapping[str, object]]) -> Written:
    """The lines of an answer of pages."""
    quads = [as_quad(np.array(line["quad"])) for line in lines]
    return Written(quads, [str(line["text"]) for line in lines], [False] * len(quads))


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2

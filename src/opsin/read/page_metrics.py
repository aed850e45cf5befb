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

from opsin.ops.polygons import shared_areas
from opsin.ops.quads import convex_quad
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
    shared, of_true, of_found = shared_areas(true.quads, found.quads)
    iou = shared / np.maximum(of_true[:, None] + of_found - shared, 1e-12)
    ignored = np.array(true.ignored, bool)[:, None]
    matched: dict[int, int] = {}
    taken: set[int] = set()
    for i, j in sorted(np.argwhere((iou > IOU) & ~ignored).tolist(), key=lambda pair: (-iou[pair[0], pair[1]], pair)):
        if i not in matched and j not in taken:
            matched[i] = j
            taken.add(j)
    _, dropped = (ignored & ((shared > _IGNORED * of_found) | (iou > IOU))).nonzero()
    return matched, sorted(taken | set(range(len(found.quads))) - set(dropped.tolist()))


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


def written_of(lines: Sequence[Mapping[str, object]]) -> Written:
    """The lines of an answer of pages."""
    quads = [convex_quad(np.array(line["quad"])) for line in lines]
    return Written(quads, [str(line["text"]) for line in lines], [False] * len(quads))

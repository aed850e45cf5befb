"""What of a data set's problems a training says before it begins: a line for each kind, with how many there are.

`opsin data` lists them all, see `opsin.data.dataset_check`. What it calls an error a training refuses, or says here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from opsin.data.dataset_check import class_problems, twins
from opsin.data.digests import UNKNOWN
from opsin.data.source import Source
from opsin.data.truth import Problem

_MOST_ENDINGS = 5


def describe_problems(source: Source) -> list[str]:
    """The lines. Errors that `check_trainable` refuses are not among them."""
    found = [problem for problem in source.problems if problem.severity != "error"]
    summaries = {key: split.truth.summary() for key, split in source.splits.items() if split.truth is not None}
    found += [*class_problems(source, summaries), *find_equal(source)]
    kinds: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in found:
        kinds[problem.severity, problem.kind].append(problem)
    order = ("error", "warning", "note")
    return [_line(kinds[key]) for key in sorted(kinds, key=lambda key: order.index(key[0]))]


def find_equal(source: Source) -> list[Problem]:
    """Images that are equal, pixel for pixel, and labelled otherwise; of a source with digests, see `examine`.

    Those in two splits are said where the splits are made, see `opsin.engine.membership`.
    """
    same: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for key, split in source.splits.items():
        pixels = [] if split.digests is None else split.digests[:, 1].tolist()
        for index, digest in enumerate(pixels):
            if digest != UNKNOWN:
                same[digest].append((key, index))
    pairs = ((group[0], other) for group in same.values() for other in group[1:])
    found = [problem for first, other in pairs for problem in twins(source, first, other)]
    return [problem for problem in found if problem.kind == "conflicting_labels"]


def _line(found: Sequence[Problem]) -> str:
    first, count = found[0], len(found)
    line = f"{first.severity}: {first.kind.replace('_', ' ')} ({count:,}): {first.path}: {first.reason}"
    if count == 1:
        return line
    if first.kind == "not_an_image":
        line += f"; {_endings(found)}"
    return f"{line}; and {count - 1:,} more, which opsin data lists"


def _endings(found: Sequence[Problem]) -> str:
    """How many files there are of each ending, the most frequent first."""
    counts: dict[str, int] = defaultdict(int)
    for problem in found:
        counts[PurePosixPath(problem.path).suffix.lower() or "no ending"] += 1
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count:,} of {ending}" for ending, count in ordered[:_MOST_ENDINGS])

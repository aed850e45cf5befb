"""What of a data set's problems a training says before it begins: a line for each kind, with how many there are.

`opsin data` lists them all, see `opsin.data.dataset_check`. What it calls an error a training refuses, or says here.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from opsin.data.dataset_check import class_problems, twins
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.files import read_regular

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
    """Equal files that are labelled otherwise, or lie in two splits. Files of equal length are read and compared."""
    lengths: dict[int, list[tuple[str, int, str]]] = defaultdict(list)
    for key, split in source.splits.items():
        for index, path in enumerate(split.inputs.paths()):
            try:
                lengths[Path(path).stat().st_size].append((key, index, path))
            except OSError:  # `verify` names it
                continue
    same: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for group in lengths.values():
        for key, index, path in group if len(group) > 1 else ():
            try:
                same[hashlib.blake2b(read_regular(path), digest_size=16).digest()].append((key, index))
            except OSError:
                continue
    pairs = ((group[0], other) for group in same.values() for other in group[1:])
    return [problem for first, other in pairs for problem in twins(source, first, other) if problem.kind != "duplicate"]


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

"""A data source: its splits, what is known of them, and whether it can be trained on. Every format opens as one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np

from opsin import errors
from opsin.data import digests
from opsin.data.decoder_messages import listening, mark_said, trace
from opsin.data.images import UnreadableImage
from opsin.data.inputs import Inputs
from opsin.data.truth import Problem, Truth, name_problem
from opsin.errors import InputError
from opsin.structures import Instances

T = TypeVar("T")
Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a source: its examples, and what is known of each, as many. truth: None where nothing is known.

    digests: (N, 3) uint64 where they were looked at, see `examine`: of each file's bytes, of its pixels, and of its
    length and time.
    """

    inputs: Inputs
    truth: Truth | None = None
    digests: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.truth is not None and len(self.truth) != len(self.inputs):
            raise ValueError(f"a truth of {len(self.truth)} examples, and there are {len(self.inputs)}")

    def __len__(self) -> int:
        return len(self.inputs)

    def name(self, index: int) -> str:
        """Where an example came from: a path, or a place as in "digits[12]"."""
        return self.inputs.name(index)

    def read(self, index: int) -> Any:
        """An example; an image is uint8 (C, H, W), C = 1 or 3. Raises UnreadableImage."""
        return self.inputs.read(index)

    def subset(self, indices: Sequence[int] | np.ndarray) -> Split:
        """The examples at `indices`, in that order."""
        places = np.asarray(indices, dtype=np.int64)
        return Split(
            self.inputs.select(places),
            None if self.truth is None else self.truth.select(places),
            None if self.digests is None else self.digests[places],
        )

    def with_truth(self, truth: Truth | None) -> Split:
        """The same examples, of which something else is known."""
        return replace(self, truth=truth)

    @property
    def kind(self) -> Any:
        """The truth, for those who know its kind."""
        return self.truth

    # Earlier names of what a kind of truth has, for a release

    @property
    def labels(self) -> np.ndarray:
        """`kind.presence`: the classes of each example, (N,) int64 or (N, K) float32 of 0 and 1."""
        _say_moved("labels", "presence")
        return self.kind.presence

    @property
    def instances(self) -> list[Instances] | None:
        """`kind.instances`: the objects of each image; None where the truth has none."""
        _say_moved("instances", "instances")
        return getattr(self.truth, "instances", None)


@cache
def _say_moved(old: str, new: str) -> None:
    """Say once that something of a split is its truth's."""
    errors.say(f"Split.{old} is Split.kind.{new} now; the old name goes with the next release")


@dataclass
class Source:
    """A data set, opened. splits: those of "train", "val" and "test" that it separates itself, or else only "all".

    skipped: files left out because they could not be read. problems: what was found while opening. task: what it was
    opened for. root: the folder or archive that the names of its examples are within, "" where there is none.
    division: what who divided it has noted of that.
    """

    name: str
    format: str
    splits: dict[str, Split]
    skipped: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    task: str = ""
    root: str = ""
    division: Any = field(default=None, repr=False)

    @property
    def meaning(self) -> Mapping[str, Any]:
        """What it takes to read an answer, as its truth says; see `Truth.meaning`."""
        return next((split.truth.meaning for split in self.splits.values() if split.truth is not None), {})

    @property
    def classes(self) -> list[str]:
        """The names of the classes; none where the truth has none."""
        return list(self.meaning.get("classes", ()))

    @property
    def multi_label(self) -> bool:
        """Whether an example is labelled with any number of classes."""
        return bool(self.meaning.get("multi_label", False))

    def with_splits(self, splits: Mapping[str, Split]) -> Source:
        """The same source, divided otherwise."""
        return replace(self, splits=dict(splits))

    def without(self, problems: Iterable[Problem]) -> Source:
        """The source less its unreadable files, which are remembered in `skipped`."""
        bad = {problem.path: problem for problem in problems if problem.kind == "unreadable"}
        splits, skipped = {}, list(self.skipped)
        for key, split in self.splits.items():
            names = [split.name(i) for i in range(len(split))]
            splits[key] = split.subset([i for i, name in enumerate(names) if name not in bad])
            skipped += [bad[name] for name in names if name in bad]
        return replace(self, splits=splits, skipped=skipped)


FULL = 20_000  # files of a source up to which each is decoded before a training; of more, headers are read


def verify(
    source: Source, workers: int | None = None, progress: Progress | None = None, full: int = FULL
) -> list[Problem]:
    """Every unreadable file of a source. What lies in memory is always readable.

    Decodes every file where there are at most `full`, else it reads headers only: a file that is truncated then makes
    itself known when the loader comes to it. workers: threads, one a core if None.
    """
    return examine(source, workers, progress, full)[1]


def examine(
    source: Source, workers: int | None = None, progress: Progress | None = None, full: int = FULL
) -> tuple[Source, list[Problem]]:
    """The source with digests of its examples, and every unreadable file, as `verify` has them; no file is read twice.

    Of more than `full` files the length stands for the bytes, and nothing is known of their pixels. Of what is neither
    in files nor in memory, as a data set of Python, nothing is known.
    """
    parts = list(source.splits.values())
    jobs = [(split, i) for split in parts if split.inputs.stored for i in range(len(split))]
    deep = len(jobs) <= full

    def check(job: tuple[Split, int]) -> tuple[Problem | None, tuple[int, int, int]]:
        split, index = job
        try:
            if not deep:
                split.inputs.size(index)
                length, time = split.inputs.stamp(index)
                return None, (digests.of_numbers(length), digests.UNKNOWN, digests.of_numbers(length, time))
            value, found = _digested(split, index)
            reason = misfit(split, index, value)
            return (Problem("unreadable", split.name(index), reason) if reason else None), found
        except UnreadableImage as error:
            return Problem("unreadable", error.path, error.reason), (0, 0, 0)

    checked = iter(map_threads(check, jobs, workers, progress))
    problems, splits = [], {}
    for key, split in source.splits.items():
        rows = np.zeros((len(split), 3), np.uint64)
        for i in range(len(split)) if split.inputs.stored else ():
            problem, rows[i] = next(checked)
            problems += [] if problem is None else [problem]
        if split.inputs.held:
            rows[:, :2] = [[digests.of_value(split.read(i))] * 2 for i in range(len(split))]
        splits[key] = replace(split, digests=rows)
    return source.with_splits(splits), problems


def _digested(split: Split, index: int) -> tuple[Any, tuple[int, int, int]]:
    """An example as it is read, and the digests of its bytes, of its pixels and of its stamp."""
    stamp = split.inputs.stamp(index)
    value, encoded = split.inputs.read_encoded(index)
    pixels = digests.of_value(value)
    content = pixels if encoded is None else digests.of_bytes(encoded)
    return value, (content, pixels, digests.of_numbers(*stamp) if any(stamp) else digests.UNKNOWN)


def with_messages(problems: Iterable[Problem], heard: Mapping[str, str]) -> list[Problem]:
    """Problems with what decoders said: in the reason of what is unreadable, and one more for each other image.

    heard: by the names of the images, see `opsin.data.decoder_messages`.
    """
    said, known = [], set()
    for problem in problems:
        if problem.kind == "unreadable" and problem.path in heard:
            known.add(problem.path)
            problem = replace(problem, reason=f"{problem.reason} ({heard[problem.path]})")
        said.append(problem)
    rest = {name: text for name, text in heard.items() if name not in known}
    mark_said(heard)
    said += [Problem("damaged_image", name, f"its decoder says: {text}", "warning") for name, text in rest.items()]
    return said


def misfit(split: Split, index: int, value: Any) -> str | None:
    """Why the truth of an example that was read cannot be its own; None where it can."""
    if split.truth is None or split.inputs.key != "image":
        return None
    return split.truth.unreadable(index) or split.truth.misfit(index, (value.shape[-2], value.shape[-1]))


def map_threads(
    function: Callable[[T], object], jobs: Sequence[T], workers: int | None = None, progress: Progress | None = None
) -> list:
    """The function's results in the order of the jobs. Decoding releases Python's lock, so threads use every core."""
    results = []
    with listening(), ThreadPoolExecutor(workers or min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(jobs), 1024):  # in pieces, so that Ctrl-C and errors do not wait for the last file
            piece = jobs[start : start + 1024]
            for result in pool.map(function, piece):
                results.append(result)
                if progress is not None:
                    progress(len(results), len(jobs))
            trace(partial(function, job) for job in piece)
    return results


def check_trainable(source: Source, val_fraction: float = 0.1, test_fraction: float = 0.2) -> None:
    """Raise InputError with the first reason why a network cannot be trained and evaluated on the source."""
    where = source.name
    for problem in source.problems:
        if problem.severity == "error":
            raise InputError(f"{problem.path}: {problem.reason}")
    key = "train" if "train" in source.splits else "all"
    if key not in source.splits:
        raise InputError(f"{where} has no training split, only {', '.join(source.splits)}; name it train")
    truth = source.splits[key].truth
    for problem in [] if truth is None else truth.problems({}, training=True):
        raise InputError(name_problem(problem, where, key, where).reason)
    for name, split in source.splits.items():
        if len(split) == 0:
            raise InputError(f"{where}: the {name} split holds no {split.inputs.noun}s")
    if truth is not None:
        cut = val_fraction > 0 and "val" not in source.splits
        _check_classes(source, key, cut or (key == "all" and test_fraction > 0))


def _check_classes(source: Source, key: str, cut: bool) -> None:
    """Refuse classes that cannot be learned. key: the split to train on. cut: whether others are cut from it."""
    where = source.name
    summaries = {name: split.truth.summary() for name, split in source.splits.items() if split.truth is not None}
    own, within = summaries[key].counts, bool(summaries[key].objects)  # of objects, one a class is enough
    lost = [name for name, count in own.items() if source.skipped and count == 0 and not within]
    if lost:
        raise InputError(f"{where}: no readable training images of class {listed(lost)}; fix or remove them")
    seen = {name for one in summaries.values() for name, count in one.counts.items() if count}
    unseen = [name for name, count in own.items() if count == 0 and name in seen]
    if unseen:
        raise InputError(
            f"{where}: no training images of class {listed(unseen)}, which other splits hold; all must have the same"
        )
    single = [name for name, count in own.items() if count == 1]
    if cut and single and summaries[key].exclusive:
        raise InputError(
            f"{where}: only one image of class {listed(single)}, which cannot be both trained on and evaluated; "
            "add images, remove the class, or give separate splits and data.val_fraction=0"
        )


def find_channels(split: Split, limit: int = 1000) -> int:
    """1 if every image is grey, else 3. At most `limit` images are read, evenly spaced."""
    places = np.unique(np.linspace(0, len(split) - 1, min(limit, len(split))).astype(int)).tolist()
    return 3 if any(split.read(i).shape[0] == 3 for i in places) else 1


def listed(names: Sequence[str]) -> str:
    """`'a'`, or `'a', 'b', 'c', 'd', 'e' and 7 more`."""
    shown = ", ".join(repr(name) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown

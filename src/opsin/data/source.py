"""A data source: its classes, its splits, and whether it can be trained on. Every format opens as one of these."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from opsin.data import zips
from opsin.data.images import Header, UnreadableImage, decode, read_bytes, read_header, read_size
from opsin.data.masks import Outline, draw_outlines
from opsin.errors import InputError
from opsin.structures import Instances

T = TypeVar("T")
Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Problem:
    """Something wrong with a data source. path: the file, with the line or place in it.

    An "error" makes training refuse or its result mislead; a "warning" wants a look; a "note" is good to know.
    """

    kind: str
    path: str
    reason: str
    severity: Literal["error", "warning", "note"] = "error"


class Split(ABC):
    """The images and labels of one part of a source.

    labels: (N,) int64, or (N, K) float32 of 0 and 1 if multi-label; -1 is a label out of range. instances: of a
    detection source, the objects of each image, boxes float32 in pixels of the image as `read` gives it, labels -1
    for regions to ignore; `labels` is then which classes an image holds. boxed: (N,) bool, where there are images
    whose objects nobody placed: what is `shown` is all that is known of those, and their instances are empty. None: all
    are.
    """

    labels: np.ndarray
    instances: list[Instances] | None = None
    boxed: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int) -> Tensor:
        """An image: uint8 (C, H, W), C = 1 or 3. Raises UnreadableImage."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Where an image came from: a path, or a place as in "digits[12]"."""

    @abstractmethod
    def select(self, indices: np.ndarray, labels: np.ndarray) -> Split:
        """The images at `indices`, in that order, with other labels and with their instances."""

    def masks(self, index: int) -> Tensor | None:
        """The pixels of each of an image's instances, (N, H, W) bool, in their order; None where nobody drew them."""
        return None

    def unmasked(self) -> int | None:
        """The first image with an object that has no mask; None where there is none."""
        return 0 if len(self) and self.masks(0) is None else None

    def shown(self, index: int) -> list[int]:
        """The classes of an image."""
        label = self.labels[index]
        return np.flatnonzero(label).tolist() if self.labels.ndim == 2 else [int(label)] * int(label >= 0)

    def subset(self, indices: Sequence[int] | np.ndarray) -> Split:
        """The examples at `indices`, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return self.select(chosen, self.labels[chosen])

    def relabel(self, places: Sequence[int] | np.ndarray, num_classes: int) -> Split:
        """The same images with class k called `places[k]` of `num_classes`. There may be more places than classes.

        Classes with the same place become one.
        """
        new = np.asarray(places, dtype=np.int64)
        if self.labels.ndim == 1:
            labels = np.where(self.labels < 0, -1, new[self.labels])
        else:
            labels = np.zeros((len(self), num_classes), np.float32)
            for column, place in zip(self.labels.T, new.tolist(), strict=False):
                np.maximum(labels[:, place], column, out=labels[:, place])
        split = self.with_labels(labels)
        if self.instances is not None:
            table = torch.from_numpy(np.append(new, -1))  # the last for -1, a region to ignore
            split.instances = [replace(one, labels=table[one.labels]) for one in self.instances]
        return split

    def with_labels(self, labels: np.ndarray) -> Split:
        """The same images with other labels."""
        return self.select(np.arange(len(self)), labels)

    def _instances_at(self, indices: np.ndarray) -> list[Instances] | None:
        return None if self.instances is None else [self.instances[i] for i in indices.tolist()]


class ArraySplit(Split):
    """Images that lie in memory. images: uint8 (M, C, H, W), shared by subsets. prefix: of names, as "digits"."""

    def __init__(
        self,
        images: Tensor,
        labels: np.ndarray,
        prefix: str,
        places: np.ndarray | None = None,
        instances: list[Instances] | None = None,
    ) -> None:
        self.images, self.labels, self.prefix, self.instances = images, labels, prefix, instances
        self.places = np.arange(len(images)) if places is None else places

    def read(self, index: int) -> Tensor:
        return self.images[self.places[index]]

    def name(self, index: int) -> str:
        return f"{self.prefix}[{self.places[index]}]"

    def select(self, indices: np.ndarray, labels: np.ndarray) -> ArraySplit:
        return ArraySplit(self.images, labels, self.prefix, self.places[indices], self._instances_at(indices))


class FileSplit(Split):
    """Images in files, or in the members of a zip archive where `archive` is its path.

    outlines: what the mask of each image's instances is drawn from, None for one that has only a box.
    """

    def __init__(
        self,
        files: list[str],
        labels: np.ndarray,
        archive: str | None = None,
        instances: list[Instances] | None = None,
        outlines: list[list[Outline | None]] | None = None,
    ) -> None:
        self.files, self.labels, self.archive, self.instances = files, labels, archive, instances
        self.outlines = outlines

    def encoded(self, index: int) -> bytes:
        """An image as it lies on disk. Raises UnreadableImage."""
        file = self.files[index]
        return read_bytes(file) if self.archive is None else zips.read_member(self.archive, file)

    def header(self, index: int) -> Header:
        """What an image says of itself, not decoded. Raises UnreadableImage."""
        if self.archive is None:
            return read_header(Path(self.files[index]), self.name(index))
        return read_header(self.encoded(index), self.name(index))

    def read(self, index: int) -> Tensor:
        return decode(self.encoded(index), self.name(index))

    def name(self, index: int) -> str:
        return self.files[index] if self.archive is None else f"{self.archive}/{self.files[index]}"

    def select(self, indices: np.ndarray, labels: np.ndarray) -> FileSplit:
        files = [self.files[i] for i in indices.tolist()]
        outlines = None if self.outlines is None else [self.outlines[i] for i in indices.tolist()]
        return FileSplit(files, labels, self.archive, self._instances_at(indices), outlines)

    def masks(self, index: int) -> Tensor | None:
        """See `Split.masks`; of a region to ignore without an outline the mask is empty."""
        if self.outlines is None or self._lacks_outlines(index):
            return None
        try:
            return draw_outlines([outline or [] for outline in self.outlines[index]], read_size(self.files[index]))
        except InputError as error:
            raise InputError(f"{self.name(index)}: {error}") from error

    def unmasked(self) -> int | None:
        return next((index for index in range(len(self)) if self._lacks_outlines(index)), None)

    def _lacks_outlines(self, index: int) -> bool:
        if self.outlines is None or self.instances is None:
            return True
        labels = self.instances[index].labels
        assert labels is not None
        pairs = zip(self.outlines[index], labels.tolist(), strict=True)
        return any(outline is None and label >= 0 for outline, label in pairs)


@dataclass
class Source:
    """A data set, opened. splits: those of "train", "val" and "test" that it separates itself, or else only "all".

    skipped: files left out because they could not be read. problems: what was found while opening. task: what it was
    opened for; "detect" means that every split has instances.
    """

    name: str
    format: str
    classes: list[str]
    splits: dict[str, Split]
    multi_label: bool = False
    skipped: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    task: str = "classify"

    def without(self, problems: Iterable[Problem]) -> Source:
        """The source less its unreadable files, which are remembered in `skipped`."""
        bad = {problem.path: problem for problem in problems if problem.kind == "unreadable"}
        splits, skipped = {}, list(self.skipped)
        for key, split in self.splits.items():
            names = [split.name(i) for i in range(len(split))]
            splits[key] = split.subset([i for i, name in enumerate(names) if name not in bad])
            skipped += [bad[name] for name in names if name in bad]
        return replace(self, splits=splits, skipped=skipped)


def verify(
    source: Source, workers: int | None = None, progress: Progress | None = None, full: int = 20_000
) -> list[Problem]:
    """Every unreadable file of a source. Images in memory are always readable.

    Decodes every file where there are at most `full`, else it reads headers only: a file that is truncated then makes
    itself known when the loader comes to it. workers: threads, one a core if None.
    """
    jobs = [(split, i) for split in source.splits.values() if isinstance(split, FileSplit) for i in range(len(split))]
    deep = len(jobs) <= full

    def check(job: tuple[FileSplit, int]) -> Problem | None:
        split, index = job
        try:
            if deep:
                if reason := misfit(split, index, split.read(index).shape[-2:]):
                    return Problem("unreadable", split.name(index), reason)
            else:
                split.header(index)
        except UnreadableImage as error:
            return Problem("unreadable", error.path, error.reason)
        return None

    return [problem for problem in map_threads(check, jobs, workers, progress) if problem is not None]


def misfit(split: Split, index: int, size: Sequence[int]) -> str | None:
    """Why the boxes of an image of (height, width) cannot be its own: they reach over a pixel beyond it. None if not.

    When a source is opened, boxes are held against the size that the annotation gives, which may be wrong.
    """
    if split.instances is None or not len(split.instances[index]):
        return None
    right, bottom = split.instances[index].boxes[:, 2:].amax(dim=0).tolist()
    height, width = size
    if right <= width + 1 and bottom <= height + 1:
        return None
    return (
        f"it has {width}x{height} pixels (width x height), but its boxes reach to {right:g}, {bottom:g}; "
        "they were drawn for another size, or before it was turned"
    )


def map_threads(
    function: Callable[[T], object], jobs: Sequence[T], workers: int | None = None, progress: Progress | None = None
) -> list:
    """The function's results in the order of the jobs. Decoding releases Python's lock, so threads use every core."""
    results = []
    with ThreadPoolExecutor(workers or min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(jobs), 1024):  # in pieces, so that Ctrl-C and errors do not wait for the last file
            results += pool.map(function, jobs[start : start + 1024])
            if progress is not None:
                progress(len(results), len(jobs))
    return results


def check_trainable(source: Source, val_fraction: float = 0.1, test_fraction: float = 0.2) -> None:
    """Raise InputError with the first reason why a network cannot be trained and evaluated on the source."""
    where, classes = source.name, source.classes
    for problem in source.problems:
        if problem.severity == "error":
            raise InputError(f"{problem.path}: {problem.reason}")
    key = "train" if "train" in source.splits else "all"
    if key not in source.splits:
        raise InputError(f"{where} has no training split, only {', '.join(source.splits)}; name it train")
    detecting = source.task == "detect"
    if detecting and not any(len(one) for one in source.splits[key].instances or []):
        raise InputError(f"{where}: no image of the {key} split has a box; a detector needs some to learn from")
    if len(classes) < 2 and not detecting:
        only = f"only the class {classes[0]!r}" if classes else "no classes"
        raise InputError(f"{where} has {only}; a classifier needs two or more, each in a folder of its own or a column")
    for name, split in source.splits.items():
        if len(split) == 0:
            raise InputError(f"{where}: the {name} split holds no images")
    counts = {name: class_counts(split.labels, len(classes)) for name, split in source.splits.items()}
    lost = [c for k, c in enumerate(classes) if source.skipped and counts[key][k] == 0 and not detecting]
    if lost:
        raise InputError(f"{where}: no readable training images of class {listed(lost)}; mend or remove them")
    unseen = [c for k, c in enumerate(classes) if counts[key][k] == 0 and any(n[k] for n in counts.values())]
    if unseen:
        raise InputError(
            f"{where}: no training images of class {listed(unseen)}, which other splits hold; all must have the same"
        )
    parted = test_fraction > 0 or val_fraction > 0 if key == "all" else val_fraction > 0 and "val" not in source.splits
    single = [c for k, c in enumerate(classes) if counts[key][k] == 1]
    if parted and single and not source.multi_label and not detecting:
        raise InputError(
            f"{where}: only one image of class {listed(single)}, which cannot be both trained on and evaluated; "
            "add images, remove the class, or give separate splits and data.val_fraction=0"
        )


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """How many examples each class has: (num_classes,) int64. Negative labels count for none."""
    if labels.ndim == 2:
        return labels.sum(axis=0).astype(np.int64)
    return np.bincount(labels[labels >= 0], minlength=num_classes)


def find_channels(split: Split, limit: int = 1000) -> int:
    """1 if every image is grey, else 3. At most `limit` images are read, evenly spaced."""
    places = np.unique(np.linspace(0, len(split) - 1, min(limit, len(split))).astype(int)).tolist()
    return 3 if any(split.read(i).shape[0] == 3 for i in places) else 1


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(N,) int64 -> (N, num_classes) float32, a row of zeros for a negative label; what is 2-D already stays."""
    if labels.ndim == 2:
        return labels
    return (labels[:, None] == np.arange(num_classes)).astype(np.float32)


def listed(names: Sequence[str]) -> str:
    """`'a'`, or `'a', 'b', 'c', 'd', 'e' and 7 more`."""
    shown = ", ".join(repr(name) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown

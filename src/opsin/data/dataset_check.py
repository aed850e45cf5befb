"""The doctor: what a data set is, and everything that is wrong with it, each finding with its file and reason."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from opsin.data.box_check import box_problems, count_objects, measure, same_truth
from opsin.data.images import ENDINGS, UnreadableImage, decode, read_header
from opsin.data.open_source import open_source
from opsin.data.source import (
    FileSplit,
    Problem,
    Progress,
    Source,
    Split,
    check_trainable,
    class_counts,
    map_threads,
    misfit,
)
from opsin.errors import InputError

_IMBALANCE = 10  # times more examples in the largest class than in the smallest before it is a warning


# Keys of `Diagnosis.to_dict` before 0.2, which stay beside the new ones for a release; as does "pictures".
_OLD_BOX_FACTS = {"most_in_an_image": "most_in_a_picture", "images_without": "pictures_without"}


@dataclass
class Diagnosis:
    """What the doctor found.

    splits: from split to class to number of images. sizes: {"HxW": images}, the most frequent first; channels and
    encodings likewise. imbalance: the largest class over the smallest, in the training split; None with an empty class.
    objects: of detection data, from split to class to number of boxes, which imbalance then counts; boxes: facts of all
    of them (see `box_doctor.measure`).
    """

    name: str
    format: str
    task: str
    multi_label: bool
    classes: list[str]
    images: dict[str, int]
    splits: dict[str, dict[str, int]]
    imbalance: float | None
    sizes: dict[str, int]
    channels: dict[str, int]
    encodings: dict[str, int]
    problems: list[Problem] = field(default_factory=list)
    objects: dict[str, dict[str, int]] = field(default_factory=dict)
    boxes: dict[str, float] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that makes training refuse or its result misleading."""
        return not any(problem.severity == "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {**asdict(self), "healthy": self.healthy, "pictures": self.images}
        for name, old in _OLD_BOX_FACTS.items():
            if name in self.boxes:
                values["boxes"][old] = self.boxes[name]
        return values


@dataclass(frozen=True)
class _Finding:
    """One image, looked at. digest: of its pixels; None where it cannot be read."""

    split: str
    index: int
    name: str
    digest: bytes | None = None
    shape: tuple[int, int] = (0, 0)
    channels: str = ""
    encoding: str = ""
    problem: Problem | None = None


def inspect(
    source: Source | str | Path,
    task: str = "classify",
    *,
    multi_label: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Read every image of a source and tell what it is and what is wrong. Pixels are compared, not files."""
    opened = source if isinstance(source, Source) else open_source(source, task, multi_label=multi_label)
    findings: list[_Finding] = []
    for key, split in opened.splits.items():
        look = partial(_look, key, split)
        if isinstance(split, FileSplit):
            findings += map_threads(look, range(len(split)), workers, progress)
        else:
            findings += [look(i) for i in range(len(split))]
    number = len(opened.classes)
    counts = {key: class_counts(split.labels, number) for key, split in opened.splits.items()}
    detecting = opened.task == "detect"
    weighed = {key: count_objects(s, number) for key, s in opened.splits.items()} if detecting else counts
    trained = weighed.get("train", weighed.get("all"))
    uneven = trained is not None and len(trained) > 0 and trained.min() > 0
    return Diagnosis(
        name=opened.name,
        format=opened.format,
        task=task,
        multi_label=opened.multi_label,
        classes=opened.classes,
        images={key: len(split) for key, split in opened.splits.items()},
        splits=_by_class(opened, counts),
        imbalance=round(float(trained.max() / trained.min()), 3) if uneven and trained is not None else None,
        sizes=_tally("{}x{}".format(*f.shape) if f.digest else "" for f in findings),
        channels=_tally(f.channels for f in findings),
        encodings=_tally(f.encoding for f in findings),
        problems=[
            *opened.problems,
            *_unfit(opened),
            *_class_problems(opened, weighed),
            *_image_problems(opened, findings),
            *(box_problems(opened, {(f.split, f.index): f.shape for f in findings if f.digest}) if detecting else ()),
        ],
        objects=_by_class(opened, weighed) if detecting else {},
        boxes=measure(opened) if detecting else {},
    )


def _by_class(source: Source, counts: dict[str, np.ndarray]) -> dict[str, dict[str, int]]:
    return {key: dict(zip(source.classes, row.tolist(), strict=True)) for key, row in counts.items()}


def _look(key: str, split: Split, index: int) -> _Finding:
    name, encoding, problem = split.name(index), "", None
    try:
        if isinstance(split, FileSplit):
            data = split.encoded(index)
            encoding = read_header(data, name).encoding
            image = decode(data, name)
            if PurePosixPath(name).suffix.lower() not in ENDINGS.get(encoding, ()):
                problem = Problem("wrong_ending", name, f"its content is {encoding}", "note")
        else:
            image = split.read(index)
    except UnreadableImage as error:
        return _Finding(key, index, name, problem=Problem("unreadable", error.path, error.reason))
    channels, height, width = image.shape
    if reason := misfit(split, index, (height, width)):
        problem = Problem("size_mismatch", name, reason)
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(image.contiguous().numpy().data)
    colour = "grey" if channels == 1 else "colour"
    return _Finding(key, index, name, digest.digest(), (height, width), colour, encoding, problem)


def _unfit(source: Source) -> list[Problem]:
    """The reason why training would refuse, if the classes and counts give one."""
    try:
        check_trainable(replace(source, problems=[]))
    except InputError as error:
        return [Problem("untrainable", source.name, str(error).removeprefix(f"{source.name}: "))]
    return []


def _class_problems(source: Source, counts: dict[str, np.ndarray]) -> list[Problem]:
    problems, things = [], "boxes" if source.task == "detect" else "images"
    named = any(problem.kind in ("empty_class", "class_mismatch") for problem in source.problems)
    for key, row in counts.items():
        for name in [n for k, n in enumerate(source.classes) if row[k] == 0 and (things == "boxes" or not named)]:
            none = f"{key} holds no {things.removesuffix('es' if things == 'boxes' else 's')} of class {name!r}"
            problems.append(Problem("empty_class", source.name, none, "warning"))
        if key in ("train", "all") and len(row) and row.max() > _IMBALANCE * max(1, row.min()) and row.min() > 0:
            most, least = source.classes[row.argmax()], source.classes[row.argmin()]
            advice = "; consider loss.class_weights=balanced" if things == "images" else ""
            reason = f"{row.max()} {things} of {most!r} but {row.min()} of {least!r}{advice}"
            problems.append(Problem("imbalance", source.name, reason, "warning"))
    return problems


def _image_problems(source: Source, findings: list[_Finding]) -> list[Problem]:
    problems = [finding.problem for finding in findings if finding.problem is not None]
    same: dict[bytes, list[_Finding]] = defaultdict(list)
    for finding in findings:
        if finding.digest is not None:
            same[finding.digest].append(finding)
    for group in same.values():
        first, *others = group
        for other in others:
            problems += _twins(source, first, other)
    return problems


def _twins(source: Source, first: _Finding, other: _Finding) -> list[Problem]:
    """What it means that two images are equal."""
    found = []
    reason = _contradiction(source, first, other)
    if reason is not None:
        found.append(Problem("conflicting_labels", other.name, reason))
    if first.split != other.split:
        found.append(Problem("leak", other.name, f"in {other.split}, the same image as {first.name} in {first.split}"))
    elif reason is None:
        later = "; it can end up both in train and in test" if other.split == "all" else ""
        found.append(Problem("duplicate", other.name, f"the same image as {first.name}{later}", "warning"))
    return found


def _contradiction(source: Source, first: _Finding, other: _Finding) -> str | None:
    """How the truth of two equal images differs; None if it does not."""
    if source.task == "detect":
        same = same_truth(source.splits[first.split], first.index, source.splits[other.split], other.index)
        return None if same else f"the same image as {first.name}, but with other boxes"
    one, two = (_label(source, finding) for finding in (first, other))
    return None if one == two else f"the same image as {first.name}, but labelled {two}, not {one}"


def _label(source: Source, finding: _Finding) -> str:
    label = source.splits[finding.split].labels[finding.index]
    if label.ndim == 1:
        return "+".join(source.classes[k] for k in np.flatnonzero(label)) or "nothing"
    return source.classes[label] if label >= 0 else "nothing"


def _tally(values: Any) -> dict[str, int]:
    return dict(Counter(value for value in values if value).most_common())


def render(diagnosis: Diagnosis, limit: int = 20) -> str:
    """The diagnosis as plain text. At most `limit` classes, sizes and problems of a kind are listed."""
    total = sum(diagnosis.images.values())
    what = "boxes" if diagnosis.boxes else "multi-label" if diagnosis.multi_label else "one label an image"
    kind = f"{diagnosis.format}, {what}"
    lines = [f"{diagnosis.name}: {kind}, {total:,} images, {len(diagnosis.classes)} classes"]
    lines += [f"  {key:<6} {count:,}" for key, count in diagnosis.images.items()]
    lines += ["classes", *_class_lines(diagnosis, limit)]
    if diagnosis.imbalance is not None:
        things = "boxes" if diagnosis.boxes else "images"
        lines.append(f"  the largest has {diagnosis.imbalance:.2f} times the {things} of the smallest")
    lines += _box_lines(diagnosis.boxes)
    for title, tally in (("sizes", diagnosis.sizes), ("channels", diagnosis.channels), ("files", diagnosis.encodings)):
        if tally:
            shown = [f"{value} ({count:,})" for value, count in list(tally.items())[:5]]
            lines.append(f"{title}: {', '.join(shown)}" + (f" and {len(tally) - 5} more" if len(tally) > 5 else ""))
    return "\n".join(lines + _problem_lines(diagnosis, limit))


def _class_lines(diagnosis: Diagnosis, limit: int) -> list[str]:
    width = max([len(name) for name in diagnosis.classes[:limit]], default=0)
    lines = []
    for name in diagnosis.classes[:limit]:
        counted = diagnosis.objects or diagnosis.splits
        counts = "  ".join(f"{key} {row[name]:,}" for key, row in counted.items())
        lines.append(f"  {name:<{width}}  {counts}")
    if len(diagnosis.classes) > limit:
        lines.append(f"  ... and {len(diagnosis.classes) - limit} more")
    return lines


def _box_lines(boxes: dict[str, float]) -> list[str]:
    if not boxes:
        return []
    ignored = f", {boxes['ignored']:,} regions to ignore" if boxes["ignored"] else ""
    most, without = boxes["most_in_an_image"], boxes["images_without"]
    lines = [f"boxes: {boxes['objects']:,}{ignored}, at most {most:,} in an image, {without:,} images without"]
    if boxes["objects"]:
        shortest, middle, longest = (boxes[f"{which}_side"] for which in ("shortest", "median", "longest"))
        lines.append(f"  sides of {shortest:g} to {longest:g} pixels, {middle:g} in the middle")
    return lines


def _problem_lines(diagnosis: Diagnosis, limit: int) -> list[str]:
    if not diagnosis.problems:
        return ["no problems found"]
    lines = []
    for severity in ("error", "warning", "note"):
        kinds: dict[str, list[Problem]] = defaultdict(list)
        for problem in diagnosis.problems:
            if problem.severity == severity:
                kinds[problem.kind].append(problem)
        for kind, found in kinds.items():
            lines.append(f"{severity}: {kind.replace('_', ' ')} ({len(found):,})")
            lines += [f"  {problem.path}: {problem.reason}" for problem in found[:limit]]
            if len(found) > limit:
                lines.append(f"  ... and {len(found) - limit:,} more")
    return lines

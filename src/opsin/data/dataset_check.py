"""The data check: what a data set is, and everything that is wrong with it, each finding with its file and reason."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from opsin.data.decoder_messages import listening
from opsin.data.images import ENDINGS, UnreadableImage, decode, read_header
from opsin.data.open_source import open_source
from opsin.data.source import Progress, Source, Split, check_trainable, map_threads, misfit, with_messages
from opsin.data.truth import Problem, Size, Summary, name_problem
from opsin.errors import InputError, is_printable, printable
from opsin.rooms import DEFAULT_TASK

_IMBALANCE = 10  # times more examples in the largest class than in the smallest before it is a warning


# Earlier keys of `Diagnosis.to_dict`, which stay beside the new ones for a release; as do "pictures", and an empty
# "boxes" for a truth that has none.
_OLD_BOX_FACTS = {"most_in_an_image": "most_in_a_picture", "images_without": "pictures_without"}


@dataclass
class Diagnosis:
    """What the data check found.

    splits: from split to class to number of images. sizes: {"HxW": images}, the most frequent first; channels and
    encodings likewise. imbalance: the largest class over the smallest, in the training split; None with an empty class.
    objects: where the truth counts things within images, from split to class to their number, which imbalance then
    counts; facts: of all of its truth, see `Summary.facts`. summary: of the split to train on, and noun: what an
    example is, both for `render`.
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
    facts: dict[str, Any] = field(default_factory=dict)
    summary: Summary = field(default_factory=Summary, repr=False)
    noun: str = field(default="image", repr=False)

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that makes training refuse or its result misleading."""
        return not any(problem.severity == "error" for problem in self.problems)

    @property
    def boxes(self) -> dict[str, Any]:
        """The facts of boxes, none of another truth: what `facts` was called, for a release."""
        return self.facts if self.summary.section == "boxes" else {}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON. The facts of the truth stand under the name of its section, where there are some."""
        values = asdict(replace(self, summary=Summary())) | {"healthy": self.healthy, "pictures": self.images}
        del values["summary"], values["noun"], values["facts"]
        for section, facts in {
            "boxes": self.boxes,
            **({self.summary.section: self.facts} if self.facts else {}),
        }.items():
            values.setdefault(section, dict(facts))
        values["problems"] = [{k: v for k, v in one.items() if k != "index"} for one in values["problems"]]
        for name, old in _OLD_BOX_FACTS.items():
            if name in self.boxes:
                values["boxes"][old] = self.boxes[name]
        return values


@dataclass(frozen=True)
class _Finding:
    """One example, looked at. digest: of its pixels; None where it cannot be read. size: of an image."""

    split: str
    index: int
    name: str
    digest: bytes | None = None
    size: Size | None = None
    channels: str = ""
    encoding: str = ""
    problem: Problem | None = None


def inspect(
    source: Source | str | Path,
    task: str = DEFAULT_TASK,
    *,
    multi_label: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Read every image of a source and tell what it is and what is wrong. Pixels are compared, not files."""
    opened = source if isinstance(source, Source) else open_source(source, task, multi_label=multi_label)
    with listening() as heard:
        findings = _look_at_all(opened, workers, progress)
    summaries = {
        key: Summary() if split.truth is None else split.truth.summary() for key, split in opened.splits.items()
    }
    main = summaries.get("train", summaries.get("all", Summary()))
    rest = [one for one in summaries.values() if one is not main]
    sizes = [int(count) for count in main.weighed.values()]
    return Diagnosis(
        name=opened.name,
        format=opened.format,
        task=task,
        multi_label=any(not one.exclusive for one in summaries.values() if one.counts),
        classes=opened.classes,
        images={key: len(split) for key, split in opened.splits.items()},
        splits={key: dict(one.counts) for key, one in summaries.items()},
        imbalance=round(float(max(sizes) / min(sizes)), 3) if sizes and min(sizes) else None,
        sizes=_tally("{}x{}".format(*f.size) if f.size else "" for f in findings),
        channels=_tally(f.channels for f in findings),
        encodings=_tally(f.encoding for f in findings),
        problems=[
            *opened.problems,
            *_unfit(opened),
            *_odd_names(opened, findings),
            *class_problems(opened, summaries),
            *_image_problems(opened, findings, heard),
            *_truth_problems(opened, findings),
        ],
        objects={key: dict(one.objects) for key, one in summaries.items() if one.objects},
        facts=main.facts(rest),
        summary=main,
        noun=next((split.inputs.noun for split in opened.splits.values()), "image"),
    )


def _look_at_all(source: Source, workers: int | None, progress: Progress | None) -> list[_Finding]:
    findings: list[_Finding] = []
    for key, split in source.splits.items():
        look = partial(_look, key, split)
        if split.inputs.stored:
            before, total = len(findings), sum(map(len, source.splits.values()))
            shown = None if progress is None else lambda done, _, n=before, of=total: progress(n + done, of)
            findings += map_threads(look, range(len(split)), workers, shown)
        else:
            findings += [look(i) for i in range(len(split))]
    return findings


def _look(key: str, split: Split, index: int) -> _Finding:
    name, encoding, problem = split.name(index), "", None
    try:
        data = split.inputs.encoded(index) if split.inputs.key == "image" else None
        if data is not None:
            encoding = read_header(data, name).encoding
            ending = PurePosixPath(name).suffix.lower()  # none of what lies in a database
            if ending and ending not in ENDINGS.get(encoding, ()):
                problem = Problem("wrong_ending", name, f"its content is {encoding}", "note")
        value = split.read(index) if data is None else decode(data, name)
    except UnreadableImage as error:
        return _Finding(key, index, name, problem=Problem("unreadable", error.path, error.reason))
    if reason := misfit(split, index, value):
        kind = "unreadable" if split.truth is not None and split.truth.unreadable(index) else "size_mismatch"
        problem = Problem(kind, name, reason)
    if split.inputs.key != "image":
        return _Finding(key, index, name, _digest(value), problem=problem)
    channels, height, width = value.shape
    colour = "grey" if channels == 1 else "colour"
    return _Finding(key, index, name, _digest(value), (height, width), colour, encoding, problem)


def _digest(value: Any) -> bytes:
    """Of an example as it was read: equal for equal ones."""
    array = value.contiguous().numpy() if isinstance(value, torch.Tensor) else np.ascontiguousarray(value)
    digest = hashlib.blake2b(repr(tuple(array.shape)).encode(), digest_size=16)
    digest.update(array.data if array.dtype.kind in "biuf" else repr(value).encode())
    return digest.digest()


def _unfit(source: Source) -> list[Problem]:
    """The reason why training would refuse, if the classes and counts give one."""
    try:
        check_trainable(replace(source, problems=[]))
    except InputError as error:
        return [Problem("untrainable", source.name, str(error).removeprefix(f"{source.name}: "))]
    return []


def _odd_names(source: Source, findings: list[_Finding]) -> list[Problem]:
    """Names of classes and files that cannot be shown as they are; see `opsin.errors.printable`."""
    rest = "characters that steer a terminal, break a line or are no text"
    classes = [printable(name) for name in source.classes if not is_printable(name)]
    files = [finding.name for finding in findings if not is_printable(finding.name.rpartition("/")[2])]
    return [
        *(Problem("odd_name", source.name, f"the class {name} has {rest}", "note") for name in classes),
        *(Problem("odd_name", name, f"its name has {rest}", "note") for name in files),
    ]


def class_problems(source: Source, summaries: Mapping[str, Summary]) -> list[Problem]:
    """Classes without examples, and some with many more than others. summaries: of the splits' truths."""
    problems = []
    named = any(problem.kind in ("empty_class", "class_mismatch") for problem in source.problems)
    for key, summary in summaries.items():
        counts, one = summary.weighed, summary.noun.removesuffix("es" if summary.noun.endswith("xes") else "s")
        for name in [name for name, count in counts.items() if count == 0 and (summary.objects or not named)]:
            problems.append(Problem("empty_class", source.name, f"{key} holds no {one} of class {name!r}", "warning"))
        most, least = (choose(counts, key=counts.__getitem__, default="") for choose in (max, min))
        if key in ("train", "all") and counts and 0 < _IMBALANCE * counts[least] < counts[most]:
            reason = f"{counts[most]} {summary.noun} of {most!r} but {counts[least]} of {least!r}{summary.advice}"
            problems.append(Problem("imbalance", source.name, reason, "warning"))
    return problems


def _truth_problems(source: Source, findings: list[_Finding]) -> list[Problem]:
    """What each split's truth finds odd in itself; what concerns them all is listed once."""
    problems = []
    for key, split in source.splits.items():
        sizes = {f.index: f.size for f in findings if f.split == key and f.size is not None}
        for problem in [] if split.truth is None else split.truth.problems(sizes):
            path = source.name if problem.index is None else split.name(problem.index)
            problems.append(name_problem(problem, source.name, key, path))
    return list(dict.fromkeys(problems))


def _image_problems(source: Source, findings: list[_Finding], heard: Mapping[str, str]) -> list[Problem]:
    """What is wrong with each image, and what it is equal to. heard: what decoders said, by name."""
    problems = [finding.problem for finding in findings if finding.problem is not None]
    problems = with_messages(problems, heard)
    same: dict[bytes, list[_Finding]] = defaultdict(list)
    for finding in findings:
        if finding.digest is not None:
            same[finding.digest].append(finding)
    for group in same.values():
        first, *others = group
        for other in others:
            problems += twins(source, (first.split, first.index), (other.split, other.index))
    return problems


def twins(source: Source, first: tuple[str, int], other: tuple[str, int]) -> list[Problem]:
    """What it means that two examples, each by its split and its place there, are equal."""
    one, two = source.splits[first[0]], source.splits[other[0]]
    found, same, name = [], f"the same {one.inputs.noun} as {one.name(first[1])}", two.name(other[1])
    reason = None if one.truth is None or two.truth is None else one.truth.same(first[1], two.truth, other[1])
    if reason is not None:
        found.append(Problem("conflicting_labels", name, f"{same}, but {reason}"))
    if first[0] != other[0]:
        found.append(Problem("leak", name, f"in {other[0]}, {same} in {first[0]}"))
    elif reason is None:
        later = "; it can end up both in train and in test" if other[0] == "all" else ""
        found.append(Problem("duplicate", name, f"{same}{later}", "warning"))
    return found


def _tally(values: Any) -> dict[str, int]:
    return dict(Counter(value for value in values if value).most_common())


def render(diagnosis: Diagnosis, limit: int = 20) -> str:
    """The diagnosis as plain text. At most `limit` classes, sizes and problems of a kind are listed."""
    total, summary = sum(diagnosis.images.values()), diagnosis.summary
    kind = ", ".join(filter(None, (diagnosis.format, summary.kind)))
    classes = f", {len(diagnosis.classes)} classes" if diagnosis.classes else ""
    lines = [f"{diagnosis.name}: {kind}, {total:,} {diagnosis.noun}s{classes}"]
    lines += [f"  {key:<6} {count:,}" for key, count in diagnosis.images.items()]
    lines += ["classes", *_class_lines(diagnosis, limit)] if diagnosis.classes else []
    if diagnosis.imbalance is not None:
        lines.append(f"  the largest has {diagnosis.imbalance:.2f} times the {summary.noun} of the smallest")
    lines += summary.lines(diagnosis.facts)
    for title, tally in (("sizes", diagnosis.sizes), ("channels", diagnosis.channels), ("files", diagnosis.encodings)):
        if tally:
            shown = [f"{value} ({count:,})" for value, count in list(tally.items())[:5]]
            lines.append(f"{title}: {', '.join(shown)}" + (f" and {len(tally) - 5} more" if len(tally) > 5 else ""))
    return "\n".join(map(printable, lines + _problem_lines(diagnosis, limit)))


def _class_lines(diagnosis: Diagnosis, limit: int) -> list[str]:
    width = max([len(printable(name)) for name in diagnosis.classes[:limit]], default=0)
    lines = []
    for name in diagnosis.classes[:limit]:
        counted = diagnosis.objects or diagnosis.splits
        counts = "  ".join(f"{key} {row[name]:,}" for key, row in counted.items())
        lines.append(f"  {printable(name):<{width}}  {counts}")
    if len(diagnosis.classes) > limit:
        lines.append(f"  ... and {len(diagnosis.classes) - limit} more")
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

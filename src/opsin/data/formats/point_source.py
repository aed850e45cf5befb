"""A source of named points, of what a format has read: its splits, the people in it, and what is wrong with these."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import numpy as np

from opsin.data.box_crops import BoxCrops, windows_of
from opsin.data.inputs import Concatenated, ImageFiles, Inputs
from opsin.data.named_points import NamedPoints
from opsin.data.point_sets import known_points
from opsin.data.source import Source, Split
from opsin.data.truth import Problem
from opsin.errors import InputError, printable

OPTIONS = ("pool_splits", "person_before", "crop", "box_scale")  # of every format of points
CROPS = ("box", "points", "none")
LARGEST = 1e7  # pixels: a coordinate beyond it is no place in an image
_NUMBERED = re.compile(r"(.*[^\d_.-])[_.-]*\d+$")  # what stands before the number that a name ends in
_LEAST_PEOPLE = 5


@dataclass
class PointRows:
    """What a format has read of a split, example by example.

    inputs: the whole images. points: (P, 2) each, NaN where not known. visible: (P,) bool each; all known ones if none.
    people: whom each shows, where the format says it. boxes: (4,) each, xyxy, around what has the points, where the
    format says it: examples are the parts of images around them then, unless that is not wanted.
    """

    inputs: Inputs
    points: list[np.ndarray] = field(default_factory=list)
    visible: list[np.ndarray] | None = None
    people: list[str] | None = None
    boxes: list[np.ndarray] | None = None


def source_of_points(
    name: str,
    format_: str,
    splits: Mapping[str, PointRows],
    names: Sequence[str] | None = None,
    *,
    pool_splits: bool = False,
    person_before: str | None = None,
    crop: str | None = None,
    box_scale: float = 1.25,
    problems: Sequence[Problem] = (),
) -> Source:
    """The source of what was read. names: of the points; their numbers from 0 if None.

    pool_splits: put the splits together as "all", so that they are divided anew. person_before: the sign before whose
    last occurrence the name of an image says whom it shows. crop: examples are the squares around the data's own boxes
    ("box", where it has some also if None), around the true points ("points"), or whole images ("none"). box_scale: how
    much larger a square is than its box. Raises InputError where there is nothing, or where examples have different
    numbers of points.
    """
    if not any(len(rows.points) for rows in splits.values()):
        raise InputError(f"{name} holds no points of any image")
    counts = sorted({len(points) for rows in splits.values() for points in rows.points})
    if len(counts) > 1:
        raise InputError(f"{name} has images with {counts[0]} and with {counts[-1]} points; expected as many in each")
    found: dict[str, Split] = {}
    for key, rows in splits.items():
        visible = None if rows.visible is None else np.stack(rows.visible)
        people = rows.people
        if person_before:
            people = [_person(rows.inputs.name(i), person_before) for i in range(len(rows.inputs))]
        inputs, points = _cut(rows, crop, box_scale, name)
        found[key] = Split(inputs, NamedPoints.of(points, names, visible, people))
    if len(found) > 1:
        main = found.get("train") or next(iter(found.values()))
        own: NamedPoints = main.kind
        found = {k: v.with_truth(replace(v.kind, flip=own.flip, eyes=own.eyes)) for k, v in found.items()}
    problems = [*problems, *([] if pool_splits else _people_on_both_sides(name, found))]
    if pool_splits and list(found) != ["all"]:
        found = {"all": _pooled(list(found.values()))}
    return Source(name, format_, found, problems=problems)


def _cut(rows: PointRows, crop: str | None, scale: float, name: str) -> tuple[Inputs, np.ndarray]:
    """The examples, whole images or the squares around boxes, and their points (N, P, 2) in their own pixels."""
    points = np.stack(rows.points)
    if crop not in (None, *CROPS):
        raise InputError(f"crop is {crop!r}; expected one of {', '.join(CROPS)}")
    if not 0.1 <= scale <= 10:
        raise InputError(f"box_scale is {scale!r}; expected a number from 0.1 to 10")
    if crop == "none" or (crop is None and rows.boxes is None):
        return rows.inputs, points
    if crop == "box" and rows.boxes is None:
        raise InputError(f"{name} says no boxes around what has the points; take crop=points or none")
    if not isinstance(rows.inputs, ImageFiles):
        raise InputError(f"{name} is not cut: only images in files of their own are; leave crop out")
    known = known_points(points)
    anywhere: np.ndarray = np.logical_or.reduce(known, axis=1)
    low = np.where(known[..., None], points, np.inf).min(axis=1)
    high = np.where(known[..., None], points, -np.inf).max(axis=1)
    around = np.where(anywhere[:, None], np.concatenate([low, high], axis=1), [0.0, 0, 2, 2])
    windows = windows_of(np.stack(rows.boxes) if rows.boxes is not None and crop != "points" else around, scale)
    return BoxCrops(rows.inputs, windows), points - windows[:, None, :2]


def _pooled(splits: Sequence[Split]) -> Split:
    """Several splits as one."""
    truths: list[NamedPoints] = [split.kind for split in splits]
    people = [one for truth in truths for one in (truth.people or [])] or None
    truth = replace(
        truths[0],
        points=np.concatenate([one.points for one in truths]),
        visible=np.concatenate([one.visible for one in truths]),
        people=people,
    )
    return Split(Concatenated([split.inputs for split in splits]), truth)


def _person(name: str, sign: str) -> str:
    """Whom an image shows, by its name: what stands before the last `sign`; the whole name where there is none."""
    stem = PurePosixPath(name.replace("\\", "/")).stem
    before, found, _ = stem.rpartition(sign)
    return before if found and before else stem


def _people_on_both_sides(name: str, splits: Mapping[str, Split]) -> list[Problem]:
    """Whether images in test or val show people who are in train too, by what the truth says, or by their names.

    By names only where these look as if they were of people with several images each: name_01, name_02.
    """
    if "train" not in splits or len(splits) < 2:
        return []
    said = {key: split.kind.people for key, split in splits.items()}
    if any(people is None for people in said.values()):
        said = _guess_people(splits)
    people, problems = set(said.get("train") or ()), []
    for key, own in said.items():
        shared = [one for one in own if one in people] if key != "train" else []
        if shared:
            reason = (
                f"{len(shared):,} of {len(own):,} images in {key} show people who are in train too, as "
                f"{printable(shared[0])}; a test on them says little of others. Divide them anew: pool_splits, and "
                "person_before with the sign behind the person in the names"
            )
            problems.append(Problem("people_on_both_sides", name, reason, "warning"))
    return problems


def _guess_people(splits: Mapping[str, Split]) -> dict[str, list[str]]:
    """Whom each image shows, by names such as name_01 and name_02; nobody where the names are not all of that kind."""
    stems = {
        key: [PurePosixPath(split.name(i).replace("\\", "/")).stem for i in range(len(split))]
        for key, split in splits.items()
    }
    matches = {key: [_NUMBERED.match(stem) for stem in own] for key, own in stems.items()}
    if any(match is None for own in matches.values() for match in own):
        return {}
    found = {key: [match[1] for match in own if match] for key, own in matches.items()}
    people = {one for own in found.values() for one in own}
    return found if len(people) >= _LEAST_PEOPLE and any("_" in one for one in people) else {}

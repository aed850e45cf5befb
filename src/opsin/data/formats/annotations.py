"""What every format of detection data says of an image, and which of its boxes are kept.

A format's reader gives one `Annotation` an image, boxes in our convention: xyxy, continuous pixels, x2 and y2
exclusive. `build` makes a source of them, by one rule for all formats:

- a box without area, or with a side turned inside out, is left out, with a warning;
- one that reaches outside of its image is cut at the border; by up to a pixel, which conventions differ by, without a
  word, by more with a warning;
- one with less than half of its area in the image is nonsense, as are numbers that are not finite and classes that
  are not declared: they are left out, and training is refused;
- a size that is declared and is not the image's is an error: the boxes were drawn in another frame, which may be the
  one before the image was turned as its orientation asks;
- two equal boxes of one class are both kept, as the field's evaluators do, with a warning.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from opsin.data.allowed_folders import check_allowed, is_allowed
from opsin.data.boxes import Boxes
from opsin.data.images import UnreadableImage, read_header
from opsin.data.inputs import ImageFiles
from opsin.data.masks import Outline, Outlines
from opsin.data.source import Source, Split, listed, map_threads
from opsin.data.stated_boxes import StatedBoxes
from opsin.data.texts import PackedTexts
from opsin.data.truth import Problem
from opsin.image_files import IMAGE_SUFFIXES, list_folder
from opsin.structures import Instances

_ROUNDING = 1.0  # pixels outside that pass without a word: 0-based or 1-based, inclusive or exclusive, six digits
_FARTHEST = 1e9  # pixels; no image is as large
_BESIDE_IMAGES = (  # of lists, annotations and read-me files
    *(".txt", ".xml", ".json", ".csv", ".tsv", ".yaml", ".yml", ".names", ".data", ".cfg", ".cache", ".md", ".html"),
    *(".rst", ".pdf", ".jsonl", ".ini", ".labels"),
)
_INSIDE = 0.5  # of a box's area, the least share in the image for it to be believed


@dataclass
class Annotation:
    """What is annotated in one image.

    file: its path. where: the annotation's file. size: (height, width); None to ask the image. boxes: (x1, y1, x2,
    y2) of each object. relative: whether boxes and outlines, which are polygons then, are in units of the image's
    sides. names: their classes. places: of each object within `where`, as "line 12". ignored: the places in `names` of
    regions to ignore. outlines: of each object what its mask is drawn from, None where none is annotated.
    """

    file: str
    where: str
    size: tuple[int, int] | None = None
    relative: bool = False
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    ignored: set[int] = field(default_factory=set)
    outlines: list[Outline | None] = field(default_factory=list)
    key: int | str | None = None
    areas: list[float | None] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    crowds: set[int] | None = None

    def add(
        self,
        box: tuple[float, float, float, float],
        name: str,
        place: str,
        *,
        ignored: bool = False,
        outline: Outline | None = None,
        area: float | None = None,
        text: str = "",
    ) -> None:
        """One more object."""
        if ignored:
            self.ignored.add(len(self.names))
        self.boxes.append(box)
        self.names.append(name)
        self.places.append(place)
        self.outlines.append(outline)
        self.areas.append(area)
        self.texts.append(text)

    def add_outline(
        self, points: Sequence[float], name: str, place: str, *, ignored: bool = False, text: str = ""
    ) -> None:
        """One more object, as the corners of its outline, x1 y1 x2 y2 ...: its box is what they span.

        Raises ValueError for fewer than two corners, and for half a corner.
        """
        if len(points) < 4 or len(points) % 2:
            raise ValueError(f"an outline of {len(points)} numbers; expected x and y of two corners or more")
        box = (min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2]))
        drawn = np.array(points, np.float64)
        outline = [drawn] if len(points) >= 6 and bool(np.isfinite(drawn).all()) else None
        self.add(box, name, place, ignored=ignored, outline=outline, text=text)


def note_oriented(where: str) -> Problem:
    """That a format's oriented boxes are read as outlines, noted once."""
    reason = "oriented boxes, kept as their outlines; a detector of upright boxes learns the box around each"
    return Problem("oriented_boxes", where, reason, "note")


def note_unannotated(where: str, images: Sequence[str], why: str) -> list[Problem]:
    """That images without any annotation are left out; none where there are no such."""
    if not images:
        return []
    reason = f"{len(images)} images {why} and are left out, {min(images)} the first"
    return [Problem("unannotated", where, reason, "warning")]


def build(
    name: str,
    format_: str,
    parts: Mapping[str, Sequence[Annotation]],
    *,
    classes: Sequence[str] | None = None,
    declared: str = "",
    problems: Sequence[Problem] = (),
    stated: bool = False,
    class_keys: Mapping[int | str, str] | None = None,
) -> Source:
    """A source of its splits' annotations.

    classes: where the data declares them, in the place that `declared` names; else they are the sorted names found.
    stated: keep the objects as the file states them too, for official evaluation; class_keys: the file's class ids.
    """
    for images in parts.values():
        for image in images:
            if not is_allowed(image.file):
                check_allowed([one.file for one in images], image.where)
    known = list(classes) if classes is not None else _found(parts)
    numbers, found = {name: k for k, name in enumerate(known)}, [*problems, *_note_unread(parts)]
    splits: dict[str, Split] = {}
    for key, images in parts.items():
        found += _check_sizes(images)
        evaluated = [_evaluate(image, numbers, declared, found) for image in images]
        instances, outlines = [one for one, _, _ in evaluated], [drawn for _, drawn, _ in evaluated]
        masks = Outlines(outlines) if any(one is not None for drawn in outlines for one in drawn) else None
        texts = [text for _, _, some in evaluated for text in some]
        truth = Boxes.of(instances, known, masks, PackedTexts.pack(texts) if any(texts) else None)
        if stated:
            truth = replace(truth, stated=_stated(images, numbers, class_keys or {}))
        splits[key] = Split(ImageFiles([image.file for image in images]), truth)
    return Source(name, format_, splits, problems=found)


def _note_unread(parts: Mapping[str, Sequence[Annotation]]) -> list[Problem]:
    """The files beside the images whose endings are neither an image's nor an annotation's, such as .heic."""
    folders = {os.path.dirname(image.file) for images in parts.values() for image in images}  # noqa: PTH120  # in bulk
    known, reason = (*IMAGE_SUFFIXES, *_BESIDE_IMAGES), "its ending is not an image's, left out"
    return [
        Problem("not_an_image", f"{folder}/{name}", reason, "note")
        for folder in sorted(folders)
        if is_allowed(folder) and os.path.isdir(folder)  # noqa: PTH112
        for name in sorted(list_folder(folder)[0])
        if not name.lower().endswith(known) and "." in name
    ]


def _found(parts: Mapping[str, Sequence[Annotation]]) -> list[str]:
    return sorted({name for images in parts.values() for image in images for name in image.names})


def _check_sizes(images: Sequence[Annotation]) -> list[Problem]:
    """Ask the images for their size, by their headers alone; what declared another one is a problem.

    An image that cannot be read is found when it is read.
    """

    def ask(image: Annotation) -> Problem | None:
        declared = image.size if image.size is not None and min(image.size) >= 1 else None
        try:
            header = read_header(Path(image.file), image.file)
        except UnreadableImage:
            image.size = declared
            return None
        real = (header.height, header.width)
        image.size = declared or real
        if image.size == real:
            return None
        is_, said = (f"{width}x{height}" for height, width in (real, image.size))
        turned = declared == header.stored
        why = " once turned as its orientation asks; draw its boxes anew, or save it without" if turned else ""
        reason = f"{image.file} is {is_} pixels (width x height){why}, but its annotation says {said}"
        return Problem("declared_size", image.where, reason)

    return [problem for problem in map_threads(ask, images) if problem is not None]


def _evaluate(
    image: Annotation, numbers: Mapping[str, int], declared: str, problems: list[Problem]
) -> tuple[Instances, list[Outline | None], list[str]]:
    """An image's instances, their outlines and texts, and what is wrong with them into `problems`."""
    boxes = np.array(image.boxes, np.float64).reshape(-1, 4)
    labels = np.array([numbers.get(name, -2) for name in image.names], np.int64)
    kept = np.ones(len(boxes), bool)

    def refuse(wrong: Any, kind: str, why: str, severity: Literal["error", "warning"] = "error") -> None:
        for i in np.flatnonzero(wrong & kept).tolist():
            facts = {"name": image.names[i], "box": _written(boxes[i]), "size": image.size and image.size[::-1]}
            reason = why.format(**facts, declared=declared, classes=listed(list(numbers)))
            problems.append(Problem(kind, f"{image.where} {image.places[i]}", reason, severity))
        kept[wrong] = False

    ignored = np.isin(np.arange(len(boxes)), list(image.ignored))
    labels[ignored] = -1  # whatever its class
    refuse(np.equal(labels, -2), "unknown_class", "unknown class {name!r}; {declared} has {classes}")
    wild = ~np.all(np.abs(boxes) < _FARTHEST, axis=1)  # NaN too
    refuse(wild, "not_finite", "the box of a {name} is {box}; expected numbers of pixels")
    boxes[~kept] = 0
    if image.relative:
        height, width = image.size or (1, 1)
        boxes = boxes * [width, height, width, height]
    sides = np.diff(boxes.astype(np.float32).reshape(-1, 2, 2), axis=1)[:, 0]  # float32, or it could turn flat later
    flat = "the box of a {name} has no area: {box}; left out"
    refuse(np.any(sides <= 0, axis=1), "degenerate_box", flat, "warning")
    if image.size is not None:
        height, width = image.size
        cut = np.clip(boxes, 0, [width, height, width, height])
        share = (cut[:, 2:] - cut[:, :2]).prod(axis=1) / np.where(kept, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1)
        far = np.abs(cut - boxes).max(axis=1, initial=0) > _ROUNDING
        outside = "the box of a {name} lies outside of its image: {box} of {size[0]}x{size[1]}; fix or remove it"
        refuse((share <= 0) | (far & (share < _INSIDE)), "outside_box", outside)
        for i in np.flatnonzero(far & kept).tolist():
            reason = f"the box of a {image.names[i]} reaches out of its image: {_written(boxes[i])} of {width}x{height}"
            place = f"{image.where} {image.places[i]}"
            problems.append(Problem("clipped_box", place, f"{reason}; cut at the border", "warning"))
        boxes = cut
    _note_twins(image, boxes, labels, kept, problems)
    outlines = [image.outlines[i] for i in np.flatnonzero(kept).tolist()]
    texts = [image.texts[i] for i in np.flatnonzero(kept).tolist()]
    if image.relative:
        height, width = image.size or (1, 1)
        scaled = ([np.asarray(p) * np.resize([width, height], len(p)) for p in o or ()] for o in outlines)
        outlines: list[Outline | None] = [one or None for one in scaled]
    found = Instances(torch.from_numpy(boxes[kept].astype(np.float32)), torch.from_numpy(labels[kept]))
    return found, outlines, texts


def _stated(
    images: Sequence[Annotation], numbers: Mapping[str, int], class_keys: Mapping[int | str, str]
) -> StatedBoxes:
    """The objects of known classes with finite boxes, as they are stated."""
    parts, labels, ignored, areas = [np.zeros((0, 4))], [], [], []
    counts = [0]
    for image in images:
        boxes = np.array(image.boxes, np.float64).reshape(-1, 4)
        if image.relative:
            height, width = image.size or (1, 1)
            boxes = boxes * [width, height, width, height]
        finite = np.abs(boxes).max(axis=1, initial=0) < _FARTHEST
        kept = [k for k, name in enumerate(image.names) if name in numbers and finite[k]]
        left_out = image.ignored if image.crowds is None else image.crowds
        parts.append(boxes[kept])
        labels += [numbers[image.names[k]] for k in kept]
        ignored += [k in left_out for k in kept]
        sides = boxes[:, 2:] - boxes[:, :2]
        areas += [float(sides[k].prod()) if (said := image.areas[k]) is None else said for k in kept]
        counts.append(len(kept))
    return StatedBoxes(
        np.cumsum(counts),
        np.concatenate(parts),
        np.array(labels, np.int64),
        np.array(ignored, bool),
        np.array(areas, np.float64),
        [image.size for image in images],
        [image.key for image in images],
        {key: numbers[name] for key, name in class_keys.items() if name in numbers},
    )


def _note_twins(
    image: Annotation, boxes: np.ndarray, labels: np.ndarray, kept: np.ndarray, problems: list[Problem]
) -> None:
    seen: dict[bytes, int] = {}
    for i in np.flatnonzero(kept & (labels >= 0)).tolist():
        first = seen.setdefault((np.rint(boxes[i] * 4) + 0.0).tobytes(), i)
        if first == i:
            continue
        kind, also = (
            ("duplicate_box", "of") if labels[first] == labels[i] else ("conflicting_boxes", "of another class,")
        )
        reason = f"the box of a {image.names[i]} is that {also} {image.places[first]}: {_written(boxes[i])}"
        problems.append(Problem(kind, f"{image.where} {image.places[i]}", reason, "warning"))


def _written(box: np.ndarray) -> str:
    return f"({', '.join(f'{value:.10g}' for value in box)})"

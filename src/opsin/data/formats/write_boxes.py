"""Boxes as COCO's json, YOLO's text and Pascal VOC's XML: what the readers of these formats read back as the same.

A region to ignore has no class any more: COCO has it as a crowd of the first category, VOC as a difficult object called
`ignore`, YOLO not at all. Outlines are kept in COCO; in YOLO those of one part whose box is the object's; in VOC not.
Each writer returns what was not kept, in words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax import saxutils

import numpy as np
import yaml

from opsin.data.formats.writing import ImageWriter, new_folder
from opsin.data.masks import Outline, Outlines, encode_masks, mask_area
from opsin.data.source import Source, Split
from opsin.errors import InputError

_CLICK = 0.01  # pixels by which a box of one pixel is widened in VOC, where it would be a click


@dataclass(frozen=True)
class _Object:
    box: list[float]
    label: int
    outline: Outline | None


def write_coco(source: Source, out: Path, link: bool = False) -> list[str]:
    """annotations/instances_train.json, and images in a folder for each split."""
    writer, ignored = ImageWriter(link), 0
    with new_folder(out) as root:
        for key, split in source.splits.items():
            home = "images" if key == "all" else key
            content: dict[str, Any] = {"images": [], "annotations": []}
            for i in range(len(split)):
                name = writer.name(split, i, key)
                height, width = writer.write(split, i, root / home / name)
                number = i + 1
                content["images"].append({"id": number, "file_name": name, "height": height, "width": width})
                for one in _objects(split, i, (height, width)):
                    entry = {"id": len(content["annotations"]) + 1, "image_id": number, **_coco(one)}
                    content["annotations"].append(entry)
                    ignored += one.label < 0
            content["categories"] = [{"id": k, "name": name} for k, name in enumerate(source.classes, 1)]
            file = root / "annotations" / f"instances_{key}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return [f"{ignored} regions to ignore are crowds of the first category"] if ignored else []


def write_yolo(source: Source, out: Path, link: bool = False) -> list[str]:
    """images and labels, each with a folder for each split, and data.yaml; without splits classes.txt in its place."""
    writer, ignored, boxed = ImageWriter(link), 0, 0
    with new_folder(out) as root:
        for key, split in source.splits.items():
            home = "" if key == "all" else key
            for i in range(len(split)):
                name = writer.name(split, i, key)
                size = writer.write(split, i, root / "images" / home / name)
                lines = []
                for one in _objects(split, i, size):
                    if one.label < 0:
                        ignored += 1
                        continue
                    corners = _corners(one)
                    boxed += one.outline is not None and corners is None
                    lines.append(_yolo(one, size, corners))
                file = root / "labels" / home / f"{Path(name).stem}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("".join(lines), encoding="utf-8")
        if "all" in source.splits:
            (root / "classes.txt").write_text("".join(f"{name}\n" for name in source.classes), encoding="utf-8")
        else:
            paths = {key: f"images/{key}" for key in source.splits}
            text = yaml.safe_dump(
                {**paths, "names": dict(enumerate(source.classes))}, sort_keys=False, allow_unicode=True
            )
            (root / "data.yaml").write_text(text, encoding="utf-8")
    notes = [f"{ignored} regions to ignore are left out: YOLO has none"] if ignored else []
    return [*notes, *([f"{boxed} masks of runs or of several parts are boxes alone"] if boxed else [])]


def write_voc(source: Source, out: Path, link: bool = False) -> list[str]:
    """Annotations, JPEGImages, classes.txt, and for each split a list in ImageSets/Main."""
    writer, ignored, masks = ImageWriter(link), 0, 0
    with new_folder(out) as root:
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        for key, split in source.splits.items():
            names = []
            for i in range(len(split)):
                name = writer.name(split, i)
                size = writer.write(split, i, root / "JPEGImages" / name)
                objects = list(_objects(split, i, size))
                ignored += sum(one.label < 0 for one in objects)
                masks += sum(one.outline is not None for one in objects)
                text = _voc(name, size, objects, source.classes)
                names.append(Path(name).stem)
                (root / "Annotations" / f"{names[-1]}.xml").write_text(text, encoding="utf-8")
            if key != "all":
                listed = root / "ImageSets/Main" / f"{key}.txt"
                listed.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in source.classes), encoding="utf-8")
    notes = [f"{ignored} regions to ignore are difficult objects"] if ignored else []
    return [*notes, *([f"{masks} masks are left out: VOC's XML has none"] if masks else [])]


def _objects(split: Split, i: int, size: tuple[int, int]) -> Iterator[_Object]:
    """An image's objects, each with what its mask is drawn from."""
    truth = split.kind
    one = truth.at(i)
    outlines: list[Outline | None] = [None] * len(one)
    if isinstance(truth.drawn, Outlines):
        outlines = list(truth.drawn.rows[i])
    elif truth.drawn is not None:
        outlines = list(encode_masks(truth.drawn.draw(i, size)))
    for box, label, outline in zip(one.boxes.tolist(), one.labels.tolist(), outlines, strict=True):
        yield _Object(box, label, outline)


def _coco(one: _Object) -> dict[str, Any]:
    x1, y1, x2, y2 = one.box
    crowd = int(one.label < 0)
    values: dict[str, Any] = {
        "category_id": max(one.label, 0) + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "iscrowd": crowd,
    }
    area = (x2 - x1) * (y2 - y1)
    if isinstance(one.outline, list):
        values["segmentation"] = [part.tolist() for part in one.outline]
        area = sum(_area(part) for part in one.outline)
    elif one.outline is not None:
        values["segmentation"] = dict(one.outline)
        whole = isinstance(one.outline["counts"], str)
        area = mask_area(one.outline) if whole else float(sum(one.outline["counts"][1::2]))
    return {**values, "area": area}


def _area(corners: np.ndarray) -> float:
    """Of a polygon, by the shoelace formula."""
    x, y = corners[::2], corners[1::2]
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def _corners(one: _Object) -> list[float] | None:
    """The corners of an outline that YOLO can have: of one part, with the object's own box around it."""
    if not isinstance(one.outline, list) or len(one.outline) != 1:
        return None
    corners = one.outline[0].tolist()
    around = (min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2]))
    return corners if max(abs(a - b) for a, b in zip(around, one.box, strict=True)) <= 0.5 else None


def _yolo(one: _Object, size: tuple[int, int], corners: list[float] | None) -> str:
    height, width = size
    x1, y1, x2, y2 = one.box
    shares = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    if corners is not None:
        shares = [value / side for value, side in zip(corners, [width, height] * (len(corners) // 2), strict=True)]
    return " ".join([str(one.label), *(f"{value:.12g}" for value in shares)]) + "\n"


def _voc(name: str, size: tuple[int, int], objects: list[_Object], classes: list[str]) -> str:
    def text(value: str) -> str:
        if any(ord(sign) < 32 for sign in value):
            raise InputError(f"the name {value!r} cannot stand in XML; rename it")
        return saxutils.escape(value)

    lines = ["<annotation>", f"  <filename>{text(name)}</filename>"]
    lines.append(f"  <size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>")
    for one in objects:
        x1, y1, x2, y2 = one.box
        left, top = (low - (_CLICK if high - low == 1 else 0) for low, high in ((x1, x2), (y1, y2)))
        corners = zip(("xmin", "ymin", "xmax", "ymax"), (left + 1, top + 1, x2, y2), strict=True)
        box = "".join(f"<{key}>{int(value) if value == int(value) else value}</{key}>" for key, value in corners)
        called = text(classes[one.label]) if one.label >= 0 else "ignore"
        lines.append(f"  <object><name>{called}</name><pose>Unspecified</pose><truncated>0</truncated>")
        lines.append(f"    <difficult>{int(one.label < 0)}</difficult><bndbox>{box}</bndbox></object>")
    return "\n".join([*lines, "</annotation>", ""])

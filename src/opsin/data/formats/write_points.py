"""Named points as CSV, COCO's json of keypoints and 300-W's .pts: what the readers of these read back as the same.

Each writer returns what was not kept, in words.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data.formats.writing import ImageWriter, new_folder
from opsin.data.named_points import NamedPoints
from opsin.data.source import Source
from opsin.errors import InputError

_MIDDLE = 0.5  # of a pixel, from its corner


def write_csv(source: Source, out: Path, link: bool = False) -> list[str]:
    """points.csv, or a table for each split: image, NAME_x, NAME_y, and NAME_visible where a known point is hidden.

    Images lie in a folder for each split.
    """
    writer = ImageWriter(link)
    hides = any(bool((split.kind.known & ~split.kind.visible).any()) for split in source.splits.values())
    endings = ("x", "y", "visible") if hides else ("x", "y")
    with new_folder(out) as root:
        for key, split in source.splits.items():
            truth: NamedPoints = split.kind
            table, home = ("points.csv", "images") if key == "all" else (f"{key}.csv", f"images/{key}")
            with (root / table).open("w", encoding="utf-8", newline="") as file:
                rows = csv.writer(file, lineterminator="\n")
                rows.writerow(["image", *(f"{name}_{ending}" for name in truth.names for ending in endings)])
                for i in range(len(split)):
                    path = f"{home}/{writer.name(split, i, key)}"
                    writer.write(split, i, root / path)
                    seen = truth.visible[i].astype(int).tolist()
                    cells = [
                        (*_cells(point), str(shown))[: len(endings)]
                        for point, shown in zip(truth.points[i], seen, strict=True)
                    ]
                    rows.writerow([path, *(cell for point in cells for cell in point)])
    return []


def write_coco_keypoints(source: Source, out: Path, link: bool = False) -> list[str]:
    """annotations/keypoints_train.json, and images in a folder for each split; one object an image.

    Its bbox is the one around the known points. x and y are less half a pixel: COCO counts the middles of pixels.
    """
    writer, empty = ImageWriter(link), 0
    with new_folder(out) as root:
        (root / "annotations").mkdir()
        for key, split in source.splits.items():
            truth: NamedPoints = split.kind
            home, images, annotations = "images" if key == "all" else key, list[Any](), list[Any]()
            for i in range(len(split)):
                name = writer.name(split, i, key)
                height, width = writer.write(split, i, root / home / name)
                images.append({"id": i + 1, "file_name": name, "height": height, "width": width})
                if truth.known[i].any():
                    annotations.append({"id": i + 1, "image_id": i + 1, "category_id": 1, **_keypoints(truth, i)})
                else:
                    empty += 1
            category = {"id": 1, "name": "object", "keypoints": list(truth.names), "skeleton": []}
            content = {"images": images, "annotations": annotations, "categories": [category]}
            file = root / "annotations" / f"keypoints_{key}.json"
            file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    notes = ["a reader takes the square around each bbox, unless crop is none"]
    return [*notes, *([f"{empty} images without a known point have no annotation"] if empty else [])]


def write_pts(source: Source, out: Path, link: bool = False) -> list[str]:
    """Images and, beside each, a .pts file of the same name, in a folder for each split.

    Raises InputError for an image of which a point is not known: a file of points has a line for each.
    """
    for split in source.splits.values():
        unknown = np.flatnonzero(~split.kind.known.all(axis=1))
        if len(unknown):
            raise InputError(
                f"{split.name(int(unknown[0]))} has points that are not known, which .pts cannot say; write --as csv"
            )
    writer, hidden = ImageWriter(link), 0
    with new_folder(out) as root:
        for key, split in source.splits.items():
            home = root if key == "all" else root / key
            for i in range(len(split)):
                name = writer.name(split, i, key)
                writer.write(split, i, home / name)
                lines = [" ".join(_cells(point)) for point in split.kind.points[i] + np.float32(_MIDDLE)]
                text = "\n".join(["version: 1", f"n_points: {len(lines)}", "{", *lines, "}", ""])
                (home / name).with_suffix(".pts").write_text(text, encoding="utf-8")
                hidden += int((~split.kind.visible[i]).sum())
    named = [name for split in source.splits.values() for name in split.kind.names if not name.isdigit()]
    notes = ["the names of the points are left out; write --as csv"] if named else []
    return [*notes, *([f"that {hidden} points are hidden is left out"] if hidden else [])]


def _cells(point: Sequence[Any]) -> tuple[str, ...]:
    """The shortest numbers that read back as the same float32; empty where a point is not known."""
    return tuple("" if np.isnan(value) else np.format_float_positional(np.float32(value), trim="-") for value in point)


def _keypoints(truth: NamedPoints, i: int) -> dict[str, Any]:
    known, points = truth.known[i], truth.points[i].astype(np.float64)
    own = points[known]
    (left, top), (right, bottom) = own.min(axis=0).tolist(), own.max(axis=0).tolist()
    width, height = max(right - left, 1e-3), max(bottom - top, 1e-3)
    said = np.where(known, np.where(truth.visible[i], 2, 1), 0).tolist()
    placed = np.where(known[:, None], points - _MIDDLE, 0.0).tolist()
    return {
        "keypoints": [value for (x, y), v in zip(placed, said, strict=True) for value in (x, y, v)],
        "num_keypoints": int(known.sum()),
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
    }

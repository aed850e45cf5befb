"""VOC's development kit, VOCevaldet.m, written out: files of one class against the XML files as they stand."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np


def read_objects(folder: Path, name: str) -> dict[str, list[tuple[list[float], bool]]]:
    """Of each image the boxes of a class, in VOC's pixels, and whether each is difficult."""
    found = {}
    for file in sorted((folder / "Annotations").glob("*.xml")):
        found[file.stem] = [
            (
                [float(one.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "ymin", "xmax", "ymax")],
                one.findtext("difficult") == "1",
            )
            for one in ElementTree.parse(file).getroot().iter("object")
            if one.findtext("name") == name
        ]
    return found


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    area = (a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return width * height / (area - width * height)


def evaluate_class(folder: Path, name: str, lines: list[str], least: float = 0.5) -> tuple[float, float] | None:
    """Average precision at every point, as since 2010, and at 11 points; None where no object counts."""
    truth = read_objects(folder, name)
    positives = sum(not difficult for objects in truth.values() for _, difficult in objects)
    if not positives:
        return None
    rows = [line.split() for line in lines]
    rows.sort(key=lambda row: -float(row[1]))  # stable, as MATLAB's sort
    taken, hit, missed = set(), [], []
    for image, _, *box in rows:
        best, at = -np.inf, -1
        for place, (other, _) in enumerate(truth[image]):
            value = overlap([float(side) for side in box], other)
            if value > best:
                best, at = value, place
        right = wrong = 0
        if best >= least:
            if not truth[image][at][1]:
                right, wrong = (0, 1) if (image, at) in taken else (1, 0)
                taken.add((image, at))
        else:
            wrong = 1
        hit.append(right)
        missed.append(wrong)
    hits, misses = np.cumsum(hit), np.cumsum(missed)
    recall, precision = hits / positives, hits / np.maximum(hits + misses, 1)
    eleven = np.mean([max(precision[recall >= t / 10], default=0.0) for t in range(11)])
    recalls, values = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    for k in range(len(values) - 2, -1, -1):
        values[k] = max(values[k], values[k + 1])
    every = sum((recalls[k] - recalls[k - 1]) * values[k] for k in range(1, len(values)))
    return float(every), float(eleven)

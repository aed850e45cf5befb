"""Precision, recall and their harmonic mean of lines of text, by the two protocols of the ICDAR competitions.

`icdar_matches` is that of Incidental Scene Text (Karatzas et al. 2015, ICDAR, challenge 4): a line is found by one
quad that overlaps it with an IoU above 0.5. `deteval_matches` is DetEval (Wolf and Jolion 2006, "Object count/area
graphs for the evaluation of object detection and segmentation algorithms") as the competition of 2013 has it: a line
may be found in several parts, and several lines by one box, each at a price.

Both give the numbers of the official scripts for the same quads; a line to ignore (label -1) takes out what was found
on it. DetEval is of upright boxes; of other quads here it is of the boxes around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from opsin.ops.polygons import shared_areas
from opsin.structures import Instances

Array = np.ndarray[Any, np.dtype[Any]]

IOU = 0.5
_RECALL, _PRECISION = 0.8, 0.4  # DetEval: of a line's area and of a found box's, what they must share
_SPLIT = 0.8  # DetEval: what a line counts that was found in parts


class Counts(NamedTuple):
    """What one image adds to a protocol. recalled, precise: what is summed up over lines, and over what was found.

    lines, found: how many of each count. overlaps: (M,), IoU of the matched pairs, of ICDAR's protocol.
    """

    recalled: float
    precise: float
    lines: int
    found: int
    overlaps: Array


def text_metrics(truth: Sequence[Instances], found: Sequence[Instances], threshold: float) -> dict[str, float]:
    """`hmean`, `hmean_precision`, `hmean_recall`, `matched_iou` by ICDAR's protocol, `deteval_hmean`, ... by DetEval.

    truth: of each image boxes and labels, -1 to ignore, and polygons where lines are not upright. found: boxes, scores,
    and polygons where there are any, as in the truth in pixels of the image; those below the threshold are left out.
    matched_iou: the mean IoU of lines and what found them. Nothing at all where no line counts.
    """
    counts: dict[str, list[Counts]] = {"": [], "deteval_": []}
    for lines, own in zip(truth, found, strict=True):
        if own.scores is not None:
            own = own[own.scores >= threshold]
        ignored = np.zeros(len(lines), bool) if lines.labels is None else lines.labels.numpy() < 0
        counts[""].append(icdar_matches(polygons(lines), polygons(own), ignored))
        counts["deteval_"].append(deteval_matches(_boxes(lines), _boxes(own), ignored))
    metrics: dict[str, float] = {}
    for prefix, parts in counts.items():
        of_lines, of_found = sum(one.lines for one in parts), sum(one.found for one in parts)
        if not of_lines:
            return {}
        recall = sum(one.recalled for one in parts) / of_lines
        precision = sum(one.precise for one in parts) / max(1, of_found)
        both = precision + recall
        metrics[f"{prefix}hmean"] = 2 * precision * recall / both if both else 0.0
        metrics[f"{prefix or 'hmean_'}precision"] = precision
        metrics[f"{prefix or 'hmean_'}recall"] = recall
    overlaps = np.concatenate([one.overlaps for one in counts[""]])
    return metrics | ({"matched_iou": float(overlaps.mean())} if len(overlaps) else {})


def icdar_matches(lines: Sequence[Array], found: Sequence[Array], ignored: Array, iou: float = IOU) -> Counts:
    """One image by ICDAR's IoU protocol. lines, found: polygons (P, 2). ignored: (N,) bool, of the lines.

    What lies by more than half of its area on a line to ignore does not count. The rest is matched one to one, line by
    line, each with the first one found whose IoU is above `iou`.
    """
    shared, of_lines, of_found = shared_areas(lines, found)
    out = (shared[ignored] > 0.5 * of_found).any(axis=0) & (of_found > 0)
    overlap = shared / np.maximum(of_lines[:, None] + of_found - shared, 1e-12)
    taken, pairs = out.copy(), []
    for line in np.flatnonzero(~ignored):
        fitting = np.flatnonzero((overlap[line] > iou) & ~taken)
        if len(fitting):
            taken[fitting[0]] = True
            pairs.append(overlap[line, fitting[0]])
    return Counts(len(pairs), len(pairs), int((~ignored).sum()), int((~out).sum()), np.array(pairs))


def deteval_matches(lines: Array, found: Array, ignored: Array) -> Counts:
    """One image by DetEval. lines: (N, 4), found: (M, 4), xyxy. ignored: (N,) bool, of the lines.

    A pair fits where 0.8 of the line and 0.4 of what was found are shared. In this order: one to one, where each fits
    no other and their middles are near; a line in parts, which count 0.8 each; several lines by one box.
    """
    low, high = np.maximum(lines[:, None, :2], found[:, :2]), np.minimum(lines[:, None, 2:], found[:, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    of_lines, of_found = ((one[:, 2:] - one[:, :2]).prod(axis=1) for one in (lines, found))
    recall = shared / np.maximum(of_lines, 1e-12)[:, None]
    precision = shared / np.maximum(of_found, 1e-12)
    out = (precision[ignored] > _PRECISION).any(axis=0)
    open_lines, open_found = ~ignored, ~out
    recalled = precise = 0.0
    fits = (recall >= _RECALL) & (precision >= _PRECISION)
    alone = fits & (fits.sum(axis=1, keepdims=True) == 1) & (fits.sum(axis=0) == 1) & _near(lines, found)
    for line, place in np.argwhere(alone & open_lines[:, None] & open_found):
        open_lines[line] = open_found[place] = False
        recalled, precise = recalled + 1, precise + 1
    for line in np.flatnonzero(open_lines):
        parts = np.flatnonzero(open_found & (precision[line] >= _PRECISION))
        if len(parts) and round(float(recall[line, parts].sum()), 4) >= _RECALL:
            worth = 1.0 if len(parts) == 1 else _SPLIT
            recalled, precise = recalled + worth, precise + worth * len(parts)
            open_lines[line] = False
            open_found[parts] = False
    for place in np.flatnonzero(open_found):
        several = np.flatnonzero(open_lines & (recall[:, place] >= _RECALL))
        if len(several) and round(float(precision[several, place].sum()), 4) >= _PRECISION:
            recalled, precise = recalled + len(several), precise + 1
            open_lines[several] = open_found[place] = False
    return Counts(recalled, precise, int((~ignored).sum()), int((~out).sum()), np.zeros(0))


def _near(lines: Array, found: Array) -> Array:
    """(N, M): which middles are no farther apart than half of what the diagonals are together."""
    middles = [(one[:, :2] + one[:, 2:]) / 2 for one in (lines, found)]
    diagonals = [np.linalg.norm(one[:, 2:] - one[:, :2], axis=1) for one in (lines, found)]
    apart = np.linalg.norm(middles[0][:, None] - middles[1], axis=2)
    return 2 * apart < diagonals[0][:, None] + diagonals[1]


def polygons(one: Instances) -> list[Array]:
    """Of each instance its polygon (P, 2), or the corners of its box where there are none."""
    if one.polygons is not None:
        return [polygon.double().numpy() for polygon in one.polygons]
    x1, y1, x2, y2 = one.boxes.double().numpy().T
    return list(np.stack([x1, y1, x2, y1, x2, y2, x1, y2], axis=1).reshape(-1, 4, 2))


def _boxes(one: Instances) -> Array:
    if one.polygons is None:
        return one.boxes.double().numpy()
    corners = polygons(one)
    return np.array([[*own.min(axis=0), *own.max(axis=0)] for own in corners]).reshape(-1, 4)

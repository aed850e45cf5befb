"""Non-maximum suppression: a detector finds everything several times; keep the surest box of each heap.

Greedy: take the box with the highest score, drop all that overlap it by more than a threshold, and begin
again with the rest. A box that was dropped drops no others. Two real objects closer than the threshold cannot
both be kept: that is the price. For several classes, do it in each alone.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.iou import iou


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """boxes (N, 4) as x1, y1, x2, y2, scores (N,) -> the indices of those kept, best first."""
    rest = np.argsort(-scores, kind="stable")  # of equal scores the first box goes first
    kept = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        overlaps = iou(boxes[best][None], boxes[rest])[0]
        rest = rest[overlaps <= threshold]
    return np.array(kept, dtype=np.int64)


if __name__ == "__main__":
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [4, 0, 14, 10], [30, 0, 40, 10]], float)
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    print("IoU of each with each:", iou(boxes, boxes).round(3), sep="\n")
    print("kept at 0.5:", nms(boxes, scores, 0.5), "  1 falls to 0; 2 overlaps 1 more than that, but 1 is gone")

"""GIoU and DIoU: overlaps with a gradient for boxes that do not meet.

IoU is 0 for all boxes that do not touch, near or far: as a loss, 1 - IoU has no gradient there. Both of these take
something off it, measured in the smallest box C that encloses both:

    GIoU = IoU - (area(C) - union) / area(C)        Rezatofighi et al. 2019, arXiv:1902.09630
    DIoU = IoU - |centre a - centre b|^2 / diagonal(C)^2        Zheng et al. 2019, arXiv:1911.08287

GIoU, in (-1, 1], is paid back by growing until the boxes meet; DIoU pulls the centres together at once. Backward, an
edge of a moves the intersection only where it is the inner one, and C only where it is the outer one.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.iou import area


def giou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a and b (N, 4), box by box: x1, y1, x2, y2 with an area -> (N,)."""
    both, either, hull, _ = _measures(a, b)
    enclosing = hull[:, 0] * hull[:, 1]
    return both / either - (enclosing - either) / enclosing


def giou_backward(dy: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """dy (N,) -> da (N, 4)."""
    both, either, hull, inner = _measures(a, b)
    enclosing = hull[:, 0] * hull[:, 1]
    dboth = _intersection_slope(a, b, inner)
    deither = _area_slope(a) - dboth
    denclosing = _hull_slope(a, b) * hull[:, [1, 0, 1, 0]]
    iou_slope = (dboth * either[:, None] - both[:, None] * deither) / either[:, None] ** 2
    share_slope = (deither * enclosing[:, None] - either[:, None] * denclosing) / enclosing[:, None] ** 2
    return dy[:, None] * (iou_slope + share_slope)


def diou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a and b (N, 4), box by box: x1, y1, x2, y2 with an area -> (N,)."""
    both, either, hull, _ = _measures(a, b)
    apart = _centre(a) - _centre(b)
    return both / either - (apart**2).sum(axis=1) / (hull**2).sum(axis=1)


def diou_backward(dy: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """dy (N,) -> da (N, 4)."""
    both, either, hull, inner = _measures(a, b)
    dboth = _intersection_slope(a, b, inner)
    deither = _area_slope(a) - dboth
    iou_slope = (dboth * either[:, None] - both[:, None] * deither) / either[:, None] ** 2
    apart, diagonal = _centre(a) - _centre(b), (hull**2).sum(axis=1)[:, None]
    dapart = np.concatenate([apart, apart], axis=1)  # of |apart|^2: each edge moves the centre by half
    ddiagonal = 2 * _hull_slope(a, b) * hull[:, [0, 1, 0, 1]]
    share_slope = (dapart * diagonal - (apart**2).sum(axis=1)[:, None] * ddiagonal) / diagonal**2
    return dy[:, None] * (iou_slope - share_slope)


def _measures(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The area of the intersection and of the union (N,), and the sides of the hull and of the intersection (N, 2)."""
    inner = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0)
    hull = np.maximum(a[:, 2:], b[:, 2:]) - np.minimum(a[:, :2], b[:, :2])
    both = inner[:, 0] * inner[:, 1]
    return both, area(a) + area(b) - both, hull, inner


def _centre(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _area_slope(a: np.ndarray) -> np.ndarray:
    """By how much the area grows with each edge, (N, 4): by the other side."""
    width, height = a[:, 2] - a[:, 0], a[:, 3] - a[:, 1]
    return np.stack([-height, -width, height, width], axis=1)


def _intersection_slope(a: np.ndarray, b: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """By how much the intersection grows with each edge of a, (N, 4)."""
    moves = np.concatenate([-1.0 * (a[:, :2] > b[:, :2]), 1.0 * (a[:, 2:] < b[:, 2:])], axis=1)
    return moves * inner[:, [1, 0, 1, 0]] * (inner.min(axis=1, keepdims=True) > 0)


def _hull_slope(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By how much the side of the hull grows with each edge of a, (N, 4)."""
    return np.concatenate([-1.0 * (a[:, :2] < b[:, :2]), 1.0 * (a[:, 2:] > b[:, 2:])], axis=1)


if __name__ == "__main__":
    a = np.array([[0.0, 0, 10, 10]] * 4)
    b = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [40, 0, 50, 10]])
    for name, one in (("GIoU", giou), ("DIoU", diou)):
        print(name, "of a square and itself, moved by 0, 5, 10, 40:", one(a, b).round(3))
    pull = np.array([giou_backward(np.ones(4), a, b)[3], diou_backward(np.ones(4), a, b)[3]])
    print("what raises it where they are 30 apart, for x1 y1 x2 y2:")
    print("GIoU", pull[0].round(5) + 0)
    print("DIoU", pull[1].round(5) + 0)

"""How well tracks and detections fit: matrices (N, M) of N tracks by M detections, higher for likelier pairs.

Boxes stand in columns, (4, N) of x1, y1, x2, y2, as in `opsin.track.motion`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from opsin.track.motion import MAHALANOBIS_GATE

Floats = NDArray[np.float64]


def iou(tracks: Floats, detections: Floats) -> Floats:
    """Intersection over union, (N, M) in [0, 1]. tracks: (4, N). detections: (4, M)."""
    one, other = tracks[:, :, None], detections[:, None, :]
    sides = np.minimum(one[2:], other[2:])
    sides -= np.maximum(one[:2], other[:2])
    np.maximum(sides, 0.0, out=sides)
    shared = np.multiply(sides[0], sides[1], out=sides[0])
    union = np.add(_areas(tracks)[:, None], _areas(detections), out=sides[1])
    union -= shared
    shared /= union
    return shared


def giou(tracks: Floats, detections: Floats) -> Floats:
    """Generalized IoU (Rezatofighi et al. 2019, arXiv 1902.09630), (N, M) in (-1, 1]."""
    low = np.maximum(tracks[:2, :, None], detections[:2, None, :])
    high = np.minimum(tracks[2:, :, None], detections[2:, None, :])
    shared = np.prod(np.maximum(high - low, 0.0), axis=0)
    union = _areas(tracks)[:, None] + _areas(detections) - shared
    hull = np.prod(_hull_sides(tracks, detections), axis=0)
    return shared / union - (hull - union) / hull


def diou(tracks: Floats, detections: Floats) -> Floats:
    """Distance IoU (Zheng et al. 2020, arXiv 1911.08287), (N, M) in (-1, 1]."""
    diagonal = np.square(_hull_sides(tracks, detections)).sum(0)
    return iou(tracks, detections) - _squared_centre_distances(tracks, detections) / diagonal


def centre_distance(tracks: Floats, detections: Floats) -> Floats:
    """Distance of the centres as a share of the track's diagonal, negated: (N, M), at most 0."""
    diagonal = np.hypot(*(tracks[2:] - tracks[:2]))
    return -np.sqrt(_squared_centre_distances(tracks, detections)) / diagonal[:, None]


def cosine(tracks: Floats, detections: Floats) -> Floats:
    """Cosine of feature vectors, (N, M) in [-1, 1]. tracks: (N, D). detections: (M, D). A vector of zeros has 0."""
    return _unit(tracks) @ _unit(detections).T


def mahalanobis(distances: Floats, gate: float = MAHALANOBIS_GATE) -> Floats:
    """1 for a pair where it is expected, 0 at the gate, negative beyond. distances: squared, (N, M), of a filter."""
    return 1.0 - distances / gate


def direction_consistency(earlier: Floats, velocities: Floats, detections: Floats) -> Floats:
    """How far a detection lies in the direction in which its track moves, (N, M) in [-0.5, 0.5].

    OC-SORT's observation-centric momentum (Cao et al. 2023, arXiv 2203.14360, section 4.2): 0.5 - angle / pi, of the
    angle between the track's motion and the way from an earlier observation to the detection. earlier: (4, N) boxes.
    velocities: (2, N) of length 1, or 0 of a track that has not moved yet, for which nothing speaks.
    """
    way = 0.5 * ((detections[:2] + detections[2:])[:, None, :] - (earlier[:2] + earlier[2:])[:, :, None])
    length = np.hypot(way[0], way[1])
    length += 1e-6
    turned = way[0] * velocities[0][:, None]
    way[1] *= velocities[1][:, None]
    turned += way[1]
    turned /= length
    np.clip(turned, -1.0, 1.0, out=turned)
    np.arccos(turned, out=turned)
    turned *= -1.0 / np.pi
    turned += 0.5
    return turned


def fused(overlap: Floats, scores: Floats) -> Floats:
    """Overlap times the detection's score, (N, M), as ByteTrack's code does. overlap: (N, M). scores: (M,)."""
    return overlap * scores


def overlap_or_appearance(overlap: Floats, likeness: Floats, near: NDArray[np.bool_], least: float) -> Floats:
    """The better of overlap and appearance, where appearance counts only near by (BoT-SORT, section 3.3, eq. 12-13).

    overlap: (N, M) in [0, 1]. likeness: cosines (N, M), set beside it as (1 + cosine) / 2. near: (N, M), where
    appearance counts. least: what (1 + cosine) / 2 must reach to count.
    """
    half = 0.5 * (1.0 + likeness)
    return np.maximum(overlap, np.where(near & (half >= least), half, 0.0))


def _areas(boxes: Floats) -> Floats:
    sides = boxes[2:] - boxes[:2]
    return sides[0] * sides[1]


def _hull_sides(one: Floats, other: Floats) -> Floats:
    """Width and height of the smallest box around each pair, (2, N, M)."""
    low = np.minimum(one[:2, :, None], other[:2, None, :])
    return np.maximum(one[2:, :, None], other[2:, None, :]) - low


def _squared_centre_distances(one: Floats, other: Floats) -> Floats:
    twice = (one[:2] + one[2:])[:, :, None] - (other[:2] + other[2:])[:, None, :]
    return 0.25 * np.square(twice).sum(0)


def _unit(features: Floats) -> Floats:
    length = np.sqrt(np.einsum("nd,nd->n", features, features))
    return features / np.maximum(length, 1e-12)[:, None]

"""Text files whose lines look like MOTChallenge's and mean something else: VisDrone's, arXiv:2001.06303.

    detection in images  left, top, width, height, score, category, truncation, occlusion
    tracking, video      frame, identity, left, top, width, height, score, category, truncation, occlusion

Taken for MOTChallenge, the first would have a left side for a frame, and the second, which is evaluated by other
classes and regions, one class alone.
"""

from __future__ import annotations

import numpy as np

from opsin.track.tracks import Floats

_CATEGORIES = 11  # numbered from 0, which are ignored regions
_IMAGES, _VIDEO = 8, 10  # columns
_LINES = 200  # of the beginning, by which a file is known


def lookalike(head: str) -> str | None:
    """What a text is that could be taken for MOTChallenge's, in words; None of what it may well be.

    head: its beginning, of which the last line may be cut off.
    """
    lines = [line.strip().rstrip(",") for line in (head.rpartition("\n")[0] or head).splitlines()[:_LINES]]
    try:
        table = np.array([[float(part) for part in line.split(",")] for line in lines if line])
    except ValueError:
        return None
    columns = table.shape[1] if table.ndim == 2 else 0
    if columns == _IMAGES and _has_marks(table[:, 4:]):
        return (
            "it looks like VisDrone's detection in images (left, top, width, height, score, category, truncation, "
            "occlusion), which has no frames and no identities"
        )
    if columns == _VIDEO and (table[:, 1] >= 0).all() and table[:, 7].any() and _has_marks(table[:, 6:]):
        return (
            "it looks like VisDrone's tracking (frame, identity, left, top, width, height, score, category, "
            "truncation, occlusion), which is not read; convert it to CSV with the columns frame, id, x1, y1, x2, y2, "
            "class, ignored"
        )
    return None


def _has_marks(table: Floats) -> bool:
    """Whether columns may be VisDrone's score, category, truncation and occlusion."""
    score, category, truncation, occlusion = table.T
    return bool(
        ((score >= 0) & (score <= 1)).all()
        and np.isin(category, range(_CATEGORIES + 1)).all()
        and np.isin(truncation, (-1, 0, 1)).all()
        and np.isin(occlusion, (-1, 0, 1, 2)).all()
    )

"""How a camera moved between two images: corners followed by sparse optical flow, and the map that most obey."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from opsin.errors import InputError

_NEEDS = (
    "camera motion needs OpenCV, which is not installed: pip install 'opsin[detect]', or set camera=false "
    "for a camera that stands still"
)
_SHRUNK = 2  # the images are looked at in half their size
_FEWEST = 10  # corners that were found again, below which nothing is known
_AGREEING = 0.3  # share of those that must move as the camera


class CameraMotion:
    """The affine map from each image to the next (Aharon et al. 2022, section 3.2), of a shift, a turn and a zoom.

    Corners (Shi and Tomasi 1994) outside of the detections' boxes are followed by pyramids of Lucas and Kanade, and the
    map is the one that most of them agree on (RANSAC); where fewer than 30 % do, nothing is known. Needs OpenCV.
    """

    def __init__(self) -> None:
        self._last: tuple[Any, Any] | None = None

    def reset(self) -> None:
        """Forget the last image."""
        self._last = None

    def find(self, image: Any, boxes: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """The map (2, 3) of pixels of the last image to this one; None of the first, and where too little is seen.

        image: (H, W, 3) or (H, W) uint8. boxes: (4, M), of what moves by itself: no corner is taken from there. Raises
        InputError without OpenCV.
        """
        cv2 = _import_opencv()
        grey = np.asarray(image)
        if grey.ndim == 3:
            grey = cv2.cvtColor(np.ascontiguousarray(grey), cv2.COLOR_RGB2GRAY)
        height, width = grey.shape
        small = cv2.resize(grey, (max(1, width // _SHRUNK), max(1, height // _SHRUNK)))
        scale = np.array([[width / small.shape[1]], [height / small.shape[0]]])
        mask = np.full(small.shape, 255, np.uint8)
        low, high = np.floor(boxes[:2] / scale).astype(int), np.ceil(boxes[2:] / scale).astype(int)
        for (x1, y1), (x2, y2) in zip(np.maximum(low, 0).T, np.maximum(high, 0).T, strict=True):
            mask[y1:y2, x1:x2] = 0
        corners = cv2.goodFeaturesToTrack(small, 1000, 0.01, 1, mask=mask, blockSize=3)
        last, self._last = self._last, (small, corners)
        if last is None or last[1] is None or len(last[1]) < _FEWEST or last[0].shape != small.shape:
            return None
        found, status, _ = cv2.calcOpticalFlowPyrLK(last[0], small, last[1], None)
        good = status.ravel() == 1
        if good.sum() < _FEWEST:
            return None
        one, other = (points.reshape(-1, 2)[good] * scale.T for points in (last[1], found))
        motion, agreeing = cv2.estimateAffinePartial2D(one, other, method=cv2.RANSAC)
        if motion is None or agreeing.sum() < max(_FEWEST, _AGREEING * len(one)):
            return None
        return np.asarray(motion, np.float64)


def _import_opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise InputError(_NEEDS) from None
    return cv2

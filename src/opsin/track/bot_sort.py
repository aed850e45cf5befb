"""BoT-SORT: ByteTrack with width and height in its filter, the camera's motion taken out, and appearance beside IoU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from opsin.track.affinity import cosine, overlap_or_appearance
from opsin.track.byte_track import ByteTrack
from opsin.track.camera_motion import CameraMotion
from opsin.track.motion import ConstantVelocity, WidthHeightFilter
from opsin.track.online import Detections, Integers

Floats = NDArray[np.float64]

_KEPT = 0.9  # of a track's appearance at each detection (section 3.3)


class BotSort(ByteTrack):
    """Robust associations (Aharon et al. 2022, arXiv 2206.14651); with `features` it is the paper's BoT-SORT-ReID.

    near: the least IoU at which appearance counts. alike: the least (1 + cosine) / 2 at which it counts; the paper's
    0.5 and 1 - 0.25. camera: find the camera's motion where an update is given the image, which needs OpenCV. The
    others are ByteTrack's.
    """

    name = "bot_sort"
    takes_features = True
    takes_images = True
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {**ByteTrack.ranges, "near": (0.1, 0.9), "alike": (0.5, 0.95)}

    def __init__(
        self,
        *,
        high: float = 0.6,
        low: float = 0.1,
        new: float = 0.7,
        max_age: int = 30,
        min_affinity: float = 0.2,
        near: float = 0.5,
        alike: float = 0.75,
        camera: bool = True,
        frame_rate: float = 1.0,
    ) -> None:
        self.near, self.alike = near, alike
        self._motion_finder = CameraMotion() if camera else None
        self._looks: dict[int, Floats] = {}  # of each track, of length 1
        super().__init__(high=high, low=low, new=new, max_age=max_age, min_affinity=min_affinity, frame_rate=frame_rate)

    def reset(self) -> None:
        """As `OnlineTracker.reset`."""
        super().reset()
        self._looks = {}
        if self._motion_finder is not None:
            self._motion_finder.reset()

    def create_filter(self) -> ConstantVelocity:
        """The paper's, of centre, width and height."""
        return WidthHeightFilter()

    def rest(self, state: Floats, lost: NDArray[np.bool_]) -> None:
        """Nothing rests: the paper's filter predicts width and height of lost tracks like all others."""

    def camera(self, image: Any, boxes: Floats) -> Floats | None:
        """How the camera moved from the last image to this one, (2, 3); None where that is not known."""
        return None if self._motion_finder is None else self._motion_finder.find(image, boxes)

    def affinity(self, overlap: Floats, seen: Detections, columns: Integers) -> Floats:
        """IoU times score, or how alike they look where that says more."""
        fused = super().affinity(overlap, seen, columns)
        ids = self.tracks["ids"].tolist()
        if seen.features is None or not ids:
            return fused
        unknown = np.zeros(seen.features.shape[1])
        looks = np.stack([self._looks.get(one, unknown) for one in ids])
        return overlap_or_appearance(fused, cosine(looks, seen.features[columns]), overlap >= self.near, self.alike)

    def step(self, seen: Detections, elapsed: float) -> tuple[NDArray[Any], Floats]:
        """As `OnlineTracker.step`. What the camera did is undone where boxes were last seen, and they move on then."""
        if seen.motion is not None and isinstance(self.filter, WidthHeightFilter):
            self.filter.warp(self.tracks["state"], seen.motion)
        found = super().step(seen, elapsed)
        if seen.features is not None:
            self._remember(seen.features)
        return found

    def _remember(self, features: Floats) -> None:
        ids, detections = self.tracks["ids"].tolist(), self.tracks["detection"].tolist()
        kept: dict[int, Floats] = {}
        for one, detection in zip(ids, detections, strict=True):
            look = self._looks.get(one)
            if detection >= 0:
                own = _unit(features[detection])
                look = own if look is None else _unit(_KEPT * look + (1.0 - _KEPT) * own)
            if look is not None:
                kept[one] = look
        self._looks = kept


def _unit(vector: Floats) -> Floats:
    return vector / max(float(np.sqrt(vector @ vector)), 1e-12)

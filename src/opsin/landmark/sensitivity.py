"""How errors grow where the box that an image was cut by is shifted or scaled, as a detector's boxes are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from opsin.data import Split
from opsin.data.box_crops import BoxCrops, cut_window
from opsin.landmark.metrics import choose_normalizer, lengths, normalized_mean_errors

SHIFTS = (-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2)  # of the box's sides
SCALES = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
_MOST = 100  # images that are looked at, evenly over the split


def change_window(size: tuple[int, int], shift: tuple[float, float] = (0.0, 0.0), scale: float = 1.0) -> list[int]:
    """The window (x1, y1, x2, y2) of an image of (height, width), shifted by shares of its sides, and scaled."""
    height, width = size
    x, y = width * (0.5 + shift[0]), height * (0.5 + shift[1])
    half = width * scale / 2, height * scale / 2
    corners = (x - half[0], y - half[1], x + half[0], y + half[1])
    x1, y1, x2, y2 = (round(side) for side in corners)
    return [x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)]


def read_window(split: Split, place: int, window: Sequence[int]) -> Tensor:
    """An example of a split seen through a window in its own pixels; of a part of an image what is around it too."""
    inputs = split.inputs
    if isinstance(inputs, BoxCrops):
        left, top = (int(side) for side in inputs.windows[place][:2])
        return cut_window(
            inputs.images.read(place), [window[0] + left, window[1] + top, window[2] + left, window[3] + top]
        )
    return cut_window(split.read(place), window)


def measure(predictor: Any, split: Split, normalizer: str | None, eyes: Mapping[str, Any]) -> dict[str, Any]:
    """The mean NME by shifts to the side, shifts down, and scales of the box; and which normaliser divides.

    Shifts and scales are of the sides of what an example shows. Images without a known point are left out.
    """
    truth = split.kind
    places = np.flatnonzero(truth.known.any(axis=1))
    places = places[np.unique(np.linspace(0, len(places) - 1, min(_MOST, len(places))).astype(int))]
    sizes = [tuple(split.read(int(k)).shape[-2:]) for k in places]
    by_name = lengths(truth.points[places], eyes, [float(np.hypot(*size)) for size in sizes])
    main = choose_normalizer(normalizer, list(by_name))

    def error(shift: tuple[float, float], scale: float) -> float | None:
        windows = [change_window(size, shift, scale) for size in sizes]
        images = [read_window(split, k, window) for k, window in zip(places.tolist(), windows, strict=True)]
        points = predictor.predict(images).points + np.array(windows)[:, None, :2]
        found = np.linalg.norm(points - truth.points[places], axis=2)
        errors = normalized_mean_errors(found, by_name[main])
        return None if np.isnan(errors).all() else float(np.nanmean(errors))

    return {
        "normalizer": main,
        "images": len(places),
        "shift_x": {str(one): error((one, 0.0), 1.0) for one in SHIFTS},
        "shift_y": {str(one): error((0.0, one), 1.0) for one in SHIFTS},
        "scale": {str(one): error((0.0, 0.0), one) for one in SCALES},
    }


def describe_shifts(found: Mapping[str, Any]) -> str:
    """What `measure` found, a line for each way in which boxes were changed."""
    lines = [f"NME by the box, {found['normalizer']}, of {found['images']} images"]
    for key, name in (("shift_x", "shifted to the right"), ("shift_y", "shifted down"), ("scale", "scaled")):
        shown = [
            f"{float(one):g} {100 * error:.2f} %" if error is not None else f"{float(one):g} -"
            for one, error in found[key].items()
        ]
        lines.append(f"  {name}: {', '.join(shown)}")
    return "\n".join(lines)

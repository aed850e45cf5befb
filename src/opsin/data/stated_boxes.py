"""Objects as their file states them, for evaluation by the rules of the field's official tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class StatedBoxes:
    """Every object of a split as its file states it: none cut at a border, left out as too small, or rounded.

    offsets: (N + 1,) int64, where the rows of each image begin. boxes: (T, 4) float64, xyxy in pixels. labels: (T,)
    int64, of regions to ignore too. ignored: (T,) bool, which these are: COCO's crowds, VOC's difficult objects. areas:
    (T,) float64, COCO's `area`, else that of the box. sizes: (height, width) of each image, None where nobody says it.
    keys: of each image its id in the file, class_keys: of class ids the label; empty where the format has none.
    """

    offsets: NDArray[Any]
    boxes: NDArray[Any]
    labels: NDArray[Any]
    ignored: NDArray[Any]
    areas: NDArray[Any]
    sizes: Sequence[tuple[int, int] | None]
    keys: Sequence[int | str | None]
    class_keys: Mapping[int | str, int]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, i: int) -> slice:
        """The rows of an image."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def select(self, places: NDArray[Any]) -> StatedBoxes:
        """Those of the images at `places`, in that order."""
        counts = np.diff(self.offsets)[places]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.repeat(self.offsets[places] - offsets[:-1], counts) + np.arange(offsets[-1])
        return StatedBoxes(
            offsets,
            self.boxes[rows],
            self.labels[rows],
            self.ignored[rows],
            self.areas[rows],
            [self.sizes[i] for i in places.tolist()],
            [self.keys[i] for i in places.tolist()],
            self.class_keys,
        )

    def relabel(self, table: NDArray[Any]) -> StatedBoxes:
        """With class k called `table[k]`."""
        keys = {key: int(table[label]) for key, label in self.class_keys.items()}
        return replace(self, labels=table[self.labels], class_keys=keys)

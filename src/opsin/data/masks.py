"""Masks as COCO's files and tools have them: polygons, or the lengths of their runs, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opsin.errors import InputError

Polygons: TypeAlias = list[NDArray[np.float64]]  # of each part its corners, x1 y1 x2 y2 ...
Runs: TypeAlias = dict[str, Any]  # {"size": [H, W], "counts": lengths, or their text}
Outline: TypeAlias = Polygons | Runs


class Masks(Protocol):
    """The masks of the objects of a split's images, drawn when they are asked for."""

    def select(self, places: np.ndarray) -> Masks:
        """Those of the images at `places`, in that order."""
        ...

    def draw(self, i: int, size: tuple[int, int]) -> Tensor:
        """The pixels of each object of an image of (height, width): (N, H, W) bool, off for one without a mask."""
        ...

    def lacking(self, i: int, labels: Tensor) -> bool:
        """Whether an object of an image has no mask. labels: (N,); regions to ignore, below 0, need none."""
        ...


@dataclass(frozen=True, eq=False)
class Outlines:
    """`Masks` drawn from outlines. rows: of each image those of its objects, None for one that has only a box."""

    rows: Sequence[Sequence[Outline | None]]

    def select(self, places: np.ndarray) -> Outlines:
        return Outlines([self.rows[i] for i in places.tolist()])

    def draw(self, i: int, size: tuple[int, int]) -> Tensor:
        return draw_outlines([outline or [] for outline in self.rows[i]], size)

    def lacking(self, i: int, labels: Tensor) -> bool:
        pairs = zip(self.rows[i], labels.tolist(), strict=True)
        return any(outline is None and label >= 0 for outline, label in pairs)


def read_outline(value: Any) -> Outline | None:
    """What a COCO annotation says in its `segmentation`; None where that is nothing, or nothing to draw."""
    if isinstance(value, list) and value and all(isinstance(part, list) for part in value):
        try:
            parts = [np.array(part, np.float64) for part in value]
        except (TypeError, ValueError):
            return None
        usable = all(p.ndim == 1 and len(p) >= 6 and len(p) % 2 == 0 and np.isfinite(p).all() for p in parts)
        return parts if usable else None
    if not isinstance(value, dict):
        return None
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        return None
    if isinstance(counts, list):
        whole = all(isinstance(n, int) and n >= 0 for n in counts) and sum(counts) == size[0] * size[1]
        return {"size": size, "counts": counts} if whole else None
    return {"size": size, "counts": counts} if isinstance(counts, str) and counts.isascii() else None


def draw_outlines(outlines: Sequence[Outline], size: Sequence[int]) -> Tensor:
    """The pixels of each, (N, height, width) bool, as COCO's tools draw them. size: (height, width) of the image.

    Runs of another size are drawn as far as the image reaches. Raises InputError for runs that do not fill theirs.
    """
    from faster_coco_eval.core.mask import frPyObjects, merge

    height, width = int(size[0]), int(size[1])
    drawn = torch.zeros(len(outlines), height, width, dtype=torch.bool)
    for mask, outline in zip(drawn, outlines, strict=True):
        if not outline:
            continue
        if isinstance(outline, list):
            parts: Any = frPyObjects([part.tolist() for part in outline], height, width)
            runs: Any = merge(parts)
        elif isinstance(outline["counts"], list):
            runs = frPyObjects(outline, *outline["size"])
        else:
            runs = outline
        try:
            one = decode_mask(runs)[:height, :width]
        except (ValueError, RuntimeError) as error:
            raise InputError(f"a mask has runs that cannot be read: {error}") from error
        mask[: one.shape[0], : one.shape[1]] = one
    return drawn


def encode_masks(masks: Tensor) -> list[Runs]:
    """Masks (N, H, W) bool -> {"size": [H, W], "counts": text} of each, COCO's compressed form."""
    from faster_coco_eval.core.mask import encode

    layers: Any = encode(np.asfortranarray(masks.permute(1, 2, 0).byte().cpu().numpy()))
    return [{"size": list(one["size"]), "counts": one["counts"].decode("ascii")} for one in layers]


def describe_mask(mask: np.ndarray) -> dict[str, Any]:
    """What COCO's json says of a mask, bool (H, W), that has a pixel: segmentation, its runs; area; and bbox, xywh."""
    (runs,) = encode_masks(torch.from_numpy(np.ascontiguousarray(mask))[None])
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
    return {"segmentation": runs, "area": mask_area(runs), "bbox": box}


def decode_mask(mask: Mapping[str, Any]) -> Tensor:
    """The mask, (H, W) bool on the CPU, that `encode_masks` made, or any of COCO's tools."""
    from faster_coco_eval.core.mask import decode

    return torch.from_numpy(decode(dict(mask))).bool()


def mask_area(mask: Mapping[str, Any]) -> float:
    """Pixels that an encoded mask has."""
    from faster_coco_eval.core.mask import area

    return float(area(dict(mask)))

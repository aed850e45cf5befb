"""Masks as COCO's files and tools have them: the lengths of their runs, column by column, as a short text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Masks (N, H, W) bool -> {"size": [H, W], "counts": text} of each, COCO's compressed form."""
    from faster_coco_eval.core.mask import encode

    layers: Any = encode(np.asfortranarray(masks.permute(1, 2, 0).byte().cpu().numpy()))
    return [{"size": list(one["size"]), "counts": one["counts"].decode("ascii")} for one in layers]


def decode_mask(mask: Mapping[str, Any]) -> Tensor:
    """The mask, (H, W) bool on the CPU, that `encode_masks` made, or any of COCO's tools."""
    from faster_coco_eval.core.mask import decode

    return torch.from_numpy(decode(dict(mask))).bool()


def mask_area(mask: Mapping[str, Any]) -> float:
    """Pixels that an encoded mask has."""
    from faster_coco_eval.core.mask import area

    return float(area(dict(mask)))

"""Several looks at an image, one answer: mirrored, and at other sizes, the mean of their probabilities.

What DeepLab's and others' published scores call "flip" and "MS" (arXiv:1706.05587, section 4.1, inference).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from opsin.segment.mirroring import Fitted, answer_whole


def look(
    model: Any, images: Tensor, fitted: Fitted, *, flip: bool, scales: Sequence[float], plain: Tensor | None = None
) -> Tensor:
    """Probabilities (B, K, *fitted.output) of normalised images (B, C, *fitted.input), the mean over all views.

    scales: factors by which images are enlarged, once each. At other ones than 1 a network without padding is given
    mirrored borders where it else has pixels of its own. flip: each view mirrored left to right as well. plain: what is
    known already of the images as they are, (B, K, h, w) of their first h rows and w columns; the mean is of these.
    """
    height, width = fitted.output if plain is None else plain.shape[-2:]
    found = []
    for scale in dict.fromkeys(scales):
        for mirrored in (False, True) if flip else (False,):
            if plain is not None and scale == 1 and not mirrored:
                found.append(plain)
                continue
            given = images.flip(-1) if mirrored else images
            seen = model.decode(model(given)) if scale == 1 else _enlarged(model, given, fitted, scale)
            found.append((seen.flip(-1) if mirrored else seen)[..., :height, :width])
    return found[0] if len(found) == 1 else torch.stack(found).mean(dim=0)


def _enlarged(model: Any, images: Tensor, fitted: Fitted, scale: float) -> Tensor:
    (top, left), (height, width) = fitted.margin, fitted.output
    own = images[..., top : top + height, left : left + width]
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    found = model.decode(answer_whole(model, F.interpolate(own, size, mode="bilinear", antialias=True)))
    return F.interpolate(found, (height, width), mode="bilinear")

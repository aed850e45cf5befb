"""Effective receptive field: how much each pixel really counts for one place of a feature map.

Luo, Li, Urtasun and Zemel 2016, arXiv:1701.04128. The theoretical field says which pixels can count; the gradient says
how much they do. What lies in the middle is seen along many paths, the border along few, so the field that matters is
about a Gaussian and grows with the square root of the depth only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from opsin.analyze.feature_maps import as_maps, evaluating, find_output, recorded, stage_names
from opsin.nn.gradient_field import field_box, gradient_strength

# Section 3: a pixel belongs to the field when it counts more than 1 - 95.45 %, two standard deviations, of the centre.
_THRESHOLD = 1 - 0.9545


@dataclass(frozen=True)
class EffectiveField:
    """strength: (H, W) of the input, at most 1: the size of the gradient at each pixel, of all units together.

    All zero where no gradient arrives, or one too large for a float. row, column: the place of the map that was asked,
    near its centre.
    """

    layer: str
    strength: Tensor
    row: int
    column: int

    @property
    def side(self) -> float:
        """The side of a square with as many pixels as count more than 4.55 % of the strongest one. Section 3."""
        return float((self.strength > _THRESHOLD).sum()) ** 0.5

    def box(self, share: float = 0.95) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2: the pixels between the outer (1 - share) / 2 of the squared strength on each side."""
        return field_box(self.strength, share)


def effective_fields(
    model: nn.Module, images: Tensor, layers: Sequence[str] | None = None, *, seed: int = 0
) -> list[EffectiveField]:
    """The effective field of the central place of each layer, averaged over normalised images (B, C, H, W); in eval.

    As `opsin.nn.gradient_field.gradient_strength` has it; more images make it smoother. layers: None for every stage.
    Raises InputError for an unknown layer.
    """
    layers = stage_names(model) if layers is None else layers
    images = images.detach().clone().requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    fields = []
    with torch.enable_grad(), evaluating(model), recorded(model, layers) as outputs:
        model(images)
        for layer in layers:
            maps = as_maps(find_output(outputs, layer))
            row, column = maps.shape[2] // 2, maps.shape[3] // 2
            centre = maps[:, :, row, column]
            strength = gradient_strength(centre, images, generator)
            peak = strength.max()
            scaled = strength / peak if peak > 0 else strength
            fields.append(EffectiveField(layer, scaled.float().cpu(), row, column))
    return fields

"""How much each pixel counts for one place of a map, by the gradient: the effective receptive field.

Luo, Li, Urtasun and Zemel 2016, arXiv:1701.04128. `opsin.analyze.effective_field` asks it of any layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

Box = tuple[int, int, int, int]


def gradient_strength(units: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
    """(H, W) float64 on the images' device: the size of the gradient of units (B, C) at each pixel of images.

    images: (B, C, H, W), what the units were computed from. For each image the gradient of a random direction over the
    units is taken, whose expected square is the sum of the squares of all units' gradients: of the Jacobian J the root
    of E[(v J)^2], v ~ N(0, 1), summed over colours. The graph is kept.
    """
    direction = torch.randn(units.shape, generator=generator, dtype=torch.float32).to(units)
    (gradient,) = torch.autograd.grad(units, images, direction, retain_graph=True)
    # float64: squares of gradients that a thousand layers have multiplied do not fit into less
    squares = gradient.detach().double().square().sum(dim=1).mean(dim=0)
    return squares.sqrt().nan_to_num(0.0, 0.0, 0.0)


def field_box(strength: Tensor, share: float = 0.95) -> Box:
    """x1, y1, x2, y2: the pixels between the outer (1 - share) / 2 of the squared strength (H, W) on each side."""
    spans = []
    for axis in (0, 1):
        mass = strength.double().square().sum(dim=axis)
        total = mass.cumsum(0) / mass.sum()
        edge = (1 - share) / 2
        first = int((total <= edge).sum())
        last = int((total < 1 - edge).sum())
        spans.append((first, min(last + 1, len(mass))))
    (x1, x2), (y1, y2) = spans
    return x1, y1, x2, y2

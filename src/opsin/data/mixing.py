"""Mixing of a batch's images and labels, after collate, on the device."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torchvision.transforms import v2

from opsin.errors import InputError

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def create_mixing(mixup: float = 0.0, cutmix: float = 0.0, num_classes: int | None = None) -> Mixing | None:
    """MixUp (Zhang et al. 2018, arXiv:1710.09412) and CutMix (Yun et al. 2019, arXiv:1905.04899); of both, one a batch.

    mixup, cutmix: alpha of the Beta distribution that the share is drawn from, 0 is off. The result takes normalised
    images (B, C, H, W) and labels (B,) or (B, K), and gives mixed images and soft labels (B, K). Each image is mixed
    with its neighbour in the batch. Draws from torch's global CPU generator.
    """
    for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
        if alpha < 0:
            raise InputError(f"mixing.{name} is {alpha}; expected alpha above 0, or 0 to turn it off")
    steps: list[v2.Transform] = []
    if mixup > 0:
        steps.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
    if cutmix > 0:
        steps.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
    if not steps:
        return None
    return steps[0] if len(steps) == 1 else v2.RandomChoice(steps)

"""Mixing of a batch's images and labels, after collate, on the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from opsin.errors import InputError, unknown

Partners: TypeAlias = Literal["neighbour", "permutation"]
Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def create_mixing(
    mixup: float = 0.0, cutmix: float = 0.0, num_classes: int | None = None, partners: Partners = "neighbour"
) -> Mixing | None:
    """MixUp (Zhang et al. 2018, arXiv:1710.09412) and CutMix (Yun et al. 2019, arXiv:1905.04899); of both, one a batch.

    mixup, cutmix: alpha of the Beta distribution that the share is drawn from, 0 is off. The result takes normalised
    images (B, C, H, W) and labels (B,) or (B, K), and gives mixed images and soft labels (B, K). partners: what MixUp
    mixes an image with, its neighbour in the batch, or one of a random order of the batch, as its authors' code does;
    CutMix takes neighbours. Draws from torch's global CPU generator. Raises InputError for an alpha out of range, other
    partners, and an order for MixUp without `num_classes`.
    """
    if partners not in ("neighbour", "permutation"):
        raise unknown("partners", partners, ("neighbour", "permutation"))
    for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
        if not 0 <= alpha < math.inf:
            raise InputError(f"mixing.{name} is {alpha}; expected alpha above 0, or 0 to turn it off")
    steps: list[Mixing] = []
    if mixup > 0 and partners == "permutation":
        if num_classes is None:
            raise InputError("MixUp with partners in a random order needs num_classes")
        steps.append(partial(_mix_in_order, mixup, num_classes))
    elif mixup > 0:
        steps.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
    if cutmix > 0:
        steps.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
    if not steps:
        return None
    return steps[0] if len(steps) == 1 else v2.RandomChoice(steps)


# MixUp by hand, for a share that is drawn elsewhere. The paper mixes one-hot labels (eq. 1), its authors' code mixes
# the losses of both labels. For a loss that is linear in its targets, as cross-entropy is, the two are equal.


def draw_share(alpha: float) -> float:
    """The share of an image in MixUp, of Beta(alpha, alpha): the number that `create_mixing` draws with this seed."""
    return float(torch.distributions.Beta(torch.tensor([alpha]), torch.tensor([alpha])).sample(()))


def draw_partners(count: int, partners: Partners) -> Tensor:
    """(count,) int64: the place in the batch of each image's partner."""
    return torch.randperm(count) if partners == "permutation" else torch.arange(count).roll(1)


def mix_images(images: Tensor, share: float, partners: Tensor | None = None) -> Tensor:
    """share * image + (1 - share) * its partner, of images (B, C, H, W). partners: their places, neighbours if None."""
    return share * images + (1 - share) * _of(images, partners)


def _of(values: Tensor, partners: Tensor | None) -> Tensor:
    return values.roll(1, 0) if partners is None else values[partners.to(values.device)]


def mix_labels(labels: Tensor, share: float, num_classes: int, partners: Tensor | None = None) -> Tensor:
    """Soft labels (B, num_classes) of `mix_images`, of labels (B,) int64 or (B, num_classes). MixUp as published."""
    if labels.ndim == 1:
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise InputError(f"labels from {labels.min()} to {labels.max()} cannot be mixed as {num_classes} classes")
        labels = F.one_hot(labels, num_classes)
    return mix_images(labels.float(), share, partners)


def mix_losses(
    loss: Callable[[Tensor, Tensor], Tensor],
    outputs: Tensor,
    labels: Tensor,
    share: float,
    partners: Tensor | None = None,
) -> Tensor:
    """The loss of outputs for `mix_images`: share * loss(own labels) + (1 - share) * loss(partners' labels)."""
    return share * loss(outputs, labels) + (1 - share) * loss(outputs, _of(labels, partners))


def _mix_in_order(alpha: float, num_classes: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    share, partners = draw_share(alpha), draw_partners(len(images), "permutation")
    return mix_images(images, share, partners), mix_labels(labels, share, num_classes, partners)

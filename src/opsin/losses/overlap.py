"""Losses of segmentation that measure overlap of regions, so that a small region counts as much as a large one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.checks import check_number
from opsin.errors import InputError
from opsin.losses.terms import Reduction, any_of_many, check_shape, divide, full_precision, one_of_many, reduce


def dice_loss(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    smooth: float = 1.0,
    squared: bool = True,
    per_image: bool = True,
    only_present: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """1 - (2 sum p y + smooth) / (sum p^2 + sum y^2 + smooth), one term for each image and class.

    Milletari et al. 2016, arXiv:1606.04797, section 3, which has no `smooth`: it keeps a class that is absent from a
    image from being a loss of 1 for whatever is predicted. squared=False sums p and y themselves in the denominator.
    per_image=False sums over the images too, one term for each class. only_present: leave out those of classes that
    the targets do not have.

    logits: (B, K, ...). targets: (B, ...) int64 class indices for a softmax over K, or (B, K, ...) in [0, 1] for K
    sigmoids; -1 is ignored in both. weights: (B, ...), what each place counts in all sums. The terms are (B, K), or
    (K,). With hard predictions, squared or not, 1 - loss is the F1 score (tested).
    """
    smooth = check_number("smooth", smooth)
    probabilities, targets, mass = _regions(logits, targets, weights)
    shared = _sum(mass * probabilities * targets, per_image)
    sizes = _sum(mass * (probabilities**2 + targets**2 if squared else probabilities + targets), per_image)
    # 1 - (2 shared + smooth) / (sizes + smooth) in one fraction: 0, not 1, where both are empty and smooth is 0
    terms = divide(sizes - 2 * shared, sizes + smooth)
    return _reduce(terms, reduction, _sum(mass * targets, per_image) > 0 if only_present else None)


def jaccard_loss(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    smooth: float = 1.0,
    per_image: bool = True,
    only_present: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """1 - (sum p y + smooth) / (sum p + sum y - sum p y + smooth): intersection over union, as Dice is of F1.

    Rahman and Wang 2016, "Optimizing intersection-over-union in deep neural networks for image segmentation"; `smooth`
    and everything else as of `dice_loss`. With hard predictions and no smooth 1 - loss is the IoU (tested).
    """
    smooth = check_number("smooth", smooth)
    probabilities, targets, mass = _regions(logits, targets, weights)
    shared = _sum(mass * probabilities * targets, per_image)
    sizes = _sum(mass * (probabilities + targets), per_image)
    terms = divide(sizes - 2 * shared, sizes - shared + smooth)
    return _reduce(terms, reduction, _sum(mass * targets, per_image) > 0 if only_present else None)


def lovasz_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None, *, per_image: bool = False) -> Tensor:
    """The IoU's own surrogate: convex, and equal to 1 - IoU of each class where predictions are hard.

    Berman et al. 2018, arXiv:1705.08790. logits: (B, K, ...). For targets (B, ...) of class indices Lovász-softmax, the
    mean over the classes that are present; for (B, K, ...) of 0 and 1 the Lovász hinge of each class, which is computed
    from the logits themselves. -1 is ignored in both. weights: (B, ...), what each place counts in the IoU.
    per_image: the mean over the images of each one's own loss; else the batch is taken as one image.
    Sorting makes it slower than the others, and it learns little from a network at random: train with cross-entropy
    first, or beside it.
    """
    if logits.ndim < 2:
        raise InputError(f"logits are (B, K, ...), got {tuple(logits.shape)}")
    exclusive = not targets.is_floating_point() and targets.ndim == logits.ndim - 1
    if exclusive:
        probabilities, targets, mass = _regions(logits, targets, weights)
        errors = (targets - probabilities).abs()
    else:
        logits = full_precision(logits)
        targets, seen = any_of_many(logits, targets)
        if targets.device.type == "cpu" and bool(((targets > 0) & (targets < 1)).any()):
            raise InputError("the Lovász hinge takes targets of 0 and 1")
        mass = _mass(seen, weights, logits)
        errors = 1 - logits * (2 * targets - 1)
    errors, targets, mass = (_by_class(values.expand(errors.shape), per_image) for values in (errors, targets, mass))
    if not len(errors):
        return errors.sum()
    terms = torch.stack([_lovasz(*row) for row in zip(errors, targets, mass, strict=True)])
    counted = ((mass * targets) if exclusive else mass).sum(dim=-1) > 0
    terms, counted = (values.view(-1, logits.shape[1]) for values in (terms * counted, counted))
    images = divide(terms.sum(dim=1), counted.sum(dim=1))
    return divide(images.sum(), counted.any(dim=1).sum())


def _lovasz(errors: Tensor, targets: Tensor, mass: Tensor) -> Tensor:
    """The Lovász extension of 1 - IoU at the errors (N,) of one class."""
    order = errors.detach().argsort(descending=True)
    errors, targets, mass = errors[order], targets[order], mass[order]
    own = mass * targets
    whole = own.sum()
    union = whole + (mass - own).cumsum(0)
    losses = 1 - divide(whole - own.cumsum(0), union)
    losses = torch.where(union > 0, losses, 0.0)
    steps = torch.cat([losses[:1], losses[1:] - losses[:-1]])
    return (errors.relu() * steps).sum()


def _regions(logits: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities and targets in [0, 1], both (B, K, ...), and what each place counts, which broadcasts to that."""
    if logits.ndim < 2:
        raise InputError(f"logits are (B, K, ...), got {tuple(logits.shape)}")
    logits = full_precision(logits)
    if not targets.is_floating_point() and targets.ndim == logits.ndim - 1:
        check_shape(targets, logits[:, 0].shape, logits)
        labels, seen = one_of_many(logits.movedim(1, -1), targets)
        one_hot = F.one_hot(labels.clamp(min=0), logits.shape[1]).movedim(-1, 1).to(logits.dtype)
        return logits.softmax(dim=1), one_hot, _mass(seen[:, None], weights, logits)
    targets, seen = any_of_many(logits, targets)
    return logits.sigmoid(), targets, _mass(seen, weights, logits)


def _mass(seen: Tensor, weights: Tensor | None, logits: Tensor) -> Tensor:
    """What each place counts: its weight, and nothing where it is ignored."""
    mass = seen.to(logits.dtype)
    if weights is None:
        return mass
    check_shape(weights, logits[:, 0].shape, logits)
    return mass * weights[:, None]


def _sum(values: Tensor, per_image: bool) -> Tensor:
    """Over the places of each class, (B, K), or over those of all images, (K,)."""
    values = values.flatten(start_dim=2).sum(dim=2) if values.ndim > 2 else values
    return values if per_image else values.sum(dim=0)


def _by_class(values: Tensor, per_image: bool) -> Tensor:
    """The places of each class, (B * K, N), or of all images together, (K, B * N)."""
    values = values.flatten(start_dim=2) if values.ndim > 2 else values[..., None]
    return values.flatten(end_dim=1) if per_image else values.movedim(1, 0).flatten(start_dim=1)


def _reduce(terms: Tensor, reduction: Reduction, present: Tensor | None) -> Tensor:
    if present is None:
        return reduce(terms, reduction)
    return reduce(terms * present, reduction, present.sum())

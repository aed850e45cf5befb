"""What every loss does with its inputs and its terms: precision, shapes, values, and the mean or sum at the end.

Every loss computes in float32 or better whatever the precision of its inputs, and is 0, with a gradient of 0, where
there is nothing to learn from. Shapes and options are always checked. The values of targets are read only on the CPU:
on an accelerator the read would wait for the device in every step. There, and for predictions everywhere, a NaN makes
the loss NaN, which the trainer reports with the batch that did it.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.errors import InputError, unknown

Reduction: TypeAlias = Literal["mean", "sum", "none"]


def reduce(terms: Tensor, reduction: Reduction, count: Tensor | None = None) -> Tensor:
    """The mean or the sum of a loss's terms, or the terms themselves.

    count: what the mean divides by, the number of terms if None. The mean of no terms is 0 with a gradient of 0, where
    torch's is NaN.
    """
    if reduction == "none":
        return terms
    if reduction == "sum":
        return terms.sum()
    if reduction == "mean":
        return terms.sum() / max(terms.numel(), 1) if count is None else divide(terms.sum(), count)
    raise unknown("reduction", reduction, ("mean", "sum", "none"))


def divide(total: Tensor, mass: Tensor) -> Tensor:
    """total / mass, and 0 with a gradient of 0 where there is no mass; without a synchronisation of the device."""
    return total / torch.where(mass == 0, torch.ones_like(mass), mass)


def full_precision(values: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; float32 and float64 as they are. Raises InputError for whole numbers."""
    if not values.is_floating_point():
        raise InputError(f"a loss takes predictions of a floating-point type, got {values.dtype}; use .float()")
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def matching(predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions and targets of one shape, in full precision. Raises InputError for other shapes and NaN targets.

    Two shapes that broadcast are refused too: (B, 1) against (B,) would compare every prediction with every target.
    """
    check_shape(targets, predictions.shape, predictions, "predictions")
    predictions = full_precision(predictions)
    targets = targets.to(predictions.dtype)
    check_values("targets", targets)
    return predictions, targets


def one_of_many(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Class indices (...) for logits (..., K), -1 where ignored, as int64, and where they are not ignored."""
    check_shape(labels, logits.shape[:-1], logits)
    check_labels(labels, logits.shape[-1])
    return labels.long(), labels != -1


def any_of_many(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Targets for sigmoids, (..., K) in [0, 1], and where they are to be seen. Class indices (...) become one-hot.

    -1 is ignored in both forms; its place holds a 0.
    """
    if not targets.is_floating_point() and targets.ndim == logits.ndim - 1:
        labels, seen = one_of_many(logits, targets)
        one_hot = F.one_hot(labels.clamp(min=0), logits.shape[-1]).to(logits.dtype)
        seen = seen[..., None].expand(logits.shape)
        return one_hot * seen, seen
    check_shape(targets, logits.shape, logits)
    seen = targets != -1
    targets = torch.where(seen, targets, 0).to(logits.dtype)
    check_probabilities(targets)
    return targets, seen


def class_weights(name: str, weight: Tensor | None) -> Tensor | None:
    """Weights of classes (K,) as float32. Raises InputError that names the option for what is none."""
    if weight is None:
        return None
    if weight.ndim != 1 or not bool((weight >= 0).all()) or not bool(weight.isfinite().all()):
        raise InputError(f"{name} must be one finite number >= 0 for each class, got {weight.tolist()}")
    return weight.detach().clone().float()


def fit_weights(name: str, weight: Tensor | None, logits: Tensor) -> Tensor | None:
    """Weights of classes for logits (B, K, ...), of their type and on their device. Raises InputError for another K."""
    if weight is None:
        return None
    if len(weight) != logits.shape[1]:
        raise InputError(
            f"{name} has {len(weight)} numbers, the model {logits.shape[1]} classes; give one for each class"
        )
    return weight.to(logits)


def check_shape(targets: Tensor, expected: torch.Size, of: Tensor, name: str = "logits") -> None:
    """Raise InputError unless the targets have the shape that the predictions `of` ask for."""
    if targets.shape != expected:
        raise InputError(
            f"targets of shape {tuple(targets.shape)} do not fit {name} of shape {tuple(of.shape)}; "
            f"expected {tuple(expected)} of {targets.dtype}"
        )


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise InputError for labels that are no class indices; on the CPU also for one outside -1 ... num_classes - 1."""
    if labels.is_floating_point() or labels.dtype is torch.bool:
        raise InputError(f"class indices are whole numbers, got {labels.dtype}; use .long()")
    check_values("labels", labels, -1, num_classes - 1, f"0 to {num_classes - 1}, or -1 to be ignored")


def check_probabilities(targets: Tensor) -> None:
    """Raise InputError for targets outside [0, 1], on the CPU."""
    # 1e-3: a mixture of one-hot labels, or one rounded to half precision, may reach a little beyond 1
    check_values("targets", targets, -1e-3, 1 + 1e-3, "0 to 1")


def check_values(
    name: str, values: Tensor, low: float = -math.inf, high: float = math.inf, expected: str = "finite numbers"
) -> None:
    """Raise InputError for a value that is not finite or outside [low, high], on the CPU; one pass over the values."""
    if values.device.type != "cpu" or values.numel() == 0 or torch.compiler.is_compiling():
        return
    smallest, largest = (float(v) for v in torch.aminmax(values.detach()))  # NaN if any value is
    if math.isfinite(smallest) and math.isfinite(largest) and low <= smallest and largest <= high:
        return
    wrong = ~((values >= low) & (values <= high) & values.isfinite())
    place = tuple(wrong.nonzero()[0].tolist())
    raise InputError(f"{name} hold {values[place].item():g} at {place}; expected {expected}")

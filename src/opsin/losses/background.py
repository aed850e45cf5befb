"""The focal loss of what is nearly all of a dense detector's output: classes that are not there."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from opsin.checks import check_number
from opsin.errors import InputError
from opsin.losses.focal import focal_loss
from opsin.losses.terms import full_precision

# Logits taken at a time on a CPU: with their gradient and a temporary, three times 256 kB, they stay in its cache.
_CHUNK = 1 << 16


def detection_focal_loss(
    logits: Tensor,
    hits: tuple[Tensor, Tensor, Tensor],
    weight: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """`focal_loss` of (B, A, K) logits whose targets are 0 but for a few 1, summed with a weight for each place.

    hits: rows, places and classes of the ones, (P,) each, no two alike. weight: (B, A), 0 where the loss ignores it.
    It is the same number and gradient, in a third of the time: targets are not written down, and the gradient of the
    zeros, gamma (1 - p) softplus(x) + p times (1 - alpha) p^gamma, is computed beside the loss.
    """
    if not 0 <= check_number("alpha", alpha) <= 1:
        raise InputError(f"alpha={alpha} is the share of the positives, at most 1")
    logits = full_precision(logits)
    weight = weight.to(logits.dtype)
    absent: Any = _Absent.apply(logits, weight, 1 - alpha, check_number("gamma", gamma))
    found = logits[hits]
    own = weight[hits[:2]]
    options: dict[str, Any] = {"alpha": alpha, "gamma": gamma, "reduction": "none"}
    # Each of the ones was taken for a zero above.
    present = focal_loss(found[:, None], torch.ones_like(found)[:, None], **options)[:, 0]
    mistaken = focal_loss(found[:, None], torch.zeros_like(found)[:, None], **options)[:, 0]
    return absent + ((present - mistaken) * own).sum()


class _Absent(torch.autograd.Function):
    """sum(weight * share * p^gamma * softplus(x)), p = sigmoid(x): focal loss of logits (..., K) with targets of 0."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, weight: Tensor, share: float, gamma: float) -> Tensor:
        rows, weights = logits.detach().flatten(0, -2), (weight * share).flatten()[:, None]
        keep = ctx.needs_input_grad[0]
        slopes = torch.empty_like(rows) if keep else None
        step = max(1, _CHUNK // max(1, rows.shape[1])) if rows.is_cpu else max(1, len(rows))
        total = rows.new_zeros(())
        for begin in range(0, len(rows), step):
            part = slice(begin, begin + step)
            x, scale = rows[part], weights[part]
            surprise = F.softplus(x)
            p = x.sigmoid()
            factor = (p * p if gamma == 2 else p**gamma).mul_(scale)
            total += (factor * surprise).sum()
            if slopes is not None:
                torch.mul(surprise.mul_(1 - p).mul_(gamma).add_(p), factor, out=slopes[part])
        if slopes is not None:
            ctx.save_for_backward(slopes.view(logits.shape))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # type: ignore[override]
        (slopes,) = ctx.saved_tensors
        return slopes * gradients[0], None, None, None

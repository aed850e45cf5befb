"""Connectionist temporal classification: the loss of reading without knowing where each character is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.errors import InputError
from opsin.losses.terms import Reduction, check_values, full_precision, reduce


def ctc_loss(
    logits: Tensor,
    targets: Tensor,
    target_lengths: Tensor | Sequence[int] | None = None,
    input_lengths: Tensor | Sequence[int] | None = None,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """-log of the probability of all alignments that read as the target. Graves et al. 2006.

    doi:10.1145/1143844.1143891, section 4. logits: (T, B, K), K with the blank; their log-softmax is taken here.
    targets: (B, S) int64 without blanks, each row filled up with -1. target_lengths: (B,), counted up to the first -1
    if None. input_lengths: (B,) steps to read, T if None. Lengths on the CPU save a wait for the device. The terms are
    (B,), in nats; as in torch, their mean divides each by the length of its target first. An empty target asks for
    blanks throughout.

    A target of n labels, r of them like the one before, takes at least n + r steps. One that cannot fit is an
    InputError that names it where targets are on the CPU; elsewhere its loss is infinite. zero_infinity=True leaves
    such targets out instead: a loss of 0.
    """
    if logits.ndim != 3 or targets.ndim != 2 or targets.shape[0] != logits.shape[1]:
        raise InputError(
            f"targets of shape {tuple(targets.shape)} do not fit logits of shape {tuple(logits.shape)}; "
            "expected (B, S) for (T, B, K)"
        )
    steps, batch, num_classes = logits.shape
    if not 0 <= blank < num_classes:
        raise InputError(f"blank={blank} is not one of the {num_classes} classes of the logits")
    if target_lengths is None:
        target_lengths = (targets != -1).int().cumprod(dim=1).sum(dim=1)
    wanted = _lengths("target_lengths", target_lengths, batch, targets.shape[1])
    given = _lengths("input_lengths", [steps] * batch if input_lengths is None else input_lengths, batch, steps)
    _check_targets(targets, wanted, num_classes, blank)
    if not zero_infinity:
        _check_fit(targets, wanted, given)
    log_p = full_precision(logits).log_softmax(dim=-1)
    if batch == 0:
        return reduce(log_p.sum(dim=(0, 2)), reduction)
    terms = F.ctc_loss(
        log_p, targets.clamp(min=0).to(logits.device), given, wanted, blank, "none", zero_infinity=zero_infinity
    )
    return reduce(terms / wanted.clamp(min=1).to(terms) if reduction == "mean" else terms, reduction)


def _lengths(name: str, lengths: Tensor | Sequence[int], batch: int, most: int) -> Tensor:
    lengths = torch.as_tensor(lengths, dtype=torch.int64)
    if lengths.shape != (batch,):
        raise InputError(f"{name} of shape {tuple(lengths.shape)} do not fit a batch of {batch}; give one for each")
    check_values(name, lengths, 0, most, f"0 to {most}")
    return lengths


def _check_targets(targets: Tensor, lengths: Tensor, num_classes: int, blank: int) -> None:
    """Refuse labels that are no classes, which torch would look up beyond the end of the row, and blanks."""
    if targets.is_floating_point():
        raise InputError(f"targets are class indices, got {targets.dtype}; use .long()")
    if targets.device.type != "cpu" or torch.compiler.is_compiling():
        return
    read = torch.arange(targets.shape[1]) < lengths.cpu()[:, None]
    wrong = read & ((targets < 0) | (targets >= num_classes) | (targets == blank))
    if wrong.any():
        row, place = wrong.nonzero()[0].tolist()
        raise InputError(
            f"target {row} holds {int(targets[row, place])} at place {place}; expected a class from 0 to "
            f"{num_classes - 1} other than the blank, {blank}"
        )


def _check_fit(targets: Tensor, wanted: Tensor, given: Tensor) -> None:
    if targets.device.type != "cpu" or wanted.device.type != "cpu" or given.device.type != "cpu":
        return
    inside = torch.arange(1, max(targets.shape[1], 1)) < wanted[:, None]
    repeats = ((targets[:, 1:] == targets[:, :-1]) & inside).sum(dim=1)
    short = (wanted + repeats > given).nonzero()
    if len(short):
        row = int(short[0])
        raise InputError(
            f"target {row} has {int(wanted[row])} labels, {int(repeats[row])} of them repeated, and needs "
            f"{int(wanted[row] + repeats[row])} steps, the network gives {int(given[row])}: widen the image, lower "
            "the network's stride, or pass zero_infinity=True to leave such targets out"
        )

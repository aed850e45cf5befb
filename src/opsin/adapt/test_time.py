"""Adaptation of a run that is trained already, by images of the target alone: statistics, or answers made surer.

Adaptive batch norm: Li et al. 2016, arXiv:1603.04779. TENT: Wang et al. 2020, arXiv:2006.10726.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from opsin.backbones.backbone import logits_of
from opsin.errors import InputError


def batch_norms(model: nn.Module) -> list[Any]:
    """The layers of batch norm. Raises InputError where there are none."""
    found = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not found:
        raise InputError("the network has no batch norm, which is all that adabn and tent change; take another method")
    return found


def entropy_of_logits(logits: Tensor) -> Tensor:
    """H = -sum_k p_k log p_k of softmax, averaged: TENT, eq. 1. logits: (B, K)."""
    logs = logits.float().log_softmax(dim=1)
    return -(logs.exp() * logs).sum(dim=1).mean()


@torch.no_grad()
def adapt_statistics(model: nn.Module, batches: Callable[[], Iterable[Tensor]]) -> None:
    """AdaBN: every batch norm gets the mean and variance of the target, over all batches; nothing else changes.

    Means of the batches' statistics, as running ones with momentum 1 / count are. batches: the network's inputs, from
    the beginning at each call.
    """
    norms = batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    with _training_alone(model, norms):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's cumulative average
        for images in batches():
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def minimise_entropy(
    model: nn.Module, batches: Callable[[], Iterable[Tensor]], lr: float = 0.001, epochs: int = 1
) -> None:
    """TENT: scale and shift of every batch norm lower the entropy of the answers, by Adam; statistics are the batch's.

    The paper goes on for ever while it is used. Here it sees the target `epochs` times, and then the statistics of the
    target are kept with the new scales, so that answers do not depend on what else is in a batch.
    """
    norms = batch_norms(model)
    parameters = [p for norm in norms for p in (norm.weight, norm.bias) if p is not None]
    if not parameters:
        raise InputError("the network's batch norms have no scale and shift to be adapted; take adabn")
    optimizer = torch.optim.Adam(parameters, lr=lr)
    needed = {id(p): p.requires_grad for p in model.parameters()}
    for p in model.parameters():
        p.requires_grad_(False)
    for p in parameters:
        p.requires_grad_(True)
    try:
        with torch.enable_grad(), _training_alone(model, norms):
            for _ in range(epochs):
                for images in batches():
                    loss = entropy_of_logits(logits_of(model(images)))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
    finally:
        for p in model.parameters():
            p.requires_grad_(needed[id(p)])
    adapt_statistics(model, batches)


@contextmanager
def _training_alone(model: nn.Module, norms: list[Any]) -> Iterator[None]:
    """The batch norms normalise by the batch and all else stays as in use; afterwards everything does."""
    model.eval()
    for norm in norms:
        norm.train()
    try:
        yield
    finally:
        model.eval()

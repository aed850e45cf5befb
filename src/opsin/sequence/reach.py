"""How far back the loss of a sequence reaches: the gradient at each step that was read.

Bengio et al. 1994 and Pascanu et al. 2013, arXiv:1211.5063: through a recurrent network it is multiplied by a matrix at
each step, and so vanishes or explodes with the distance. Attention is one step from everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from opsin import data
from opsin.data import Split
from opsin.nn.recurrent import Recurrent, gates_over_time
from opsin.sequence.tokens import PAD

_SEVERAL = 4  # examples of a length, whose mean is taken


def longest_places(split: Split, count: int) -> list[int]:
    """The places of at most so many examples of one length: the longest of which there are several."""
    inputs: Any = split.inputs
    lengths = np.asarray(inputs.lengths)
    values, counts = np.unique(lengths, return_counts=True)
    enough = values[counts >= min(_SEVERAL, int(counts.max()))]
    return np.flatnonzero(lengths == enough.max())[:count].tolist()


def gradient_by_step(predictor: Any, split: Split, count: int = 32) -> np.ndarray:
    """The norm of the loss's gradient at each step that is read, (S,), the mean over examples of one length.

    Of symbols at their embeddings. predictor: of a trained, or untrained, model.
    """
    found, places = predictor.model, longest_places(split, count)
    batch = next(iter(data.create_loader(split.subset(places), None, batch_size=len(places))))
    source, *lengths = predictor.inputs(batch)
    kept: list[tuple[Any, Any]] = []
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False), _keeping(found, kept):
        given = source.clone().requires_grad_() if source.is_floating_point() else source
        losses = found.loss(found(given, *lengths), predictor.targets(batch))
        at = given if source.is_floating_point() else kept[0][1]
        (gradient,) = torch.autograd.grad(torch.stack(list(losses.values())).sum(), [at])
    norms = gradient.double().norm(dim=-1).mean(dim=0).cpu().numpy()
    backwards = bool(kept) and not torch.equal(kept[0][0], source)  # a network that reads from the end
    return norms[::-1].copy() if backwards else norms


@contextmanager
def _keeping(model: nn.Module, kept: list[tuple[Any, Any]]) -> Iterator[None]:
    """Keep (symbols, embeddings) of a network's first embedding, as they come."""
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]

    def keep(module: nn.Module, given: Any, output: Any) -> None:
        kept.append((given[0], output))

    hooks = [one.register_forward_hook(keep) for one in tables[:1]]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def gates_of(predictor: Any, raw: Tensor) -> tuple[dict[str, np.ndarray], list[str]] | None:
    """What the gates of the first recurrent layer did while a sequence was read, each (T, hidden), and its symbols.

    raw: of `predictor.read`. None of a network without recurrent cells that have gates.
    """
    model: Any = predictor.model
    recurrent = getattr(getattr(model, "trunk", model), "recurrent", getattr(model, "encoder", None))
    if not isinstance(recurrent, Recurrent):
        return None
    source, *lengths = predictor.given([raw])
    kept: list[tuple[Any, Any]] = []
    with _keeping(model, kept):
        model(source, *lengths)
    x = kept[0][1] if kept else source
    found = {name: gate[0].cpu().numpy() for name, gate in gates_over_time(recurrent, x)[0].items()}
    vocabulary = predictor.terms.source
    shown = [] if vocabulary is None else [vocabulary.symbol(k) for k in kept[0][0][0].tolist() if k != PAD]
    return {name: gate for name, gate in found.items() if name not in ("new", "state", "cell")}, shown

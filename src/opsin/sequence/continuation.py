"""Texts that a model of language goes on with, symbol by symbol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from opsin.sequence.tokens import END, PAD, SPECIALS, START


@torch.inference_mode()
def continue_tokens(model: Any, begun: Sequence[int], most: int, temperature: float = 0.0, seed: int = 0) -> list[int]:
    """The symbols that follow some, until `END` or so many.

    temperature: 0 takes the most probable, else one is drawn by the probabilities to the power of 1 / temperature.
    seed: of the drawing. The network's own `generate` is taken where it has one.
    """
    device = next(model.parameters()).device
    own: Callable[..., list[int]] | None = getattr(model, "generate", None)
    if own is not None:
        given = torch.tensor([list(begun)], dtype=torch.int64, device=device)
        return own(given, max_length=most, temperature=temperature, seed=seed)
    stream = torch.Generator().manual_seed(seed)
    found = list(begun)
    for _ in range(most):
        # the last place is scored from those before it: what stands there is not looked at
        given = torch.tensor([[*found, SPECIALS]], dtype=torch.int64, device=device)
        scores = model(given)["logits"][0, -1].double().cpu()
        scores[[PAD, START]] = -torch.inf
        best = int(scores.argmax()) if not temperature else _draw(scores / temperature, stream)
        if best == END:
            break
        found.append(best)
    return found[len(begun) :]


def _draw(scores: torch.Tensor, stream: torch.Generator) -> int:
    return int(torch.multinomial(scores.softmax(dim=0), 1, generator=stream))

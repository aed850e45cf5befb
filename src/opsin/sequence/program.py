"""Networks of sequences as programs for other runtimes: an encoder and one step of its decoder, or one program.

An encoder's file takes tokens (batch, length) and gives what stays the same and the first state; the step's file,
beside it, takes the last token of each text, the state, and what stays the same, and gives the scores of the next token
and the next state. Whoever runs them writes in a loop: the encoder once, then step after step, each time with the state
of the step before, a Transformer's keys and values among it. Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.engine.program import Program
from opsin.ops.generation import State
from opsin.sequence.encoder_decoder import EncoderDecoder, Outputs
from opsin.sequence.tokens import END, PAD, START

_MOMENTS = 3  # steps at which a file is compared; the states of the first are empty or new
_USAGE = (
    f"Tokens are int64; {PAD} fills up, {START} begins and {END} ends a text; `source` and `target` say what the "
    "others are. "
)


class EncoderProgram(nn.Module):
    """Tokens (B, S) -> what a step is given beside a token: the state, then what stays the same, by name."""

    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        fixed, state = self.model.start(self.model(tokens))
        return _named(state) | {name: _plain(value) for name, value in fixed.items()}


class StepProgram(nn.Module):
    """Tokens (B,), the tensors of a state and those that stay the same -> {"logits": (B, V)} and the next state.

    states: how many tensors a state has. fixed: names of what stays the same. flags: which of all that it is given,
    counted behind the tokens, are true or false, which files hold as whole numbers.
    """

    def __init__(self, model: EncoderDecoder, states: int, fixed: Sequence[str], flags: Sequence[int]) -> None:
        super().__init__()
        self.model, self.states, self.fixed, self.flags = model, states, list(fixed), set(flags)

    def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
        tokens, *given = tensors
        given = [value.bool() if k in self.flags else value for k, value in enumerate(given)]
        fixed = dict(zip(self.fixed, given[self.states :], strict=True))
        logits, state = self.model.step(tokens, tuple(given[: self.states]), fixed)
        return {"logits": logits} | {f"next_{name}": value for name, value in _named(state).items()}


def programs_of(model: Any, key: str) -> list[Program]:
    """What of a network is exported. key: of its input.

    Of a network of pairs the encoder and a step; of any other its scores, or its numbers.
    """
    if isinstance(model, EncoderDecoder):
        return _encoder_and_step(model, key)
    outputs = "values" if getattr(model, "answers_with", "") == "values" else "logits"
    usage = f"{outputs}: what the network says of a batch of sequences of this length. {_USAGE}"
    return [Program(model, [outputs], {"usage": usage}, name=key)]


def _encoder_and_step(model: EncoderDecoder, key: str) -> list[Program]:
    with torch.no_grad():
        fixed, state = model.start(model(model.example(2)))
    names = [*_named(state), *fixed]
    flags = [k for k, value in enumerate([*state, *fixed.values()]) if value.dtype == torch.bool]
    encoder = EncoderProgram(model)
    step = StepProgram(model, len(state), list(fixed), flags)

    @torch.no_grad()
    def moments(tokens: Tensor) -> list[tuple[Tensor, ...]]:
        given = list(encoder(tokens).values())
        last, found = torch.full((len(tokens),), START), list[tuple[Tensor, ...]]()
        for _ in range(_MOMENTS):
            found.append((last, *given))
            outputs = step(*found[-1])
            last = outputs["logits"].argmax(dim=1)
            given[: len(state)] = list(outputs.values())[1:]
        return found

    # A Transformer takes any length; cells are walked, and their programs take the length that they are made with.
    grows, free = model.max_positions is not None, dict[int, Mapping[int, str]]()
    if grows:
        for k, value in enumerate([*state, *fixed.values()]):
            axis = 1 if value.ndim == 2 else 2
            free[k + 1] = {axis: "past" if k < len(state) else "length"}
    usage = f"{key}: (batch, length), filled up behind with {PAD}. {_USAGE}Give what comes out to the step."
    step_usage = (
        f"tokens: (batch,), first {START}, then what was written last; the other inputs are the encoder's outputs of "
        f"the same names, the state's each time the step's own before, next_NAME. logits: of the next token. {_USAGE}"
    )
    opened = {0: {1: "length"}} if grows else {}
    return [
        Program(encoder, names, {"usage": usage}, name=key, free=opened),
        Program(
            step, ["logits", *(f"next_{name}" for name in _named(state))], {"usage": step_usage}, name=key,
            names=["tokens", *names], moments=moments, free=free, part="_step",
        ),
    ]  # fmt: skip


def _named(state: State) -> Outputs:
    return {f"state{k}": _plain(value) for k, value in enumerate(state)}


def _plain(value: Tensor) -> Tensor:
    """Flags as whole numbers, which every runtime hands on and can be compared."""
    return value.long() if value.dtype == torch.bool else value

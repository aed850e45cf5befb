"""A recognizer as a program for other runtimes, and such a program as a recognizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from opsin.read.greedy import read_best_paths, read_until_end
from opsin.read.recognizer import Reading


def of_model(model: Any) -> dict[str, int | None]:
    """How the probabilities of a network are read: the places of its blank, or of its end, and how many no characters.

    first: the class of the first character.
    """
    if model.blank is not None:
        return {"blank": int(model.blank), "end": None, "first": 1 if model.blank == 0 else 0}
    return {"blank": None, "end": int(model.end), "first": int(model.specials)}


class ReaderProgram(nn.Module):
    """An exported recognizer as a network: images, uint8 (B, channels, H, W) -> {"probabilities": (B, T, K)}.

    reading: see `of_model`. Raises ValueError, KeyError or TypeError for one that cannot be.
    """

    def __init__(self, run: Callable[[Tensor], Mapping[str, Tensor]], reading: Mapping[str, Any]) -> None:
        super().__init__()
        self.program = run
        self.blank = None if reading["blank"] is None else int(reading["blank"])
        self.end = None if reading["end"] is None else int(reading["end"])
        self.first = int(reading["first"])
        if (self.blank is None) == (self.end is None):
            raise ValueError(f"reading {dict(reading)} has a blank or an end")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return dict(self.program(images if images.dtype == torch.uint8 else images.round().to(torch.uint8)))

    def probabilities(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """(B, T, K), as the program has made them."""
        return outputs["probabilities"]

    def decode(self, outputs: Mapping[str, Tensor]) -> list[Reading]:
        """The most probable class of every step: up to the end, or without repetitions and blanks."""
        probabilities = self.probabilities(outputs)
        if self.blank is not None:
            return read_best_paths(probabilities, self.blank)
        assert self.end is not None
        return read_until_end(probabilities, self.end, self.first)

    def read(self, outputs: Mapping[str, Tensor]) -> tuple[list[Reading], Tensor]:
        """As a `Recognizer` has it."""
        return self.decode(outputs), self.probabilities(outputs)

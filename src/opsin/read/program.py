"""A recognizer as a program for other runtimes, and such a program as a recognizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from opsin.data import Preprocessing
from opsin.read.recognizer import Reading


class Probabilities(nn.Module):
    """Normalisation, network and its probabilities: images, uint8 (B, channels, H, W) -> probabilities (B, T, K)."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model: Any = model
        self.preprocessing = preprocessing

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self.model(self.preprocessing.normalize(images))
        return {"probabilities": self.model.probabilities(outputs)}


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
        values, path = (found.tolist() for found in self.probabilities(outputs).max(dim=2))
        read = self._until_end if self.blank is None else self._between_blanks
        return [read(labels, scores) for labels, scores in zip(path, values, strict=True)]

    def _until_end(self, path: list[int], scores: list[float]) -> Reading:
        count = path.index(self.end) if self.end in path else len(path)
        kept = [place for place in range(count) if path[place] >= self.first]
        return Reading([path[place] - self.first for place in kept], [scores[place] for place in kept], kept)

    def _between_blanks(self, path: list[int], scores: list[float]) -> Reading:
        assert self.blank is not None
        labels, best, steps = [], [], []
        before = self.blank
        for step, (number, score) in enumerate(zip(path, scores, strict=True)):
            if number != self.blank and number == before and score > best[-1]:
                best[-1], steps[-1] = score, step
            elif number not in (self.blank, before):
                labels.append(number - (number > self.blank))
                best.append(score)
                steps.append(step)
            before = number
        return Reading(labels, best, steps)

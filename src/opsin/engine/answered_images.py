"""Answers as a data set: what a model found is the truth, to be looked through and corrected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.data.images import read_bytes
from opsin.data.inputs import Inputs
from opsin.data.source import Source, Split
from opsin.data.truth import Truth
from opsin.engine.answers import Answer
from opsin.errors import InputError


class AnsweredImages(Inputs):
    """The images that answers are for: those of files as they lie there, others and frames of videos as pixels."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = answers

    def __len__(self) -> int:
        return len(self.answers)

    def name(self, i: int) -> str:
        answer = self.answers[i]
        if answer.path is None:
            return f"image-{i + 1}.png"
        return str(answer["path"]) if answer.frame is None else f"{answer.path.stem}-{answer.frame:06d}.png"

    def read(self, i: int) -> Tensor:
        return torch.from_numpy(self.answers[i].image).permute(2, 0, 1)

    def size(self, i: int) -> tuple[int, int]:
        return self.answers[i].size

    def encoded(self, i: int) -> bytes | None:
        answer = self.answers[i]
        path = answer.path
        return read_bytes(str(path)) if path is not None and answer.frame is None and path.is_file() else None

    def select(self, places: np.ndarray) -> AnsweredImages:
        return AnsweredImages([self.answers[i] for i in places.tolist()])


def source_of_answers(
    answers: Sequence[Answer], name: str, task: str, truth_of: Callable[[list[Any]], Truth]
) -> Source:
    """A source of one split of the images that could be read, with what `truth_of` makes of their answers.

    Raises InputError where there is none.
    """
    readable: list[Any] = [answer for answer in answers if answer.error is None]
    if not readable:
        raise InputError(f"no image was read, so that there is nothing to write to {name}")
    split = Split(AnsweredImages(readable), truth_of(readable))
    return Source(Path(name).name, "predictions", {"all": split}, task=task)

"""Answers of a detector as a data set: what it found is the truth, to be looked through and corrected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.data.boxes import Boxes
from opsin.data.images import read_bytes
from opsin.data.inputs import Inputs
from opsin.data.masks import Outlines
from opsin.data.source import Source, Split
from opsin.engine.answers import Answer
from opsin.errors import InputError
from opsin.structures import Instances


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


def source_of_answers(answers: Sequence[Answer], name: str) -> Source:
    """A source of one split of the images that could be read, with the objects that were found, without their scores.

    Raises InputError where there is none.
    """
    readable: list[Any] = [answer for answer in answers if answer.error is None]
    if not readable:
        raise InputError(f"no image was read, so that there is nothing to write to {name}")
    found: list[list[dict[str, Any]]] = [answer["instances"] for answer in readable]
    instances = [
        Instances(torch.from_numpy(answer.boxes), labels=torch.from_numpy(answer.class_ids)) for answer in readable
    ]
    masked = any("mask" in one for objects in found for one in objects)
    drawn = Outlines([[one.get("mask") for one in objects] for objects in found]) if masked else None
    truth = Boxes.of(instances, readable[0].classes, drawn)
    return Source(Path(name).name, "predictions", {"all": Split(AnsweredImages(readable), truth)}, task="detect")

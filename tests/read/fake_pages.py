"""Pages of blocks of grey for letters, and stand-ins for the runs that find and read them, without networks.

A letter is 12 pixels wide and 16 high: its upper half light, its lower one as dark as the letter's number says. So it
can be read in one way only, and what is read from another is uncertain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from opsin import rooms
from opsin.engine.answers import Answer
from opsin.engine.predict import Predictor
from opsin.read.answers import ReadAnswer
from opsin.read.pages import PagePredictor

LETTERS = "abcdefghijklmnopqrstuvwxyz ."
WIDE, HIGH = 12, 16
LIGHT = 228


def draw_page(lines: Sequence[tuple[int, int, str]], size: tuple[int, int] = (160, 240)) -> Tensor:
    """uint8 (1, H, W) with texts at (x, y) of their upper left corners."""
    page = np.full((1, *size), 255, np.uint8)
    for x, y, text in lines:
        for place, letter in enumerate(text):
            own = page[0, y : y + HIGH, x + WIDE * place : x + WIDE * (place + 1)]
            own[: HIGH // 2], own[HIGH // 2 :] = LIGHT, 20 + 6 * LETTERS.index(letter)
    return torch.from_numpy(page)


class Finder:
    """In the place of a detector: a box around all that hangs together. Keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.recipe = type("Recipe", (), {"task": "detect"})

    def predict(self, image: Tensor, **options: Any) -> dict[str, Any]:
        self.asked.append({"size": tuple(image.shape), **options})
        labels: Any = ndimage.label((image[0] < 240).numpy())
        found = ndimage.find_objects(labels[0])
        boxes = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in found]
        return {"instances": [{"box": list(map(float, box)), "score": 0.9, "label": "text"} for box in boxes]}

    tiles = staticmethod(lambda tile, batch_size: None)
    begin = staticmethod(lambda: None)
    device = torch.device("cpu")

    def without_network(self) -> Finder:
        return self


class Reader(Finder):
    """In the place of a recognizer."""

    def __init__(self) -> None:
        super().__init__()
        self.recipe = type("Recipe", (), {"task": "read"})
        self.room = rooms.find_room("read")

    def predict(self, images: Sequence[Tensor], **options: Any) -> list[Answer]:  # type: ignore[override]
        self.asked.append({"sizes": [tuple(one.shape) for one in images], **options})
        return [ReadAnswer(_read(image)) for image in images]


def _read(image: Tensor) -> dict[str, Any]:
    height, width = image.shape[-2:]
    count = max(1, round(width / height * HIGH / WIDE))
    halves = torch.nn.functional.adaptive_avg_pool2d(image[:1].float(), (2, count))[0]
    upper, lower = halves.tolist()
    numbers = [round((value - 20) / 6) for value in lower]
    upright = all(abs(value - LIGHT) < 4 for value in upper) and all(0 <= n < len(LETTERS) for n in numbers)
    text = "".join(LETTERS[n] for n in numbers) if upright else "x" * count
    score, step = (0.95, width / count) if upright else (0.4, width / count)
    characters = [
        {"text": one, "score": score, "left": i * step, "right": (i + 1) * step} for i, one in enumerate(text)
    ]
    return {"text": text, "score": score ** len(text), "characters": characters}


def page_reader() -> tuple[PagePredictor, Finder, Reader]:
    """The pipeline of both, and both."""
    parts: dict[str, Any] = {"detector": Finder(), "recognizer": Reader()}
    predictor = PagePredictor.of_parts("pages", parts)
    assert isinstance(predictor, PagePredictor) and isinstance(predictor, Predictor)
    return predictor, parts["detector"], parts["recognizer"]

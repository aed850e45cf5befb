"""Recognizers in use: the text of an image, with the confidence and the place of each character."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from opsin.data import Source
from opsin.data.texts import Texts
from opsin.engine.answers import Answer
from opsin.engine.checkpoint import Facts
from opsin.engine.predict import Predictor, describe_input
from opsin.engine.program import NormalizedNetwork, Program
from opsin.engine.recipe import Recipe, own_section
from opsin.errors import printable
from opsin.read.alphabet import Alphabet
from opsin.read.answers import ReadAnswer
from opsin.read.decoding import Decoding, TextDecoder
from opsin.read.drawing import annotate
from opsin.read.program import ReaderProgram, of_model
from opsin.read.recipe import choose_alphabet
from opsin.read.recognizer import Reading

COMPARED = 256  # crops on which an exported file must read every character as the model does


class ReadPredictor(Predictor):
    """The text of images.

    alphabet: what the labels of the network are.
    """

    answer_class: ClassVar[type[Answer]] = ReadAnswer

    def __init__(self, model: nn.Module | None, facts: Facts) -> None:
        super().__init__(model, facts)
        self.alphabet = Alphabet.from_meaning(facts.meaning)
        self._decoders: dict[Decoding, TextDecoder] = {}

    @classmethod
    def labels_of(cls, meaning: Mapping[str, Any]) -> list[str]:
        return list(str(meaning.get("alphabet", "")))

    @classmethod
    def relabel(cls, recipe: Recipe, source: Source) -> Source:
        first = source.splits.get("train") or next(iter(source.splits.values()))
        if not isinstance(first.truth, Texts):
            return source
        meaning = choose_alphabet(own_section(recipe), first.truth)
        splits = {
            key: split if split.truth is None else split.with_truth(split.truth.match(meaning))
            for key, split in source.splits.items()
        }
        return source.with_splits(splits)

    def readings(self, outputs: Any, decoding: Decoding) -> tuple[list[Reading], Tensor]:
        """The reading of each image, and the probabilities (B, T, K) that it is made of."""
        greedy, probabilities = self.model.read(outputs)
        decoder = self._decoders.get(decoding)
        if decoder is None:
            decoder = TextDecoder(decoding, self.alphabet, probabilities.shape[2], self.model.blank)
            self._decoders[decoding] = decoder
        return decoder(probabilities, greedy), probabilities

    def _checked(self, options: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
        checked = super()._checked(options, batch_size)
        Decoding.of(checked)
        return checked

    def answers(
        self, outputs: Any, sizes: Sequence[tuple[int, int]], originals: Sequence[Any], **options: Any
    ) -> list[dict[str, Any]]:
        """Of each image its text, the text's score, and its characters with score and place.

        score: the product of the characters' scores, 0 of no text. options: see `opsin.read.decoding.Decoding`.
        """
        readings, probabilities = self.readings(outputs, Decoding.of(options))
        return [self.answer_of(one, size, probabilities.shape[1]) for one, size in zip(readings, sizes, strict=True)]

    def answer_of(self, reading: Reading, size: tuple[int, int], steps: int) -> dict[str, Any]:
        """The answer that a reading is, of an image of (height, width), among `steps` of the network's outputs."""
        text = self.alphabet.text_of(reading.labels)
        places_known = not (isinstance(self.model, ReaderProgram) and self.model.blank is None)
        places = self._sides(reading.steps, steps, size) if places_known else [(None, None)] * len(text)
        found = [
            {"text": one, "score": score, "left": left, "right": right}
            for one, score, (left, right) in zip(text, reading.scores, places, strict=True)
        ]
        return {"text": text, "score": math.prod(reading.scores) if text else 0.0, "characters": found}

    def _sides(self, places: Sequence[int], steps: int, size: tuple[int, int]) -> list[tuple[float, float]]:
        """Left and right of characters, in pixels of the image: half-way to their neighbours.

        places: of the network's `steps`, which divide the width of the input evenly.
        """
        if not places:
            return []
        scale, _, shift, _ = self.preprocessing.transform(*size)
        width = self.preprocessing.size[1]
        # what writes character by character may look back
        ordered = np.maximum.accumulate(np.asarray(places, np.float64)).tolist()
        centres = [((place + 0.5) * width / steps - shift) / scale for place in ordered]
        gap = (centres[-1] - centres[0]) / (len(centres) - 1) if len(centres) > 1 else size[0]
        edges = [(a + b) / 2 for a, b in itertools.pairwise(centres)]
        edges = [centres[0] - gap / 2, *edges, centres[-1] + gap / 2]
        edges = [round(min(max(edge, 0.0), float(size[1])), 2) for edge in edges]
        return list(itertools.pairwise(edges))

    def draw(self, image: Tensor, answer: Any) -> Any:
        """The image over its text, each character under its place."""
        return annotate(image, answer)

    def describe(self, answer: dict[str, Any]) -> str:
        """`STREET 97.1 %`."""
        if not answer["text"]:
            return "no text"
        return f"{printable(answer['text'])} {100 * answer['score']:.1f} %"

    @classmethod
    def network_of_program(
        cls, run: Callable[[Tensor], Mapping[str, Tensor]], facts: Facts, texts: Mapping[str, Any]
    ) -> nn.Module:
        return ReaderProgram(run, texts["decoding"])

    def programs(self) -> list[Program]:
        preprocessing, reading = self.preprocessing, of_model(self.model)
        usage = f"{describe_input(preprocessing)}probabilities: (batch, steps, {self.model.num_classes}), 0 to 1. "
        if self.model.blank is not None:
            usage += (
                f"At each step take the most probable class, leave out repetitions and then class {self.model.blank}, "
                "the blank; the others are the characters of `alphabet` in their order."
            )
        metadata = {"usage": usage, "decoding": json.dumps(reading)}
        model: Any = self.model
        module = NormalizedNetwork(model, preprocessing, lambda found: {"probabilities": model.probabilities(found)})
        return [Program(module, ["probabilities"], metadata, exact=self._texts_of, compared=COMPARED)]

    @torch.inference_mode()
    def _texts_of(self, outputs: Mapping[str, Tensor]) -> list[str]:
        network = ReaderProgram(lambda _: outputs, of_model(self.model))
        return [self.alphabet.text_of(one.labels) for one in network.decode(dict(outputs))]

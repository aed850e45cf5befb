"""Evaluation of recognizers: the texts that they read, held against what is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from opsin.data import Split
from opsin.data.texts import Texts, strings
from opsin.engine.evaluator import Evaluator, Result
from opsin.engine.predict import Predictor
from opsin.ops.sequence import edit_distance
from opsin.read.decoding import Decoding, encode_words, most_probable_word
from opsin.read.fit import steps_needed
from opsin.read.metrics import Compared, Evaluation, Protocol, evaluate, mean_loss, measure_texts
from opsin.read.recognizer import Reading
from opsin.structures import Batch

if TYPE_CHECKING:
    from opsin.engine.report import Section


class ReadEvaluator(Evaluator):
    """Compares texts as the model's alphabet and the protocol have them.

    ignore_case, alphanumeric: see `opsin.read.metrics.Protocol`. decoding: options of `opsin.read.decoding.Decoding`.
    Where the data says for images which words they may be, the most probable of those is compared too.
    """

    predictor: Any  # a ReadPredictor

    def __init__(
        self, predictor: Predictor, *, ignore_case: bool = False, alphanumeric: bool = False, **decoding: Any
    ) -> None:
        super().__init__(predictor)
        self.protocol, self.decoding = Protocol(bool(ignore_case), bool(alphanumeric)), Decoding.of(decoding)
        self.lexicons = Lexicons(predictor)
        self.worst = WorstReads()

    def begin(self, split: Split) -> None:
        self.lexicons.truth = split.kind if isinstance(split.truth, Texts) else None

    def update(self, outputs: Any, batch: Batch) -> None:
        places, truths = batch["index"].tolist(), strings(batch["text"])
        readings, probabilities = self.predictor.readings(outputs, self.decoding)
        losses = self._losses(outputs, batch)
        for k, place in enumerate(places):
            word = self.lexicons.choose(place, probabilities[k], readings[k])
            truth, text = self._as_compared(truths[k]), self._as_compared(self._text(readings[k]))
            by_lexicon = None if word is None else self._as_compared(word)
            self.collect([place], [Compared(truth, text, losses[k], by_lexicon)])
            self.worst.add(place, truth, text, probabilities[k], readings[k].labels)

    def _text(self, reading: Reading) -> str:
        return self.predictor.alphabet.text_of(reading.labels)

    def _as_compared(self, text: str) -> str:
        return self.protocol.normalise(self.predictor.alphabet.normalise(text))

    @cached_property
    def _steps(self) -> int:
        return self.predictor.model.steps(self.predictor.preprocessing.size)

    def _losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> list[float | None]:
        """Of each image by itself, so that the mean is the same however they are divided into batches.

        None of an image whose text is empty, or needs more steps than the model has.
        """
        model = self.predictor.model
        labels, lengths = self.predictor.alphabet.labels(batch["text"])
        needed = [
            steps_needed(row[:count], model.blank is not None)
            for row, count in zip(labels.tolist(), lengths.tolist(), strict=True)
        ]
        rows = [k for k, count in enumerate(needed) if 0 < count <= self._steps]
        found: list[float | None] = [None] * len(needed)
        if rows:
            targets = {"labels": labels[rows].to(self.predictor.device), "lengths": lengths[rows]}
            terms = model.loss_of_each({name: value[rows] for name, value in outputs.items()}, targets)
            for k, term in zip(rows, terms.tolist(), strict=True):
                found[k] = term
        return found

    def compared(self) -> tuple[list[str], list[str]]:
        """The texts that were read, and the true ones, as they are compared."""
        found: list[Compared] = self.collected()
        return [one.text for one in found], [one.truth for one in found]

    def brief(self) -> dict[str, float]:
        found: list[Compared] = self.collected()
        metrics = measure_texts([one.truth for one in found], [one.text for one in found])
        metrics = {name: metrics[name] for name in ("word_accuracy", "cer") if name in metrics}
        loss = mean_loss(found)
        return metrics if loss is None else {**metrics, "loss": loss}

    def empty_share(self) -> float:
        """The share of images in which nothing was read, of those with a text."""
        found = [one for one in self.collected() if one.truth]
        return sum(not one.text for one in found) / len(found) if found else 0.0

    def result(self) -> Result:
        evaluation = evaluate(self.collected())
        alphabet = self.predictor.alphabet
        spoken = f"{self.protocol.describe(alphabet.fold_case, alphabet.only)}; {self.decoding.describe()}"
        evidence = Evidence(evaluation, self.worst, spoken)
        return Result(evaluation.metrics, {"protocol": spoken, **evaluation.to_dict()}, evidence, Spoken(evidence))

    def sections(self, result: Result, split: Split) -> list[Section]:
        from opsin.read import report  # drawing takes long to import

        found: Evidence = result.evidence
        return report.sections(found, split, self.predictor)


class Lexicons:
    """The words of which an image shows one, where its data says them."""

    def __init__(self, predictor: Any) -> None:
        self.predictor = predictor
        self.truth: Texts | None = None
        self._encoded: dict[int, list[list[int]]] = {}

    def choose(self, place: int, probabilities: Tensor, greedy: Reading) -> str | None:
        """The most probable word of an image's list; None where it has none. probabilities: (T, K)."""
        if self.truth is None or self.truth.lexicons is None or (number := int(self.truth.lexicons[place])) < 0:
            return None
        alphabet = self.predictor.alphabet
        if number not in self._encoded:
            self._encoded[number] = encode_words(list(self.truth.words[number]), alphabet)
        words = self._encoded[number]
        if not words:
            return None
        return alphabet.text_of(words[most_probable_word(probabilities, greedy, words, self.predictor.model.blank)])


class WorstReads:
    """Probabilities and labels of the images that were read worst, for the report: a few, however many come."""

    def __init__(self, limit: int = 12) -> None:
        self.limit = limit
        self._kept: dict[int, tuple[tuple[float, int], np.ndarray, Sequence[int]]] = {}

    def add(self, place: int, truth: str, text: str, probabilities: Tensor, labels: Sequence[int]) -> None:
        """Keep those of an image if it is among the worst.

        place: in the split. truth, text: as they are compared. probabilities: (T, K). labels: that were read of them.
        """
        if truth == text:
            return
        distance = edit_distance(truth, text)
        rank = (distance / max(len(truth), 1), distance)
        least = min(((rank, place) for place, (rank, *_) in self._kept.items()), default=None)
        if least is not None and len(self._kept) >= self.limit:
            if rank <= least[0]:
                return
            del self._kept[least[1]]
        self._kept[place] = (rank, probabilities.detach().float().cpu().clone().numpy(), labels)

    def found(self, place: int) -> tuple[np.ndarray, Sequence[int]]:
        """Probabilities (T, K) and labels of an image that was kept."""
        return self._kept[place][1:]

    def places(self) -> list[int]:
        """Those of the images, the worst first."""
        return sorted(self._kept, key=lambda place: (-self._kept[place][0][0], -self._kept[place][0][1], place))


@dataclass
class Evidence:
    """What the report is drawn from. spoken: the protocol and the decoding, in words."""

    evaluation: Evaluation
    worst: WorstReads
    spoken: str


@dataclass(frozen=True)
class Spoken:
    """How texts were decoded and compared, for a terminal."""

    evidence: Any

    def to_dict(self) -> dict[str, Any]:
        return {**self.evidence.evaluation.metrics, "protocol": self.evidence.spoken}

    def describe(self) -> str:
        return self.evidence.spoken

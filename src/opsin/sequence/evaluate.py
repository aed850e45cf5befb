"""Evaluation of models of sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from opsin.data import Split
from opsin.engine.evaluator import Evaluator, Result
from opsin.engine.report import Section
from opsin.sequence.encoder_decoder import shift
from opsin.sequence.inputs import text_of
from opsin.sequence.metrics import Compared, by_length, measure
from opsin.sequence.terms import IGNORED
from opsin.sequence.tokens import PAD
from opsin.sequence.truth import WRITTEN
from opsin.structures import Batch

_MISTAKES = 100  # wrong texts in JSON
_BY_LENGTH = ("from", "to", "count", "exact")


class SequenceEvaluator(Evaluator):
    """Exact texts, symbols and errors of a split.

    beam, length_penalty: how texts are written, see `opsin.sequence.predict.SequencePredictor.predict`.
    """

    predictor: Any  # a SequencePredictor

    def __init__(self, predictor: Any, *, beam: int | None = None, length_penalty: float | None = None) -> None:
        super().__init__(predictor)
        self.writing = {"beam": beam, "length_penalty": length_penalty}

    @property
    def form(self) -> str:
        """One of `opsin.sequence.truth.FORMS`."""
        return self.predictor.terms.form

    def update(self, outputs: Any, batch: Batch) -> None:
        compare = getattr(self, f"_compare_{self.form}")
        lengths = self.predictor.terms.as_input(list(batch[self.predictor.key]))[1].tolist()
        found = compare(outputs, self.predictor.targets(batch), batch, lengths)
        self.collect(batch["index"].tolist(), found)

    def _compare_pairs(self, outputs: Any, targets: Mapping[str, Tensor], batch: Any, lengths: list[int]) -> list[Any]:
        tokens = targets["tokens"]
        previous, wanted = shift(tokens)
        rows = _of_symbols(self.predictor.model.teach(outputs, previous), wanted, PAD)
        target = self.predictor.terms.target
        found = []
        written = self.predictor.written(outputs, **self.writing)
        for (loss, count, right), one, raw, length in zip(rows, written, batch["target"], lengths, strict=True):
            truth, text = text_of(raw), target.decode(one.tokens)
            truth = " ".join(truth.split()) if target.unit == "words" else truth
            found.append(Compared(length, loss, count, right, text == truth, truth, text))
        return found

    _compare_captions = _compare_pairs

    def _compare_language(
        self, outputs: Any, targets: Mapping[str, Tensor], batch: Any, lengths: list[int]
    ) -> list[Any]:
        rows = _of_symbols(outputs["logits"], targets["tokens"], PAD)
        return [Compared(length, *row, row[1] == row[2]) for row, length in zip(rows, lengths, strict=True)]

    def _compare_labels(self, outputs: Any, targets: Mapping[str, Tensor], batch: Any, lengths: list[int]) -> list[Any]:
        rows = _of_symbols(outputs["logits"], targets["labels"], IGNORED)
        return [Compared(length, *row, row[1] == row[2]) for row, length in zip(rows, lengths, strict=True)]

    def _compare_classes(
        self, outputs: Any, targets: Mapping[str, Tensor], batch: Any, lengths: list[int]
    ) -> list[Any]:
        rows = _of_symbols(outputs["logits"][:, None], targets["label"][:, None], IGNORED)
        return [Compared(length, *row, row[1] == row[2]) for row, length in zip(rows, lengths, strict=True)]

    def _compare_values(self, outputs: Any, targets: Mapping[str, Tensor], batch: Any, lengths: list[int]) -> list[Any]:
        terms = self.predictor.terms
        errors = terms.in_units(outputs["values"].double()) - terms.in_units(targets["values"].double())
        found = []
        for row, length in zip(errors, lengths, strict=True):
            squared, absolute = float(row.square().sum()), float(row.abs().sum())
            found.append(Compared(length, squared, len(row), 0, False, absolute=absolute))
        return found

    def compared(self) -> tuple[list[str], list[str]]:
        """The texts that were written, and the true ones."""
        if self.form not in WRITTEN:
            return super().compared()
        found: list[Compared] = self.collected()
        return [one.text for one in found], [one.truth for one in found]

    def brief(self) -> dict[str, float]:
        return measure(self.form, self.collected(), whole=False)

    def result(self) -> Result:
        found: list[Compared] = self.collected()
        details: dict[str, Any] = {"form": self.form}
        if self.form != "values":
            details["by_length"] = [dict(zip(_BY_LENGTH, group, strict=True)) for group in by_length(found)]
        if self.form in WRITTEN:
            wrong = [{"truth": one.truth, "text": one.text} for one in found if not one.exact]
            details |= {"wrong": len(wrong), "mistakes": wrong[:_MISTAKES]}
        return Result(measure(self.form, found), details, found)

    def sections(self, result: Result, split: Split) -> list[Section]:
        from opsin.sequence import report  # drawing takes long to import

        return report.sections(result.evidence, split, self.predictor)


def _of_symbols(logits: Tensor, targets: Tensor, ignored: int) -> list[tuple[float, int, int]]:
    """Of each row the sum of its losses, its symbols, and how many were the most probable.

    logits: (B, T, K); targets: (B, T) int64, `ignored` after the end.
    """
    losses = F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=ignored, reduction="none"
    ).view_as(targets)
    kept = targets != ignored
    right = (logits.argmax(dim=-1) == targets) & kept
    sums = losses.double().sum(dim=1).tolist()
    return list(zip(sums, kept.sum(dim=1).tolist(), right.sum(dim=1).tolist(), strict=True))

"""The part of the report that sequences have: what was written wrongly, and how the length of a sequence matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure as Canvas

from opsin.data import Split
from opsin.engine import charts
from opsin.engine.report import Figure, Section, Table
from opsin.sequence.metrics import Compared, by_length

_WRONG = 20  # texts of the table
_MEANING = {
    "exact_match": "the share of sequences without a single error",
    "accuracy": "the share of sequences whose class is right",
    "token_accuracy": "of the true symbols the share that was the most probable, the true ones before them given",
    "bleu": "BLEU of all texts together, as sacreBLEU computes it by default",
    "cer": "insertions, deletions and substitutions of characters over the true ones",
    "wer": "the same of words, parted at white space",
    "perplexity": "the exponential of the mean loss of a symbol",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "loss": "the mean loss of a symbol, or the squared error of a number",
}


def sections(found: Sequence[Compared], split: Split, predictor: Any) -> list[Section]:
    """Accuracy by length, wrong texts, and what the numbers mean."""
    form = predictor.terms.form
    parts: list[Section] = []
    if form != "values" and len({one.length for one in found}) > 1:
        parts.append(accuracy_by_length(found))
    if form == "pairs" and (wrong := [one for one in found if not one.exact]):
        rows = [[one.truth, one.text, one.length] for one in wrong[:_WRONG]]
        note = f"{len(wrong):,} of {len(found):,} texts have an error." if len(wrong) > _WRONG else ""
        parts.append(Table("Wrong texts", ["true", "written", "symbols read"], rows, note))
    names = [name for name in _MEANING if any(m.name == name for m in predictor.room.metrics)]
    parts.append(Table("How to read the numbers", ["metric", "meaning"], [[n, _MEANING[n]] for n in names]))
    return parts


def accuracy_by_length(found: Sequence[Compared]) -> Figure:
    """The share of sequences that are right, by how long they are."""
    groups = by_length(found)

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        labels = [f"{low}" if low == high else f"{low}-{high}" for low, high, _, _ in groups]
        axes.bar(range(len(groups)), [100 * share for *_, share in groups], 0.8, color=charts.BLUE)
        axes.set_xticks(range(len(groups)), labels, rotation=45 if len(groups) > 8 else 0)
        axes.set(xlabel="symbols that are read", ylabel="sequences without an error, in %", ylim=(0, 100))

    return Figure("Accuracy by length", charts.svg(paint), "A fall towards long sequences is of a memory that is full.")

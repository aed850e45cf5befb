"""`opsin ladder`: the same sequences for each rung, from a plain recurrent cell to the Transformer."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opsin.errors import InputError, say, unknown

if TYPE_CHECKING:
    import numpy as np

    from opsin.sequence.predict import SequencePredictor

_SMALL: Mapping[str, Any] = {"hidden": 128, "embedding": 64, "layers": 1}
# Of texts: each is the one before with what its name says.
WRITERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "rnn": ("seq2seq", {**_SMALL, "cell": "rnn"}),
    "gru": ("seq2seq", {**_SMALL, "cell": "gru"}),
    "lstm": ("seq2seq", {**_SMALL, "cell": "lstm"}),
    "lstm+dot": ("seq2seq", {**_SMALL, "cell": "lstm", "attention": "dot"}),
    "lstm+additive": ("seq2seq", {**_SMALL, "cell": "lstm", "attention": "additive"}),
    "transformer": (
        "transformer",
        {"features": 128, "heads": 4, "hidden": 256, "layers": 2, "dropout": 0.0, "pre_norm": True, "smoothing": 0.0},
    ),
}
# Of everything else: what reads the sequence.
READERS: Mapping[str, Mapping[str, Any]] = {
    "rnn": {"trunk": "rnn", "hidden": 128},
    "gru": {"trunk": "gru", "hidden": 128},
    "lstm": {"trunk": "lstm", "hidden": 128},
    "transformer": {"trunk": "transformer", "hidden": 128, "heads": 4, "layers": 2},
}
_MODELS = {
    "language": "language_model",
    "labels": "sequence_labeller",
    "classes": "sequence_classifier",
    "values": "sequence_regressor",
}
_LENGTHS = (10, 20, 40, 80)  # at which a step is timed


@dataclass
class Rung:
    """What was found of one network. by_length: (shortest, longest, examples, share exact).

    gradient: (S,) of the trained network. step_seconds: of a training step of 32 sequences, by their length.
    """

    name: str
    model: str
    parameters: int
    metrics: Mapping[str, float]
    by_length: Sequence[tuple[int, int, int, float]]
    gradient: np.ndarray
    step_seconds: Mapping[int, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "gradient": [float(f"{norm:.4g}") for norm in self.gradient]}


def ladder(
    source: Annotated[str, typer.Argument(metavar="DATA", help="Sequences to learn, as reverse:30.")] = "reverse:30",
    rungs: Annotated[
        str | None, typer.Option("--rungs", metavar="NAMES", help="Which, separated by commas; all if not given.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Of each network.")] = 5,
    lr: Annotated[float, typer.Option(min=1e-6, metavar="RATE", help="Of each network.")] = 0.003,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="A folder that is not there yet.")] = Path(
        "runs/ladder"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train RNN, GRU, LSTM, attention and Transformer on the same sequences, and compare them by length."""
    found = climb(source, rungs.split(",") if rungs else None, epochs=epochs, lr=lr, out=out)
    if as_json:
        print(json.dumps([one.to_dict() for one in found], indent=1))
        return
    for line in table(found):
        print(line)


def climb(
    source: str, names: Sequence[str] | None = None, *, epochs: int = 5, lr: float = 0.003, out: str | Path = "ladder"
) -> list[Rung]:
    """Train each rung on the same sequences; writes a run for each, ladder.json and ladder.html into a new folder.

    names: of `WRITERS` for pairs of texts, of `READERS` for other sequences; all if None. Raises InputError for an
    unknown name and for a folder that is there.
    """
    from opsin import data
    from opsin.engine.report import write_report
    from opsin.files import atomic

    folder = Path(out)
    if folder.exists():
        raise InputError(f"{folder} is there already; name another folder with --out")
    form = str(data.open(source, "sequence").meaning["form"])
    if form == "captions":
        raise InputError(f"{source} has images, and the ladder is of what reads sequences; take reverse:30")
    known: Mapping[str, Any] = WRITERS if form == "pairs" else READERS
    for name in names or ():
        if name not in known:
            raise unknown("rung", name, known)
    found = []
    for name in names or known:
        model, options = WRITERS[name] if form == "pairs" else (_MODELS[form], READERS[name])
        say(f"{name}:")
        found.append(_train(name, model, options, source, epochs, lr, folder / name.replace("+", "_")))
    with atomic(folder / "ladder.json") as temporary:
        temporary.write_text(json.dumps([one.to_dict() for one in found], indent=1))
    page = write_report(folder / "ladder.html", f"The ladder on {source}", {}, sections(found))
    say(f"report: {page}")
    return found


def _train(name: str, model: str, options: Mapping[str, Any], source: str, epochs: int, lr: float, out: Path) -> Rung:
    from opsin import data
    from opsin.engine.predict import load
    from opsin.engine.train import train
    from opsin.nn.counting import count_parameters
    from opsin.sequence.reach import gradient_by_step

    settings = {f"model.{key}": value for key, value in options.items()} | {"optim.lr": lr}
    run = train(task="sequence", model=model, data=source, epochs=epochs, overrides=settings, out=out)
    predictor: Any = load(run.path)
    splits = data.open(source, "sequence").splits
    test = splits.get("test", next(iter(splits.values())))
    test = test.with_truth(test.kind.match(predictor.facts.meaning))
    parameters, gradient = count_parameters(predictor.model), gradient_by_step(predictor, test)
    return Rung(name, model, parameters, run.metrics, _lengths(predictor, test), gradient, time_steps(predictor))


def _lengths(predictor: SequencePredictor, split: Any) -> list[tuple[int, int, int, float]]:
    from opsin.engine.evaluate import evaluate_split
    from opsin.engine.evaluator import create_evaluator
    from opsin.sequence.metrics import by_length

    if predictor.terms.form == "values":
        return []
    return by_length(evaluate_split(create_evaluator(predictor), split).result.evidence, most=6)


def time_steps(predictor: Any, batch: int = 32, lengths: Sequence[int] = _LENGTHS) -> dict[int, float]:
    """Seconds of a training step, forward and backward, of random sequences by their length; the least of three."""
    import torch

    from opsin.sequence.tokens import SPECIALS

    model, terms, found = predictor.model, predictor.terms, dict[int, float]()
    for length in lengths:
        if terms.source is None:
            given: tuple[Any, ...] = (torch.rand(batch, length, terms.channels, device=predictor.device),)
        else:
            given = (torch.full((batch, length), SPECIALS, device=predictor.device),)
        targets: dict[str, Any] = {
            "pairs": {"tokens": torch.full((batch, length), SPECIALS, device=predictor.device)},
            "language": {"tokens": given[0]},
            "labels": {"labels": torch.zeros(batch, length, dtype=torch.int64, device=predictor.device)},
            "classes": {"label": torch.zeros(batch, dtype=torch.int64, device=predictor.device)},
            "values": {"values": torch.zeros(batch, max(terms.values, 1), device=predictor.device)},
        }[terms.form]
        times = []
        model.train()
        for _ in range(3):
            begun = time.perf_counter()
            torch.stack(list(model.loss(model(*given), targets).values())).sum().backward()
            if predictor.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begun)
            model.zero_grad()
        model.eval()
        found[length] = round(min(times), 5)
    return found


def table(found: Sequence[Rung]) -> list[str]:
    """Lines for a terminal: parameters, the main metric, the gradient at both ends, and the seconds of a step."""
    rows = [["rung", "parameters", "metric", "first / last gradient", *(f"step at {n}" for n in _LENGTHS)]]
    for one in found:
        name, value = next(iter(one.metrics.items()))
        first, last = float(one.gradient[0]), float(one.gradient[-1])
        ratio = f"{first / last:.2e}" if last else "-"
        seconds = [f"{1000 * one.step_seconds[n]:.1f} ms" for n in _LENGTHS]
        rows.append([one.name, f"{one.parameters:,}", f"{name} {value:.4f}", ratio, *seconds])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def sections(found: Sequence[Rung]) -> list[Any]:
    """The page: what each reached, accuracy by length, how far the loss reaches, and what a step costs."""
    from opsin.engine.report import Table
    from opsin.sequence.report import accuracy_of_each, cost_of_each, reach

    names = list(dict.fromkeys(name for one in found for name in one.metrics))
    rows = [[one.name, one.model, one.parameters, *(one.metrics.get(name) for name in names)] for one in found]
    parts: list[Any] = [Table("What each reached", ["rung", "network", "parameters", *names], rows)]
    if any(one.by_length for one in found):
        parts.append(accuracy_of_each({one.name: one.by_length for one in found}))
    parts.append(reach({one.name: one.gradient for one in found}))
    parts.append(cost_of_each({one.name: one.step_seconds for one in found}))
    return parts

"""The part of the report that sequences have: errors by length, alignments, gates, and how far the loss reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from opsin.data import Split
from opsin.engine import charts
from opsin.engine.report import Figure, Section, Table
from opsin.sequence.metrics import Compared, by_length
from opsin.sequence.reach import gates_of, gradient_by_step
from opsin.sequence.truth import WRITTEN

_ALIGNED = 3  # sequences whose alignments are drawn
_LONGEST = 40  # symbols of a sequence that is drawn
_UNITS = 40  # of a gate, those that change most
_DESCRIBED, _PANELS = 2, 18  # images whose descriptions are drawn, and words of each
_WRONG = 20  # texts of the table
_MEANING = {
    "exact_match": "the share of sequences without a single error",
    "accuracy": "the share of sequences whose class is right",
    "token_accuracy": "of the true symbols the share that was the most probable, the true ones before them given",
    "bleu": "BLEU of all texts together, as sacreBLEU computes it by default; 0 where no text has four words",
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
    if form in WRITTEN and (wrong := [one for one in found if not one.exact]):
        rows = [[one.truth, one.text, one.length] for one in wrong[:_WRONG]]
        note = f"{len(wrong):,} of {len(found):,} texts have an error." if len(wrong) > _WRONG else ""
        parts.append(Table("Wrong texts", ["true", "written", "symbols read"], rows, note))
    names = [name for name in _MEANING if any(m.name == name for m in predictor.room.metrics)]
    parts += alignments(split, predictor) if form == "pairs" else []
    parts += glances(split, predictor) if form == "captions" else gates(split, predictor)
    if form != "captions":
        parts.append(reach({"the gradient": gradient_by_step(predictor, split)}))
    names = [name for name in _MEANING if any(m.name == name for m in predictor.room.metrics)]
    parts.append(Table("How to read the numbers", ["metric", "meaning"], [[n, _MEANING[n]] for n in names]))
    return parts


def _drawn(split: Split, count: int) -> list[int]:
    """The places of so many sequences that can be drawn, of the longest."""
    inputs: Any = split.inputs
    lengths = np.asarray(inputs.lengths)
    fitting = np.flatnonzero(lengths <= _LONGEST)
    return fitting[np.argsort(-lengths[fitting], kind="stable")][:count].tolist()


def alignments(split: Split, predictor: Any) -> list[Section]:
    """Where each written symbol looked in what was read, of a few sequences."""
    raw = [split.read(i) for i in _drawn(split, _ALIGNED)]
    if not raw:
        return []
    with torch.no_grad():
        answers = predictor.answers(predictor.run(predictor.collate(raw), raw), [], raw)
    found = []
    for answer in answers:
        if (looks := answer.get("attention")) is None or not looks.size:
            continue
        read, written = predictor.terms.source, predictor.terms.target
        across = [read.symbol(k) for k in read.encode(answer["source"])]
        down = [written.symbol(k) for k in written.encode(answer["text"])] + ["end"]
        caption = "Each row is a symbol that was written, and shows where in the sequence it looked."
        found.append(Figure(f"Alignment of {answer['source'][:30]}", alignment(looks, across, down), caption))
    return found


def alignment(looks: np.ndarray, across: Sequence[str], down: Sequence[str]) -> bytes:
    """Attention (T, S) as an image over the symbols that were read, a row for each that was written."""

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        axes.imshow(looks, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        _name(axes, across, down[: len(looks)])
        axes.set(xlabel="read", ylabel="written")

    return charts.svg(paint, 1.5 + 0.16 * len(across), 1.2 + 0.18 * len(looks))


def glances(split: Split, predictor: Any) -> list[Section]:
    """Where in an image each word of its description looked, of a few images."""
    raw = [predictor.read(split.read(i)) for i in range(min(_DESCRIBED, len(split)))]
    with torch.no_grad():
        answers = predictor.answers(predictor.run(predictor.collate(raw), raw), [], raw) if raw else []
    found = []
    for image, answer in zip(raw, answers, strict=True):
        words = [predictor.terms.target.symbol(k) for k in predictor.terms.target.encode(answer["text"])]
        if (looks := answer.get("attention")) is not None and words:
            drawn = glance(image.permute(1, 2, 0).numpy(), looks, words[:_PANELS])
            caption = "Bright is where the model looked before it wrote the word."
            found.append(Figure(answer["text"][:80], drawn, caption, wide=True))
    return found


def glance(image: np.ndarray, looks: np.ndarray, words: Sequence[str]) -> bytes:
    """An image (H, W, C) for each word, dark where it was not looked at. looks: (words or more, rows, columns)."""
    across = min(6, len(words))
    down = -(-len(words) // across)
    extent = (0, image.shape[1], image.shape[0], 0)

    def paint(canvas: Canvas) -> None:
        for k, axes in enumerate(np.atleast_1d(canvas.subplots(down, across)).flat):
            axes.set_axis_off()
            if k < len(words):
                axes.imshow(image if image.shape[2] == 3 else image[..., 0], cmap="gray", extent=extent)
                shade = 1 - looks[k] / max(float(looks[k].max()), 1e-12)
                veil = np.concatenate([np.zeros((*shade.shape, 3)), 0.8 * shade[..., None]], axis=2)
                axes.imshow(veil, extent=extent, interpolation="bilinear")
                axes.set_title(words[k], fontsize=8)

    return charts.svg(paint, 1.2 * across, 1.4 * down)


def _name(axes: Axes, across: Sequence[str], down: Sequence[str] = ()) -> None:
    axes.grid(False)
    axes.set_xticks(range(len(across)), [one.replace(" ", "\u2423") for one in across], fontsize=8)
    axes.set_yticks(range(len(down)), [one.replace(" ", "\u2423") for one in down], fontsize=8)


def gates(split: Split, predictor: Any) -> list[Section]:
    """What the gates of the first layer did while one sequence was read."""
    places = _drawn(split, 1)
    found = gates_of(predictor, split.read(places[0])) if places else None
    if found is None or not found[0]:
        return []
    opened, shown = found

    def paint(canvas: Canvas) -> None:
        for axes, (name, gate) in zip(np.atleast_1d(canvas.subplots(len(opened), 1)), opened.items(), strict=True):
            most = np.argsort(-gate.std(axis=0), kind="stable")[:_UNITS]
            axes.imshow(gate[:, most].T, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
            _name(axes, shown)
            axes.set(ylabel=f"{name} gate")

    caption = f"Each column is a step, each row one of {_UNITS} units that change most; dark is closed."
    height = 0.6 + 1.5 * len(opened)
    return [Figure("Gates of the first layer", charts.svg(paint, 6.0, height), caption, wide=True)]


def reach(curves: Mapping[str, np.ndarray]) -> Figure:
    """Norms of gradients at each step that was read, (S,) by name, as shares of the largest of each."""

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for colour, (name, norms) in zip(charts.LINES * len(curves), curves.items(), strict=False):
            shares = norms / max(float(norms.max()), 1e-300)
            axes.plot(range(1, len(norms) + 1), np.maximum(shares, 1e-12), color=colour, label=name)
        axes.set_yscale("log")
        axes.set(xlabel="step that is read", ylabel="gradient, share of the largest")
        if len(curves) > 1:
            canvas.legend(loc="outside upper left", ncols=min(3, len(curves)))

    caption = "The loss's gradient at each step of the longest sequences. Where it falls by powers of ten towards one "
    caption += "end, nothing of that end can be learned: it vanishes on its way through the steps between."
    return Figure("How far the loss reaches", charts.svg(paint), caption)


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


def accuracy_of_each(found: Mapping[str, Sequence[tuple[int, int, int, float]]]) -> Figure:
    """Of several networks the share of sequences that are right, by their length, as of `by_length`."""

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for place, (name, groups) in enumerate(found.items()):
            x, y = [high for _, high, _, _ in groups], [100 * share for *_, share in groups]
            style = "-" if place < len(charts.LINES) else "--"
            axes.plot(x, y, style, color=charts.LINES[place % len(charts.LINES)], label=name, marker="o", markersize=3)
        axes.set(xlabel="symbols that are read, up to", ylabel="sequences without an error, in %", ylim=(0, 102))
        canvas.legend(loc="outside upper left", ncols=3)

    return Figure("Accuracy by length", charts.svg(paint), "The same sequences for each network.")


def cost_of_each(found: Mapping[str, Mapping[int, float]]) -> Figure:
    """Of several networks the time of a training step by the length of the sequences."""

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for place, (name, seconds) in enumerate(found.items()):
            style = "-" if place < len(charts.LINES) else "--"
            y = [1000 * one for one in seconds.values()]
            axes.plot(list(seconds), y, style, color=charts.LINES[place % len(charts.LINES)], label=name, marker="o")
        axes.set(xlabel="symbols or steps of a sequence", ylabel="ms of a step of 32 sequences")
        axes.set(xscale="log", yscale="log")
        canvas.legend(loc="outside upper left", ncols=3)

    caption = "Cells take one step after another; attention takes all at once, and pays with the square of the length."
    return Figure("Cost of a step", charts.svg(paint), caption)

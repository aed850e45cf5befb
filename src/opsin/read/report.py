"""A recognizer's part of the report: characters, what was taken for what, errors by length, and the worst texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas
from PIL import Image

from opsin.data import Split
from opsin.data.drawing import enlarge, shorten, stack, to_pil, to_tensor
from opsin.engine import charts
from opsin.engine.confusions import MOST_IN_MATRIX, confusion_matrix
from opsin.engine.report import Figure, Gallery, GalleryItem, Section, Table, Text
from opsin.errors import InputError
from opsin.read.alignment import BLANK, align
from opsin.read.alphabet import Alphabet
from opsin.read.metrics import Evaluation, align_texts, describe_pairs

_MANY = 40  # rows of the table of characters
_CONFUSED = 20
_WIDTH = 480  # pixels of an image over its alignment
_NOTHING = "nothing"
_MEANING = {
    "word_accuracy": "the share of texts without a single error",
    "word_accuracy_lexicon": "the same, where the most probable word of each image's own list is taken; of the images "
    "that have one",
    "cer": "character error rate: insertions, deletions and substitutions over the true characters",
    "cer_without_spaces": "the same of texts whose spaces are left out",
    "wer": "word error rate: the same of words, parted at spaces",
    "edit_similarity": "1 - edit distance / length of the longer text, the mean over texts (1 - N.E.D.)",
    "loss": "the training loss of an image by itself, the mean",
}


def sections(found: Any, split: Split, predictor: Any) -> list[Section]:
    """Characters, confusions, errors by length, the worst texts with their alignments, and what the numbers mean.

    found: the evidence of a `ReadEvaluator`.
    """
    evaluation: Evaluation = found.evaluation
    parts: list[Section] = [Text("How texts are compared", f"{found.spoken[:1].upper()}{found.spoken[1:]}.")]
    if evaluation.characters:
        parts.append(character_table(evaluation))
    if evaluation.confusions:
        parts += confusions(evaluation)
        parts.append(errors_by_length(evaluation))
    parts.append(worst_texts(found, split, predictor))
    rows = [[name.replace("_", " "), _MEANING[name]] for name in evaluation.metrics if name in _MEANING]
    parts.append(Table("How to read the numbers", ["metric", "meaning"], rows))
    return parts


def character_table(evaluation: Evaluation) -> Table:
    """Of every character how often it occurs and which share was read; of many those with most errors."""
    rows: list[list[Any]] = [
        [shown(one), f"U+{ord(one):04X}", count, right / count] for one, (count, right) in evaluation.characters.items()
    ]
    note = ""
    if len(rows) > _MANY:
        missed = {shown(one): count - right for one, (count, right) in evaluation.characters.items()}
        note = f"Of {len(rows):,} characters those that were missed most often."
        rows = sorted(rows, key=lambda row: -missed[row[0]])[:_MANY]
    return Table("Characters", ["character", "code", "count", "read rightly"], rows, note, ["read rightly"])


def confusions(evaluation: Evaluation) -> list[Section]:
    """What was read in the place of what: a table, and of small alphabets a matrix."""
    counts = {one: count for one, (count, _) in evaluation.characters.items()}
    rows: list[list[Any]] = []
    for (true, read), count in evaluation.most_confused(_CONFUSED):
        share = count / counts[true] if true else None
        rows.append([shown(true), shown(read), count, share])
    note = f"The {len(rows)} most frequent of {len(evaluation.confusions):,} pairs. What stands for no character of "
    note += f"the other text is {_NOTHING}: left out, or read where nothing is."
    share_of = "of that character"
    table = Table("Most frequent confusions", ["true", "read as", "count", share_of], rows, note, (share_of,))
    names = sorted({one for pair in evaluation.confusions for one in pair if one} | set(counts))
    if len(names) >= MOST_IN_MATRIX:
        return [table]
    names.append("")
    place = {one: number for number, one in enumerate(names)}
    matrix = torch.zeros(len(names), len(names), dtype=torch.int64)
    for (true, read), count in evaluation.confusions.items():
        matrix[place[true], place[read]] += count
    for one, (_, right) in evaluation.characters.items():
        matrix[place[one], place[one]] = right
    return [confusion_matrix(matrix, [shown(one) for one in names]), table]


def errors_by_length(evaluation: Evaluation) -> Figure:
    """The share of texts with an error by how many characters they have."""
    counts: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for one, distance in zip(evaluation.compared, evaluation.distances.tolist(), strict=True):
        counts[len(one.truth)][0] += 1
        counts[len(one.truth)][1] += distance > 0

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        lengths = sorted(counts)
        axes.bar(lengths, [100 * counts[n][1] / counts[n][0] for n in lengths], 0.8, color=charts.ORANGE)
        axes.set(xlabel="characters of the text", ylabel="texts with an error, in %", ylim=(0, 100))

    caption = "A rise towards long texts is what errors of single characters add up to; one towards short texts, of "
    caption += "which each character counts more, is of crops that are stretched to the width of the input."
    return Figure("Errors by length", charts.svg(paint), caption)


def worst_texts(found: Any, split: Split, predictor: Any) -> Section:
    """The images with most errors, each over the probabilities along its width and the path of the text read."""
    title, items = "Worst texts", []
    for place in found.worst.places():
        try:
            image = split.read(place)
        except InputError:  # moved or lost since it was evaluated
            continue
        one = found.evaluation.compared[place]
        probabilities, labels = found.worst.found(place)
        drawn, _ = enlarge(to_pil(image).convert("RGB"), _WIDTH)
        drawn.thumbnail((_WIDTH, _WIDTH))
        if predictor.model.blank is not None:
            drawn = stack(drawn, draw_alignment(probabilities, labels, predictor.alphabet, predictor.model.blank))
        pairs = shorten(describe_pairs(align_texts(one.truth, one.text)), 60)
        caption = f"{shorten(one.truth, 40)}\nread: {shorten(one.text, 40) or _NOTHING}\n{pairs}"
        items.append(
            GalleryItem(to_tensor(drawn), f"{caption}\n{shorten(Path(split.name(place)).name, 40)}", wrong=True)
        )
    if not items:
        return Text(title, "None: every text was read rightly.")
    note = (
        "Under each image the probability of every character of the text and of the blank along its width, dark where "
        "it is high, and in orange the path that reads as the text. [a>b] is an a that was read as b. Look for wrong "
        "labels among them."
    )
    return Gallery(title, items, note, large=True)


def draw_alignment(probabilities: np.ndarray, labels: Sequence[int], alphabet: Alphabet, blank: int) -> Image.Image:
    """The heat map of a reading: a row for each of its characters and the blank, a column for each step.

    probabilities: (T, K). labels: those that were read, whatever of them was compared.
    """
    classes = [label + (label >= blank) for label in labels]
    path = align(np.log(np.maximum(probabilities, 1e-30)), classes, blank)
    rows = [*dict.fromkeys(classes), blank]
    names = [*(shown(alphabet.characters[n - (n > blank)]) for n in rows[:-1]), "blank"]

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        axes.imshow(probabilities[:, rows].T, aspect="auto", cmap="Greys", vmin=0, vmax=1)
        if path is not None:
            heights = [rows.index(blank if place == BLANK else classes[place]) for place in path]
            axes.plot(range(len(path)), heights, color=charts.ORANGE, linewidth=1)
        axes.set_yticks(range(len(rows)), names, size=8)
        axes.set(xlabel="step")
        axes.grid(False)

    return charts.image(paint, _WIDTH / 100, 0.9 + 0.16 * len(rows))


def shown(character: str) -> str:
    """A character as a table has it: one that cannot be seen by its code."""
    if not character:
        return _NOTHING
    if character == " ":
        return "space"
    return character if character.isprintable() else f"U+{ord(character):04X}"

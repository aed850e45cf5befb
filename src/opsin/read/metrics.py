"""How well texts are read: error rates of characters and words, words without an error, and what is taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from opsin.ops.sequence import edit_distances

_PAIRS = 50  # of the table of confusions in JSON
_MISTAKES = 100  # wrong texts in JSON
_ERROR = 1 << 20  # what an error costs in an alignment, where an equal pair gains 1


@dataclass(frozen=True)
class Protocol:
    """What of texts is compared, beside what a model's alphabet makes of them.

    ignore_case: upper and lower case are one. alphanumeric: of a text, letters a-z and A-Z and digits alone.
    """

    ignore_case: bool = False
    alphanumeric: bool = False

    def normalise(self, text: str) -> str:
        """A text as it is compared."""
        text = text.lower() if self.ignore_case else text
        return "".join(one for one in text if one.isascii() and one.isalnum()) if self.alphanumeric else text

    def describe(self, fold_case: bool = False, only: bool = False) -> str:
        """In words, with what a model's alphabet says."""
        case = "upper and lower case are one" if self.ignore_case or fold_case else "case counts"
        if self.alphanumeric:
            return f"{case}; letters and digits alone count"
        return f"{case}; {'what the alphabet lacks is left out' if only else 'every character counts'}"


@dataclass(frozen=True)
class Compared:
    """What was found of one image, texts as they are compared. loss: None where it has none.

    by_lexicon: the most probable word of the image's own lexicon; None where it has none.
    """

    truth: str
    text: str
    loss: float | None = None
    by_lexicon: str | None = None


@dataclass
class Evaluation:
    """What was found of a split. confusions: (true character, the one read) -> how often; "" for none.

    characters: of each true one how often it occurs, and how often it was read. distances: (N,) of each text.
    """

    metrics: dict[str, float]
    compared: Sequence[Compared]
    distances: np.ndarray
    confusions: Counter[tuple[str, str]] = field(default_factory=Counter)
    characters: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def worst(self, limit: int) -> list[int]:
        """The places of the texts with most errors for their length, those first; none that was read rightly."""
        shares = self.distances / np.maximum([len(one.truth) for one in self.compared], 1)
        order = np.lexsort((np.arange(len(shares)), -self.distances, -shares))
        return [int(place) for place in order[:limit] if self.distances[place]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: characters, confusions, and the worst texts by their place in the split."""
        found = [
            {"truth": self.compared[place].truth, "text": self.compared[place].text, "place": place}
            for place in self.worst(_MISTAKES)
        ]
        return {
            "characters": {
                one: {"count": count, "recall": right / count} for one, (count, right) in self.characters.items()
            },
            "confusions": [
                {"true": true, "read": read, "count": count} for (true, read), count in self.most_confused(_PAIRS)
            ],
            "mistakes": found,
        }

    def most_confused(self, limit: int) -> list[tuple[tuple[str, str], int]]:
        """The most frequent errors, the more frequent first."""
        return sorted(self.confusions.items(), key=lambda one: (-one[1], one[0]))[:limit]


def evaluate(compared: Sequence[Compared]) -> Evaluation:
    """Every metric of some texts, and what was taken for what."""
    truths, texts = [one.truth for one in compared], [one.text for one in compared]
    metrics = measure_texts(truths, texts)
    with_lexicon = [one for one in compared if one.by_lexicon is not None]
    if with_lexicon:
        right = sum(one.by_lexicon == one.truth for one in with_lexicon)
        metrics["word_accuracy_lexicon"] = right / len(with_lexicon)
    if (loss := mean_loss(compared)) is not None:
        metrics["loss"] = loss
    distances = edit_distances(truths, texts).numpy()
    confusions, counts, right = Counter[tuple[str, str]](), Counter[str](), Counter[str]()
    for truth, text in zip(truths, texts, strict=True):
        counts.update(truth)
        if truth == text:
            right.update(truth)
            continue
        for true, read in align_texts(truth, text):
            if true == read:
                right[true] += 1
            else:
                confusions[true, read] += 1
    characters = {one: (counts[one], right[one]) for one in sorted(counts)}
    return Evaluation(metrics, compared, distances, confusions, characters)


def mean_loss(compared: Sequence[Compared]) -> float | None:
    """The mean of the losses that there are; None of none."""
    losses = [one.loss for one in compared if one.loss is not None]
    return sum(losses) / len(losses) if losses else None


def measure_texts(truths: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    """word_accuracy, cer, wer, cer_without_spaces and edit_similarity of texts.

    word_accuracy: the share of texts without an error. cer: insertions, deletions and substitutions of characters over
    all true characters; wer likewise of words, parted at white space. cer_without_spaces, where there are spaces: of
    texts without them. edit_similarity: the mean of 1 - distance / the longer length, 1 of two empty texts. A rate that
    has nothing true to divide by is absent.
    """
    if not truths:
        return {}
    found = {"word_accuracy": sum(a == b for a, b in zip(truths, texts, strict=True)) / len(truths)}
    distances = edit_distances(truths, texts).numpy()
    found |= _rate("cer", truths, distances)
    if any(" " in one for one in truths):
        bare, read = ["".join(one.split()) for one in truths], ["".join(one.split()) for one in texts]
        found |= _rate("cer_without_spaces", bare, edit_distances(bare, read).numpy())
    words, read_words = [one.split() for one in truths], [one.split() for one in texts]
    found |= _rate("wer", words, edit_distances(words, read_words).numpy())
    longest = np.array([max(len(a), len(b), 1) for a, b in zip(truths, texts, strict=True)])
    return {**found, "edit_similarity": float((1 - distances / longest).mean())}


def _rate(name: str, truths: Sequence[Sequence[Any]], distances: np.ndarray) -> dict[str, float]:
    length = sum(map(len, truths))
    return {name: float(distances.sum()) / length} if length else {}


def align_texts(truth: str, text: str) -> list[tuple[str, str]]:
    """Pairs of a true character and the one read in its place, "" for none, with the least number of differences.

    Of several such alignments one with the most equal characters, so that what moved along is no error.
    """
    costs = [[_ERROR * (i + j) if not i or not j else 0 for j in range(len(text) + 1)] for i in range(len(truth) + 1)]
    for i, one in enumerate(truth, 1):
        for j, other in enumerate(text, 1):
            paired = costs[i - 1][j - 1] + (-1 if one == other else _ERROR)
            costs[i][j] = min(paired, costs[i - 1][j] + _ERROR, costs[i][j - 1] + _ERROR)
    pairs, i, j = [], len(truth), len(text)
    while i or j:
        if i and j and costs[i][j] == costs[i - 1][j - 1] + (-1 if truth[i - 1] == text[j - 1] else _ERROR):
            i, j = i - 1, j - 1
            pairs.append((truth[i], text[j]))
        elif i and costs[i][j] == costs[i - 1][j] + _ERROR:
            i -= 1
            pairs.append((truth[i], ""))
        else:
            j -= 1
            pairs.append(("", text[j]))
    return pairs[::-1]


def describe_pairs(pairs: Sequence[tuple[str, str]]) -> str:
    """An alignment as text: what was read rightly as it is, else [true>read]."""
    return "".join(true if true == read else f"[{true}>{read}]" for true, read in pairs)

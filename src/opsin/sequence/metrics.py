"""How well sequences are answered: exact texts, symbols, BLEU, error rates, perplexity, squared errors."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from opsin.ops.sequence import edit_distances
from opsin.sequence.bleu import corpus_bleu
from opsin.sequence.truth import WRITTEN


@dataclass(frozen=True)
class Compared:
    """What was found of one example.

    length: symbols or steps that were read. loss: the sum over its symbols, with the natural logarithm, or of squared
    errors. count: symbols, or numbers. right: of the symbols those that were the most probable, the true ones before
    them given. exact: whether all of the answer is right. truth, text: of texts; "" of others. absolute: sum of
    absolute errors of numbers.
    """

    length: int
    loss: float
    count: int
    right: int
    exact: bool
    truth: str = ""
    text: str = ""
    absolute: float = 0.0


def measure(form: str, found: Sequence[Compared], *, whole: bool = True) -> dict[str, float]:
    """The metrics of a form of sequences. whole: those too that take long, BLEU and error rates."""
    if not found:
        return {}
    count = sum(one.count for one in found)
    loss = math.fsum(one.loss for one in found) / max(count, 1)
    if form == "values":
        absolute = math.fsum(one.absolute for one in found) / max(count, 1)
        return {"mse": loss, "mae": absolute, "loss": loss}
    share = sum(one.right for one in found) / max(count, 1)
    exact = sum(one.exact for one in found) / len(found)
    if form == "classes":
        return {"accuracy": exact, "loss": loss}
    # exp(700) is near the largest number there is
    metrics = {"token_accuracy": share, "perplexity": math.exp(min(loss, 700.0)), "loss": loss}
    if form != "language":
        metrics = {"exact_match": exact, **metrics}
    if form == "labels":
        del metrics["perplexity"]
    if form in WRITTEN and whole:
        texts, truths = [one.text for one in found], [one.truth for one in found]
        metrics |= {"bleu": corpus_bleu(texts, truths) / 100}
        metrics |= error_rate("cer", texts, truths, list) | error_rate("wer", texts, truths, str.split)
    return metrics


def error_rate(
    name: str, texts: Sequence[str], truths: Sequence[str], split: Callable[[str], list[str]]
) -> dict[str, float]:
    """Insertions, deletions and substitutions over the true symbols, all texts together; none where there are none.

    As jiwer has it for words, parted at white space.
    """
    found, wanted = [split(text) for text in texts], [split(text) for text in truths]
    count = sum(map(len, wanted))
    return {name: int(edit_distances(found, wanted).sum()) / count} if count else {}


def by_length(found: Sequence[Compared], most: int = 12) -> list[tuple[int, int, int, float]]:
    """Of groups of lengths (shortest, longest, examples, share that is exact), of at most so many groups."""
    lengths = sorted({one.length for one in found})
    bounds = np.array_split(np.array(lengths), min(most, len(lengths))) if lengths else []
    place = {int(length): k for k, part in enumerate(bounds) for length in part}
    groups: dict[int, list[bool]] = defaultdict(list)
    for one in found:
        groups[place[one.length]].append(one.exact)
    return [
        (int(bounds[k][0]), int(bounds[k][-1]), len(groups[k]), sum(groups[k]) / len(groups[k])) for k in sorted(groups)
    ]

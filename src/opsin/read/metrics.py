"""How well texts are read: character and word error rates, and the share of texts without an error."""

from __future__ import annotations

from collections.abc import Sequence

from opsin.ops.sequence import edit_distances


def measure_texts(truths: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    """word_accuracy, the share of texts without an error; cer and wer, over all texts together.

    cer: insertions, deletions and substitutions of characters per true character; wer likewise of words, parted at
    white space. A rate without anything true to divide by is absent.
    """
    found: dict[str, float] = {}
    if truths:
        right = sum(a == b for a, b in zip(truths, texts, strict=True))
        found["word_accuracy"] = right / len(truths)
    for name, first, second in (
        ("cer", truths, texts),
        ("wer", [one.split() for one in truths], [one.split() for one in texts]),
    ):
        length = sum(map(len, first))
        if length:
            found[name] = float(edit_distances(first, second).sum()) / length
    return found

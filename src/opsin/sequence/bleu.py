"""BLEU: A Method for Automatic Evaluation of Machine Translation (Papineni et al. 2002), as sacreBLEU computes it.

Post 2018, arXiv:1804.08771, says why one tokenisation must be everybody's: here it is that of mteval-v13a, with
exponential smoothing (Chen and Cherry 2014, method 3), the defaults of sacreBLEU.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

ORDERS = 4
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_APART = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),  # punctuation and signs of ASCII, but . , - '
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),  # a point or comma that does not stand after a digit
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),  # nor before one
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),  # a dash after a digit
)


def tokenize_13a(text: str) -> list[str]:
    """The tokens of a text by the rules of NIST's mteval-v13a.

    >>> tokenize_13a("It costs $1,000.50, at most.")
    ['It', 'costs', '$', '1,000.50', ',', 'at', 'most', '.']
    """
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in _ENTITIES:
        text = text.replace(entity, sign)
    text = f" {text} "
    for pattern, apart in _APART:
        text = pattern.sub(apart, text)
    return text.split()


def corpus_bleu(written: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of texts, each against one reference, in percent: 0 to 100.

    The geometric mean of the precisions of 1 to 4 tokens in a row, each counted over all texts, times the penalty for
    what is shorter than the references. Raises ValueError for unequal numbers of texts.
    """
    right, total = [0] * ORDERS, [0] * ORDERS
    lengths = [0, 0]
    for text, reference in zip(written, references, strict=True):
        tokens, wanted = tokenize_13a(text), tokenize_13a(reference)
        lengths = [lengths[0] + len(tokens), lengths[1] + len(wanted)]
        for n in range(ORDERS):
            found, known = _in_a_row(tokens, n + 1), _in_a_row(wanted, n + 1)
            right[n] += (found & known).total()
            total[n] += found.total()
    if not right[0] or not total[-1]:
        return 0.0
    precisions, smooth = [], 1.0
    for hits, count in zip(right, total, strict=True):
        if not hits:
            smooth *= 2
        precisions.append(hits / count if hits else 1 / (smooth * count))
    penalty = math.exp(1 - lengths[1] / lengths[0]) if lengths[0] < lengths[1] else 1.0
    return 100 * penalty * math.exp(sum(math.log(one) for one in precisions) / ORDERS)


def _in_a_row(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[k : k + n]) for k in range(len(tokens) - n + 1))

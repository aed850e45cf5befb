"""Which texts a recognizer cannot learn: too long for its steps, or with characters that its alphabet lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from opsin.data import Split
from opsin.data.texts import Texts
from opsin.read.alphabet import Alphabet
from opsin.read.recognizer import Recognizer, Size

_NAMED = 5  # examples or characters that a line names before it counts


@dataclass(frozen=True)
class Misfits:
    """fitting: (N,) places of texts that can be learned. too_long: of others (place, steps needed). steps: there are.

    unknown: how many texts have each character that the alphabet lacks. with_unknown: places of these texts.
    """

    fitting: np.ndarray
    too_long: Sequence[tuple[int, int]]
    with_unknown: Sequence[int]
    unknown: Counter[str]
    steps: int


def steps_needed(labels: Sequence[int], blank: bool) -> int:
    """The least steps for a text: one a label, and with a blank another between two equal labels."""
    return len(labels) + (sum(a == b for a, b in pairwise(labels)) if blank else 0)


def find_misfits(truth: Texts, alphabet: Alphabet, model: Recognizer, size: Size) -> Misfits:
    """What of a split's texts cannot be learned from inputs of (height, width)."""
    steps, blank = model.steps(size), model.blank is not None
    fitting, too_long, with_unknown, unknown = [], [], [], Counter[str]()
    for place in range(len(truth)):
        text = truth.texts[place]
        labels = alphabet.encode(text)
        needed = steps_needed(labels, blank)
        if -1 in labels:
            unknown.update(alphabet.unknown(text))
            with_unknown.append(place)
        elif needed > steps:
            too_long.append((place, needed))
        else:
            fitting.append(place)
    return Misfits(np.array(fitting, np.int64), too_long, with_unknown, unknown, steps)


def describe_misfits(found: Misfits, split: Split) -> list[str]:
    """What is left out of the training, a line for each reason."""
    lines = []
    if found.with_unknown:
        shown = ", ".join(f"{one!r} in {count:,}" for one, count in found.unknown.most_common(_NAMED))
        more = f" and {len(found.unknown) - _NAMED} more" if len(found.unknown) > _NAMED else ""
        lines.append(
            f"{len(found.with_unknown):,} of {len(split):,} training texts have characters that the alphabet lacks and "
            f"are left out: {shown}{more}; read.alphabet=data takes all"
        )
    if found.too_long:
        shown = ", ".join(f"{split.name(place)} ({needed})" for place, needed in found.too_long[:_NAMED])
        more = f" and {len(found.too_long) - _NAMED} more" if len(found.too_long) > _NAMED else ""
        lines.append(
            f"{len(found.too_long):,} of {len(split):,} training texts need more than the network's {found.steps} "
            f"steps and are left out: {shown}{more}; widen data.size"
        )
    return lines

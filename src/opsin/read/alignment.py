"""Which steps of a network's outputs belong to which character, and how probable words are by all their alignments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opsin.losses.sequence import ctc_loss
from opsin.read.fit import steps_needed
from opsin.read.recognizer import Reading

Array: TypeAlias = NDArray[Any]
BLANK = -1  # in the place of a character's, of a step that belongs to none
_WORDS = 512  # words scored at a time


def align(log_probs: Array, classes: Sequence[int], blank: int) -> Array | None:
    """The most probable path that reads as `classes`: of each step the place of its class among them, BLANK for none.

    log_probs: (T, K). Viterbi over the classes with blanks between, Graves et al. 2006, section 4.1, with a maximum in
    the place of the sum. (T,) int64; None where the text needs more steps than there are.
    """
    steps, count = len(log_probs), 2 * len(classes) + 1
    states = np.full(count, blank)
    states[1::2] = classes
    emitted = log_probs[:, states].astype(np.float64)
    skips = np.zeros(count, bool)  # whether a state may follow the one two before: another character
    skips[3::2] = states[3::2] != states[1:-2:2]
    score = np.full(count, -np.inf)
    score[:2] = emitted[0, :2]
    back = np.zeros((steps, count), np.int64)
    for t in range(1, steps):
        ways = np.full((3, count), -np.inf)
        ways[0], ways[1, 1:] = score, score[:-1]
        ways[2, 2:] = np.where(skips[2:], score[:-2], -np.inf)
        back[t] = ways.argmax(axis=0)
        score = ways.max(axis=0) + emitted[t]
    state = count - 1 if count == 1 or score[-1] >= score[-2] else count - 2
    if steps == 0 or score[state] == -np.inf:
        return None
    path = np.zeros(steps, np.int64)
    for t in range(steps - 1, -1, -1):
        path[t] = state
        state -= back[t, state]
    return np.where(path % 2 == 1, path // 2, BLANK)


def read_along(probabilities: Array, labels: Sequence[int], blank: int) -> Reading | None:
    """Labels of characters as a Reading: where each is most probable along the best path that reads as they do.

    probabilities: (T, K). None where they need more steps than there are.
    """
    classes = [label + (label >= blank) for label in labels]
    with np.errstate(divide="ignore"):
        path = align(np.log(probabilities), classes, blank)
    if path is None:
        return None
    scores, steps = [], []
    for place, number in enumerate(classes):
        own = np.flatnonzero(path == place)
        best = int(own[probabilities[own, number].argmax()])
        scores.append(float(probabilities[best, number]))
        steps.append(best)
    return Reading(list(labels), scores, steps)


def score_words(log_probs: Tensor, words: Sequence[Sequence[int]], blank: int) -> Tensor:
    """log p of each word by all its alignments, -inf of one with too few steps: (N,) float64 on the CPU.

    log_probs: (T, K). words: labels of characters, counted without the blank. It is minus the CTC loss.
    """
    found = torch.full((len(words),), -torch.inf, dtype=torch.float64)
    steps = len(log_probs)
    fitting = [place for place, word in enumerate(words) if steps_needed(word, blank=True) <= steps]
    values = log_probs.detach().cpu().double()[:, None]
    for start in range(0, len(fitting), _WORDS):
        part = fitting[start : start + _WORDS]
        longest = max(len(words[place]) for place in part)
        targets = torch.full((len(part), longest), -1, dtype=torch.int64)
        for row, place in zip(targets, part, strict=True):
            row[: len(words[place])] = torch.tensor([n + (n >= blank) for n in words[place]], dtype=torch.int64)
        lengths = torch.tensor([len(words[place]) for place in part])
        terms = ctc_loss(values.expand(-1, len(part), -1), targets, lengths, blank=blank, reduction="none")
        found[part] = -terms
    return found

"""Greedy reading: the most probable class at every step, and what characters these classes are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from torch import Tensor

from opsin.errors import InputError
from opsin.read.recognizer import Reading


def read_best_paths(probabilities: Tensor, blank: int) -> list[Reading]:
    """(B, T, K) -> the text of the most probable path of each, with labels of characters counted without the blank.

    A step is the one, of those that name a character, where it is most probable.
    """
    if probabilities.ndim != 3:
        raise InputError(f"probabilities are (B, T, K), got {tuple(probabilities.shape)}")
    values, path = (x.cpu().numpy() for x in probabilities.detach().max(dim=2))
    readings = []
    for row, scores in zip(path, values, strict=True):
        labels, best, places = [], [], []
        edges = [0, *(np.flatnonzero(row[1:] != row[:-1]) + 1).tolist(), len(row)]
        for start, end in pairwise(edges):
            if end > start and (label := int(row[start])) != blank:
                at = start + int(scores[start:end].argmax())
                labels.append(label - (label > blank))
                best.append(float(scores[at]))
                places.append(at)
        readings.append(Reading(labels, best, places))
    return readings


def read_until_end(probabilities: Tensor, end: int, first: int) -> list[Reading]:
    """(B, T, K) of steps that were written one after another -> the characters before the first end of each.

    first: the class of the first character; those below, such as a start, say nothing and are left out. Steps are
    counted from 0: the place of a character in its text.
    """
    values, classes = (x.cpu().tolist() for x in probabilities.detach().max(dim=2))
    readings = []
    for scores, row in zip(values, classes, strict=True):
        length = row.index(end) if end in row else len(row)
        kept = [k for k in range(length) if row[k] >= first]
        readings.append(Reading([row[k] - first for k in kept], [scores[k] for k in kept], kept))
    return readings

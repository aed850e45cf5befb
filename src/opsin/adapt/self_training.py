"""Gradual self-training: over domains between, a network is taught by its own answers, one domain after the other.

Kumar, Ma and Liang 2020, "Understanding self-training for gradual domain adaptation", arXiv:2002.11361.
"""

from __future__ import annotations

import numpy as np

from opsin.adapt.method import Method
from opsin.errors import InputError


def confident_answers(probabilities: np.ndarray, dropped: float) -> np.ndarray:
    """The answer of each row, (N,) int64; -1 for the share `dropped` of them that are the least sure.

    Sure is the largest probability; Kumar et al. 2020, section 3, whose share is 0.1. probabilities: (N, K).
    """
    answers, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    count = int(dropped * len(answers))
    answers = answers.astype(np.int64)
    answers[np.argsort(sure, kind="stable")[:count]] = -1
    return answers


class SelfTraining(Method):
    """The network goes on with its own answers as labels: on each bridge in order, then on the target.

    dropped: the share of the images with the least sure answers that is left out. Without bridges it is one step. With
    any other method a step adapts from the domain before, labelled by the network, to the next.
    """

    family = "parameters"
    mixes = False
    continues = True

    def __init__(self, features: int, num_classes: int, num_sources: int, *, dropped: float = 0.1) -> None:
        super().__init__(features, num_classes, num_sources)
        if not 0 <= dropped < 1:
            raise InputError(f"dropped is {dropped}; expected a share of the images, from 0 to below 1")
        self.dropped = dropped

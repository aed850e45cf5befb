"""Recognizers that are trained by connectionist temporal classification: their blank, loss and greedy reading.

Graves et al. 2006, doi:10.1145/1143844.1143891. At each step along the image the network gives a score to every
character and to a blank, which means "nothing new here". A path names one of them a step; what it reads is the path
without repetitions and then without blanks, and the loss is -log of what all paths that read as the text have together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import unknown
from opsin.losses.sequence import ctc_loss
from opsin.losses.terms import full_precision
from opsin.nn.capabilities import ClassRows
from opsin.read.greedy import read_best_paths
from opsin.read.recognizer import Outputs, Reading, Recognizer

BlankPlace: TypeAlias = Literal["first", "last"]
PLACES = ("first", "last")


class CTCRecognizer(Recognizer):
    """A recognizer whose outputs are {"logits": (B, T, K)}, K - 1 characters and a blank.

    blank: where it stands among the K, "first" as in torch and most ports, or "last" as in TensorFlow's outputs. A
    subclass names in `class_layers` the linear layers that make logits.
    """

    specials = 1

    def __init__(self, num_classes: int, in_channels: int, blank: BlankPlace) -> None:
        super().__init__(check_count("num_classes", num_classes, least=2), in_channels)
        if blank not in PLACES:
            raise unknown("blank", blank, PLACES)
        self.blank_place = blank
        self.blank = self._place

    @property
    def _place(self) -> int:
        return 0 if self.blank_place == "first" else self.num_classes - 1

    def loss_of_each(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
        """-log p(text) in nats (CRNN's eq. 11); 0 of a text that cannot fit."""
        labels = targets["labels"]
        classes = torch.where(labels < 0, labels, labels + (1 if self.blank_place == "first" else 0))
        lengths = targets["lengths"]
        logits = outputs["logits"].transpose(0, 1)
        return ctc_loss(logits, classes, lengths, blank=self._place, zero_infinity=True, reduction="none")

    def probabilities(self, outputs: Outputs) -> Tensor:
        return full_precision(outputs["logits"]).softmax(dim=2)

    def read(self, outputs: Outputs) -> tuple[list[Reading], Tensor]:
        """The best path of each. A character's score is its highest probability along the steps that name it."""
        probabilities = self.probabilities(outputs)
        return read_best_paths(probabilities, self._place), probabilities

    def reset_head(self, num_classes: int) -> None:
        self.num_classes = check_count("num_classes", num_classes, least=2)
        self.blank = self._place
        for name in self.class_layers:
            old = self.get_submodule(name)
            assert isinstance(old, nn.Linear)
            fresh = nn.Linear(old.in_features, num_classes)
            self.set_submodule(name, fresh.to(old.weight.device, old.weight.dtype))

    def class_rows(self) -> dict[str, ClassRows]:
        """Weights and biases of the layers that make logits: a row for each character, and the blank's."""
        layout = ClassRows(before=1) if self.blank_place == "first" else ClassRows(after=1)
        return {f"{name}.{key}": layout for name in self.class_layers for key in ("weight", "bias")}

    def learned_parts(self) -> list[nn.Module]:
        """What an earlier training can have taught: all but the layers that make logits."""
        heads = {name.partition(".")[0] for name in self.class_layers}
        return [module for name, module in self.named_children() if name not in heads]

    def saved_state(self) -> dict[str, str]:
        """Where the blank is: the same numbers read otherwise are nonsense."""
        return {"blank": self.blank_place}

    def restore_state(self, values: Mapping[str, str]) -> None:
        """Raises ValueError for weights of a network whose blank is elsewhere."""
        place = values.get("blank", self.blank_place)
        if place != self.blank_place:
            raise ValueError(f"the blank of these weights is {place}; build the network with blank={place!r}")

"""Networks that read one sequence and answer about it: its class, a label for each step, or numbers.

A sequence is tokens, or rows of numbers such as a series or the rows of an image. What reads it, `trunk`, is any kind
of cells, in both directions as Graves and Schmidhuber 2005 have them, or a Transformer's encoder; see
`opsin.sequence.trunk`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.losses.classification import softmax_cross_entropy
from opsin.losses.terms import full_precision
from opsin.registry import register
from opsin.sequence.encoder_decoder import Outputs
from opsin.sequence.tokens import SPECIALS
from opsin.sequence.trunk import TrunkKind, create_trunk


class SequenceReader(nn.Module):
    """A trunk, and a linear layer on what it gives: the part that the networks of this file share.

    vocabulary: of tokens (B, L), the specials among them; None takes rows (B, L, in_channels). trunk: a kind of cells,
    or "transformer". outputs: of the linear layer. The other options are those of `create_trunk`.
    """

    def __init__(
        self,
        outputs: int,
        *,
        vocabulary: int | None = None,
        in_channels: int = 1,
        trunk: TrunkKind = "lstm",
        hidden: int = 128,
        layers: int = 1,
        embedding: int | None = None,
        heads: int = 4,
        dropout: float = 0.0,
        bidirectional: bool = False,
        forget_bias: float | None = None,
        max_positions: int = 5000,
    ) -> None:
        super().__init__()
        self.trunk = create_trunk(
            trunk, vocabulary=vocabulary, in_channels=in_channels, hidden=hidden, layers=layers, embedding=embedding,
            heads=heads, dropout=dropout, bidirectional=bidirectional, causal=False, forget_bias=forget_bias,
            max_positions=max_positions,
        )  # fmt: skip
        self.max_positions = self.trunk.max_positions
        self.predict = nn.Linear(self.trunk.out_channels, outputs)

    def example(self, batch: int, size: Any = None) -> Tensor:
        """Eight steps each: tokens that are not special, or noise."""
        steps = self.trunk.steps
        if steps.vocabulary is not None:
            return torch.arange(8).remainder(steps.vocabulary - SPECIALS).add(SPECIALS).expand(batch, -1)
        return torch.randn(batch, 8, steps.in_channels, generator=torch.Generator().manual_seed(0))

    def learned_parts(self) -> list[nn.Module]:
        """What an earlier training can have taught."""
        return [self.trunk]

    def _summary(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.predict(self.trunk.summary(x, self.trunk.steps.seen(x, lengths)))


class SequenceClassifier(SequenceReader):
    """Tokens (B, L), or rows (B, L, in_channels) with their lengths (B,) -> {"logits": (B, num_classes)}."""

    answers_with = "class"

    def __init__(self, *, num_classes: int = 10, **options: Any) -> None:
        super().__init__(check_count("num_classes", num_classes), **options)
        self.num_classes = num_classes

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Outputs:
        return {"logits": self._summary(x, lengths)}

    def loss(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy. targets: label (B,) int64."""
        return {"loss": softmax_cross_entropy(outputs["logits"], targets["label"].to(outputs["logits"].device))}

    def loss_of_each(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
        """(B,)."""
        labels = targets["label"].to(outputs["logits"].device)
        return softmax_cross_entropy(outputs["logits"], labels, reduction="none")


class SequenceLabeller(SequenceReader):
    """Tokens (B, L), or rows (B, L, in_channels) with their lengths (B,) -> {"logits": (B, L, num_classes)}."""

    answers_with = "labels"

    def __init__(self, *, num_classes: int = 10, bidirectional: bool = True, **options: Any) -> None:
        super().__init__(check_count("num_classes", num_classes), bidirectional=bidirectional, **options)
        self.num_classes = num_classes

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Outputs:
        return {"logits": self.predict(self.trunk(x, self.trunk.steps.seen(x, lengths)))}

    def loss(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy of each step, the mean of all. targets: labels (B, L) int64, -1 behind the end."""
        return {"loss": softmax_cross_entropy(outputs["logits"], targets["labels"].to(outputs["logits"].device))}

    def loss_of_each(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
        """(B,): the mean over the steps of each."""
        labels = targets["labels"].to(outputs["logits"].device)
        terms = softmax_cross_entropy(outputs["logits"], labels, reduction="none")
        return terms.sum(dim=1) / (labels != -1).sum(dim=1).clamp(min=1)


class SequenceRegressor(SequenceReader):
    """Tokens (B, L), or rows (B, L, in_channels) with their lengths (B,) -> {"values": (B, out_channels)}."""

    answers_with = "values"

    def __init__(self, *, out_channels: int = 1, **options: Any) -> None:
        super().__init__(check_count("out_channels", out_channels), **options)
        self.out_channels = out_channels

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Outputs:
        return {"values": self._summary(x, lengths)}

    def loss(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error. targets: values (B, out_channels)."""
        return {"loss": self.loss_of_each(outputs, targets).mean()}

    def loss_of_each(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
        """(B,): the mean over the numbers of each."""
        values = full_precision(outputs["values"])
        return F.mse_loss(values, targets["values"].to(values), reduction="none").mean(dim=1)


@register("sequence_classifier", task="sequence", network=SequenceClassifier)
def sequence_classifier(**options: Any) -> SequenceClassifier:
    return SequenceClassifier(**options)


@register("sequence_labeller", task="sequence", network=SequenceLabeller)
def sequence_labeller(**options: Any) -> SequenceLabeller:
    return SequenceLabeller(**options)


@register("sequence_regressor", task="sequence", network=SequenceRegressor)
def sequence_regressor(**options: Any) -> SequenceRegressor:
    return SequenceRegressor(**options)

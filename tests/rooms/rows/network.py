"""A linear regression."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opsin.registry import register


class Line(nn.Module):
    """(B, width) -> (B,)."""

    def __init__(self, *, width: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)

    def forward(self, rows: Tensor) -> Tensor:
        return self.linear(rows)[:, 0]

    def loss(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Mean squared error."""
        return {"mse": F.mse_loss(outputs, targets)}


class Counted(Line):
    """The same, with an example of its input, by which its report counts its multiply-adds."""

    def example(self, batch: int, size: Sequence[int] | None = None) -> Tensor:
        """Rows of zeros."""
        return torch.zeros(batch, self.linear.in_features)


register("line", task="rows")(Line)
register("counted_line", task="rows")(Counted)

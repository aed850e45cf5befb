"""What a loss of the user's own may give: one number, or several by name, that the logits have a part in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opsin.errors import InputError
from opsin.losses.own_loss import check_loss


class Gives(nn.Module):
    def __init__(self, terms: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.terms = terms

    def forward(self, logits: Tensor, targets: Tensor) -> Any:
        return self.terms(logits)


def check(terms: Callable[[Tensor], Any]) -> None:
    check_loss(Gives(terms), torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(
    "terms",
    [
        lambda x: x.sum(),
        lambda x: {"loss": x.sum()},
        lambda x: {"near": x.sum(), "far": x.mean()},
        lambda x: {"near": x.sum(), "fixed": torch.ones(())},  # one term that learns is enough
    ],
)
def test_what_a_loss_may_give(terms: Callable[[Tensor], Any]) -> None:
    check(terms)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (lambda x: {}, "gives the terms none"),
        (lambda x: {"loss": x.sum(), "far": x.mean()}, "gives the terms loss, far; name them, none 'loss'"),
        (lambda x: {"near": x.sum(), "far": x}, r"the far of Gives is \(2, 3\)"),
        (lambda x: {"near": x.sum(), "far": 1.0}, "the far of Gives is float"),
        (lambda x: x.sum().view(1), r"the loss of Gives is \(1,\)"),
        (lambda x: {"near": torch.ones(()), "far": torch.ones(())}, "no gradient"),
    ],
)
def test_what_it_may_not(terms: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(terms)

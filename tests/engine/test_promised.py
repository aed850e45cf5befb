"""A network that its file promises may be a little larger than the tensors in it, not much."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from opsin.engine.promised import check_promise
from opsin.errors import InputError


def build(size: int) -> nn.Module:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(size))
    return module


def test_a_tensor_may_have_twice_its_values_and_a_thousand() -> None:
    state = {"weight": torch.zeros(10)}
    check_promise(lambda: build(1020), state, "net")
    with pytest.raises(InputError, match=r"weight of net is \(1021,\) by the file's options and \(10,\) in the file"):
        check_promise(lambda: build(1021), state, "net")

"""For the tests of the room `scratch`: random arrays, and torch's values and gradients to hold its own against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

Witness = Callable[..., tuple[np.ndarray, list[np.ndarray]]]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def by_torch() -> Witness:
    """(function, dy, *arrays) -> torch's y and the gradient of sum(dy * y) for each array, in float64."""

    def run(
        function: Callable[..., Tensor], dy: np.ndarray | float, *arrays: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        tensors = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]
        y = function(*tensors)
        (y * torch.as_tensor(dy)).sum().backward()
        gradients = [np.zeros(t.shape) if t.grad is None else t.grad.numpy() for t in tensors]
        return y.detach().numpy(), gradients

    return run

"""Activations by name: the published formulas, the degenerate cases, and the errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from opsin.errors import InputError
from opsin.nn.activation import create_activation, list_activations, works_inplace

X = torch.linspace(-6, 6, 49, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


FORMULAS: dict[str, Callable[[float], float]] = {
    "sigmoid": sigmoid,
    "tanh": lambda x: (math.exp(x) - math.exp(-x)) / (math.exp(x) + math.exp(-x)),
    "relu": lambda x: max(0.0, x),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "prelu": lambda x: x if x > 0 else 0.25 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "relu6": lambda x: min(max(0.0, x), 6.0),
    "silu": lambda x: x * sigmoid(x),
    "swish": lambda x: x * sigmoid(x),
    "hard_sigmoid": lambda x: min(max(0.0, x + 3), 6.0) / 6,
    "hard_swish": lambda x: x * min(max(0.0, x + 3), 6.0) / 6,
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
}


def test_every_name_has_a_formula() -> None:
    assert set(list_activations()) == {*FORMULAS, "softmax"}


@pytest.mark.parametrize("name", FORMULAS)
def test_equals_its_formula(name: str) -> None:
    expected = torch.tensor([FORMULAS[name](x) for x in X.tolist()], dtype=torch.float64)
    torch.testing.assert_close(create_activation(name).double()(X), expected)
    x = (X + 0.01).requires_grad_()  # off the kinks
    assert torch.autograd.gradcheck(create_activation(name).double(), x)


@pytest.mark.parametrize("learned", [False, True])
def test_swish_of_any_beta(learned: bool) -> None:
    layer = create_activation("swish", beta=2.5, learned=learned).double()
    expected = torch.tensor([x * sigmoid(2.5 * x) for x in X.tolist()], dtype=torch.float64)
    torch.testing.assert_close(layer(X), expected)
    assert [tuple(p.shape) for p in layer.parameters()] == [()] * learned
    layer(X).sum().backward() if learned else None
    for parameter in layer.parameters():  # d/dbeta of x s(beta x) is x^2 s (1 - s)
        slopes = [x * x * sigmoid(2.5 * x) * (1 - sigmoid(2.5 * x)) for x in X.tolist()]
        assert parameter.grad is not None and float(parameter.grad) == pytest.approx(sum(slopes))
    assert isinstance(create_activation("swish"), torch.nn.SiLU)
    torch.testing.assert_close(create_activation("swish", beta=0)(X.float()), X.float() / 2)
    with pytest.raises(InputError, match="swish cannot be built"):
        create_activation("swish", beta="large")


def test_softmax_is_over_channels() -> None:
    x = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(create_activation("softmax")(x).sum(dim=1), torch.ones(2, 3, 4))
    torch.testing.assert_close(create_activation("softmax", dim=-1)(x), x.softmax(dim=-1))


@pytest.mark.parametrize("name", [name for name in FORMULAS if works_inplace(name)])
def test_in_place(name: str) -> None:
    x = X.clone()
    assert create_activation(name, inplace=True)(x) is x
    torch.testing.assert_close(x, create_activation(name)(X))


def test_errors_name_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown activation 'leakyrelu'; did you mean leaky_relu"):
        create_activation("leakyrelu")
    with pytest.raises(
        InputError, match=r"unknown option of activation leaky_relu 'slope'; did you mean negative_slop"
    ):
        create_activation("leaky_relu", slope=0.1)
    assert create_activation("leaky_relu", negative_slope=0.1).negative_slope == 0.1

"""Update rules written out: every step equals that of torch's optimizers, or of what is built around them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import optim

from opsin.scratch.adam import adam, adamw, radam
from opsin.scratch.adaptive_rates import adadelta, adagrad, rmsprop
from opsin.scratch.ranger import centralise, centralised, lookahead, ranger
from opsin.scratch.sgd import momentum, nesterov, sgd

Rng = np.random.Generator
assert_close = partial(assert_allclose, rtol=1e-11, atol=1e-13)

# rule, torch's optimizer, its settings that are not its defaults
RULES: list[tuple[Callable[..., np.ndarray], type[optim.Optimizer], dict[str, Any]]] = [
    (sgd, optim.SGD, {}),
    (momentum, optim.SGD, {"momentum": 0.9}),
    (nesterov, optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (adagrad, optim.Adagrad, {}),
    (rmsprop, optim.RMSprop, {}),
    (adadelta, optim.Adadelta, {}),
    (adam, optim.Adam, {}),
    (adamw, optim.AdamW, {}),
    (radam, optim.RAdam, {}),
]


def problem(rng: Rng) -> tuple[np.ndarray, list[np.ndarray]]:
    """A first weight and the gradients of thirty steps, of sizes from 1e-4 to 10, which rules treat differently."""
    scale = 10.0 ** rng.uniform(-4, 1, (3, 4))
    return rng.normal(size=(3, 4)), [scale * rng.normal(size=(3, 4)) for _ in range(30)]


def own_steps(rule: Callable[..., np.ndarray], weight: np.ndarray, gradients: list[np.ndarray], lr: float) -> Any:
    state: dict[str, Any] = {}
    for gradient in gradients:
        before = weight.copy()
        moved = rule(weight, gradient, state, lr)
        assert_allclose(weight, before, err_msg="a rule gives a new weight and leaves the old one alone")
        weight = moved
        yield weight


def torch_steps(kind: type[optim.Optimizer], weight: np.ndarray, gradients: list[np.ndarray], **settings: Any) -> Any:
    parameter = torch.tensor(weight, requires_grad=True)
    optimizer = kind([parameter], **settings)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        yield parameter.detach().numpy().copy()


@pytest.mark.parametrize(("rule", "kind", "settings"), RULES, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("lr", [0.1, 0.001])
def test_every_step_is_torchs(
    rule: Callable[..., np.ndarray], kind: type[optim.Optimizer], settings: dict[str, Any], lr: float, rng: Rng
) -> None:
    weight, gradients = problem(rng)
    pairs = zip(
        own_steps(rule, weight, gradients, lr), torch_steps(kind, weight, gradients, lr=lr, **settings), strict=True
    )
    for own, theirs in pairs:
        assert_close(own, theirs)


@pytest.mark.parametrize(("rule", "kind", "settings"), RULES, ids=lambda value: getattr(value, "__name__", ""))
def test_defaults_are_torchs(
    rule: Callable[..., np.ndarray], kind: type[optim.Optimizer], settings: dict[str, Any], rng: Rng
) -> None:
    weight, gradients = problem(rng)
    lr = {"lr": 0.01} if kind is optim.SGD else {}  # torch's own default for SGD is newer than the oldest torch here
    state: dict[str, Any] = {}
    theirs = list(torch_steps(kind, weight, gradients[:3], **lr, **settings))
    for gradient in gradients[:3]:
        weight = rule(weight, gradient, state)
    assert_close(weight, theirs[-1])


def test_adadelta_has_its_epsilon_inside_both_roots() -> None:
    eps, g = 0.25, 3.0
    w = adadelta(np.array(0.0), np.array(g), {}, rho=0.5, eps=eps)
    assert_allclose(w, -np.sqrt(0 + eps) / np.sqrt(0.5 * g**2 + eps) * g)


def test_the_first_step_of_adam_has_the_size_of_the_rate() -> None:
    w = adam(np.zeros(3), np.array([1e-3, -1.0, 1e3]), {}, lr=0.1)
    assert_allclose(w, [-0.1, 0.1, -0.1], rtol=1e-4)


def test_radam_waits_for_six_steps_and_then_rectifies() -> None:
    """With b2 = 0.999, p_t passes 5 at the sixth step: until then it is momentum, with steps as large as gradients."""
    state: dict[str, Any] = {}
    w, moved = np.array(0.0), []
    for _ in range(6):
        after = radam(w, np.array(100.0), state, lr=1.0)
        moved.append(abs(float(after - w)))
        w = after
    assert_allclose(moved[:5], 100)
    assert moved[5] < 1


def test_centralised_gradients_have_no_mean(rng: Rng) -> None:
    for shape in ((4, 3), (4, 3, 5, 5)):
        gradient = rng.normal(size=shape)
        theirs = torch.tensor(gradient)
        theirs = theirs - theirs.mean(dim=tuple(range(1, len(shape))), keepdim=True)
        assert_close(centralise(gradient), theirs.numpy())
    bias = rng.normal(size=4)
    assert_allclose(centralise(bias), bias)


def test_lookahead_is_k_steps_and_a_part_of_the_way_back(rng: Rng) -> None:
    weight, gradients = problem(rng)
    inner = torch.tensor(weight, requires_grad=True)
    optimizer, slow = optim.Adam([inner], lr=0.1), torch.tensor(weight)
    for step, (own, gradient) in enumerate(
        zip(own_steps(lookahead(adam, k=4, alpha=0.3), weight, gradients, 0.1), gradients, strict=True), 1
    ):
        inner.grad = torch.tensor(gradient)
        optimizer.step()
        if step % 4 == 0:
            slow = slow + 0.3 * (inner.detach() - slow)
            inner.data.copy_(slow)
        assert_close(own, inner.detach().numpy())


def test_lookahead_with_alpha_one_changes_nothing(rng: Rng) -> None:
    weight, gradients = problem(rng)
    pairs = zip(
        own_steps(lookahead(sgd, alpha=1.0), weight, gradients, 0.1),
        own_steps(sgd, weight, gradients, 0.1),
        strict=True,
    )
    for with_slow, without in pairs:
        assert_close(with_slow, without)


def test_ranger_is_torchs_radam_centralised_within_lookahead(rng: Rng) -> None:
    weight, gradients = problem(rng)
    inner = torch.tensor(weight, requires_grad=True)
    optimizer, slow = optim.RAdam([inner], lr=0.1, betas=(0.95, 0.999), eps=1e-5), torch.tensor(weight)
    for step, (own, gradient) in enumerate(zip(own_steps(ranger, weight, gradients, 0.1), gradients, strict=True), 1):
        inner.grad = torch.tensor(gradient - gradient.mean(axis=1, keepdims=True))
        optimizer.step()
        if step % 6 == 0:
            slow = (slow + inner.detach()) / 2
            inner.data.copy_(slow)
        assert_close(own, inner.detach().numpy())


def test_centralised_steps_keep_the_sum_of_each_outputs_weights(rng: Rng) -> None:
    weight, gradients = problem(rng)
    for moved in own_steps(centralised(momentum), weight, gradients, 0.1):
        assert_allclose(moved.sum(axis=1), weight.sum(axis=1), atol=1e-9)

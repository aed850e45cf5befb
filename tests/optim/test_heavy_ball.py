"""Momentum as the papers write it, against their equations and against torch's where both are the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from opsin.errors import InputError
from opsin.optim import HeavyBall, create_optimizer

RATES = [0.1] * 4 + [0.01] * 4


def gradient(w: float) -> float:
    """Of w^4 / 4 - w."""
    return w**3 - 1


def run(rates: list[float], optimizer: torch.optim.Optimizer, w: nn.Parameter) -> list[float]:
    """What the parameter is after each step."""
    places = []
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        w.grad = torch.tensor([gradient(float(w.detach()))], dtype=torch.float64)
        optimizer.step()
        places.append(float(w.detach()))
    return places


def start() -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.7], dtype=torch.float64))


def test_it_takes_the_steps_of_krizhevskys_equations() -> None:
    w, v, expected = 1.7, 0.0, []
    for rate in RATES:
        v = 0.9 * v - 0.0005 * rate * w - rate * gradient(w)
        w += v
        expected.append(w)
    parameter = start()
    assert run(RATES, HeavyBall([parameter], momentum=0.9, weight_decay=0.0005), parameter) == pytest.approx(expected)


def test_nesterovs_gradient_is_taken_ahead() -> None:
    w, v, expected = 1.7, 0.0, []
    for rate in RATES:
        v = 0.8 * v - rate * gradient(w + 0.8 * v)
        w += v
        expected.append(w + 0.8 * v)  # where the next gradient is taken
    parameter = start()
    assert run(RATES, HeavyBall([parameter], momentum=0.8, nesterov=True), parameter) == pytest.approx(expected)


@pytest.mark.parametrize("nesterov", [False, True])
def test_it_is_torchs_until_the_rate_drops(nesterov: bool) -> None:
    one, other = start(), start()
    ours = run(RATES, HeavyBall([one], nesterov=nesterov), one)
    theirs = run(RATES, torch.optim.SGD([other], lr=0.1, momentum=0.9, nesterov=nesterov), other)
    assert ours[:4] == pytest.approx(theirs[:4], rel=1e-12)
    # Of torch's velocity a tenth is left there, and of this one nearly all.
    assert abs(ours[4] - ours[3]) > 3 * abs(theirs[4] - theirs[3])


def test_by_name_with_its_options_and_its_state() -> None:
    model = nn.Linear(3, 2)
    optimizer = create_optimizer(model, "heavy_ball", lr=0.1, weight_decay=1e-4, nesterov=True)
    assert isinstance(optimizer, HeavyBall) and optimizer.param_groups[0]["momentum"] == 0.9
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    twin = create_optimizer(model, "heavy_ball", lr=0.1)
    twin.load_state_dict(optimizer.state_dict())
    assert torch.equal(twin.state[model.bias]["velocity"], optimizer.state[model.bias]["velocity"])
    assert twin.state[model.bias]["velocity"].any()
    assert twin.param_groups[0]["nesterov"] is True
    for momentum in (1.0, -0.1, "0.9"):
        with pytest.raises(InputError, match="momentum must be a number of at least 0 and below 1"):
            create_optimizer(model, "heavy_ball", lr=0.1, momentum=momentum)

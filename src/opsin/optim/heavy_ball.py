"""Momentum as the papers write it: the rate is inside the velocity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from opsin.checks import check_probability, check_within


class HeavyBall(Optimizer):
    """v = momentum v - lr g; w += v. Polyak 1964; so in Krizhevsky et al. 2012, section 5, and in Caffe.

    torch's SGD has v = momentum v + g; w -= lr v. At one rate both are the same; where a schedule lowers the rate,
    all of the velocity shrinks at once there, and here what is under way goes on at the old rate for some ten steps.

    nesterov=True: v = momentum v - lr g(w + momentum v); w += v, Nesterov's gradient as Sutskever et al. 2013 (ICML,
    equations 3 and 4) write it. The parameters hold w + momentum v, where the gradient is taken: a model that is saved
    stands there.
    """

    def __init__(
        self, params: Any, lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 0.0, nesterov: bool = False
    ) -> None:
        check_within("lr", lr, 0)
        check_within("weight_decay", weight_decay, 0)
        check_probability("momentum", momentum)
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": bool(nesterov)}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            momentum, decay = group["momentum"], group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if "velocity" not in self.state[parameter]:
                    self.state[parameter]["velocity"] = torch.zeros_like(parameter)
                velocity = self.state[parameter]["velocity"]
                gradient = parameter.grad.add(parameter, alpha=decay) if decay else parameter.grad
                if group["nesterov"]:  # back to w: what is ahead of it is momentum v
                    parameter.sub_(velocity, alpha=momentum)
                velocity.mul_(momentum).sub_(gradient, alpha=group["lr"])
                parameter.add_(velocity, alpha=1 + momentum if group["nesterov"] else 1)
        return loss

"""Optimizers around another optimizer: Lookahead, gradient centralisation, and filters held within a radius."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from opsin.checks import check_count, check_share, check_within
from opsin.errors import InputError


class _Around(Optimizer):
    """Shares parameter groups and state with the optimizer inside: schedules, checkpoints and devices see one of them.

    options: kept in every parameter group, and so in the state dict, as torch keeps an optimizer's own.
    """

    def __init__(self, optimizer: Optimizer, options: dict[str, Any]) -> None:
        super().__init__(optimizer.param_groups, {**optimizer.defaults, **options})
        self.optimizer = optimizer
        self.param_groups, self.state = optimizer.param_groups, optimizer.state

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "optimizer": self.optimizer}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # a checkpoint of the optimizer inside alone has no options of ours
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        self.optimizer.__setstate__({"state": self.state, "param_groups": self.param_groups})


class Lookahead(_Around):
    """k steps forward, one step back: phi += alpha (theta - phi), theta = phi. Zhang et al. 2019, arXiv:1907.08610.

    theta: the parameters, moved by any optimizer. phi: their slow copies, `slow` in the state, which begin where the
    parameters do. Between the k-th steps the model holds theta. k=5, alpha=0.5: the paper's for ImageNet (section 5.2).
    alpha=1 is the optimizer alone (tested).
    """

    def __init__(self, optimizer: Optimizer, k: int = 5, alpha: float = 0.5) -> None:
        check_count("k of Lookahead", k)
        check_share("alpha of Lookahead", alpha)
        super().__init__(optimizer, {"lookahead_k": k, "lookahead_alpha": alpha, "lookahead_step": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the optimizer inside; after every k-th of them, one of the slow weights."""
        loss = _evaluate(closure)
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        # Copied before the step, kept after it: to the optimizer inside a state that is not empty is one of its own.
        starts = {p: p.clone() for p in parameters if "slow" not in self.state.get(p, ())}
        self.optimizer.step()
        for parameter, start in starts.items():
            self.state[parameter]["slow"] = start
        for group in self.param_groups:
            group["lookahead_step"] += 1
            if group["lookahead_step"] % group["lookahead_k"] == 0:
                for parameter in group["params"]:
                    if parameter in self.state:
                        slow = self.state[parameter]["slow"]
                        parameter.copy_(slow.lerp_(parameter, group["lookahead_alpha"]))
        return loss


class GradientCentralization(_Around):
    """Takes from every gradient its mean, before any optimizer's step. Yong et al. 2020, arXiv:2004.01461, eq. 1.

    The mean is that over each output channel's weights, dimension 0 of linear layers and convolutions; vectors are left
    alone. Weight decay is added by the optimizer inside, after the mean is gone.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the optimizer inside with centralised gradients, which stay in `grad`."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    centralize(parameter.grad)
        self.optimizer.step()
        return loss


class FilterClipping(_Around):
    """After every step, brings filters whose root mean square is above `radius` back to it. Zeiler and Fergus 2013.

    "Visualizing and Understanding Convolutional Networks", arXiv:1311.2901, section 3.1: a few filters of the first
    layer came to dominate. A filter is what makes one output channel of a convolution, its input channels together;
    linear layers and biases are left alone. radius: 0.1 in the paper.
    """

    def __init__(self, optimizer: Optimizer, radius: float = 0.1) -> None:
        if check_within("filter_rms", radius, 0) == 0:
            raise InputError("filter_rms must be above 0, or every filter is zero")
        super().__init__(optimizer, {"filter_rms": radius})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the optimizer inside; then no filter is longer than the radius allows."""
        loss = _evaluate(closure)
        self.optimizer.step()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim > 2:
                    mean_square = parameter.square().mean(dim=tuple(range(1, parameter.ndim)), keepdim=True)
                    parameter.mul_((group["filter_rms"] * mean_square.rsqrt()).clamp(max=1))
        return loss


def centralize(gradient: Tensor) -> None:
    """Subtract in place, from each entry of dimension 0, the mean over the other dimensions."""
    # A single weight for each output (a 1x1 depthwise convolution) is its own mean, and would never learn.
    if gradient.shape[1:].numel() > 1:
        gradient.sub_(gradient.mean(dim=tuple(range(1, gradient.ndim)), keepdim=True))


def _evaluate(closure: Callable[[], Any] | None) -> Any:
    """The loss. Lightning's gradients come to be in here, so it runs before anything is done with them."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()

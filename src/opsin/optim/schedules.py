"""Learning-rate schedules: the rate is a pure function of the step, so a resumed run meets the same rates."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch.optim import Optimizer

from opsin.checks import check_within
from opsin.errors import InputError, unknown

Curve = Callable[[int], float]


@dataclass(frozen=True)
class Clock:
    """The length of a training in optimizer steps. `steps`: all of them; `warmup`: the first of them."""

    steps: int
    steps_per_epoch: int
    warmup: int = 0

    def at(self, epochs: float) -> int:
        """The step at which an epoch begins, counted from the start of the training."""
        return round(epochs * self.steps_per_epoch)

    def progress(self, step: int, end: int | None = None) -> float:
        """How much of a decay has passed: 0 where the warm-up ends, 1 from `end` (the last step) on."""
        end = self.steps if end is None else end
        return min(max((step - self.warmup) / max(end - self.warmup, 1), 0.0), 1.0)


class Schedule:
    """Sets the learning rate of every parameter group to its initial one times warm-up times curve.

    The rate of the first step is set on construction; call `step()` after every optimizer step. The warm-up rises
    linearly from `warmup_factor` to 1 (Goyal et al. 2017, arXiv:1706.02677, section 2.2).
    """

    def __init__(self, optimizer: Optimizer, curve: Curve, clock: Clock, warmup_factor: float = 0.01) -> None:
        self.optimizer = optimizer
        self.curve = curve
        self.clock = clock
        self.warmup_factor = warmup_factor
        self.count = 0  # optimizer steps taken
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self._apply()

    def step(self) -> None:
        """Move on to the rate of the next optimizer step."""
        self.count += 1
        self._apply()

    def observe(self, value: float) -> None:
        """Take note of a validation result. Only a plateau schedule listens."""

    def rate(self, initial: float) -> float:
        """The learning rate, at the present step, of a group that began with `initial`."""
        return initial * self._warmup() * self.curve(self.count)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as plain Python values."""
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state and set the rates that belong to it."""
        if state.keys() != self.state_dict().keys():
            raise InputError(
                f"a {type(self).__name__} cannot go on from a state of {sorted(state)}; it holds "
                f"{sorted(self.state_dict())}: resume with the schedule that the run was started with"
            )
        for key, value in state.items():
            setattr(self, key, value)
        self._apply()

    def _warmup(self) -> float:
        if self.count >= self.clock.warmup:
            return 1.0
        return self.warmup_factor + (1 - self.warmup_factor) * self.count / self.clock.warmup

    def _apply(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(group["initial_lr"])


class Plateau(Schedule):
    """Multiplies the rate by `factor` when more than `patience` validations in a row brought nothing better.

    Better: by more than the fraction `threshold` of the best value so far; a NaN is never better. mode: whether "min"
    or "max" is good. min_lr: no rate falls below it. Validations during the warm-up are not counted.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        clock: Clock,
        warmup_factor: float = 0.01,
        *,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        mode: str = "min",
        min_lr: float = 0.0,
    ) -> None:
        check_within("factor", factor, 0, 1)
        check_within("patience", patience, 0)
        check_within("threshold", threshold, 0, 1)
        check_within("min_lr", min_lr, 0)
        if mode not in ("min", "max"):
            raise unknown("mode of plateau", mode, ("min", "max"))
        self.factor, self.patience, self.threshold, self.min_lr = factor, patience, threshold, min_lr
        self.sign = 1 if mode == "max" else -1
        self.best: float | None = None
        self.bad = 0  # validations in a row without anything better
        self.scale = 1.0
        super().__init__(optimizer, constant(clock), clock, warmup_factor)

    def observe(self, value: float) -> None:
        """Lower the rate if this validation result exhausts the patience."""
        if self.count < self.clock.warmup:
            return
        value = float(value)
        # |best|: a negative best (a log-likelihood) must not turn the margin round and let equal values pass.
        gain = math.inf if self.best is None else self.sign * (value - self.best) - self.threshold * abs(self.best)
        if gain > 0 and math.isfinite(value):
            self.best, self.bad = value, 0
            return
        self.bad += 1
        if self.bad > self.patience:
            self.scale, self.bad = self.scale * self.factor, 0
            self._apply()

    def rate(self, initial: float) -> float:
        """The learning rate, at the present step, of a group that began with `initial`."""
        return self._warmup() * max(initial * self.scale, min(self.min_lr, initial))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as plain Python values."""
        return {"count": self.count, "scale": self.scale, "best": self.best, "bad": self.bad}


def constant(clock: Clock) -> Curve:
    """The initial rate throughout."""
    return lambda step: 1.0


def step(clock: Clock, *, milestones: Sequence[float], gamma: float = 0.1) -> Curve:
    """Multiplied by `gamma` at each milestone, in epochs from the start of the training."""
    check_within("gamma", gamma, 0, 1)
    if isinstance(milestones, str) or not isinstance(milestones, Sequence) or list(milestones) != sorted(milestones):
        raise InputError(f"milestones must be a rising list of epochs, such as [30, 60], got {milestones!r}")
    for milestone in milestones:
        check_within("milestone", milestone, 0)
    ends = [clock.at(milestone) for milestone in milestones]
    return lambda step: gamma ** sum(step >= end for end in ends)


def cosine(clock: Clock, *, min_factor: float = 0.0) -> Curve:
    """Half a cosine from 1 to `min_factor` at the last step. Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5."""
    check_within("min_factor", min_factor, 0, 1)
    return lambda step: min_factor + (1 - min_factor) * 0.5 * (1 + math.cos(math.pi * clock.progress(step)))


def poly(clock: Clock, *, power: float = 0.9, min_factor: float = 0.0) -> Curve:
    """(1 - progress) ** power, from 1 to `min_factor` at the last step.

    Liu et al. 2015, arXiv:1506.04579; the power 0.9 is DeepLab's, Chen et al. 2018, arXiv:1606.00915.
    """
    check_within("power", power, 0)
    check_within("min_factor", min_factor, 0, 1)
    return lambda step: min_factor + (1 - min_factor) * (1 - clock.progress(step)) ** power


def linear(clock: Clock, *, tau_epochs: float | None = None, final_factor: float = 0.01) -> Curve:
    """A straight line from 1 to `final_factor` at epoch tau, constant after it. Goodfellow et al. 2016, eq. 8.14.

    lr_k = (1 - a) lr_0 + a lr_tau with a = k / tau. tau_epochs: None is the end of the training.
    """
    check_within("final_factor", final_factor, 0, 1)
    if tau_epochs is not None:
        check_within("tau_epochs", tau_epochs, 0)
    end = None if tau_epochs is None else clock.at(tau_epochs)
    return lambda step: 1 - (1 - final_factor) * clock.progress(step, end)


def inverse_sqrt(clock: Clock, *, peak_step: int = 4000) -> Curve:
    """A straight line up to 1 at step `peak_step`, then the root of its inverse. arXiv:1706.03762, section 5.3.

    min(s / w, sqrt(w / s)) for the s-th step, counted from 1. The paper's rate, d^-0.5 min(s^-0.5, s w^-1.5), is this
    one times (d w)^-0.5: an optim.lr of 7e-4 for 512 features and 4,000 steps. It warms up by itself, in steps that do
    not depend on the length of the training; another warm-up is multiplied to it.
    """
    if isinstance(peak_step, bool) or not isinstance(peak_step, int) or peak_step < 1:
        raise InputError(f"peak_step must be a whole number of at least 1, got {peak_step!r}")
    return lambda step: min((step + 1) / peak_step, math.sqrt(peak_step / (step + 1)))


_CURVES: Mapping[str, Callable[..., Curve]] = MappingProxyType(
    {
        "constant": constant,
        "step": step,
        "cosine": cosine,
        "poly": poly,
        "linear": linear,
        "inverse_sqrt": inverse_sqrt,
    }
)


_BUILDERS: Mapping[str, Callable[..., Any]] = MappingProxyType({**_CURVES, "plateau": Plateau})


def list_schedules() -> list[str]:
    """Names that `create_schedule` knows."""
    return sorted(_BUILDERS)


def create_schedule(
    optimizer: Optimizer,
    name: str = "cosine",
    *,
    steps: int,
    steps_per_epoch: int,
    warmup_epochs: float = 0.0,
    warmup_factor: float = 0.01,
    **options: Any,
) -> Schedule:
    """A schedule by name: constant, step, cosine, poly, linear, inverse_sqrt or plateau, behind a linear warm-up.

    steps: optimizer steps of the whole training; steps_per_epoch: of one epoch. All epochs count from the start of the
    training; cosine, poly and linear begin to fall where the warm-up ends.
    Raises InputError for an unknown name or option, a missing one, and values out of range.
    """
    if name not in _BUILDERS:
        raise unknown("schedule", name, _BUILDERS)
    parameters = inspect.signature(_BUILDERS[name]).parameters.values()
    known = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    for option in options:
        if option not in known:
            raise unknown(f"option of schedule {name}", option, known)
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise InputError(f"schedule {name} needs {option}; set schedule.{option}")
    check_within("steps", steps, 1)
    check_within("steps_per_epoch", steps_per_epoch, 1)
    check_within("warmup_epochs", warmup_epochs, 0)
    check_within("warmup_factor", warmup_factor, 0, 1)
    clock = Clock(steps, steps_per_epoch, round(warmup_epochs * steps_per_epoch))
    if name == "plateau":
        return Plateau(optimizer, clock, warmup_factor, **options)
    return Schedule(optimizer, _CURVES[name](clock, **options), clock, warmup_factor)

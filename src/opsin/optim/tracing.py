"""The learning rates of a training before it is run: as numbers, and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import SGD

from opsin.errors import InputError
from opsin.optim.schedules import create_schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def trace_rates(
    lr: float, name: str = "cosine", *, steps: int, steps_per_epoch: int, **options: Any
) -> list[tuple[int, float]]:
    """(step, learning rate) for each optimizer step of a training, without running it; the first step is 0.

    lr: the optimizer's. The rest is `create_schedule`'s, so a recipe's section is passed on as it is:
    `trace_rates(0.1, steps=900, steps_per_epoch=100, **{"name": "step", "milestones": [3, 6]})`. The schedule itself is
    asked, step by step. A plateau depends on validations, and is traced as if each were better than the last.
    Raises InputError as `create_schedule` does.
    """
    optimizer = SGD([torch.nn.Parameter(torch.zeros(()))], lr=lr)
    schedule = create_schedule(optimizer, name, steps=steps, steps_per_epoch=steps_per_epoch, **options)
    rates = []
    for number in range(steps):
        rates.append((number, optimizer.param_groups[0]["lr"]))
        schedule.step()
    return rates


def plot_rates(curves: Mapping[str, Sequence[tuple[int, float]]], steps_per_epoch: int | None = None) -> Figure:
    """Draw what `trace_rates` gave, by name: a figure to show or to `savefig`. With steps_per_epoch, over epochs."""
    from matplotlib.figure import Figure  # not pyplot: no global figures, no display

    if not curves or not all(curves.values()):
        raise InputError("there is nothing to draw; give at least one curve of at least one step")
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    axes = figure.add_subplot(xlabel="step" if steps_per_epoch is None else "epoch", ylabel="learning rate")
    for name, curve in curves.items():
        axes.plot([step / (steps_per_epoch or 1) for step, _ in curve], [rate for _, rate in curve], label=name)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure

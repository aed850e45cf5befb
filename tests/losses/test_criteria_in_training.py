"""What a criterion learns is trained, checkpointed and resumed with the model, and stays out of the shared weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import opsin
from opsin.engine.checkpoint import read_checkpoint, read_model
from opsin.engine.task import Task
from opsin.losses import create_loss


def recipe(alpha: float | None) -> dict[str, Any]:
    centre = {"num_classes": 10, "features": 10, "alpha": alpha}
    return {
        "model": {"name": "lenet5"},
        "data": {"source": "digits", "limit": 100},
        "loss": {
            "name": "weighted_sum",
            "criteria": {"cross_entropy": {"smoothing": 0.1}, "centre": centre},
            "weights": {"centre": 0.01},
            "learned": True,
        },
        "optim": {"name": "sgd", "lr": 0.05},
        "train": {"epochs": 2, "batch_size": 16, "keep": "last", "save_every_steps": 2, "tensorboard": False},
    }


def state(run: Path) -> tuple[dict[str, Tensor], list[Tensor]]:
    checkpoint = read_checkpoint(run / "last.ckpt")
    momentum = [v["momentum_buffer"] for v in checkpoint["optimizer_states"][0]["state"].values()]
    return checkpoint["state_dict"], momentum


@pytest.mark.parametrize("alpha", [0.5, None], ids=["centres as a buffer", "centres as a parameter"])
def test_a_criterion_that_learns_is_trained_and_resumed(
    alpha: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    opsin.train(recipe(alpha), out=whole, say=lambda line: None)
    expected, momentum = state(whole)
    learned = {name: value for name, value in expected.items() if name.startswith("model.criterion.")}
    assert {name.removeprefix("model.criterion.") for name in learned} == {
        "criteria.centre.centres",
        "log_variances.cross_entropy",
        "log_variances.centre",
    }
    assert all(value.abs().max() > 0 for value in learned.values())  # all began at 0
    assert not [name for name in read_model(whole).state if name.startswith("criterion")]
    parameters = 2 + (alpha is None)
    assert len(momentum) == parameters + len(list(opsin.create_model("lenet5").parameters()))

    step, taken = Task.training_step, iter(range(100))

    def failing(self: Task, batch: Any, batch_idx: int) -> Tensor | None:
        if next(taken) == 5:
            raise RuntimeError("the power failed")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Task, "training_step", failing)
    with pytest.raises(RuntimeError, match="the power failed"):
        opsin.train(recipe(alpha), out=broken, say=lambda line: None)
    monkeypatch.undo()
    opsin.train(resume=broken, say=lambda line: None)
    found, found_momentum = state(broken)
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []
    assert all(torch.equal(a, b) for a, b in zip(momentum, found_momentum, strict=True))


@pytest.mark.parametrize("name", ["cross_entropy", "softmax_cross_entropy", "focal", "softmax_focal", "triplet"])
def test_any_loss_of_logits_and_labels_may_be_the_criterion_of_a_network(name: str) -> None:
    model = opsin.create_model("lenet5")
    model.criterion = create_loss(name)
    terms = model.loss(model(torch.randn(4, 1, 32, 32)), torch.tensor([0, 0, 1, -1]))  # type: ignore[operator]
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

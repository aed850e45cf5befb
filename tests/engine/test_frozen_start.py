"""A frozen start: nothing that was learned moves, against a plain loop, and over a kill."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import opsin
from opsin import data
from opsin.engine.checkpoint import read_checkpoint, read_model
from opsin.engine.recipe import load_recipe
from opsin.engine.task import Task
from opsin.engine.train import prepare
from opsin.errors import InputError

RECIPE: dict[str, Any] = {
    "model": {"name": "resnet20"},
    "data": {"source": "digits", "limit": 40, "size": 8},
    "augment": "digits",
    "optim": {"name": "adamw", "lr": 0.01, "weight_decay": 0.5},
    "schedule": {"name": "constant"},
    "train": {"epochs": 2, "batch_size": 10, "freeze_epochs": 1, "keep": "last", "save_every_steps": 1},
}  # four steps an epoch


def train(out: Path, **settings: Any) -> opsin.Run:
    recipe = copy.deepcopy(RECIPE)
    recipe["train"] |= {"tensorboard": False, **settings}
    return opsin.train(recipe, out=out, say=lambda line: None)


def moved(run: opsin.Run) -> set[str]:
    """The tensors that differ from the first weights."""
    torch.manual_seed(0)
    recipe = load_recipe(copy.deepcopy(RECIPE))
    first = prepare(recipe, lambda line: None)[0].model.state_dict()
    return {name for name, tensor in read_model(run.path).state.items() if not torch.equal(tensor, first[name])}


def test_weights_and_statistics_are_held_still_and_then_let_go(tmp_path: Path) -> None:
    assert {name.split(".")[0] for name in moved(train(tmp_path / "held", epochs=1))} == {"head"}
    later = moved(train(tmp_path / "later"))
    assert any(name.startswith("stages") and name.endswith("running_mean") for name in later)
    assert any(name.startswith("stem") and name.endswith("weight") for name in later)


def test_equals_a_plain_loop(tmp_path: Path) -> None:
    """Whose optimizer has nothing but the head in the first epoch, and whose norms are in eval there."""
    recipe = load_recipe({**copy.deepcopy(RECIPE), "augment": None})
    torch.manual_seed(recipe.train.seed)
    task, _, splits = prepare(recipe, lambda line: None)
    model = task.model.train()
    learned = [*model.stem.parameters(), *model.stages.parameters()]
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=0.01, weight_decay=0.5)
    loader = data.create_loader(splits["train"], task.preprocessing, batch_size=10, training=True)
    for epoch in range(2):
        loader.set_epoch(epoch)
        for part in (model.stem, model.stages):
            part.train(epoch > 0)
        if epoch == 1:
            optimizer.add_param_group({"params": learned})
        for batch in loader:
            loss = torch.nn.functional.cross_entropy(
                model(task.preprocessing.normalize(batch["image"])), batch["label"]
            )
            model.zero_grad()
            loss.backward()
            optimizer.step()
    plain = copy.deepcopy(RECIPE) | {"augment": None}
    run = opsin.train(plain, {"train.tensorboard": False}, out=tmp_path / "run", say=lambda line: None)
    for name, tensor in read_model(run.path).state.items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("step", [2, 5])
def test_killed_and_resumed_equals_uninterrupted(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole")
    own = Task.training_step

    def dying(self: Task, batch: Any, batch_idx: int) -> Any:
        if 4 * self.current_epoch + batch_idx == step:
            raise RuntimeError("power failed")
        return own(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "training_step", dying)
        with pytest.raises(RuntimeError, match="power failed"):
            train(tmp_path / "run")
    opsin.train(resume=tmp_path / "run", say=lambda line: None)
    whole, again = (read_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "run"))
    assert all(torch.equal(value, again["state_dict"][name]) for name, value in whole["state_dict"].items())
    left, right = (one["optimizer_states"][0]["state"] for one in (whole, again))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[k][name], right[k][name]) for k in left for name in ("exp_avg", "exp_avg_sq", "step"))


def test_says_what_stays(tmp_path: Path) -> None:
    lines: list[str] = []
    task, _, _ = prepare(load_recipe(copy.deepcopy(RECIPE)), lines.append)
    head = sum(p.numel() for p in task.model.head.parameters())
    whole = sum(p.numel() for p in task.model.parameters())
    assert any(f"in the first epoch {whole - head:,} of {whole:,} parameters stay" in line for line in lines)
    with pytest.raises(InputError, match="freeze_epochs"):
        load_recipe(copy.deepcopy(RECIPE), {"train.freeze_epochs": 0})

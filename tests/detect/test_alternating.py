"""Faster R-CNN's training in four steps: what each changes, where it starts, and how a killed one goes on."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import opsin
from opsin.detect import alternating_training
from opsin.detect.alternating_training import ALTERNATING, Step, SteppedFasterRCNN
from opsin.detect.evaluate import DetectEvaluator
from opsin.detect.faster_rcnn import FasterRCNN
from opsin.engine import train as engine
from opsin.engine.checkpoint import read_checkpoint, read_model
from opsin.engine.stages import read_records
from opsin.errors import InputError, JobError

RECIPE: dict[str, Any] = {
    "task": "detect",
    "model": {
        "name": "faster_rcnn",
        "alternating": True,
        "backbone": "mobilenet_v3_small",
        "backbone_options": {"width": 0.35},
        "strides": [8, 16],
        "extra_levels": 0,
        "channels": 16,
        "anchor_scales": [4.0],
        "hidden": 32,
        "proposals": 40,
        "test_proposals": 20,
        "sampled": 32,
        "dropout": 0.5,
    },
    "data": {"source": "scenes:16", "size": 96, "limit": 4},
    # Two batches an epoch, and a rate that changes with every step: a schedule that a resume mixed up would show.
    "train": {"epochs": 2, "batch_size": 2, "tensorboard": False, "accelerator": "cpu"},
    "optim": {"lr": 0.003},
    "schedule": {"name": "cosine", "warmup_epochs": 0.5},
}
NAMES = ["rpn", "detector", "shared_rpn", "shared_head"]


def state_of(model: FasterRCNN) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def part(state: dict[str, Tensor], *children: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.partition(".")[0] in children}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def changed(one: dict[str, Tensor], two: dict[str, Tensor]) -> set[str]:
    return {name.partition(".")[0] for name, tensor in one.items() if not torch.equal(tensor, two[name])}


class Watched:
    """What the network was when a step began and when it ended, and the network that lent its proposals."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began: dict[str, dict[str, Tensor]] = {}
        self.ended: dict[str, dict[str, Tensor]] = {}
        self.lent: dict[str, list[dict[str, Tensor]]] = {}
        take_step = alternating_training.take_step

        @contextmanager
        def watched(model: FasterRCNN, step: Step, start: Any = None) -> Iterator[SteppedFasterRCNN]:
            with take_step(model, step, start) as stepped:
                self.began[step.name] = state_of(model)
                self.lent[step.name] = [state_of(lender) for lender in stepped.lenders]
                yield stepped
                self.ended[step.name] = state_of(model)

        monkeypatch.setattr(alternating_training, "take_step", watched)


def test_four_steps_from_end_to_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    watched, folder = Watched(monkeypatch), tmp_path / "run"
    said: list[str] = []
    run = opsin.train(RECIPE, out=folder, say=said.append)
    assert [record.name for record in read_records(folder)] == ["start", *NAMES]
    assert list(watched.began) == list(watched.ended) == NAMES

    began, ended = watched.began, watched.ended
    assert changed(began["rpn"], ended["rpn"]) == {"backbone", "neck", "rpn"}
    assert changed(began["detector"], ended["detector"]) == {"backbone", "neck", "roi"}
    assert changed(began["shared_rpn"], ended["shared_rpn"]) == {"rpn"}
    assert changed(began["shared_head"], ended["shared_head"]) == {"roi"}
    # The second starts from the first weights again, but for the RPN; those after it from the one before.
    assert changed(began["detector"], began["rpn"]) == {"rpn"}
    assert same(part(began["detector"], "rpn"), part(ended["rpn"], "rpn"))
    assert same(began["shared_rpn"], ended["detector"])
    assert same(began["shared_head"], ended["shared_rpn"])
    # Its proposals are those of the first step's network, backbone and all.
    assert [len(watched.lent[name]) for name in NAMES] == [0, 1, 0, 0]
    (lender,) = watched.lent["detector"]
    assert same(part(lender, "backbone", "neck", "rpn"), part(ended["rpn"], "backbone", "neck", "rpn"))

    results = {name: load_file(folder / "stages" / name / "result.safetensors") for name in ["start", *NAMES]}
    assert same(results["start"], part(began["rpn"], "backbone", "neck"))
    for step in ALTERNATING:
        assert same(results[step.name], part(ended[step.name], *step.trained))

    # Four times the recipe's schedule; only the last step is validated, and its result is saved and evaluated.
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row["step"] for row in run.history] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert [row["lr"] for row in run.history] == [run.history[0]["lr"], run.history[1]["lr"]] * 4
    assert [("val_map" in row) for row in run.history] == [False] * 6 + [True] * 2
    terms = [{name for name in row if name.startswith("train_")} - {"train_loss"} for row in run.history]
    first, second = {"train_objectness", "train_rpn_box"}, {"train_class", "train_box"}
    assert terms == [first] * 2 + [second] * 2 + [first] * 2 + [second] * 2
    saved = read_model(folder)
    assert same(saved.state, {**ended["shared_head"], **part(saved.state, "roi")})
    assert same(part(saved.state, "roi"), part(ended["shared_head"], "roi"))
    assert opsin.evaluate(folder, split="test") == pytest.approx(run.metrics, abs=1e-5)
    assert set(opsin.load(folder).predict(torch.zeros(3, 96, 96, dtype=torch.uint8))) >= {"instances"}
    assert "Learning rate" in (folder / "report.html").read_text(encoding="utf-8")


def test_best_epoch_of_the_last_step_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, values = tmp_path / "run", iter([0.5, 0.25])
    monkeypatch.setattr(DetectEvaluator, "brief", lambda self: {"map": next(values)})
    run = opsin.train(RECIPE, out=folder, say=lambda line: None)
    assert [row.get("val_map") for row in run.history] == [None] * 6 + [0.5, 0.25]
    best, last = (
        {key.removeprefix("model."): tensor for key, tensor in read_checkpoint(path)["state_dict"].items()}
        for path in (folder / "stages/shared_head/best.ckpt", folder / "stages/shared_head/last.ckpt")
    )
    saved = read_model(folder).state
    assert same(saved, best)
    assert changed(saved, last) == {"roi"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody killed."""
    folder = tmp_path_factory.mktemp("alternating") / "whole"
    opsin.train(RECIPE, out=folder, say=lambda line: None)
    return folder


@pytest.mark.parametrize(("name", "number"), [("detector", 4), ("shared_head", 1)])
def test_killed_training_goes_on_in_its_step(
    whole: Path, name: str, number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed in a batch of a step, it makes what an unkilled one makes, and does no finished step again."""
    killed, steps, loss = tmp_path / "killed", [], SteppedFasterRCNN.loss

    def dies(model: SteppedFasterRCNN, outputs: Any, targets: Any) -> dict[str, Tensor]:
        if model.training:
            steps.append(model.step.name)
            if steps.count(name) == number:
                raise JobError("the power went")
        return loss(model, outputs, targets)

    with monkeypatch.context() as patch:
        patch.setattr(SteppedFasterRCNN, "loss", dies)
        with pytest.raises(JobError, match="the power went"):
            opsin.train(RECIPE, {"train.save_every_steps": 1}, out=killed, say=lambda line: None)
    watched, said = Watched(monkeypatch), []
    opsin.train(resume=killed, say=said.append)
    assert list(watched.began) == NAMES[NAMES.index(name) :]
    assert sum("finished before" in line for line in said) == 1 + NAMES.index(name)
    one, two = read_model(whole).state, read_model(killed).state
    assert same(one, two)


def test_step_that_was_trained_but_not_recorded(whole: Path, tmp_path: Path) -> None:
    """Killed between the last batch of a step and the record of its result: nothing is left to train there."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    content = json.loads((folder / "stages.json").read_text())
    for record in content["stages"][2:]:
        record["finished"] = False
    (folder / "stages.json").write_text(json.dumps(content))
    for name in ("shared_rpn", "shared_head"):
        shutil.rmtree(folder / "stages" / name)
    (folder / "stages/detector/result.safetensors").unlink()
    opsin.train(resume=folder, say=lambda line: None)
    assert same(read_model(whole).state, read_model(folder).state)


def test_joint_training_stays_as_it_was(tmp_path: Path) -> None:
    values = copy.deepcopy(RECIPE)
    del values["model"]["alternating"]
    run = opsin.train(values, {"train.epochs": 1}, out=tmp_path / "run", say=lambda line: None)
    assert not (tmp_path / "run/stages").exists()
    assert {"train_objectness", "train_rpn_box", "train_class", "train_box"} <= run.history[0].keys()


def test_stages_take_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [__file__])  # a program that could start the other process
    recipe = opsin.engine.recipe.load_recipe(RECIPE, {"train.devices": 2})
    task, _, splits = engine.prepare(recipe, lambda line: None)
    with pytest.raises(InputError, match=r"in stages, which takes one process, not 2; set train.devices=1"):
        engine._fit_stage(task, splits, engine.RunFolder(tmp_path), print)

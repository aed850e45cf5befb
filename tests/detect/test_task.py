"""A detector in training: its targets, its evaluation in a run, and what it refuses."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import opsin
from opsin import data, registry
from opsin.detect.evaluate import DetectEvaluator
from opsin.detect.metrics import evaluate
from opsin.detect.targets import to_image, usable
from opsin.detect.task import DetectTask
from opsin.engine.checkpoint import read_model
from opsin.engine.recipe import load_recipe
from opsin.engine.train import prepare
from opsin.errors import InputError, JobError
from opsin.structures import Batch, Instances

RECIPE: dict[str, Any] = {
    "task": "detect",
    "model": {"name": "cells", "width": 8},
    "data": {"source": "scenes:16"},
    "train": {"epochs": 1, "batch_size": 8, "tensorboard": False},
}


def recipe(**overrides: Any) -> Any:
    return load_recipe(copy.deepcopy(RECIPE), {key.replace("__", "."): value for key, value in overrides.items()})


@pytest.fixture
def task(cells: str) -> DetectTask:
    torch.manual_seed(0)
    return prepare(recipe(), lambda line: None)[0]  # type: ignore[return-value]


def evaluator_of(task: DetectTask) -> DetectEvaluator:
    evaluator = task.eval().create_evaluator()
    assert isinstance(evaluator, DetectEvaluator)
    return evaluator


def batch_of(task: DetectTask, *images: Instances) -> Batch:
    height, width = task.preprocessing.size
    return Batch(
        image=torch.randint(0, 255, (len(images), 3, height, width), dtype=torch.uint8),
        instances=list(images),
        index=torch.arange(len(images)),
        size=torch.tensor([[height, width]] * len(images)),
        path=[f"{i}.png" for i in range(len(images))],
    )


def boxes(*rows: tuple[float, ...], label: int = 0) -> Instances:
    return Instances(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), torch.full((len(rows),), label))


def test_the_tasks_own_defaults(cells: str) -> None:
    asked = recipe()
    assert (asked.optim.name, asked.optim.lr, asked.train.clip_norm) == ("adamw", 0.001, 10.0)
    other = recipe(optim__name="sgd")
    assert (other.optim.name, other.optim.lr, other.optim.weight_decay) == ("sgd", 0.1, 0.0)
    assert recipe(train__clip_norm=None).train.clip_norm is None
    again = load_recipe(asked.model_dump(mode="json"))
    assert again == asked
    assert load_recipe({"model": {"name": "lenet5"}, "data": {"source": "digits"}}).optim.name == "sgd"


def test_what_cannot_be_learned_is_left_out() -> None:
    given = boxes(
        (-20, 5, 30, 40), (10, 10, 10, 40), (5, 5, 5.9, 30), (70, 5, 90, 20), (0, 0, float("nan"), 9), (1, 1, 2, 2)
    )
    kept = usable(given, (64, 64))
    assert kept.boxes.tolist() == [[0, 5, 30, 40], [1, 1, 2, 2]]
    assert len(usable(boxes(), (64, 64))) == 0


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_answers_come_back_to_the_images_pixels(fit: Any) -> None:
    preprocessing = data.Preprocessing(size=(64, 96), channels=3, mean=(0.0,) * 3, std=(1.0,) * 3, fit=fit)
    own = torch.tensor([[120.0, 60, 180, 110]])
    placed = Instances(preprocessing.place_boxes(own, (200, 300)), torch.tensor([1]), torch.tensor([0.5]))
    back = to_image(placed, preprocessing, (200, 300))
    torch.testing.assert_close(back.boxes, own, rtol=0, atol=1e-4)
    outside = Instances(preprocessing.place_boxes(torch.tensor([[-9.0, -9, -1, -1]]), (200, 300)))
    assert len(to_image(outside, preprocessing, (200, 300))) == 0


def test_a_scaled_batch_takes_its_boxes_along(task: DetectTask, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(task, boxes((8, 16, 24, 48)), boxes())
    monkeypatch.setattr(task, "_choose_size", lambda batch_idx: (128, 32))
    assert task.inputs(batch)[0].shape == (2, 3, 128, 32)
    assert task.targets(batch)[0].boxes.tolist() == [[4, 32, 12, 96]]
    task._size = None
    assert task.targets(batch)[0].boxes.tolist() == [[8, 16, 24, 48]]
    assert batch["instances"][0].boxes.tolist() == [[8, 16, 24, 48]]  # the batch itself stays


def test_a_scaled_batch_takes_its_masks_along(task: DetectTask) -> None:
    """Twice as high and half as wide, a pixel (x, y) is at (2x + 1, y // 2) of the old mask."""
    height, width = task.preprocessing.size
    mask = torch.zeros(3, height, width, dtype=torch.bool)
    mask[0, 16:48, 8:24] = True
    mask[2, 4:6, 3] = True
    kept = boxes((8, 16, 24, 48), (5, 5, 5, 9), (2, 4, 4, 6))
    kept.masks = mask
    nothing = boxes()
    nothing.masks = mask[:0]
    batch = batch_of(task, kept, nothing)
    task._size = (2 * height, width // 2)
    scaled, empty = task.targets(batch)
    assert scaled.boxes.tolist() == [[4, 32, 12, 96], [1, 8, 2, 12]]  # what is flat is left out, and its mask
    wanted = torch.zeros(2, 2 * height, width // 2, dtype=torch.bool)
    wanted[0, 32:96, 4:12] = True
    wanted[1, 8:12, 1] = True
    assert scaled.masks is not None and torch.equal(scaled.masks, wanted)
    assert empty.masks is not None and empty.masks.shape == (0, 2 * height, width // 2)
    task._size = None
    (same, _) = task.targets(batch)
    assert same.masks is not None and torch.equal(same.masks, mask[[0, 2]])
    assert torch.equal(batch["instances"][0].masks, mask)  # type: ignore[arg-type]  # the batch itself stays


def test_masks_are_evaluated_by_themselves(task: DetectTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object of 40x40 pixels whose mask has 4 is medium as a box and small as a mask."""
    size = task.preprocessing.size
    one = boxes((8, 8, 48, 48))
    one.masks = torch.zeros(1, *size, dtype=torch.bool)
    one.masks[0, 20:22, 20:22] = True
    batch = batch_of(task, one)
    found = replace(one, scores=torch.tensor([0.9]))
    monkeypatch.setattr(task.model, "decode", lambda outputs, selection: [found])
    evaluator = evaluator_of(task)
    evaluator.update(task.model(*task.predictor.inputs(batch)), batch)
    truth, answers = evaluator.gathered()
    for kept in (*truth, *answers):
        assert kept.masks is None
        torch.testing.assert_close(kept.boxes, one.boxes)
    assert found.masks is not None and batch["instances"][0].masks is not None  # these stay as they are
    metrics = evaluator.result().metrics
    assert metrics["map_medium"] == 1
    assert "map_small" not in metrics
    assert metrics["mask_map_small"] == metrics["mask_map"] == 1
    assert "mask_map_medium" not in metrics


def test_the_size_changes_every_ten_batches(cells: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recipe(train__multi_scale=[32, 64, [64, 96]])
    task: Any = prepare(asked, lambda line: None)[0]
    monkeypatch.setattr(DetectTask, "current_epoch", 3)
    chosen = [task._choose_size(i) for i in range(200)]
    assert all(chosen[i] == chosen[i // 10 * 10] for i in range(200))
    assert set(chosen) == {(32, 32), (64, 64), (64, 96)}
    assert chosen == [task._choose_size(i) for i in range(200)]


@pytest.mark.parametrize(
    "images", [[boxes()], [boxes(), boxes()], [boxes((3, 3, 3, 3))], [boxes((0, 0, 20, 20), label=-1)]]
)
def test_images_without_objects_give_a_finite_loss(task: DetectTask, images: list[Instances]) -> None:
    task.model.train()
    batch = batch_of(task, *images)
    losses = task.detector.loss(task.model(*task.predictor.inputs(batch)), task.targets(batch))
    assert all(torch.isfinite(term) for term in losses.values())
    evaluator = evaluator_of(task)
    evaluator.update(task.model(*task.predictor.inputs(batch)), batch)
    assert evaluator.brief()["map"] == 0


def test_two_processes_evaluate_as_one(task: DetectTask) -> None:
    _, _, splits = prepare(recipe(data__source="scenes:16"), lambda line: None)
    task.eval()
    torch.nn.init.zeros_(task.model.head.bias)  # type: ignore[union-attr, arg-type]
    parts = []
    for rank, world in ((0, 1), (0, 2), (1, 2)):
        evaluator = evaluator_of(task)
        loader = data.create_loader(splits["train"], task.preprocessing, batch_size=4, rank=rank, world_size=world)
        for batch in loader:
            evaluator.update(task.model(*task.predictor.inputs(batch)), batch)
        parts.append(evaluator)
    whole, *shares = parts
    merged = evaluator_of(task)
    merged.merge([pickle.loads(pickle.dumps(share.state())) for share in shares])
    for one, two in zip(whole.gathered(), merged.gathered(), strict=True):
        assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(one, two, strict=True))
    assert {k: v for k, v in whole.brief().items() if k != "loss"} == pytest.approx(
        {k: v for k, v in merged.brief().items() if k != "loss"}
    )


def test_the_evaluators_truth_is_that_of_the_files(task: DetectTask) -> None:
    _, _, splits = prepare(recipe(data__fit="pad", data__size=[64, 96]), lambda line: None)
    evaluator = evaluator_of(task)
    for batch in data.create_loader(splits["train"], task.preprocessing, batch_size=3):
        evaluator.update(task.model(*task.predictor.inputs(batch)), batch)
    truth, _ = evaluator.gathered()
    for own, read in zip(truth, splits["train"].kind.instances, strict=True):
        torch.testing.assert_close(own.boxes, read.boxes, rtol=0, atol=1e-3)
        assert torch.equal(own.labels, read.labels)  # type: ignore[arg-type]


def test_diverged_weights_are_told(task: DetectTask) -> None:
    torch.nn.init.constant_(task.model.head.weight, float("nan"))  # type: ignore[union-attr, arg-type]
    batch = batch_of(task, boxes((5, 5, 20, 20)))
    with pytest.raises(JobError, match=r"not numbers.*0\.png"):
        evaluator_of(task).update(task.model(*task.predictor.inputs(batch)), batch)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"data__size": 60}, "multiples of 8, data.size gives 60x60"),
        ({"train__multi_scale": [64, 100]}, "detect.multi_scale gives 100x100"),
        ({"mixing__mixup": 0.2}, "mosaic and mixup in augment"),
        ({"loss__name": "cross_entropy"}, "the loss of cells is its own"),
        ({"model__backbone_weights": "imagenet1k"}, "no registered backbone"),
        ({"augment": "imagenett"}, "imagenet"),
        ({"augment": ["auto_augment"]}, "auto_augment"),
        ({"model__name": "resnet18"}, "a model for classify, not for detect"),
        ({"train__monitor": "val_accuracy"}, "val_accuracy"),
    ],
)
def test_what_does_not_fit_is_refused(cells: str, tmp_path: Path, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        opsin.train(recipe(**setting).model_dump(), out=tmp_path / "run", say=lambda line: None)


def test_detectors_need_detection_data(cells: str) -> None:
    with pytest.raises(InputError, match="scenes"):
        prepare(recipe(data__source="digits"), lambda line: None)


@pytest.fixture
def trained(cells: str, tmp_path: Path) -> Iterator[tuple[opsin.Run, Path]]:
    settings = {"train.epochs": 2, "train.multi_scale": [32, 64], "augment": "light_boxes", "train.ema_decay": 0.9}
    yield opsin.train(copy.deepcopy(RECIPE), settings, out=tmp_path / "run", say=lambda line: None), tmp_path / "run"


def test_a_run_from_end_to_end(trained: tuple[opsin.Run, Path]) -> None:
    run, folder = trained
    assert {"val_loss", "val_map", "val_map_50", "train_class", "train_box"} <= run.history[0].keys()
    assert {"map", "map_50", "loss", "cost_missed"} <= run.metrics.keys()
    report = (folder / "report.html").read_text(encoding="utf-8")
    for title in (
        "Classes",
        "Cost of the errors",
        "Worst images",
        "Which anchors or cells are matched to which object",
    ):
        assert title in report
    saved = read_model(folder)
    assert saved.values["score_threshold"] is not None
    metrics = opsin.evaluate(folder, split="test")
    assert metrics == pytest.approx(run.metrics, abs=1e-5)
    found = json.loads((folder / "evaluation_test.json").read_text())
    assert len(found["per_class"]) == 10
    assert found["score_threshold"] == saved.values["score_threshold"]
    resumed = opsin.train(resume=folder, overrides={"train.epochs": 3}, say=lambda line: None)
    assert resumed.epochs == 3


def test_another_training_gives_the_first_weights(trained: tuple[opsin.Run, Path]) -> None:
    _, folder = trained
    lines: list[str] = []
    task, _, _ = prepare(recipe(train__init=str(folder)), lines.append)
    state = read_model(folder).state
    assert all(torch.equal(value, state[key]) for key, value in task.model.state_dict().items())
    assert any("initialized" in line for line in lines)


def test_four_scenes_are_learned_by_heart(cells: str, tmp_path: Path) -> None:
    settings = {"train.epochs": 60, "train.batch_size": 4, "data.val_fraction": 0, "data.limit": 2, "optim.lr": 0.02,
                "model.width": 16, "schedule.warmup_epochs": 0, "data.size": 64}  # fmt: skip
    values = copy.deepcopy(RECIPE)
    task, _, splits = prepare(load_recipe(values, settings), lambda line: None)
    batch = next(iter(data.create_loader(splits["train"], task.preprocessing, batch_size=2)))
    optimizer = torch.optim.Adam(task.model.parameters(), 0.01)
    task.model.train()
    for _ in range(120):
        losses = task.model.loss(task.model(*task.predictor.inputs(batch)), task.targets(batch))  # type: ignore[operator]
        optimizer.zero_grad()
        sum(losses.values()).backward()  # type: ignore[union-attr]
        optimizer.step()
    evaluator = task.create_evaluator()
    task.model.train()  # batch norm by this very batch
    assert isinstance(evaluator, DetectEvaluator)
    with torch.no_grad():
        evaluator.update(task.model(*task.predictor.inputs(batch)), batch)
    assert evaluate(*evaluator.gathered(), task.classes).metrics["map_50"] > 0.95


def test_models_of_the_task_are_listed(cells: str) -> None:
    assert "cells" in registry.list_models(task="detect")
    assert "cells" not in registry.list_models(task="classify")

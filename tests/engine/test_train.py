"""What a training does with its recipe, against plain slow versions."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import opsin
from opsin import data
from opsin.engine import callbacks
from opsin.engine.checkpoint import read_checkpoint, read_model
from opsin.engine.recipe import load_recipe
from opsin.engine.task import Task
from opsin.engine.train import prepare
from opsin.errors import InputError

RECIPE: dict[str, Any] = {
    "model": {"name": "lenet5"},
    "data": {"source": "digits", "limit": 150},
    "optim": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "schedule": {"name": "constant"},
    "train": {"epochs": 2, "batch_size": 32, "keep": "last", "tensorboard": False},
}


def train(out: Path, overrides: dict[str, Any] | None = None) -> opsin.Run:
    return opsin.train(copy.deepcopy(RECIPE), overrides, out=out, say=lambda line: None)


def plain_training(overrides: dict[str, Any] | None = None, ema: float | None = None) -> dict[str, torch.Tensor]:
    """The same training as a loop of twenty lines. Returns the final weights, or their moving average."""
    recipe = load_recipe(copy.deepcopy(RECIPE), overrides)
    torch.manual_seed(recipe.train.seed)
    task, _, splits = prepare(recipe, lambda line: None)
    model = task.model.train()
    loader = data.create_loader(splits["train"], task.preprocessing, batch_size=recipe.train.batch_size, training=True)
    optimizer = torch.optim.SGD(model.parameters(), recipe.optim.lr, momentum=0.9)
    average = {k: v.clone() for k, v in model.state_dict().items()}
    step = 0
    for epoch in range(recipe.train.epochs):
        loader.set_epoch(epoch)
        for batch in loader:
            logits = model(task.preprocessing.normalize(batch["image"]))
            loss = torch.nn.functional.cross_entropy(logits, batch["label"])
            optimizer.zero_grad()
            loss.backward()
            if recipe.train.clip_norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.train.clip_norm)
            optimizer.step()
            step += 1
            if ema is not None:
                decay = min(ema, (1 + step) / (10 + step))
                average = {k: decay * average[k] + (1 - decay) * v for k, v in model.state_dict().items()}
    return average if ema is not None else model.state_dict()


def assert_close(run: opsin.Run, expected: dict[str, torch.Tensor]) -> None:
    state = read_model(run.path).state
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-6, msg=key)


def test_equals_a_plain_loop(tmp_path: Path):
    assert_close(train(tmp_path / "run"), plain_training())


def test_clipping_equals_a_plain_loop(tmp_path: Path):
    setting = {"train.clip_norm": 0.1}
    assert_close(train(tmp_path / "run", setting), plain_training(setting))


def test_moving_average_equals_a_plain_loop(tmp_path: Path):
    assert_close(train(tmp_path / "run", {"train.ema_decay": 0.9}), plain_training(ema=0.9))


def test_accumulation_equals_the_larger_batch(tmp_path: Path):
    even = {"data.limit": 128}  # nothing is left over at an epoch's end
    small = train(tmp_path / "small", {**even, "train.batch_size": 16, "train.accumulate": 2})
    assert_close(small, plain_training(even))


def test_the_model_of_the_best_epoch_is_kept(tmp_path: Path):
    run = train(tmp_path / "run", {"train.keep": "best", "train.epochs": 4, "optim.lr": 0.3})
    accuracies = [row["val_accuracy"] for row in run.history]
    best = read_checkpoint(tmp_path / "run" / "best.ckpt")
    assert best["epoch"] == int(np.argmax(accuracies))
    saved = read_model(run.path)
    for key, value in saved.state.items():
        assert torch.equal(value, best["state_dict"][f"model.{key}"])
    assert saved.metrics["test_accuracy"] == run.metrics["accuracy"]


def test_stops_early(tmp_path: Path):
    run = train(tmp_path / "run", {"train.early_stopping_patience": 1, "train.epochs": 30, "optim.lr": 1e-7})
    assert len(run.history) < 30


def test_learns_four_images_by_heart(tmp_path: Path):
    settings = {"data.limit": 4, "data.val_fraction": 0, "train.epochs": 40, "train.batch_size": 4, "optim.lr": 0.02}
    run = train(tmp_path / "run", settings)
    assert run.history[-1]["train_loss"] < 0.02


def test_the_same_seed_gives_the_same_run_and_another_another(tmp_path: Path):
    runs = [train(tmp_path / str(i), {"train.seed": seed}) for i, seed in enumerate((3, 3, 4))]
    states = [read_model(run.path).state for run in runs]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"train.precision": "bf16-mixed"},
        {"train.channels_last": True},
        {"loss.smoothing": 0.1, "loss.class_weights": "balanced"},
        {"mixing.mixup": 0.2, "mixing.cutmix": 1.0},
        {"schedule.name": "step", "schedule.milestones": [1], "schedule.warmup_epochs": 1},
        {"optim.name": "rmsprop", "optim.lr": 0.001, "optim.momentum": 0.5, "optim.decay_norm_and_bias": False},
        {"data.val_fraction": 0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_option_trains(settings: dict[str, Any], tmp_path: Path):
    run = train(tmp_path / "run", settings)
    assert all(np.isfinite(value) for row in run.history for value in row.values())


def test_says_what_changes_the_result_without_showing(tmp_path: Path):
    lines: list[str] = []
    overrides = {"loss.smoothing": 0.1, "mixing.mixup": 0.2, "train.ema_decay": 0.99, "loss.class_weights": "balanced"}
    opsin.train(copy.deepcopy(RECIPE), {**overrides, "train.max_steps": 1}, out=tmp_path / "run", say=lines.append)
    text = "\n".join(lines)
    for word in ("label smoothing 0.1", "weighted by inverse frequency", "mixup alpha 0.2", "moving average"):
        assert word in text


@pytest.mark.parametrize(
    ("epoch", "settings", "said"),
    [
        (0, {"epochs": 4}, "about 1 min 20 s for 4 epochs"),  # 40 steps of 2 s
        (2, {"epochs": 4}, "about 40 s for 2 epochs"),  # one that goes on: the steps before are over
        (2, {"epochs": 9, "max_steps": 17, "accumulate": 2}, "about 28 s for 2 epochs"),  # 34 batches, 20 are over
    ],
)
def test_forecasts_what_is_left(epoch: int, settings: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch):
    class Stub(Task):
        recipe: Any = SimpleNamespace(
            train=load_recipe(RECIPE, {f"train.{key}": settings[key] for key in settings}).train
        )

        def __init__(self) -> None:
            pass

        def targets(self, batch: Any) -> Any:
            raise NotImplementedError

    lines: list[str] = []
    history = callbacks.History(SimpleNamespace(), lines.append)  # type: ignore[arg-type]
    trainer: Any = SimpleNamespace(train_dataloader=range(10), current_epoch=epoch, is_global_zero=True)
    for batch in range(6):
        monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda batch=batch: 50.0 + 2 * batch))
        history.on_train_batch_end(trainer, Stub(), None, None, batch)
    assert lines == [said]


def test_first_weights_from_another_run(tmp_path: Path):
    first = train(tmp_path / "first")
    lines: list[str] = []
    settings = {"train.init": str(first.path), "train.max_steps": 1, "optim.lr": 1e-12}
    second = opsin.train(copy.deepcopy(RECIPE), settings, out=tmp_path / "second", say=lines.append)
    before, after = read_model(first.path).state, read_model(second.path).state
    for key, value in before.items():
        torch.testing.assert_close(after[key], value)
    assert any("initialized" in line for line in lines)


def test_the_saved_model_describes_itself(tmp_path: Path):
    run = train(tmp_path / "run", {"data.mean": [0.3], "data.std": [0.4]})
    saved = read_model(run.path / "model.safetensors")
    assert saved.classes == [str(i) for i in range(10)]
    assert saved.preprocessing is not None and saved.preprocessing.mean == (0.3,)
    assert saved.recipe == load_recipe(yaml.safe_load((run.path / "recipe.yaml").read_text()))
    assert 0.05 <= saved.values["temperature"] <= 20
    evaluated = opsin.evaluate(run.path / "model.safetensors")
    assert evaluated == run.metrics


def test_predict_takes_whatever_holds_an_image(tmp_path: Path):
    run = train(tmp_path / "run", {"train.epochs": 6})
    predictor = opsin.load(run.path)
    split = data.open("digits").splits["test"]
    image = split.read(0)
    same = [
        predictor.predict(image),
        predictor.predict(image[0].numpy()),
        predictor.predict(image.float() / 255),
        predictor.predict(image.permute(1, 2, 0).numpy()),
        predictor.predict(torch.stack([image, image]))[1],
    ]
    assert len({answer["label"] for answer in same}) == 1
    assert all(answer["score"] == pytest.approx(same[0]["score"], abs=1e-5) for answer in same)
    assert sum(one["score"] for one in predictor.predict(image, top=10)["top"]) == pytest.approx(1, abs=1e-5)
    for wrong in (np.full((8, 8), np.nan), torch.zeros(2, 8, 8, dtype=torch.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(InputError, match="is no image; "):
            predictor.predict(wrong)


def test_multi_label(tmp_path: Path):
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (80, 3))
    images = np.zeros((80, 32, 32), np.uint8)
    for place, row in enumerate(labels):
        for number, there in enumerate(row):
            images[place, 10 * number : 10 * number + 10] = 200 * there
    np.savez(tmp_path / "bars.npz", images=images, labels=labels)
    settings = {"data.source": str(tmp_path / "bars.npz"), "data.multi_label": True, "data.limit": None}
    settings["data.split"] = "stratified"  # there are eight different images, which a hash would divide as eight groups
    run = train(tmp_path / "run", {**settings, "train.epochs": 12, "train.batch_size": 8})
    assert run.metrics["map"] > 0.95
    answer = opsin.load(run.path).predict(images[0])
    assert {one["label"] for one in answer["labels"]} == {str(i) for i in np.flatnonzero(labels[0])}

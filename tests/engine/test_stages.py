"""Stages: what is finished is not done again, what was made from something else is refused, and the user may stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import opsin
from opsin.backbones.lenet import LeNet5
from opsin.classify.task import ClassifyTask
from opsin.data.boxes import Boxes
from opsin.data.inputs import ImageArray
from opsin.data.source import Split
from opsin.engine.callbacks import StoppedError
from opsin.engine.checkpoint import read_model
from opsin.engine.recipe import load_recipe
from opsin.engine.run import RunFolder
from opsin.engine.stages import Workplace, read_records, run_stages, stage_table, write_shards
from opsin.engine.task import Stage
from opsin.errors import InputError, JobError
from opsin.structures import Instances


def split(value: int = 0, reach: float = 4.0) -> Split:
    objects = [Instances(torch.tensor([[0.0, 0.0, reach, 4.0]]), torch.tensor([0])) for _ in range(3)]
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    images[1] = value
    return Split(ImageArray(images, "made"), Boxes.of(objects, ["object"]))


class Bench:
    """A model of two numbers, and stages that count how often they run."""

    def __init__(self, folder: Path, splits: Mapping[str, Any] | None = None, **overrides: Any) -> None:
        values = {"task": "classify", "model": {"name": "lenet5"}, "data": {"source": "made"}}
        recipe = load_recipe(values, {key.replace("__", "."): value for key, value in overrides.items()})
        model = nn.Module()
        model.register_buffer("first", torch.zeros(1))
        model.register_buffer("second", torch.zeros(1))
        self.task: Any = SimpleNamespace(recipe=recipe, model=model)
        self.run, self.splits = RunFolder(folder), splits or {"train": split()}
        self.said: list[str] = []
        self.ran: list[str] = []

    def go(self, second: Callable[[Workplace], Mapping[str, Tensor]] | None = None, first: str = "first") -> None:
        def one(work: Workplace) -> dict[str, Tensor]:
            self.ran.append("first")
            (work.folder / "notes").write_text("x" * 1000)
            return {"first": torch.ones(1)}

        def two(work: Workplace) -> dict[str, Tensor]:
            self.ran.append("second")
            assert (work.folder_of("first") / "notes").exists()
            return {"second": work.task.model.first + 1}  # type: ignore

        stages = [Stage(first, one), Stage("second", second or two)]
        run_stages(stages, self.task, self.splits, self.run, lambda *_: None, self.said.append)  # type: ignore

    @property
    def values(self) -> list[float]:
        return [float(value) for value in self.task.model.state_dict().values()]


def test_stages_run_in_order_on_each_others_results(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.go()
    assert bench.ran == ["first", "second"]
    assert bench.values == [1, 2]
    one, two = read_records(tmp_path)
    assert (one.name, two.name) == ("first", "second")
    assert one.finished
    assert two.finished
    assert 1000 < one.bytes < 1200  # the notes, and a result of one number
    assert one.bytes == sum(file.stat().st_size for file in (tmp_path / "stages/first").iterdir())
    assert stage_table([one, two]).rows[0][0] == "first"
    assert [line.split(":")[0] for line in bench.said][::2] == ["stage 1 of 2, first", "stage 2 of 2, second"]


def test_killed_stage_is_done_again_and_no_other(tmp_path: Path) -> None:
    def dies(work: Workplace) -> dict[str, Tensor]:
        raise JobError("the power went")

    with pytest.raises(JobError, match="the power went"):
        Bench(tmp_path).go(dies)
    assert [record.finished for record in read_records(tmp_path)] == [True, False]
    bench = Bench(tmp_path)
    bench.go()
    assert bench.ran == ["second"]
    assert bench.values == [1, 2]
    assert "finished before" in bench.said[0]
    again = Bench(tmp_path)
    again.go()
    assert again.ran == []
    assert again.values == [1, 2]


def test_result_that_was_written_but_not_recorded_is_made_again(tmp_path: Path) -> None:
    """A process that dies between the two leaves a result that nothing vouches for."""
    bench = Bench(tmp_path)
    bench.go()
    path = tmp_path / "stages.json"
    content = json.loads(path.read_text())
    content["stages"][1]["finished"] = False
    path.write_text(json.dumps(content))
    again = Bench(tmp_path)
    again.go()
    assert again.ran == ["second"]


def test_user_may_stop(tmp_path: Path) -> None:
    def stops(work: Workplace) -> dict[str, Tensor]:
        raise KeyboardInterrupt

    with pytest.raises(StoppedError, match=rf"stopped in stage second; go on with: opsin train --resume {tmp_path}"):
        Bench(tmp_path).go(stops)
    bench = Bench(tmp_path)
    bench.go()
    assert bench.ran == ["second"]


@pytest.mark.parametrize(
    ("splits", "overrides", "message"),
    [
        ({"train": split(value=9)}, {}, "made from other data than made is now"),
        ({"train": split(reach=5.0)}, {}, "made from other data"),  # the same images with other boxes
        (None, {"optim__lr": 0.5}, r"were made with optim.lr=\S+, the recipe now has 0.5; start another run"),
        (None, {"model__activation": "tanh"}, r"were made with model.activation=None, the recipe now has 'tanh'"),
    ],
)
def test_other_origin_is_refused(tmp_path: Path, splits: Any, overrides: dict[str, Any], message: str) -> None:
    Bench(tmp_path).go()
    with pytest.raises(InputError, match=message):
        Bench(tmp_path, splits, **overrides).go()


def test_what_changes_no_result_may_change(tmp_path: Path) -> None:
    Bench(tmp_path).go()
    bench = Bench(tmp_path, train__workers=2, train__tensorboard=False)
    bench.go()
    assert bench.ran == []


def test_other_stages_and_damaged_records_are_refused(tmp_path: Path) -> None:
    Bench(tmp_path).go()
    with pytest.raises(InputError, match="are first, second, the model's are other, second"):
        Bench(tmp_path).go(first="other")
    (tmp_path / "stages.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        Bench(tmp_path).go()
    with pytest.raises(InputError, match="was not trained in stages"):
        read_records(tmp_path / "elsewhere")


def test_result_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="third"):
        Bench(tmp_path).go(lambda work: {"third": torch.ones(1)})


def test_finished_shards_are_not_made_again(tmp_path: Path) -> None:
    made: list[range] = []

    def make(places: range) -> dict[str, Tensor]:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(places)
        return {"x": torch.tensor(list(places))}

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, 10, 4, make, title="features", say=print)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000.safetensors", "000001.safetensors"]
    said: list[str] = []
    made = [range(0)]
    paths = write_shards(tmp_path, 10, 4, make, title="features", say=said.append)
    assert made[1:] == [range(8, 10)]
    assert said == ["features: 2 of 3 shards were there"]
    assert torch.cat([load_file(path)["x"] for path in paths]).tolist() == list(range(10))
    assert write_shards(tmp_path / "none", 0, 4, make, title="features", say=print) == []


# Through a whole training: a classifier in two stages

RECIPE: dict[str, Any] = {
    "task": "classify",
    "model": {"name": "lenet5"},
    "data": {"source": "digits", "limit": 60},
    "train": {"epochs": 2, "batch_size": 16, "tensorboard": False, "accelerator": "cpu", "save_every_steps": 1},
}


class Doubled(LeNet5):
    """A LeNet with the tensors of another one, and twice its loss."""

    def __init__(self, model: LeNet5) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(model))

    def loss(self, *arguments: Any, **options: Any) -> dict[str, Tensor]:
        return {name: 2 * value for name, value in super().loss(*arguments, **options).items()}


def part(state: Mapping[str, Tensor], *children: str) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items() if name.partition(".")[0] in children}


def train_head(work: Workplace) -> dict[str, Tensor]:
    model: Any = work.task.model
    still = [model.stem, model.stages]
    for module in still:
        module.requires_grad_(False)
    work.train({"train": work.splits["train"]}, Doubled(model))
    for module in still:
        module.requires_grad_(True)
    assert work.task.model is model
    return part(model.state_dict(), "head")


def train_all(work: Workplace) -> dict[str, Tensor]:
    work.train(work.splits)
    return work.task.model.state_dict()


def test_any_task_trains_in_stages_and_a_killed_one_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task = ClassifyTask
    monkeypatch.setattr(task, "stages", lambda self: [Stage("head", train_head), Stage("all", train_all)])
    whole = opsin.train(RECIPE, out=tmp_path / "whole", say=lambda line: None)
    assert [row["epoch"] for row in whole.history] == [1, 2, 3, 4]
    assert ["val_loss" in row for row in whole.history] == [False, False, True, True]
    assert [record.name for record in read_records(whole.path)] == ["head", "all"]
    assert set(load_file(whole.path / "stages/head/result.safetensors")) == set(
        part(read_model(whole.path).state, "head")
    )

    step, steps = task.training_step, 0

    def dies(*arguments: Any) -> Tensor | None:
        nonlocal steps
        steps += 1
        if steps == at:
            raise JobError("the power went")
        return step(*arguments)

    for at in (2, 9):  # six steps a stage
        steps, killed = 0, tmp_path / f"killed_{at}"
        with monkeypatch.context() as patch:
            patch.setattr(task, "training_step", dies)
            with pytest.raises(JobError, match="the power went"):
                opsin.train(RECIPE, out=killed, say=lambda line: None)
        assert [record.finished for record in read_records(killed)] == [at == 9, False]
        again = opsin.train(resume=killed, say=lambda line: None)
        one, two = read_model(whole.path).state, read_model(killed).state
        assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
        assert again.metrics == whole.metrics

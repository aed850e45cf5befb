"""What stops and damages trainings: signals to a whole group, damaged checkpoints, finished runs, two at once."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import opsin
from opsin.data.loading import WorkerError, derive_seed
from opsin.engine import callbacks, train
from opsin.engine.checkpoint import read_checkpoint, read_model
from opsin.engine.recipe import load_recipe
from opsin.engine.resuming import ended_by_another, locked
from opsin.engine.run import RunFolder
from opsin.errors import InputError, JobError
from opsin.optim import create_schedule

RECIPE: dict[str, Any] = {
    "model": {"name": "lenet5"},
    "data": {"source": "digits", "limit": 100},
    "optim": {"name": "sgd", "lr": 0.02, "momentum": 0.9},
    "train": {"epochs": 2, "batch_size": 25, "save_every_steps": 1, "tensorboard": False},
}


def quiet(line: str) -> None:
    pass


def settings(**changed: Any) -> dict[str, Any]:
    return {**RECIPE, "train": {**RECIPE["train"], **changed}}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "last.ckpt")["state_dict"]


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    opsin.train(RECIPE, out=out, say=quiet)
    return out


def copy(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to))


# Runs that have nothing left to do


def test_a_finished_run_trains_on_only_when_it_is_given_more(finished: Path, tmp_path: Path) -> None:
    out, lines = copy(finished, tmp_path / "run"), []
    before = weights(out)
    metrics = (out / "metrics.csv").read_bytes()
    run = opsin.train(resume=out, say=lines.append)
    assert any(line.startswith("nothing is left to train: its 2 epochs are done") for line in lines)
    assert same(weights(out), before)
    assert (out / "metrics.csv").read_bytes() == metrics
    assert run.metrics == opsin.evaluate(out)
    opsin.train(resume=out, overrides={"train.epochs": 3}, say=quiet)
    assert len((out / "metrics.csv").read_text().splitlines()) == 4
    assert not same(weights(out), before)


def test_a_step_limit_and_early_stopping_hold_over_a_resume(tmp_path: Path) -> None:
    limited = tmp_path / "limited"
    opsin.train(settings(epochs=9, max_steps=3), out=limited, say=quiet)
    steps = read_checkpoint(limited / "last.ckpt")["global_step"]
    lines: list[str] = []
    opsin.train(resume=limited, say=lines.append)
    assert read_checkpoint(limited / "last.ckpt")["global_step"] == steps == 3
    assert any("its 3 steps are done; for more: --set train.max_steps=6" in line for line in lines)
    opsin.train(resume=limited, overrides={"train.max_steps": 5}, say=quiet)
    assert read_checkpoint(limited / "last.ckpt")["global_step"] == 5
    stopped = tmp_path / "stopped"
    recipe = settings(epochs=9, early_stopping_patience=1) | {"optim": {"name": "sgd", "lr": 1e-12}}
    opsin.train(recipe, out=stopped, say=quiet)
    epochs = len((stopped / "metrics.csv").read_text().splitlines())
    assert epochs < 9
    lines = []
    opsin.train(resume=stopped, say=lines.append)
    assert len((stopped / "metrics.csv").read_text().splitlines()) == epochs
    opsin.train(resume=stopped, overrides={"train.early_stopping_patience": 2}, say=quiet)
    assert len((stopped / "metrics.csv").read_text().splitlines()) == epochs + 1
    assert any("it stopped early, after 1 epochs without a better val_accuracy" in line for line in lines)


# Damaged checkpoints


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "half":
        path.write_bytes(data[: len(data) // 2])
    elif how == "zeros":
        path.write_bytes(data[:1000] + bytes(len(data) - 1000))
    elif how == "nothing but zeros":  # as a lost disk leaves a file
        path.write_bytes(bytes(len(data)))
    else:
        content = torch.load(path, weights_only=True)
        del content[how]
        torch.save(content, path)


@pytest.mark.parametrize("how", ["empty", "half", "zeros", "nothing but zeros", "optimizer_states", "opsin", "loops"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(how: str, finished: Path, tmp_path: Path) -> None:
    out, lines = copy(finished, tmp_path / "run"), []
    whole = weights(out)
    damage(out / "last.ckpt", how)
    opsin.train(resume=out, say=lines.append)
    said = [line for line in lines if "previous.ckpt" in line]
    assert len(said) == 1
    assert str(out / "last.ckpt") in said[0]
    assert "miniz" not in said[0]  # whose advice is for those who wrote the reader
    assert same(weights(out), whole)  # the last step is done again


def test_without_a_whole_checkpoint_the_best_one_is_named(finished: Path, tmp_path: Path) -> None:
    out = copy(finished, tmp_path / "run")
    damage(out / "last.ckpt", "empty")
    damage(out / "previous.ckpt", "half")
    with pytest.raises(InputError, match=r"last\.ckpt.*previous\.ckpt.*cp .*best\.ckpt .*last\.ckpt"):
        opsin.train(resume=out, say=quiet)


def test_the_previous_checkpoint_is_there_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = callbacks.CheckpointFiles()
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for number in range(3):
        files.save_checkpoint({"state_dict": {}, "number": number}, last)
        assert read_checkpoint(last)["number"] == number
        assert previous.exists() == (number > 0)
        if number:
            assert read_checkpoint(previous)["number"] == number - 1
    replace = Path.replace

    def dies(self: Path, target: Path) -> Path:
        if Path(target).name == "last.ckpt":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        files.save_checkpoint({"state_dict": {}, "number": 3}, last)
    assert read_checkpoint(last)["number"] == 2
    assert read_checkpoint(previous)["number"] in (1, 2)


# Two at once, and what dead processes leave


def test_a_run_is_trained_by_one_process_at_a_time(finished: Path, tmp_path: Path) -> None:
    out = copy(finished, tmp_path / "run")
    with locked(RunFolder(out)):
        code = f"import opsin; opsin.train(resume={str(out)!r})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "is being trained by another process" in other.stderr.splitlines()[-1]
    assert not (out / ".lock").exists()
    with locked(RunFolder(out)):
        pass


def test_temporaries_of_dead_processes_are_swept(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    name = f".last.ckpt.{process.pid}.tmp"
    paths = [tmp_path / one for one in (name, f"stages/tune/{name}", f".a.{os.getpid()}.tmp", ".x.tmp")]
    paths[1].parent.mkdir(parents=True)
    for path in paths:
        path.write_bytes(b"half")
    with locked(RunFolder(tmp_path)):
        pass
    assert [path.exists() for path in paths] == [False, False, True, True]


# Signals

TRAINING = """
import json, sys
import opsin
from opsin.cli import main
from opsin.engine.task import Task

step = Task.training_step
def slow(self, batch, batch_idx):
    if self.current_epoch == 1 and batch_idx == 1:
        print("ready", flush=True)
        __import__("time").sleep(1)
    return step(self, batch, batch_idx)
Task.training_step = slow
sys.argv = ["opsin", "train", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(("name", "workers"), [("SIGTERM", 2), ("SIGHUP", 0)])
def test_a_signal_to_the_whole_group_loses_nothing(name: str, workers: int, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(settings(epochs=3, workers=workers, save_every_steps=None)))
    opsin.train(settings(epochs=3, save_every_steps=None), out=tmp_path / "whole", say=quiet)
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(recipe), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(3):  # systemd and schedulers send more than one
        os.killpg(process.pid, getattr(signal, name))
        time.sleep(0.05)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1, told
    assert f"nothing is lost: opsin train --resume {out}" in told.splitlines()[-1]
    assert "Traceback" not in told
    opsin.train(resume=out, say=quiet)
    assert same(weights(out), weights(tmp_path / "whole"))


def test_a_signal_while_data_is_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*given: Any, **named: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(train, "prepare", slow)
    with pytest.raises(JobError, match="stopped before anything was trained"):
        opsin.train(RECIPE, out=tmp_path / "run", say=quiet)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_other_processes_end_is_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert str(ended_by_another(WorkerError("no room"), run, 1)).startswith("no room; go on from the last checkpoint")
    gone = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1")
    assert "another process of this training has ended" in str(ended_by_another(gone, run, 2))
    assert ended_by_another(gone, run, 1) is None
    assert ended_by_another(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), run, 2) is None


# Values that are not numbers


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_no_value_that_is_not_finite_is_ever_the_best(value: float, mode: str) -> None:
    stopping = callbacks.early_stopping("val_accuracy", mode, 2)
    should, _ = stopping._evaluate_stopping_criteria(torch.tensor(0.5))
    assert not should
    for expected in (False, True):
        should, _ = stopping._evaluate_stopping_criteria(torch.tensor(value))
        assert should == expected
    assert float(stopping.best_score) == 0.5
    assert stopping.state_key == f"EarlyStopping{ {'monitor': 'val_accuracy', 'mode': mode} }"
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    plateau = create_schedule(optimizer, "plateau", steps=10, steps_per_epoch=1, mode=mode, patience=0)
    plateau.step()
    plateau.observe(0.5)
    plateau.observe(value)
    assert plateau.state_dict()["best"] == 0.5
    assert optimizer.param_groups[0]["lr"] < 1.0


# Settings that would train on nothing


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"train.early_stopping_patience": 2, "data.val_fraction": 0},
            "early_stopping_patience needs a validation split",
        ),
        ({"schedule.name": "plateau", "data.val_fraction": 0}, "plateau, which needs a validation split"),
        ({"train.monitor": "val_accuracy", "data.val_fraction": 0}, "train.monitor is val_accuracy, and there is no"),
        ({"loss.class_weights": [0] * 10}, "class_weights are all 0"),
        ({"train.devices": 99999999, "train.accelerator": "cpu"}, "train.devices is 99999999"),
        ({"train.seed": -1}, "train.seed"),
        ({"train.seed": 1 << 64}, "train.seed"),
        ({"data.split_seed": -1}, "data.split_seed"),
        ({"data.split_seed": 1 << 32}, "data.split_seed"),
        ({"model.name": "resnet18", "train.batch_size": 1, "data.size": 32}, "normalises over a batch of 1x1 maps"),
    ],
)
def test_what_cannot_train_is_refused_before(change: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=match):
        opsin.train(RECIPE, change, out=tmp_path / "run", say=quiet)
    assert not (tmp_path / "run").exists()


def test_a_batch_of_one_trains_where_maps_are_larger(tmp_path: Path) -> None:
    change = {"model.name": "resnet20", "train.batch_size": 1, "train.max_steps": 1, "data.limit": 20}
    opsin.train(RECIPE, change, out=tmp_path / "run", say=quiet)
    assert read_model(tmp_path / "run").recipe.train.batch_size == 1


# Accumulation


def test_the_last_step_of_an_epoch_weighs_as_the_others(tmp_path: Path) -> None:
    """Of five batches by three: SGD moves by the mean gradient of three, then by that of two; here by a plain loop."""
    recipe = settings(epochs=1, batch_size=20, accumulate=3, save_every_steps=None) | {
        "optim": {"name": "sgd", "lr": 0.1, "momentum": 0.0},
        "schedule": {"name": "constant"},
    }
    opsin.train(recipe, out=tmp_path / "run", say=quiet)
    torch.manual_seed(0)
    task, _, splits = train.prepare(load_recipe(recipe), quiet)
    batches = list(train.create_train_loader(task, splits["train"]))
    assert len(batches) == 5
    for first, group in ((0, batches[:3]), (3, batches[3:])):
        task.model.zero_grad()
        for number, batch in enumerate(group, first):
            torch.manual_seed(derive_seed(0, 0, number, 0))
            losses = task.model.loss(task.model(*task.inputs(batch)), task.targets(batch))
            (torch.stack(list(losses.values())).sum() / len(group)).backward()
        with torch.no_grad():
            for parameter in task.model.parameters():
                parameter -= 0.1 * parameter.grad
    trained = weights(tmp_path / "run")
    for name, value in task.model.state_dict().items():
        assert torch.allclose(trained[f"model.{name}"], value, atol=1e-6), name

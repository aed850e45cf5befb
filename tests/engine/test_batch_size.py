"""`train.batch_size: auto`: as much as fits, and a training equal to the one that has the number."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opsin
from opsin.engine import measured, train
from opsin.engine.batch_size import MARGIN, Probe, find_batch_size, fullest, largest
from opsin.engine.checkpoint import read_checkpoint
from opsin.engine.memory import ProcessMemory
from opsin.engine.recipe import load_recipe, read_recipe
from opsin.engine.run import RunFolder
from opsin.errors import InputError

RECIPE: dict[str, Any] = {
    "model": {"name": "resnet20"},
    "data": {"source": "digits", "limit": 48, "size": 8},
    "augment": "digits",
    "mixing": {"mixup": 0.2},
    "optim": {"name": "sgd", "lr": 0.02, "momentum": 0.9},
    "train": {"epochs": 2, "batch_size": 16, "accelerator": "cpu", "keep": "last", "ema_decay": 0.9},
}


class FakeMemory:
    """Takes as many bytes as an example is said to, without looking; what is too much ends as if it ran out."""

    def __init__(self, available: int, each: int, forecast: bool = False) -> None:
        self.bytes, self.each, self.forecast = available, each, forecast
        self.tried: list[int] = []
        self.size = 0

    def available(self) -> int:
        return self.bytes

    def measure(self, work: Callable[[], object]) -> int | None:
        work()
        self.tried.append(self.size)
        return self.size * self.each if self.size * self.each <= self.bytes else None


@pytest.fixture
def task() -> tuple[Any, Any]:
    torch.manual_seed(0)
    made, _, splits = train.prepare(load_recipe(RECIPE), lambda line: None)
    return made, splits["train"]


def watched(memory: FakeMemory, monkeypatch: pytest.MonkeyPatch, steps: bool = False) -> FakeMemory:
    """The memory knows the size under way. steps: whether they are taken, too."""
    real = Probe._steps

    def note(self: Probe, size: int) -> None:
        memory.size = size
        if steps:
            real(self, size)

    monkeypatch.setattr(Probe, "_steps", note)
    monkeypatch.setattr(Probe, "_gradients", lambda self, size: 0)
    return memory


@pytest.mark.parametrize("most", range(0, 70))
def test_the_largest_by_doubling_and_bisecting_is_that_of_trying_all(most: int) -> None:
    for sizes in ([1], [2, 4, 8, 16, 32, 64], [2, 3, 4, 6, 9, 12, 18, 36], list(range(1, 65)), []):
        tried: list[int] = []

        def fits(size: int, tried: list[int] = tried) -> bool:
            tried.append(size)
            return size <= most

        assert largest(sizes, fits) == max((size for size in sizes if size <= most), default=None)
        assert len(tried) == len(set(tried)) <= 13


@pytest.mark.parametrize(
    ("available", "chosen", "accumulate"),
    [(10_000, 16, 1), (1600 / MARGIN + 1, 16, 1), (1600, 8, 2), (801, 4, 4), (900, 8, 2), (230, 2, 8), (120, 1, 16)],
)
def test_the_batch_of_the_recipe_is_kept_by_accumulation(
    available: float, chosen: int, accumulate: int, task: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = watched(FakeMemory(int(available), 100), monkeypatch)
    values, line = find_batch_size(*task, memory)
    assert values == {"train.batch_size": chosen, "train.accumulate": accumulate}
    assert line.startswith(f"batches of {chosen}: ")
    assert (f"batch norm sees {chosen} images, not 16" in line) == (accumulate > 1)


def test_nothing_is_tried_that_would_end_the_process(task: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    memory = watched(FakeMemory(1600, 100, forecast=True), monkeypatch)
    values, _ = find_batch_size(*task, memory)
    assert values["train.batch_size"] == 8 and 16 not in memory.tried
    plenty = watched(FakeMemory(100_000, 100, forecast=True), monkeypatch)
    assert find_batch_size(*task, plenty)[0]["train.batch_size"] == 16 and plenty.tried == [2, 4]


def test_not_one_example_fits(task: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"not one example fits .* lower data.size"):
        find_batch_size(*task, watched(FakeMemory(50, 100), monkeypatch))


def test_probing_leaves_everything_as_it_was(task: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made, split = task
    made.eval()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[union-attr]
    memory = watched(FakeMemory(10_000, 100), monkeypatch, steps=True)
    find_batch_size(made, split, memory)
    assert memory.tried == [2, 4, 8, 16]
    assert all(torch.equal(before[key], value) for key, value in made.state_dict().items())
    assert not made.training and made.recipe == load_recipe(RECIPE)
    assert all(parameter.grad is None for parameter in made.parameters())
    assert torch.equal(states[0], torch.get_rng_state()) and states[2] == random.getstate()
    assert np.array_equal(states[1], np.random.get_state()[1])  # type: ignore[index]


def weights(run: opsin.Run) -> dict[str, torch.Tensor]:
    checkpoint = read_checkpoint(run.path / "last.ckpt")
    average = next(v["average"] for v in checkpoint["callbacks"].values() if "average" in v)
    momentum = {str(k): v["momentum_buffer"] for k, v in checkpoint["optimizer_states"][0]["state"].items()}
    return {**checkpoint["state_dict"], **{f"average.{k}": v for k, v in average.items()}, **momentum}


@pytest.mark.parametrize("available", [10_000, 900])
def test_the_training_equals_that_with_the_number(
    available: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = watched(FakeMemory(available, 100), monkeypatch, steps=True)
    monkeypatch.setattr(measured, "find_batch_size", lambda task, split: find_batch_size(task, split, memory))
    lines: list[str] = []
    auto = opsin.train(RECIPE, {"train.batch_size": "auto"}, out=tmp_path / "auto", say=lines.append)
    found = load_recipe(read_recipe(tmp_path / "auto" / "recipe.yaml")).train
    assert found.batch_size * found.accumulate == 16 and found.batch_size == (16 if available == 10_000 else 8)
    assert len([line for line in lines if line.startswith(f"batches of {found.batch_size}: ")]) == 1
    numbers = {"train.batch_size": found.batch_size, "train.accumulate": found.accumulate}
    given = opsin.train(RECIPE, numbers, out=tmp_path / "given", say=lambda line: None)
    left, right = weights(auto), weights(given)
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    with pytest.raises(InputError, match=r"train.batch_size: auto is measured before the first step"):
        opsin.train(resume=auto.path, overrides={"train.batch_size": "auto"}, say=lambda line: None)


def test_by_flags_it_is_the_batch_that_flags_would_have(tmp_path: Path) -> None:
    flags = {"model": {"name": "lenet5"}, "data": {"source": "digits", "limit": 40}}
    short = {"train.max_steps": 1, "train.batch_size": "auto"}
    run = opsin.train(flags, short, out=tmp_path / "run", say=lambda line: None)
    assert load_recipe(read_recipe(run.path / "recipe.yaml")).train.batch_size == 16  # 40 images; else 64
    with pytest.raises(InputError, match=r"recipe key train.batch_size: .*got 'fast'"):
        load_recipe(RECIPE, {"train.batch_size": "fast"})


def test_the_example_with_the_most_objects_is_tried() -> None:
    recipe = {"task": "detect", "model": {"name": "yolov2"}, "data": {"source": "scenes:30", "size": 64}}
    _, _, splits = train.prepare(load_recipe(recipe), lambda line: None)
    counts = [len(one) for one in splits["train"].kind.instances]
    assert counts[fullest(splits["train"])] == max(counts) > min(counts)


def test_a_process_takes_what_it_allocates(tmp_path: Path) -> None:
    memory = ProcessMemory()
    available = memory.available()
    taken = memory.measure(lambda: torch.ones(50_000_000).sum())
    assert taken is not None and 190e6 < taken < 400e6 and available > taken

    def too_much() -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    assert memory.measure(too_much) is None
    with pytest.raises(RuntimeError, match="another"):
        memory.measure(lambda: (_ for _ in ()).throw(RuntimeError("another")))


def test_the_control_group_limits_what_there_is(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (groups / "a" / "b").mkdir(parents=True)
    (proc / "self" / "statm").write_text("100 10 5")
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    (proc / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 8000 kB\n")
    assert ProcessMemory(proc, groups).available() == 8000 * 1024
    (groups / "a" / "b" / "memory.max").write_text("max\n")
    (groups / "a" / "memory.max").write_text("5000000\n")
    (groups / "a" / "memory.current").write_text("2000000\n")
    assert ProcessMemory(proc, groups).available() == 3_000_000


def test_processes_that_cannot_agree_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("OPSIN_MEASURED", raising=False)  # of an earlier training of this process
    monkeypatch.setattr(train, "_create_folder", lambda *args: RunFolder(tmp_path))
    with pytest.raises(InputError, match=r"train.batch_size: auto is measured in one process"):
        opsin.train(RECIPE, {"train.batch_size": "auto"}, out=tmp_path, say=lambda line: None)

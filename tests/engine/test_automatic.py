"""Keys that are "auto": what takes their place, and where it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opsin
from opsin.engine import automatic, input_size
from opsin.engine.input_size import size_for_images, size_for_objects
from opsin.engine.recipe import load_recipe, read_recipe
from opsin.errors import InputError
from opsin.nn.capabilities import SizeLimits, size_limits

pytestmark = pytest.mark.reads_ahead

FLAGS: dict[str, Any] = {"model": {"name": "lenet5"}, "data": {"source": "digits", "limit": 40}}
YOLO = SizeLimits((8, 16, 32), divisor=32)
RESNET = SizeLimits((4, 8, 16, 32))


def recipe(**settings: Any) -> Any:
    return load_recipe(FLAGS, {key.replace("__", "."): value for key, value in settings.items()})


@pytest.mark.parametrize(
    ("cores", "device", "devices", "stored", "expected"),
    [
        (16, "cuda", 1, True, 8),
        (6, "cuda", 1, True, 6),
        (16, "cuda", 4, True, 4),
        (16, "cuda", [0, 3], True, 8),
        (6, "cpu", 1, True, 3),
        (1, "cuda", 1, True, 0),
        (16, "cuda", 1, False, 0),
    ],
)
def test_workers_by_cores(
    cores: int, device: str, devices: Any, stored: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "available_cores", lambda: cores)
    monkeypatch.setattr(automatic, "accelerator_device", lambda accelerator, devices: torch.device(device))
    assert automatic.count_workers(recipe(train__devices=devices), stored=stored) == expected


def test_cores_by_affinity_and_control_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(automatic.os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    monkeypatch.setattr(automatic, "_CGROUP", tmp_path)
    assert automatic.available_cores() == 6
    (tmp_path / "cpu.max").write_text("max 100000")
    assert automatic.available_cores() == 6
    (tmp_path / "cpu.max").write_text("250000 100000")
    assert automatic.available_cores() == 2
    (tmp_path / "cpu.max").write_text("50000 100000")
    assert automatic.available_cores() == 1


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [("cuda", (8, 0), "bf16-mixed"), ("cuda", (7, 5), "32-true"), ("cpu", (9, 0), "32-true"), ("mps", None, "32-true")],
)
def test_precision_by_hardware(device: str, capability: Any, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automatic, "accelerator_device", lambda accelerator, devices: torch.device(device))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert automatic.best_precision(recipe()) == expected


@pytest.mark.parametrize(
    ("capabilities", "expected", "warned"),
    [({"avx2"}, "32-true", True), ({"avx2", "avx512_f"}, "32-true", False), ({"amx_bf16"}, "bf16-mixed", False)],
)
def test_bfloat16_on_processors(
    capabilities: set[str], expected: str, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "processor_capabilities", lambda: frozenset(capabilities))
    on_cpu = {"train__accelerator": "cpu"}
    assert automatic.best_precision(recipe(**on_cpu)) == "32-true"  # what flags leave open
    source = opsin.data.open("digits", "classify")
    made, _ = automatic.by_machine(recipe(**on_cpu, train__precision="auto"), source, None)
    assert made.train.precision == expected
    asked = recipe(**on_cpu, train__precision="bf16-mixed")
    made, lines = automatic.by_machine(asked, source, None)
    assert made == asked
    assert [line.startswith("warning: train.precision bf16-mixed") for line in lines] == [True] * warned


def test_only_flags_leave_them_open(monkeypatch: pytest.MonkeyPatch) -> None:
    source = opsin.data.open("digits", "classify")
    source = source.with_splits(opsin.data.divide(source))
    monkeypatch.setattr(automatic, "count_workers", lambda recipe, stored: 3)
    monkeypatch.setattr(automatic, "best_precision", lambda recipe, cpu: "bf16-mixed")
    assert automatic.by_machine(recipe(), source, None) == (recipe(), [])
    made, lines = automatic.by_machine(recipe(), source, {"model.name"})
    assert (made.train.workers, made.train.precision) == (3, "bf16-mixed")
    assert lines == ["3 worker processes read ahead, precision bf16-mixed; train.workers and train.precision override"]
    made, lines = automatic.by_machine(recipe(), source, {"train.workers", "train.precision"})
    assert (made.train.workers, made.train.precision, lines) == (0, "32-true", [])
    made, lines = automatic.by_machine(recipe(train__workers="auto"), source, None)
    assert (made.train.workers, made.train.precision) == (3, "32-true")
    assert lines[0].startswith("3 worker processes read ahead;")


def test_what_lies_in_memory_is_read_without_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automatic, "available_cores", lambda: 16)
    run = opsin.train(FLAGS, {"train.max_steps": 1}, out=tmp_path / "run", say=lambda line: None)
    saved = load_recipe(read_recipe(run.path / "recipe.yaml")).train
    assert (saved.workers, saved.precision) == (0, "32-true")  # digits lie in memory


def test_measured_keys_leave_the_recipes_own_number_until_then() -> None:
    rest, wanted = automatic.take({"train.batch_size": "auto", "optim.lr": 0.1, "train.workers": "auto"})
    assert rest == {"optim.lr": 0.1, "train.workers": "auto"} and wanted == {"train.batch_size"}
    aside, keys = automatic.set_aside(recipe(optim__lr="auto", train__batch_size="auto"))
    assert (aside.optim.lr, aside.train.batch_size) == (0.1, 64) and keys == {"optim.lr", "train.batch_size"}


# By hand, in shares of an image's side: of sides s the smallest tenth is under quantile(s, 0.1).
@pytest.mark.parametrize(
    ("published", "images", "share", "limits", "side"),
    [
        (416, (480, 640), 0.2, YOLO, 416),  # 83 pixels: the published size will do
        (416, (480, 640), 0.03, YOLO, 544),  # 16 / 0.03 = 533.3
        (416, (480, 640), 0.01, YOLO, 640),  # 1600 would be more than the images are
        (416, (3000, 4000), 0.01, YOLO, 832),  # and here more than twice the published size
        (416, (96, 128), 0.2, YOLO, 128),  # the images are smaller
        (416, (96, 128), 0.1, YOLO, 160),  # but their objects need 16 / 0.1
        (None, (100, 100), 0.5, RESNET, 128),
    ],
)
def test_the_size_by_objects(
    published: int | None, images: tuple[int, int], share: float, limits: SizeLimits, side: int
) -> None:
    found, reason = size_for_objects(published, images, np.full(20, share), limits)
    assert found == side and f"images are {images[0]}x{images[1]}" in reason
    enough = side * share >= 2 * min(limits.strides)
    assert ("nine of ten objects span" in reason) == enough != ("a tenth of the objects span less" in reason)


@pytest.mark.parametrize(
    ("published", "images", "limits", "weights", "side"),
    [
        (224, (480, 640), RESNET, None, 224),
        (224, (100, 90), RESNET, None, 128),
        (224, (28, 28), RESNET, None, 64),  # two cells of the coarsest map
        (224, (28, 28), RESNET, "imagenet1k", 224),
        (32, (8, 8), SizeLimits((1, 2, 4)), None, 8),
        (224, (8, 8), SizeLimits((8, 16), smallest=63), None, 64),
    ],
)
def test_the_size_by_images(
    published: int, images: tuple[int, int], limits: SizeLimits, weights: str | None, side: int
) -> None:
    assert size_for_images(published, images, limits, weights=weights)[0] == side


@pytest.mark.parametrize("name", ["resnet18", "alexnet", "yolov3", "retinanet"])
def test_networks_say_their_limits(name: str) -> None:
    with torch.device("meta"):
        limits = size_limits(opsin.create_model(name))
    assert 8 in limits.strides and limits.fixed is None


def test_objects_are_measured() -> None:
    source = opsin.data.open("scenes:12", "detect")
    split = next(iter(source.splits.values()))
    images, shares = input_size.measure(split)
    sizes = [split.inputs.size(i) for i in range(len(split))]
    assert images == tuple(np.median(np.array(sizes), axis=0).round().astype(int))
    boxes = split.kind.instances[0].boxes
    assert sizes[0] is not None
    w, h = (boxes[0, 2:] - boxes[0, :2]).tolist()
    assert shares[0] == pytest.approx((w * h / (sizes[0][0] * sizes[0][1])) ** 0.5)


def test_a_size_is_chosen_said_and_saved(tmp_path: Path) -> None:
    lines: list[str] = []
    flags = {"model": {"name": "resnet20"}, "data": {"source": "digits", "limit": 30}}
    settings = {"train.max_steps": 1, "data.size": "auto"}
    run = opsin.train(flags, settings, out=tmp_path / "run", say=lines.append)
    assert load_recipe(read_recipe(run.path / "recipe.yaml")).data.size == 8
    assert [line for line in lines if line.startswith("data.size: 8x8: images are 8x8 in the middle")]
    fixed: list[str] = []
    opsin.train(FLAGS, settings, out=tmp_path / "fixed", say=fixed.append)
    assert "data.size: 32x32: lenet5 takes no other; data.size overrides" in fixed
    with pytest.raises(InputError, match=r"recipe key data.size: .*got 'large'"):
        load_recipe(FLAGS, {"data.size": "large"})


def test_explain_reads_a_recipe_with_auto(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "model: {name: lenet5}\ndata: {source: digits, size: auto}\noptim: {lr: auto}\n"
        "train: {batch_size: auto, workers: auto, precision: auto}\n"
    )
    read = load_recipe(path)
    assert load_recipe(read.model_dump()) == read and "batch_size: auto" in read.to_yaml()

"""Damaged files of every kind: an answer or one clear line, in bounded time and memory. `make fuzz` tries many more.

OPSIN_FUZZ: how many times as many as the suite tries; `make fuzz` sets it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import resource
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features

import opsin
from opsin import data
from opsin.data.images import UnreadableImage, decode, read_header, read_size
from opsin.engine.checkpoint import read_checkpoint
from opsin.engine.recipe import load_recipe
from opsin.engine.resuming import find_checkpoint
from opsin.engine.run import RunFolder
from opsin.errors import InputError

HERE = Path(__file__).parent
damage: Callable[[bytes, int], bytes] = runpy.run_path(str(HERE / "damage.py"))["damage"]
LAYOUTS = runpy.run_path(str(HERE.parent / "data" / "formats" / "test_layouts.py"))
TIMES = int(os.environ.get("OPSIN_FUZZ", "1"))
LONGEST = 20  # seconds for one file
MOST_MEMORY = 1 << 30  # bytes beyond what the process had; libraries alone have half of two


@contextlib.contextmanager
def bounded(what: str) -> Iterator[None]:
    """Fail where the block takes too long."""

    def late(number: int, frame: Any) -> None:
        raise TimeoutError(f"{what} takes over {LONGEST} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check_line(error: Exception, what: str) -> None:
    """One line, with nothing in it that is not for people."""
    text = str(error)
    assert text and "\n" not in text.strip(), f"{what}: {text!r}"
    assert len(text) < 2000, f"{what}: {text[:300]!r}"
    assert "Traceback" not in text and "object at 0x" not in text, f"{what}: {text!r}"


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    before = peak()
    yield
    assert peak() < before + MOST_MEMORY  # other tests of this process have had theirs


# Images


def encodings() -> dict[str, Callable[[Image.Image, io.BytesIO], None]]:
    def save(image: Image.Image, file: io.BytesIO, mode: str, encoding: str, **options: Any) -> None:
        image.convert(mode).save(file, encoding, **options)

    kinds: dict[str, tuple[str, str, dict[str, Any]]] = {
        "jpeg": ("RGB", "JPEG", {}),
        "grey jpeg": ("L", "JPEG", {"quality": 30}),
        "progressive jpeg": ("RGB", "JPEG", {"progressive": True}),
        "cmyk jpeg": ("CMYK", "JPEG", {}),
        "png": ("RGB", "PNG", {}),
        "png with alpha": ("RGBA", "PNG", {}),
        "png with a palette": ("P", "PNG", {"transparency": 3}),
        "png of 16 bits": ("I;16", "PNG", {}),
        "gif": ("P", "GIF", {}),
        "bmp": ("RGB", "BMP", {}),
        "tiff": ("RGB", "TIFF", {}),
        "compressed tiff": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        "tiff of jpeg": ("RGB", "TIFF", {"compression": "jpeg"}),
        "ppm": ("RGB", "PPM", {}),
        "webp": ("RGB", "WEBP", {}),
        "lossless webp": ("RGBA", "WEBP", {"lossless": True}),
    }
    if features.check("avif"):
        kinds["avif"] = ("RGB", "AVIF", {})
    return {
        name: functools.partial(save, mode=mode, encoding=encoding, **options)
        for name, (mode, encoding, options) in kinds.items()
    }


@pytest.mark.parametrize("kind", encodings())
def test_damaged_images(kind: str) -> None:
    random = np.random.RandomState(7)
    pixels = np.kron(random.randint(0, 256, (9, 12, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    file = io.BytesIO()
    encodings()[kind](Image.fromarray(pixels), file)
    whole = file.getvalue()
    expected = decode(whole, "whole").shape
    refused = 0
    for seed in range(12 * TIMES):
        broken, name = damage(whole, seed), f"{kind} {seed}"
        with bounded(name):
            for read in (decode, read_size, read_header):
                try:
                    found = read(broken, name)
                except UnreadableImage as error:
                    check_line(error, name)
                    assert error.path == name
                    refused += read is decode
                else:
                    if isinstance(found, torch.Tensor):
                        assert found.ndim == 3 and found.shape[0] in (1, 3) and found.numel() < 1 << 30
            if broken == whole:
                assert decode(broken, name).shape == expected
    assert refused


# Annotations and tables

TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "csv of labels": ("classify", {"labels.csv": "path,label\na.jpg,cat\nb.jpg,dog\n", "a.jpg": "", "b.jpg": ""}),
    "csv of boxes": ("detect", {"b.csv": "path,label,x1,y1,x2,y2\na.jpg,cat,2,2,20,20\n", "a.jpg": ""}),
    "yolo": (
        "detect",
        {
            "data.yaml": "train: images/train\nval: images/val\nnames: [cat, dog]\nkpt_shape: [3, 2]\n",
            "images/train/a.jpg": "",
            "images/val/b.jpg": "",
            "labels/train/a.txt": "0 0.5 0.5 0.2 0.2 0.1 0.1 0.2 0.2 0.3 0.3\n",
            "labels/val/b.txt": "1 0.5 0.5 0.2 0.2 0.1 0.1 0.2 0.2 0.3 0.3\n",
        },
    ),
    "coco": (
        "detect",
        {
            "annotations.json": json.dumps(
                {
                    "images": [{"id": 1, "file_name": "a.jpg", "width": 48, "height": 40}],
                    "annotations": [
                        {
                            "id": 1,
                            "image_id": 1,
                            "category_id": 1,
                            "bbox": [2, 2, 9, 9],
                            "iscrowd": 0,
                            "area": 81,
                            "segmentation": [[2, 2, 11, 2, 11, 11, 2, 11]],
                        }
                    ],
                    "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}],
                }
            ),
            "a.jpg": "",
        },
    ),
}
LABELS = {name: ("detect", files) for name, (_, files) in LAYOUTS["READ"].items()} | TABLES


@pytest.mark.parametrize("layout", LABELS)
def test_damaged_annotations(layout: str, tmp_path: Path) -> None:
    task, files = LABELS[layout]
    folder = LAYOUTS["make"](tmp_path / "set", files)
    assert sum(len(split) for split in data.open(folder, task).splits.values())
    texts = [name for name, text in files.items() if text not in ("", "map")]
    for seed in range(6 * TIMES):
        name = texts[seed % len(texts)]
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(damage(whole, seed))
        try:
            with bounded(f"{layout} {seed}"):
                open_and_look(folder, task, f"{layout} {seed}, {name}")
        finally:
            (folder / name).write_bytes(whole)


def open_and_look(folder: Path, task: str, what: str) -> None:
    try:
        source = data.open(folder, task)
        found = data.inspect(source, task)
        data.render(found)
        for split in source.splits.values():
            for place in range(min(2, len(split))):
                if split.truth is not None:
                    truth = split.truth.read(place, (40, 48))
                    boxes = getattr(truth.get("instances"), "boxes", None)
                    assert boxes is None or bool(boxes.isfinite().all()), what
    except InputError as error:
        check_line(error, what)


# What opsin itself writes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fuzz") / "run"
    recipe = {
        "model": {"name": "lenet5"},
        "data": {"source": "digits", "limit": 20},
        "train": {"epochs": 1, "batch_size": 10, "save_every_steps": 1},
    }
    opsin.train(recipe, out=out, say=lambda line: None)
    return out


def test_damaged_models(run: Path, tmp_path: Path) -> None:
    whole = (run / "model.safetensors").read_bytes()
    path, image = tmp_path / "model.safetensors", np.zeros((28, 28), np.uint8)
    for seed in range(25 * TIMES):
        head = seed % 2  # half of the damage goes into the description, which is small beside the weights
        start = 3000 if head else len(whole)
        path.write_bytes(damage(whole[:start], seed) + whole[start:])
        with bounded(f"model {seed}"):
            try:
                answer = opsin.load(path).predict(image)
                assert all(math.isfinite(float(one)) for one in answer.probabilities)
            except InputError as error:
                check_line(error, f"model {seed}")
                assert str(path) in str(error) or "lenet5" in str(error), f"model {seed}: {error}"


def test_damaged_checkpoints(run: Path, tmp_path: Path) -> None:
    whole = (run / "last.ckpt").read_bytes()
    folder = RunFolder(tmp_path)
    for seed in range(15 * TIMES):
        folder.last.write_bytes(damage(whole, seed))
        with bounded(f"checkpoint {seed}"):
            for read in (lambda: read_checkpoint(folder.last), lambda: find_checkpoint(folder, lambda line: None)):
                try:
                    read()
                except InputError as error:
                    check_line(error, f"checkpoint {seed}")
                    assert str(folder.last) in str(error)


def test_damaged_recipes(run: Path, tmp_path: Path) -> None:
    whole = (run / "recipe.yaml").read_bytes()
    path = tmp_path / "recipe.yaml"
    for seed in range(25 * TIMES):
        path.write_bytes(damage(whole, seed))
        with bounded(f"recipe {seed}"):
            try:
                load_recipe(path).to_yaml()
            except InputError as error:
                check_line(error, f"recipe {seed}")


def test_the_damage_is_the_same_for_the_same_seed() -> None:
    whole = bytes(range(256)) * 4
    assert [damage(whole, seed) for seed in range(20)] == [damage(whole, seed) for seed in range(20)]
    assert len({damage(whole, seed) for seed in range(50)}) > 40

"""What trainings begun by flags choose, against the defaults of recipes, on small sets of real images.

    OPSIN_DATA=DIR python benchmarks/starting_defaults.py [PART...]

Four small trainings, each with both and with two seeds: from scratch on Fashion-MNIST and on PACS' photographs, and
from weights of MNIST to USPS and of CIFAR-10 to PACS' photographs. Prints a table of test accuracy.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import torch

import opsin

SEEDS = (0, 1)
LENET, RESNET = {"name": "lenet5"}, {"name": "resnet20"}


def main() -> None:
    torch.set_num_threads(1)
    given = Path(os.environ["OPSIN_DATA"])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        wanted = sys.argv[1:] or ["fashion", "photo", "usps", "photo_tuned"]
        print("| from | training | defaults of recipes | chosen for the data |\n|---|---|---|---|", flush=True)
        for part in wanted:
            title, recipe = _part(part, given, work)
            rows = [_train(recipe | how, work, f"{part}{number}") for number, how in enumerate(({"optim": {}}, {}))]
            print(f"| {title} | {rows[0]} | {rows[1]} |", flush=True)


def _part(part: str, given: Path, work: Path) -> tuple[str, dict[str, Any]]:
    """What a row is called, and its training without a word of how to train."""
    if part == "fashion":
        data = {"source": str(given / "fashion_mnist"), "limit": 500}
        return "scratch | LeNet-5, 500 of Fashion-MNIST", {"model": LENET, "data": data, "train": {"epochs": 30}}
    if part == "usps":
        data = {"source": str(given / "mnist"), "limit": 1500}
        first = _first({"model": LENET, "data": data, "train": {"epochs": 6}}, work / "mnist")
        data = {"source": str(given / "usps" / "usps_16x16.npz"), "limit": 150}
        return "MNIST | LeNet-5, 150 of USPS", {"model": LENET, "data": data, "train": {"epochs": 20, "init": first}}
    photos = _unzip(given / "pacs64" / "pacs64.zip", "photo/", work / "pacs")
    if part == "photo":
        data = {"source": photos, "limit": 500, "size": 24}
        return "scratch | ResNet-20, 500 of PACS' photographs", {"model": RESNET, "data": data, "train": {"epochs": 12}}
    cifar = _unzip(given / "cifar10_jpg" / "train_1000_per_class.zip", "train/", work / "cifar", last=200)
    source = {"model": RESNET, "data": {"source": cifar, "size": 24}, "train": {"epochs": 8}}
    first = _first(source, work / "cifar_run")
    data = {"source": photos, "limit": 200, "size": 24}
    recipe = {"model": RESNET, "data": data, "train": {"epochs": 12, "init": first}}
    return "CIFAR-10 | ResNet-20, 200 of PACS' photographs", recipe


def _first(recipe: dict[str, Any], out: Path) -> str:
    return str(opsin.train(recipe, {"train.tensorboard": False}, out=out, say=lambda line: None).path)


def _train(recipe: dict[str, Any], work: Path, name: str) -> str:
    """The test accuracy of each seed, in percent, and the time of one."""
    started, found = time.monotonic(), []
    for seed in SEEDS:
        settings = {"train.seed": seed, "train.tensorboard": False}
        run = opsin.train(recipe, settings, out=work / f"{name}_{seed}", say=lambda line: None)
        found.append(f"{100 * run.metrics['accuracy']:.1f}")
    print(f"{name}: {', '.join(found)}, {(time.monotonic() - started) / len(SEEDS):.0f} s each", file=sys.stderr)
    return ", ".join(found)


def _unzip(path: Path, prefix: str, out: Path, last: int | None = None) -> str:
    """The images of a zip file below a folder of it. last: only of such a number in their name, or a lower one."""
    with zipfile.ZipFile(path) as packed:
        for name in packed.namelist():
            number = "".join(c for c in Path(name).stem if c.isdigit())
            if name.startswith(prefix) and number and (last is None or int(number) < last):
                packed.extract(name, out)
    return str(out / prefix.rstrip("/"))


if __name__ == "__main__":
    main()

"""Two domains of three classes: stripes and a checkerboard on black, and the same dimmed on grey, as class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 16
CLASSES = ("across", "board", "down")


def draw(label: int, number: int, shifted: bool) -> np.ndarray:
    """uint8 (SIDE, SIDE)."""
    random = np.random.RandomState(1000 * label + number)
    y, x = np.mgrid[:SIDE, :SIDE] + random.randint(4)
    ink = [(y // 2) % 2, (y // 4 + x // 4) % 2, (x // 2) % 2][label]
    image = 120 + 70 * ink if shifted else 230 * ink
    return np.clip(image + random.randint(-20, 21, (SIDE, SIDE)), 0, 255).astype(np.uint8)


def write_domain(folder: Path, *, shifted: bool = False, images: int = 12, names: tuple[str, ...] = CLASSES) -> Path:
    """A folder for each class with images 00.png and so on."""
    for label, name in enumerate(names):
        for number in range(images):
            path = folder / name / f"{name}_{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(label, number, shifted)).save(path)
    return folder


def write_loose(folder: Path, images: int = 36) -> Path:
    """The shifted domain as images of one folder, without any label."""
    folder.mkdir(parents=True)
    for number in range(images):
        Image.fromarray(draw(number % 3, number // 3, True)).save(folder / f"{number:02}.png")
    return folder


def recipe(source: Path, target: Path | None, method: str, **section: object) -> dict:
    """A training of a few steps."""
    own = {"method": method, **({} if target is None else {"target": str(target)}), **section}
    return {
        "task": "adapt",
        "model": {"name": "lenet5"},
        "data": {"source": str(source), "size": 32, "val_fraction": 0.2, "test_fraction": 0.2},
        "optim": {"name": "adamw", "lr": 0.002},
        "schedule": {"name": "constant"},
        "train": {"epochs": 1, "max_steps": 2, "batch_size": 12, "accelerator": "cpu"},
        "adapt": own,
    }

"""What a training sees: its first batch, drawn as the network is given it, with the truth that moved along."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from opsin.data import Preprocessing
from opsin.data.drawing import enlarge, font, save_image, shorten, stack, to_pil
from opsin.data.truth import Truth
from opsin.engine.recipe import Recipe, load_recipe, read_recipe
from opsin.engine.run import RunFolder
from opsin.engine.train import create_train_loader, describe_mixing, prepare
from opsin.errors import InputError
from opsin.structures import Batch

_MOST = 64  # images of a batch that are drawn
_CELL, _LARGEST_CELL = 160, 320  # pixels: smaller images are enlarged by a whole factor, larger ones made smaller
_MARGIN, _LETTERS = 6, 14
_PAPER, _INK = "white", (16, 18, 22)


@dataclass(frozen=True)
class FirstBatch:
    """The first training batch of the first epoch, of one process.

    images: (B, C, H, W), the input of the network, normalised. batch: with its truth as the losses are given it. lines:
    how it was made, in plain words.
    """

    images: Tensor
    batch: Batch
    truth: Truth | None
    preprocessing: Preprocessing
    lines: list[str]

    def visible(self) -> Tensor:
        """The images as they look, uint8 (B, C, H, W): not normalised any more."""
        mean, std = (
            torch.tensor(getattr(self.preprocessing, name), dtype=torch.float32)[:, None, None]
            for name in ("mean", "std")
        )
        return ((self.images.detach().cpu().float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)

    def draw(self, path: str | Path) -> Path:
        """Write the batch as an image, with the truth on each and the steps under all. At most 64 are drawn."""
        images = self.visible()[:_MOST]
        height, width = self.batch["image"].shape[-2:]
        cells = []
        for k, image in enumerate(images):
            cell = _sized(to_pil(image).convert("RGB"))
            scale = cell.width / width, cell.height / height
            cells.append(cell if self.truth is None else self.truth.draw_batch(cell, self.batch, k, scale))
        sheet = _grid(cells)
        return save_image(stack(sheet, _words(self.lines, max(sheet.width, 2 * _LARGEST_CELL))), Path(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"images": len(self.images), "input": list(self.images.shape[1:]), "steps": self.lines}


def first_batch(recipe: str | Path, say: Callable[[str], None] = lambda line: None) -> FirstBatch:
    """What the first step of a training is given, by the same loader, seed, augmentation and mixing.

    recipe: a shipped recipe's name, a YAML file, or the folder of a run. The network is built, since what it needs
    decides what its data is, but its weights are not fetched. Raises InputError for data that has no images.
    """
    loaded = _load(recipe)
    task, source, splits = prepare(loaded, say, resumed=True)
    if task.preprocessing is None:
        raise InputError(f"{source.name} has no images to draw: {loaded.task} is trained on {_noun(splits)}")
    loader = create_train_loader(task, task.predictor.prepare_split(splits["train"]))
    loader.set_epoch(0)
    batch = next(iter(loader))
    task.train()
    task.on_train_batch_start(batch, 0)  # seeds what is drawn after the loader, as in every step
    task.batch_index = 0
    with torch.no_grad():
        (images, *_), seen = task.seen(batch)
    rows, columns = images.shape[-2:]
    shown = f", {_MOST} of them drawn" if len(images) > _MOST else ""
    lines = [
        f"{loaded.model.name} on {source.name}: {len(images)} of {len(splits['train'])} training images{shown}, the "
        f"first batch, seed {loaded.train.seed}; input {images.shape[1]}x{rows}x{columns}"
    ]
    if tuple(images.shape[-2:]) != tuple(batch["image"].shape[-2:]):
        lines.append(
            f"this batch was brought to {rows}x{columns}, from {task.preprocessing.size[0]}x"
            f"{task.preprocessing.size[1]}"
        )
    steps = task.describe_augmentation() if loaded.augment else []
    lines += [f"{place}. {step}" for place, step in enumerate(steps, 1)] or ["no augmentation"]
    return FirstBatch(images, seen, splits["train"].truth, task.preprocessing, lines + describe_mixing(loaded))


def _load(recipe: str | Path) -> Recipe:
    path = Path(recipe)
    if path.is_dir() and RunFolder(path).recipe.is_file():
        return load_recipe(read_recipe(RunFolder(path).recipe))
    if path.exists() and path.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"{recipe} is no recipe and no run: what a training sees is drawn of one of these, such as "
            "opsin data lenet5_digits --augmented seen.png"
        )
    return load_recipe(recipe)


def _noun(splits: Any) -> str:
    return f"{splits['train'].inputs.noun}s"


def _sized(image: Image.Image) -> Image.Image:
    if max(image.size) <= _LARGEST_CELL:
        return enlarge(image, math.ceil(_CELL * image.width / max(image.size)))[0]
    scale = _LARGEST_CELL / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _grid(cells: list[Image.Image]) -> Image.Image:
    width, height = (max(sides) for sides in zip(*(cell.size for cell in cells), strict=True))
    wanted = max(2, round(math.sqrt(len(cells) * 1.6 * height / width)))
    near = range(max(1, wanted - 1), wanted + 2)  # of these the one that leaves the fewest cells empty
    across = min(len(cells), min(near, key=lambda one: (-len(cells) % one, abs(one - wanted))))
    down = math.ceil(len(cells) / across)
    size = _MARGIN + across * (width + _MARGIN), _MARGIN + down * (height + _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    for place, cell in enumerate(cells):
        row, column = divmod(place, across)
        sheet.paste(cell, (_MARGIN + column * (width + _MARGIN), _MARGIN + row * (height + _MARGIN)))
    return sheet


def _words(lines: list[str], width: int) -> Image.Image:
    """A strip of text, broken where it is too long."""
    letters, broken = font(_LETTERS), []
    for line in lines:
        row = ""
        for word in line.split():
            longer = f"{row} {word}".strip()
            if row and letters.getlength(longer) > width - 2 * _MARGIN:
                broken.append(row)
                longer = f"    {word}"
            row = longer
        broken.append(shorten(row, 400) if not row.startswith(" ") else row)
    height = round(1.5 * _LETTERS)
    strip = Image.new("RGB", (width, 2 * _MARGIN + height * len(broken)), _PAPER)
    draw = ImageDraw.Draw(strip)
    for place, row in enumerate(broken):
        draw.text((_MARGIN, _MARGIN + (place + 0.5) * height), row, _INK, letters, anchor="lm")
    return strip

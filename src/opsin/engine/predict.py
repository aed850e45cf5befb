"""A trained model, ready to use: the same preprocessing as in training, whatever it is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from opsin import registry
from opsin.data import Preprocessing
from opsin.data.images import IMAGE_SUFFIXES, read_image
from opsin.engine.checkpoint import read_model
from opsin.engine.recipe import Recipe
from opsin.errors import InputError

Picture = str | Path | np.ndarray | Tensor


class Predictor:
    """A model with its preprocessing and class names. `opsin.load("runs/x")` makes one."""

    def __init__(self, model: nn.Module, recipe: Recipe, preprocessing: Preprocessing, classes: list[str]) -> None:
        self.model = model
        self.recipe = recipe
        self.preprocessing = preprocessing
        self.classes = classes
        self._task = registry.find_task(recipe.task)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def predict(self, pictures: Picture | Sequence[Picture], *, batch_size: int = 32, top: int = 5) -> Any:
        """The answer for a picture, or the list of answers for several or for a folder.

        pictures: a path, a folder, an array (H, W), (H, W, C) or a tensor (C, H, W), uint8 or float in [0, 1]; or a
        sequence of these, or a tensor (B, C, H, W). Raises InputError for a picture that cannot be read.
        """
        single = isinstance(pictures, str | Path) and not Path(pictures).is_dir()
        single = single or (isinstance(pictures, np.ndarray | Tensor) and pictures.ndim < 4)
        items: list[Picture] = [pictures] if single else list(_expand(pictures))  # type: ignore[list-item, arg-type]
        answers = list(self.stream(items, batch_size=batch_size, top=top))
        for answer in answers:
            if "error" in answer:
                raise InputError(answer["error"])
        return answers[0] if single else answers

    @torch.inference_mode()
    def stream(self, pictures: Sequence[Picture], *, batch_size: int = 32, top: int = 5) -> Iterator[dict[str, Any]]:
        """Answers one by one, in order. One for an unreadable picture has the key `error` and nothing but its path."""
        for start in range(0, len(pictures), batch_size):
            chunk = pictures[start : start + batch_size]
            prepared: list[Tensor] = []
            errors: dict[int, str] = {}
            for place, picture in enumerate(chunk):
                try:
                    prepared.append(self.preprocessing.prepare(load_picture(picture)))
                except InputError as error:
                    errors[place] = str(error)
            answers = iter(self._answer(prepared, top) if prepared else [])
            for place, picture in enumerate(chunk):
                path = {"path": str(picture)} if isinstance(picture, str | Path) else {}
                yield {**path, "error": errors[place]} if place in errors else {**path, **next(answers)}

    def _answer(self, prepared: list[Tensor], top: int) -> list[dict[str, Any]]:
        images = self.preprocessing.normalize(torch.stack(prepared).to(self.device))
        decoded = self.model.decode(self.model(images))  # type: ignore[operator]
        return self._task.answers(decoded, self.classes, top)

    def annotate(self, picture: Picture, answer: dict[str, Any]) -> Any:
        """The picture with its answer drawn on it, a PIL image."""
        return self._task.annotate(load_picture(picture), answer)


def load(run: str | Path, device: str | None = None) -> Predictor:
    """A ready model from a run folder or a model.safetensors. device: "cpu", "cuda", ...; the best there is if None."""
    saved = read_model(run)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = saved.build().to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return Predictor(model, saved.recipe, saved.preprocessing, saved.classes)


def find_pictures(inputs: Sequence[str | Path]) -> list[Path]:
    """The picture files of paths and folders, folders searched through and sorted. InputError where there are none."""
    found: list[Path] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            inside = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
            )
            if not inside:
                raise InputError(f"no pictures in {path}; known endings: {', '.join(sorted(IMAGE_SUFFIXES))}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"no file or folder at {path}")
    return found


def load_picture(picture: Picture) -> Tensor:
    """A picture as uint8 (C, H, W), from a file, an array (H, W[, C]) or a tensor (C, H, W)."""
    if isinstance(picture, str | Path):
        return read_image(picture)
    image = torch.as_tensor(picture)
    if isinstance(picture, np.ndarray) and image.ndim == 3:
        image = image.permute(2, 0, 1)
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise InputError(
            f"a picture must be (H, W), (H, W, 3) as an array or (C, H, W) as a tensor, got {tuple(image.shape)}"
        )
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point() or not torch.isfinite(image).all() or image.min() < 0 or image.max() > 1:
        raise InputError(f"a picture must be uint8, or float in [0, 1] without NaN; got {image.dtype} in a wider range")
    return (image * 255).round().to(torch.uint8)


def _expand(pictures: Any) -> Sequence[Picture]:
    if isinstance(pictures, str | Path):
        return find_pictures([pictures])
    return list(pictures)

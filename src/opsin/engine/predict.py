"""A trained model, ready to use: the same preprocessing as in training, whatever it is given."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from opsin import registry
from opsin.backbones import Backbone
from opsin.data import Preprocessing
from opsin.data.images import IMAGE_SUFFIXES, read_image
from opsin.engine.checkpoint import read_model
from opsin.engine.recipe import Recipe
from opsin.engine.video import VIDEO_SUFFIXES, batched, is_video, open_video
from opsin.errors import InputError, unknown

Image = str | Path | np.ndarray | Tensor


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

    def predict(self, images: Image | Sequence[Image], *, batch_size: int = 32, **options: Any) -> Any:
        """The answer for an image, or the list of answers for several, for a folder or for the frames of a video.

        images: a path, a folder, an array (H, W), (H, W, C) or a tensor (C, H, W), uint8 or float in [0, 1]; or a
        sequence of these, or a tensor (B, C, H, W). options: the task's, `top` of a classifier, `score_threshold` of a
        detector. Raises InputError for an image that cannot be read.
        """
        if isinstance(images, str | Path) and is_video(images):
            return [answer for _, answer in self.stream_video(images, batch_size=batch_size, **options)]
        single = isinstance(images, str | Path) and not Path(images).is_dir()
        single = single or (isinstance(images, np.ndarray | Tensor) and images.ndim < 4)
        items: list[Image] = [images] if single else list(_expand(images))  # type: ignore[list-item, arg-type]
        answers = list(self.stream(items, batch_size=batch_size, **options))
        for answer in answers:
            if "error" in answer:
                raise InputError(answer["error"])
        return answers[0] if single else answers

    def stream(self, images: Sequence[Image], *, batch_size: int = 32, **options: Any) -> Iterator[dict[str, Any]]:
        """Answers one by one, in order. One for an unreadable image has the key `error` and nothing but its path."""
        self._check(options)
        for start in range(0, len(images), batch_size):
            chunk = images[start : start + batch_size]
            loaded: list[Tensor] = []
            errors: dict[int, str] = {}
            for place, image in enumerate(chunk):
                try:
                    loaded.append(load_image(image))
                except InputError as error:
                    errors[place] = str(error)
            answers = iter(self._answer(loaded, options) if loaded else [])
            for place, image in enumerate(chunk):
                path = {"path": str(image)} if isinstance(image, str | Path) else {}
                yield {**path, "error": errors[place]} if place in errors else {**path, **next(answers)}

    def stream_video(
        self, path: str | Path, *, batch_size: int = 32, **options: Any
    ) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """Frames, uint8 (3, H, W), each with its answer, which has the keys `frame` and `time` in seconds too.

        No more than a batch of frames is held at once. Raises InputError for a file that is no video.
        """
        self._check(options)
        with open_video(path) as video:
            for chunk in batched(video, batch_size):
                for frame, answer in zip(chunk, self._answer([f.image for f in chunk], options), strict=True):
                    yield frame.image, {"path": str(path), "frame": frame.index, "time": frame.time, **answer}

    @torch.inference_mode()
    def _answer(self, loaded: Sequence[Tensor], options: Mapping[str, Any]) -> list[dict[str, Any]]:
        prepared = [self.preprocessing.prepare(image) for image in loaded]
        images = self.preprocessing.normalize(torch.stack(prepared).to(self.device))
        sizes = [(image.shape[-2], image.shape[-1]) for image in loaded]
        return self._task.answers(self, self._task.look(self, images, loaded), sizes, **options)

    def _check(self, options: Mapping[str, Any]) -> None:
        parameters = inspect.signature(self._task.answers).parameters.values()
        known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        for name in options:
            if name not in known:
                raise unknown(f"option of prediction with {self.recipe.model.name}", name, known)

    def annotate(self, image: Image, answer: dict[str, Any]) -> Any:
        """The image with its answer drawn on it, a PIL image."""
        return self._task.annotate(load_image(image), answer, self.classes)

    def describe(self, answer: dict[str, Any]) -> str:
        """An answer in a few words."""
        return self._task.describe(answer)


def load(run: str | Path, device: str | None = None) -> Predictor:
    """A ready model from a run folder, a model.safetensors, or published weights by name ("resnet50:imagenet1k").

    device: "cpu", "cuda", ...; the best there is if None.
    """
    saved = read_model(run)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = saved.build().to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    if isinstance(model, Backbone):
        model.drop_aux_heads()  # they served the training
    return Predictor(model, saved.recipe, saved.preprocessing, saved.classes)


def find_images(inputs: Sequence[str | Path], *, videos: bool = False) -> list[Path]:
    """The image files of paths and folders, folders searched through and sorted. InputError where there are none.

    videos: find those in folders too.
    """
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES if videos else IMAGE_SUFFIXES
    found: list[Path] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in known and not p.name.startswith("."))
            if not inside:
                raise InputError(f"no images in {path}; known endings: {', '.join(sorted(known))}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"no file or folder at {path}")
    return found


def load_image(given: Image) -> Tensor:
    """An image as uint8 (C, H, W), from a file, an array (H, W[, C]) or a tensor (C, H, W)."""
    if isinstance(given, str | Path):
        return read_image(given)
    image = torch.as_tensor(given)
    if isinstance(given, np.ndarray) and image.ndim == 3:
        image = image.permute(2, 0, 1)
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise InputError(
            f"an image must be (H, W), (H, W, 3) as an array or (C, H, W) as a tensor, got {tuple(image.shape)}"
        )
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point() or not torch.isfinite(image).all() or image.min() < 0 or image.max() > 1:
        raise InputError(f"an image must be uint8, or float in [0, 1] without NaN; got {image.dtype} in a wider range")
    return (image * 255).round().to(torch.uint8)


def _expand(images: Any) -> Sequence[Image]:
    if isinstance(images, str | Path):
        return find_images([images])
    return list(images)

"""Networks that find named points, in use: where each point lies in an image, and how far it may be off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from opsin.data import Source
from opsin.data.box_crops import cut_window, windows_of
from opsin.data.drawing import NARROWEST, enlarge, to_pil
from opsin.data.named_points import NamedPoints
from opsin.data.point_drawing import draw_points
from opsin.data.point_sets import flip_of_pairs
from opsin.engine.answers import Answer
from opsin.engine.checkpoint import Facts
from opsin.engine.predict import Predictor, describe_input
from opsin.engine.program import NormalizedNetwork, Program
from opsin.engine.recipe import Recipe, own_section
from opsin.errors import InputError, printable
from opsin.landmark.answers import LandmarkAnswer
from opsin.landmark.localizer import Located
from opsin.landmark.metrics import ALWAYS
from opsin.landmark.program import LocalizerProgram
from opsin.landmark.smoothing import OneEuroFilter
from opsin.structures import Batch


class LandmarkPredictor(Predictor):
    """The points of images, in pixels of these."""

    answer_class: ClassVar[type[Answer]] = LandmarkAnswer

    def __init__(self, model: nn.Module | None, facts: Facts) -> None:
        super().__init__(model, facts)
        self._filter: OneEuroFilter | None = None  # of the video under way

    @property
    def names(self) -> list[str]:
        """Of the points, in their order."""
        return [str(name) for name in self.facts.meaning.get("points", ())]

    @property
    def normalizers(self) -> list[str]:
        """What errors can be divided by."""
        return [*self.facts.meaning.get("eyes", {}), *ALWAYS]

    @classmethod
    def labels_of(cls, meaning: Mapping[str, Any]) -> list[str]:
        return [str(name) for name in meaning.get("points", ())]

    @classmethod
    def relabel(cls, recipe: Recipe, source: Source) -> Source:
        first = source.splits.get("train") or next(iter(source.splits.values()))
        if not isinstance(first.truth, NamedPoints):
            return source
        meaning = dict(first.truth.meaning)
        pairs = own_section(recipe).flip_pairs
        if pairs is not None:
            meaning["flip"] = list(flip_of_pairs(pairs, first.truth.names))
        splits = {
            key: split if split.truth is None else split.with_truth(split.truth.match(meaning))
            for key, split in source.splits.items()
        }
        return source.with_splits(splits)

    def run(self, batch: Tensor, originals: Sequence[Any]) -> Any:
        images = self.normalize(batch)
        return {**self.model(images), "images": images}  # which a mirror image is made of

    def outputs(self, batch: Batch) -> Any:
        (images,) = self.inputs(batch)
        return {**self.model(images), "images": images}

    def locate(self, outputs: Mapping[str, Tensor], flip: bool = False) -> Located:
        """Points and spread in pixels of the input. flip: the mean of those of the image and of its mirror image."""
        own = {name: value for name, value in outputs.items() if name != "images"}
        found: Located = self.model.decode(own)
        if not flip:
            return found
        pairs = self.facts.meaning.get("flip")
        if pairs is None:
            raise InputError("which points change places in a mirror image is not known; leave flip out")
        images, order = outputs["images"], torch.tensor(pairs, device=found.points.device)
        other: Located = self.model.decode(self.model(images.flip(-1)))
        turned = other.points[:, order] * other.points.new_tensor([-1, 1])
        turned = turned + turned.new_tensor([images.shape[-1], 0])
        return Located((found.points + turned) / 2, (found.spread + other.spread[:, order]) / 2)

    def answers(
        self,
        outputs: Any,
        sizes: Sequence[tuple[int, int]],
        originals: Sequence[Any],
        *,
        flip: bool = False,
        box: str | None = None,
        smooth: float | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Of each image its points: name, x and y in its pixels, and the error that is to be expected, in the same.

        The error is None for a model that has seen no validation data. flip: see `locate`. box: "x1,y1,x2,y2", look at
        the square around it, as large as those of the training. smooth: the cutoff, in cycles a frame, of a filter over
        the images in their order, see `opsin.landmark.smoothing`.
        """
        corner = np.zeros(2)
        if box is not None:
            window = windows_of(read_box(box)[None], own_section(self.recipe).box_scale)[0].tolist()
            parts = [cut_window(image, window) for image in originals]
            outputs = self.run(self.collate(parts).to(self.device), parts)
            sizes, corner = [(one.shape[-2], one.shape[-1]) for one in parts], np.array(window[:2], float)
        found = self.locate(outputs, bool(flip))
        answers = []
        for k, size in enumerate(sizes):
            places, scale = self.in_image(found.points[k].double().cpu().numpy(), size)
            places = places + corner
            if smooth is not None:
                self._filter = self._filter or OneEuroFilter(1.0, smooth, beta=0.5 * smooth, speed_cutoff=0.1)
                places = self._filter(places)
            answers.append(self._answer_of(places, found.spread[k], scale))
        return answers

    def begin(self) -> None:
        self._filter = None

    def _answer_of(self, places: np.ndarray, spread: Tensor, scale: float) -> dict[str, Any]:
        fitted = self.model.expected_error
        errors = [None] * len(places) if fitted is None else (spread.cpu() * fitted.cpu() * scale).tolist()
        listed = [
            {"name": name, "x": round(x, 3), "y": round(y, 3), "error": None if error is None else round(error, 3)}
            for name, (x, y), error in zip(self.names, places.tolist(), errors, strict=True)
        ]
        return {"points": listed}

    def in_image(self, points: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, float]:
        """Points (..., 2) of the input in pixels of an image of (height, width), and its pixels to one of the input."""
        scale_x, scale_y, shift_x, shift_y = self.preprocessing.transform(int(size[0]), int(size[1]))
        places = (points - (shift_x, shift_y)) / (scale_x, scale_y)
        return places, 1 / float(np.sqrt(scale_x * scale_y))

    def draw(self, image: Tensor, answer: Any) -> Any:
        """The image with its points, each within a circle of the error that is to be expected."""
        drawn, factor = enlarge(to_pil(image).convert("RGB"), NARROWEST)
        points = np.array([[one["x"], one["y"]] for one in answer["points"]], float).reshape(-1, 2) * factor
        errors = [(one["error"] or 0.0) * factor for one in answer["points"]]
        return draw_points(drawn, points, radii=errors)

    def describe(self, answer: dict[str, Any]) -> str:
        """`68 points, 0 (12.1, 40.3), 1 (12.9, 52.0), ...; the mean error is expected to be 2.1 px`."""
        points = answer["points"]
        shown = ", ".join(f"{printable(one['name'])} ({one['x']:.1f}, {one['y']:.1f})" for one in points[:3])
        more = ", ..." if len(points) > 3 else ""
        errors = [one["error"] for one in points if one["error"] is not None]
        known = f"; expected error {np.mean(errors):.1f} px" if errors else ""
        return f"{len(points)} points: {shown}{more}{known}"

    @classmethod
    def network_of_program(
        cls, run: Callable[[Tensor], Mapping[str, Tensor]], facts: Facts, texts: Mapping[str, Any]
    ) -> nn.Module:
        network = LocalizerProgram(run, len(facts.meaning["points"]))
        network.restore_state(texts["values"])
        return network

    def programs(self) -> list[Program]:
        preprocessing, model = self.preprocessing, self.model
        height, width = preprocessing.size
        usage = (
            f"{describe_input(preprocessing)}points: (batch, {len(self.names)}, 2), x and y of each point in "
            f"pixels of the input of {height}x{width} (height x width), x from its left side and y from its upper one; "
            "spread: (batch, points), how widely each is scattered, in the same."
        )

        def give(found: Any) -> Mapping[str, Tensor]:
            located = model.decode(found)
            return {"points": located.points, "spread": located.spread}

        module = NormalizedNetwork(model, preprocessing, give)
        return [Program(module, ["points", "spread"], {"usage": usage}, units={"points": float(max(height, width))})]


def read_box(text: str) -> np.ndarray:
    """A box (4,) of "x1,y1,x2,y2", in pixels. Raises InputError for any other text."""
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"box is {text!r}; expected x1,y1,x2,y2 in pixels of the image") from None
    if not (x1 < x2 and y1 < y2 and max(map(abs, (x1, y1, x2, y2))) <= _FARTHEST):
        raise InputError(f"box is {text!r}; expected x1 < x2 and y1 < y2, in pixels of the image")
    return np.array([x1, y1, x2, y2])


_FARTHEST = 1e6  # pixels

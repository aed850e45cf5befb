"""Segmenters in use: the class of every pixel of an image, at the image's own size."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from opsin import registry
from opsin.data.class_maps import count_pixels, map_type
from opsin.engine.answers import Answer
from opsin.engine.checkpoint import Facts
from opsin.engine.predict import Predictor
from opsin.engine.program import FreeSides, NormalizedNetwork, Program
from opsin.engine.tiles import Tiles, read_tile
from opsin.errors import InputError, printable
from opsin.segment.answers import SegmentAnswer, map_of
from opsin.segment.components import count_components
from opsin.segment.deeplab import Atrous
from opsin.segment.drawing import annotate, colours_of
from opsin.segment.mirroring import Fitted, answer_whole, fit_input, mirror
from opsin.segment.program import SegmenterProgram, describe_use, sides_of
from opsin.segment.reach import choose_dense_tiling
from opsin.segment.resampling import lines_of, strips
from opsin.segment.tiling import DenseTiles, DenseTiling
from opsin.segment.views import look
from opsin.structures import Batch

OVERLAPPING = 0.5  # the least probability of a class that a pixel is of, where classes overlap


class SegmentPredictor(Predictor):
    """Maps of classes of images, as large as these."""

    answer_class: ClassVar[type[Answer]] = SegmentAnswer

    def __init__(self, model: nn.Module | None, facts: Facts) -> None:
        super().__init__(model, facts)
        self._tilings: dict[Any, tuple[DenseTiling, int]] = {}  # by what `tile` said: measured once
        self._stride: int | None = None  # that of the training, once another was asked for

    def tiles(self, tile: str | int | None = None, batch_size: int = 32) -> Tiles | None:
        """How large images are cut: as `tile` says, else as was saved with the model. See `opsin.segment.tiling`."""
        tile = read_tile(self.facts.tile if tile is None else tile)
        if tile is None or tile == "off":
            return None
        if tile not in self._tilings:
            chosen = (tile, self.facts.objects, self.preprocessing, self.model, self.recipe.model.name)
            self._tilings[tile] = choose_dense_tiling(*chosen)
        tiling, at_once = self._tilings[tile]
        return DenseTiles(tiling, min(batch_size, at_once))

    def finish_training(self) -> None:
        """Without the auxiliary heads, which served the training."""
        self.model.drop_aux_heads()

    def set_output_stride(self, stride: int | None) -> None:
        """Hold the maps of an atrous network at another stride, on the same weights; at that of its training if None.

        Raises InputError for a network that has no such stride.
        """
        if stride is None and self._stride is None:
            return
        model = self.model
        if not isinstance(model, Atrous):
            able = ", ".join(sorted(registry.list_models("deeplab*", task=self.recipe.task)))
            raise InputError(f"{self.recipe.model.name} is held at no output stride; these networks are: {able}")
        self._stride = self._stride or model.output_stride
        wanted = stride or self._stride
        if model.output_stride != wanted:
            model.set_output_stride(wanted)
            self._tilings.clear()

    def _checked(self, options: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
        self.set_output_stride(options.get("output_stride"))  # before tiles are measured
        return super()._checked(options, batch_size)

    def normalize(self, batch: Tensor) -> Tensor:
        return self.preprocessing.normalize(batch, self.dtype) if self.normalizes else batch

    def run(self, batch: Tensor, originals: Sequence[Any]) -> Any:
        images = self.normalize(batch)
        return {**answer_whole(self.model, images), "images": images}  # which other views are made of

    def probabilities(
        self,
        images: Tensor,
        fitted: Fitted,
        *,
        flip: bool = False,
        scale: Sequence[float] | None = None,
        plain: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """(B, K, *fitted.output) of normalised images that are inputs as `fit_input` planned them.

        flip, scale: the mean over the images and their mirror images, and over these enlarged by each factor; plain:
        what is known of the images as they are; see `opsin.segment.views`.
        """
        return look(self.model, images, fitted, flip=flip, scales=scale or (1.0,), plain=plain)

    def outputs(self, batch: Batch) -> Any:
        """Of every pixel of the input, which is mirrored at its borders for a network without padding."""
        (images,) = self.inputs(batch)
        return answer_whole(self.model, images)

    def answers(
        self,
        outputs: Any,
        sizes: Sequence[tuple[int, int]],
        originals: Sequence[Tensor],
        *,
        scores: bool = False,
        threshold: float | None = None,
        flip: bool = False,
        scale: Sequence[float] | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Of each image its map, the pixels and the connected parts of each class in it, and `scores` if asked for.

        Probabilities are brought back to the image's pixels, bilinear, before the class is chosen. threshold: the least
        probability of a class; where classes overlap 0.5 if None, else there is none then, and a pixel that reaches it
        with no class is one of which nothing is known. So is what a centre crop left out. flip, scale: see
        `probabilities`.
        """
        found = self.model.decode(outputs)
        if flip or scale:
            images = outputs["images"]
            fitted = fit_input(self.model, (images.shape[-2], images.shape[-1]))
            found = self.probabilities(mirror(images, fitted), fitted, flip=flip, scale=scale, plain=found)
        return [self._answer_of(found[place], size, threshold, scores) for place, size in enumerate(sizes)]

    def _answer_of(self, found: Tensor, size: tuple[int, int], threshold: float | None, scores: bool) -> dict[str, Any]:
        """The answer of probabilities (K, h, w) of the input that an image of (height, width) was made into."""
        rows, columns = lines_of(size, self.preprocessing, (found.shape[-2], found.shape[-1]))
        map_ = self.empty_map(len(found), size)
        kept = np.zeros((len(found), *size), np.float32) if scores else None
        for start, strip in strips(found, rows, columns):
            stop = start + strip.shape[1]
            known = rows.known[start:stop, None] & columns.known
            map_[..., start:stop, :] = self.choose(strip, threshold, known)
            if kept is not None:
                kept[:, start:stop] = strip.float().cpu().numpy()
        return self.describe_map(map_, kept)

    @property
    def overlapping(self) -> bool:
        """Whether each class is decided by itself."""
        return bool(self.facts.meaning.get("overlapping", False)) or (self.has_network and self.model.overlapping)

    def empty_map(self, count: int, size: tuple[int, int]) -> np.ndarray:
        """What `choose` fills."""
        if self.overlapping:
            return np.zeros((count, *size), bool)
        return np.zeros(size, map_type(count)[0])

    def choose(self, scores: Tensor, threshold: float | None, known: Tensor | None = None) -> np.ndarray:
        """The classes of pixels of probabilities (K, h, w): a part of a map. known: bool (h, w), all if None."""
        if self.overlapping:
            found = scores >= (OVERLAPPING if threshold is None else threshold)
            return (found if known is None else found & known.to(found.device)).cpu().numpy()
        best, chosen = scores.max(dim=0)
        unknown = None if known is None or bool(known.all()) else ~known.to(best.device)
        if threshold is not None:
            unknown = (best < threshold) if unknown is None else unknown | (best < threshold)
        if unknown is not None:
            chosen = chosen.masked_fill(unknown, map_type(len(scores))[1])
        return chosen.to(map_dtype(len(scores))).cpu().numpy()

    def describe_map(self, class_map: np.ndarray, scores: np.ndarray | None = None) -> dict[str, Any]:
        """The answer that a map is of."""
        count = len(self.classes)
        pixels, parts = count_pixels(class_map, count)[:-1], count_components(class_map, count)
        return self.answer_from(class_map, pixels, parts, scores)

    def answer_from(
        self, class_map: np.ndarray, pixels: np.ndarray, parts: np.ndarray, scores: np.ndarray | None = None
    ) -> dict[str, Any]:
        """The answer of a map of which the pixels and the connected parts of each class are counted."""
        area = class_map.shape[-2] * class_map.shape[-1]
        order = sorted(np.flatnonzero(pixels).tolist(), key=lambda number: (-int(pixels[number]), number))
        found = [
            {
                "label": self.classes[number],
                "class_id": number,
                "pixels": int(pixels[number]),
                "share": round(int(pixels[number]) / area, 6),
                "components": int(parts[number]),
            }
            for number in order
        ]
        kept = {} if scores is None else {"scores": scores}
        return {"classes": found, "class_map": class_map, **kept}

    @classmethod
    def network_of_program(
        cls, run: Callable[[Tensor], Mapping[str, Tensor]], facts: Facts, texts: Mapping[str, Any]
    ) -> nn.Module:
        if facts.preprocessing is None:
            raise ValueError("it lacks preprocessing")
        channels, overlapping = facts.preprocessing.channels, bool(texts["values"].get("overlapping", False))
        return SegmenterProgram(run, texts["sides"], len(facts.classes), channels, overlapping)

    def programs(self) -> list[Program]:
        sides = sides_of(self.model, min(self.preprocessing.size))
        model: Any = self.model
        module = NormalizedNetwork(model, self.preprocessing, lambda found: {"probabilities": model.decode(found)})
        metadata = {"usage": describe_use(self.preprocessing, sides), "sides": json.dumps(sides)}
        free = FreeSides(sides["least"], sides["step"], sides["least"] % sides["step"])
        return [Program(module, ["probabilities"], metadata, sides=free)]

    def draw(self, image: Tensor, answer: Any) -> Any:
        """The image with every class in its colour, and a legend."""
        colours = colours_of(self.facts.meaning, len(self.classes))
        shown = sorted(one["class_id"] for one in answer["classes"])
        return annotate(image, map_of(answer), self.classes, colours, shown)

    def describe(self, answer: dict[str, Any]) -> str:
        """`road 43.1 % (2 parts), sky 20.0 %`, the largest first; of tiles how far they differ where they meet."""
        found = ", ".join(_in_words(one) for one in answer["classes"]) or "nothing"
        if answer.get("seams") is None:
            return found
        return (
            f"{found} ({answer['tiles']} tiles, which differ by at most {100 * answer['seams']:.2g} % at their seams)"
        )


def map_dtype(num_classes: int) -> torch.dtype:
    """That of a map of some classes as a tensor, see `map_type`."""
    return torch.uint8 if map_type(num_classes)[0] is np.uint8 else torch.int16


def _in_words(one: dict[str, Any]) -> str:
    parts = f" ({one['components']} parts)" if one["components"] > 1 else ""
    return f"{printable(one['label'])} {100 * one['share']:.1f} %{parts}"

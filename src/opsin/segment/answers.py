"""Answers of segmenters: the class of every pixel, how much there is of each, and in the forms of other tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from opsin.data.class_maps import ClassMaps, tally_map
from opsin.data.drawing import index_image, save_image
from opsin.data.map_counts import Tally
from opsin.data.masks import describe_mask
from opsin.data.source import Source
from opsin.data.truth import Size
from opsin.engine.answered_images import source_of_answers
from opsin.engine.answers import Answer, Answers, coco_dataset, safe_name
from opsin.errors import InputError
from opsin.segment.drawing import colours_of
from opsin.segment.outlines import trace_outlines

Form = Literal["polygons", "runs"]


class SegmentAnswer(Answer):
    """The class of every pixel of an image.

    As a dict: {"classes": [{"label", "class_id", "pixels", "share", "components"}]}, the classes that the image has,
    the largest first; share is of the image's pixels, components the parts that are connected by a side or a corner.
    "seams", of one that was looked at in tiles: how far two tiles differed, at most, in the probability of a class.
    The map itself is beside the dict.
    """

    arrays: ClassVar[tuple[str, ...]] = ("class_map", "scores")
    forms: ClassVar[tuple[str, ...]] = ("overlay", "index")

    @property
    def class_map(self) -> np.ndarray:
        """The class of each pixel, uint8 (H, W), 255 where nothing is known; int16 and -1 of more than 255 classes.

        Of classes that overlap, whether each pixel is of each: (K, H, W) bool.
        """
        return self.value("class_map")

    @property
    def scores(self) -> np.ndarray:
        """The probability of each class at each pixel, float32 (K, H, W): what `predict(..., scores=True)` keeps."""
        if "scores" not in self._arrays and self.error is None:
            raise InputError("this answer has no scores, which are large; ask for them: predict(..., scores=True)")
        return self.value("scores")

    @property
    def labels(self) -> list[str]:
        """Names of the classes that the image has, the largest first."""
        return [one["label"] for one in self.value("classes")]

    @property
    def areas(self) -> np.ndarray:
        """The pixels of each class of the model, in the order of its ids, int64 (K,)."""
        return self._of_each("pixels")

    @property
    def components(self) -> np.ndarray:
        """The connected parts of each class of the model, in the order of its ids, int64 (K,)."""
        return self._of_each("components")

    def mask(self, label: str | int) -> np.ndarray:
        """Where a class is, by its name or its id: bool (H, W). Raises InputError for one that the model has not."""
        known = self.classes
        if label not in known and not (isinstance(label, int) and 0 <= label < len(known)):
            raise InputError(f"no class {label!r}; the model knows {', '.join(known)}")
        number = label if isinstance(label, int) else known.index(label)
        found = self.class_map
        return found[number] if found.dtype == bool else found == number

    def names(self) -> list[str]:
        return self.labels

    def rows(self) -> list[dict[str, Any]]:
        """A line for each class that the image has: label, class_id, pixels, share, components."""
        keys = ("label", "class_id", "pixels", "share", "components")
        return [{**self.origin(), **{key: one[key] for key in keys}} for one in self.value("classes")]

    def save_index(self, path: str | Path) -> Path:
        """Write the map as a PNG whose pixels are class numbers, in the classes' colours; 255 where nothing is known.

        Of more than 255 classes as a 16-bit PNG, 65535 where nothing is known. Of classes that overlap a folder, named
        as the file without its ending, with a PNG of 0 and 255 for each. Returns what was written.
        """
        return write_index(self.class_map, self.classes, self.colours(), Path(path))

    def to_coco(self, form: Form = "runs") -> dict[str, Any]:
        """As `SegmentAnswers.to_coco`, of the one image."""
        return SegmentAnswers([self]).to_coco(form=form)

    def write(self, form: str, path: Path, **options: Any) -> Path:
        """As "overlay", the image in the classes' colours, or "index", see `save_index`."""
        return self.save_index(path.with_suffix(".png")) if form == "index" else super().write(form, path, **options)

    def _of_each(self, key: str) -> np.ndarray:
        found = np.zeros(len(self.classes), np.int64)
        for one in self.value("classes"):
            found[one["class_id"]] = one[key]
        return found

    def colours(self) -> list[tuple[int, int, int]]:
        """The red, green and blue that each class of the model is drawn in."""
        return colours_of(self._drawer().facts.meaning, len(self.classes))


class SegmentAnswers(Answers):
    """Answers of a segmenter for several images, or for the frames of a video."""

    forms: ClassVar[tuple[str, ...]] = ("polygons", "runs")

    def write(self, form: str, folder: Path) -> Path:
        """FOLDER/annotations.json, see `to_coco`."""
        self.to_coco(folder / "annotations.json", "polygons" if form == "polygons" else "runs")
        return folder / "annotations.json"

    def columns(self) -> list[str]:
        return ["path", "label", "class_id", "pixels", "share", "components"]

    def to_coco(self, path: str | Path | None = None, form: Form = "runs") -> dict[str, Any]:
        """A data set in COCO's json: an annotation for each class of each image, with `iscrowd` 0 and no score.

        form: "runs" of pixels, or "polygons" along the sides of pixels, a part with holes in several; both have exactly
        the class's pixels. Ids are from 1, that of a category is its class id + 1. Written to a file where a path is
        given.
        """
        if form not in ("polygons", "runs"):
            raise InputError(f"form is {form!r}; expected polygons or runs")
        return coco_dataset(self, lambda answer: _coco_annotations(answer, form), path)

    def to_source(self, name: str = "predictions") -> Source:
        """A data set of the images that were read, with the maps that were found as their truth.

        What `opsin predict --as FORMAT OUT` writes. Raises InputError where no image was read.
        """
        return source_of_answers(self, name, "segment", _maps_of)


@dataclass(frozen=True, eq=False)
class _AnsweredMaps:
    """The maps of answers, one each."""

    answers: Sequence[SegmentAnswer]

    def __len__(self) -> int:
        return len(self.answers)

    def select(self, places: np.ndarray) -> _AnsweredMaps:
        return _AnsweredMaps([self.answers[i] for i in places.tolist()])

    def read(self, i: int, size: Size | None) -> np.ndarray:
        return self.answers[i].class_map

    def name(self, i: int) -> str:
        return f"answer[{i}]"

    def tally(self, i: int) -> Tally:
        return tally_map(self, i, len(self.answers[i].classes))


def _maps_of(answers: Sequence[SegmentAnswer]) -> ClassMaps:
    """The maps of answers as what is known of their images."""
    classes, overlapping = answers[0].classes, answers[0].class_map.dtype == bool
    return ClassMaps(_AnsweredMaps(answers), classes, answers[0].colours(), overlapping)


SegmentAnswer.list_class = SegmentAnswers


def map_of(answer: Mapping[str, Any]) -> np.ndarray:
    """The map of an answer, an object or the plain values that it is made of."""
    return answer.class_map if isinstance(answer, SegmentAnswer) else answer["class_map"]


def write_index(class_map: np.ndarray, classes: Sequence[str], colours: Sequence[Any], path: Path) -> Path:
    """A map as an index PNG, or of classes that overlap as a folder of them; see `SegmentAnswer.save_index`."""
    if class_map.dtype != bool:
        return save_image(index_image(class_map, colours), path)
    folder = path.with_suffix("")
    for number, (plane, name) in enumerate(zip(class_map, classes, strict=True)):
        save_image(index_image(plane, []), folder / f"{number:02d}-{safe_name(name)}.png")
    return folder


def _coco_annotations(answer: Any, form: Form) -> Iterator[dict[str, Any]]:
    for one in answer["classes"]:
        mask = answer.mask(one["class_id"])
        found = {"category_id": one["class_id"] + 1, **describe_mask(mask), "iscrowd": 0}
        yield found if form == "runs" else {**found, "segmentation": trace_outlines(mask)}

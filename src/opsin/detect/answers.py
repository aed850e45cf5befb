"""Answers of detectors: the objects of an image as arrays, cut out, and in the forms of COCO, YOLO and supervision."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from opsin.data.boxes import Boxes
from opsin.data.drawing import save_image, to_pil
from opsin.data.masks import Outlines, decode_mask, mask_area
from opsin.data.source import Source
from opsin.engine.answered_images import source_of_answers
from opsin.engine.answers import Answer, Answers, coco_dataset, need, safe_name, write_text
from opsin.structures import Instances


class DetectAnswer(Answer):
    """The objects of an image, best first; boxes are xyxy in its pixels.

    As a dict: {"instances": [{"label", "class_id", "score", "box"}]}, with "mask", COCO's runs, of a detector that has
    masks, or "polygon", corners, of one that finds lines of text. The fields below are the same as arrays, N objects
    each.
    """

    arrays: ClassVar[tuple[str, ...]] = ("masked",)

    @property
    def labels(self) -> list[str]:
        """Names of the objects' classes."""
        return [one["label"] for one in self.value("instances")]

    @property
    def class_ids(self) -> np.ndarray:
        """Ids of the objects' classes, int64 (N,)."""
        return np.array([one["class_id"] for one in self.value("instances")], np.int64)

    @property
    def scores(self) -> np.ndarray:
        """How certain each object is, float32 (N,), in [0, 1]."""
        return np.array([one["score"] for one in self.value("instances")], np.float32)

    @property
    def boxes(self) -> np.ndarray:
        """x1, y1, x2, y2 of each object in pixels of the image, x2 and y2 exclusive, float32 (N, 4)."""
        return np.array([one["box"] for one in self.value("instances")], np.float32).reshape(-1, 4)

    @property
    def masks(self) -> np.ndarray | None:
        """The pixels of each object, bool (N, H, W); None of a detector that finds no masks."""
        found = self.value("instances")
        if not self._arrays.get("masked") and not any("mask" in one for one in found):
            return None
        return (
            np.stack([decode_mask(one["mask"]).numpy() for one in found]) if found else np.zeros((0, *self.size), bool)
        )

    @property
    def polygons(self) -> list[np.ndarray] | None:
        """The corners of each line of text, float32 (4, 2), from the upper left one on; None of other objects."""
        found = self.value("instances")
        if not all("polygon" in one for one in found):
            return None
        return [np.array(one["polygon"], np.float32).reshape(-1, 2) for one in found]

    def names(self) -> list[str]:
        return self.labels

    def rows(self) -> list[dict[str, Any]]:
        """A line for each object: label, class_id, score, x1, y1, x2, y2; none for an image without any."""
        return [
            {
                **self.origin(),
                **{key: one[key] for key in ("label", "class_id", "score")},
                **dict(zip(("x1", "y1", "x2", "y2"), one["box"], strict=True)),
            }
            for one in self.value("instances")
        ]

    def crops(self) -> list[np.ndarray]:
        """Each object cut out of the image, uint8 (h, w, C): its box grown to whole pixels, at least one."""
        pixels = self.image
        return [pixels[top:bottom, left:right].copy() for left, top, right, bottom in self._pixel_boxes()]

    def save_crops(self, folder: str | Path, name: str | None = None) -> list[Path]:
        """Write each object as FOLDER/CLASS/NAME-NUMBER.png. name: the file's own name if None, with its ending."""
        if name is None:
            name = "image" if self.path is None else self.path.name
        name += "" if self.frame is None else f"-{self.frame:06d}"
        crops = self.crops() if self.value("instances") else []
        return [
            save_image(
                to_pil(torch.from_numpy(crop).permute(2, 0, 1)), Path(folder) / safe_name(label) / f"{name}-{n}.png"
            )
            for n, (crop, label) in enumerate(zip(crops, self.labels, strict=True), 1)
        ]

    def to_coco(self) -> dict[str, Any]:
        """As `DetectAnswers.to_coco`, of the one image."""
        return DetectAnswers([self]).to_coco()

    def to_yolo(self, scores: bool = False) -> str:
        """A line for each object: class id, centre x, centre y, width, height as shares of the image; and the score."""
        height, width = self.size
        lines = []
        for number, (x1, y1, x2, y2), score in zip(
            self.class_ids.tolist(), self.boxes.astype(float).tolist(), self.scores.tolist(), strict=True
        ):
            shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(" ".join([str(number), *(f"{v:.6f}" for v in (*shares, *([score] if scores else [])))]) + "\n")
        return "".join(lines)

    def to_supervision(self) -> Any:
        """A supervision.Detections. Raises InputError where supervision is missing."""
        supervision = need("supervision", "to_supervision")
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.class_ids.astype(int),
            data={"class_name": np.array(self.labels, dtype=str)},
        )

    def _pixel_boxes(self) -> list[tuple[int, int, int, int]]:
        height, width = self.size
        found = []
        for x1, y1, x2, y2 in self.boxes.tolist():
            left, top = min(max(0, math.floor(x1)), width - 1), min(max(0, math.floor(y1)), height - 1)
            found.append(
                (left, top, min(width, max(left + 1, math.ceil(x2))), min(height, max(top + 1, math.ceil(y2))))
            )
        return found


class DetectAnswers(Answers):
    """Answers of a detector for several images, or for the frames of a video. Unreadable ones are left out of files."""

    def columns(self) -> list[str]:
        return ["path", "label", "class_id", "score", "x1", "y1", "x2", "y2"]

    def to_coco(self, path: str | Path | None = None) -> dict[str, Any]:
        """A data set in COCO's json: images, annotations with scores, and all classes of the model as categories.

        Ids of images and annotations are from 1, that of a category is its class id + 1. `file_name` is the path as it
        was given. What pycocotools.COCO loads, and `loadRes` takes the "annotations" of it. Written to a file where a
        path is given. Of no answer at all there are no categories: nothing says what the model knows.
        """
        return coco_dataset(self, lambda answer: map(_coco_annotation, answer["instances"]), path)

    def to_yolo(self, folder: str | Path | None = None, scores: bool = False) -> list[str]:
        """The text of each image, see `DetectAnswer.to_yolo`, "" for one that was not read.

        folder: written there too, as NAME.txt of the image's name, `labels` beside `images`; NAME-NUMBER.txt from the
        second image of a name on, and of frames.
        """
        texts = ["" if answer.error is not None else answer.to_yolo(scores) for answer in self]
        if folder is not None:
            names = unique([_stem(place, answer) for place, answer in enumerate(self)])
            for answer, name, text in zip(self, names, texts, strict=True):
                if answer.error is None:
                    write_text(text, Path(folder) / f"{name}.txt")
        return texts

    def to_source(self, name: str = "predictions") -> Source:
        """A data set of the images that were read, with what was found as their truth, without scores.

        What `opsin predict --as FORMAT OUT` writes. Raises InputError where no image was read.
        """
        return source_of_answers(self, name, "detect", _boxes_of)

    def to_supervision(self) -> list[Any]:
        """A supervision.Detections for each image."""
        return [answer.to_supervision() for answer in self]

    def crops(self) -> list[list[np.ndarray]]:
        """The objects of each image, cut out."""
        return [answer.crops() for answer in self]

    def save_crops(self, folder: str | Path) -> list[Path]:
        """Write every object as FOLDER/CLASS/NAME-NUMBER.png; images of one name get a number more."""
        readable = [answer for answer in self if answer.error is None]
        names = ["image" if answer.path is None else answer.path.name for answer in readable]
        apart = unique(names) if all(answer.frame is None for answer in readable) else names
        return [path for answer, name in zip(readable, apart, strict=True) for path in answer.save_crops(folder, name)]


DetectAnswer.list_class = DetectAnswers


def unique(names: Sequence[str]) -> list[str]:
    """The names, each but the first of its kind with a number behind it that makes it one of its own."""
    taken, seen, found = set(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        own = name
        while seen[name] > 1 and own in taken:
            own = f"{name}-{seen[name]}"
            seen[name] += own in taken
        taken.add(own)
        found.append(own)
    return found


def _stem(place: int, answer: Answer) -> str:
    stem = f"image-{place}" if answer.path is None else answer.path.stem
    return stem if answer.frame is None else f"{stem}-{answer.frame:06d}"


def _coco_annotation(one: Mapping[str, Any]) -> dict[str, Any]:
    x1, y1, x2, y2 = one["box"]
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    values = {"category_id": one["class_id"] + 1, "bbox": [x1, y1, width, height], "score": one["score"], "iscrowd": 0}
    if "polygon" in one:
        return {**values, "area": round(width * height, 2), "segmentation": [[v for xy in one["polygon"] for v in xy]]}
    if "mask" not in one:
        return {**values, "area": round(width * height, 2)}
    return {**values, "area": mask_area(one["mask"]), "segmentation": dict(one["mask"])}


def _boxes_of(answers: Sequence[Any]) -> Boxes:
    """The objects of answers as what is known of their images."""
    found: list[list[dict[str, Any]]] = [answer["instances"] for answer in answers]
    instances = [
        Instances(torch.from_numpy(answer.boxes), labels=torch.from_numpy(answer.class_ids)) for answer in answers
    ]
    outlined = any("mask" in one or "polygon" in one for objects in found for one in objects)
    drawn = Outlines([[_outline(one) for one in objects] for objects in found]) if outlined else None
    return Boxes.of(instances, answers[0].classes, drawn)


def _outline(one: dict[str, Any]) -> Any:
    """The mask of an object, or its polygon as one part of an outline."""
    if "polygon" in one:
        return [np.array(one["polygon"], np.float64).reshape(-1)]
    return one.get("mask")

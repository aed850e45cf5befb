"""Objects with outlines, COCO's and labelme's, as maps of classes.

What is in no object is `background`, a class of its own. Where objects cover one another, the later one in the file is
on top, unless `overlapping` keeps every class by itself. Regions to ignore are unknown, but for what other objects
cover.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from opsin.data.boxes import Boxes
from opsin.data.class_maps import ClassMaps, is_background, map_type, tally_map
from opsin.data.class_tables import is_unknown
from opsin.data.formats import coco, labelme
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.mask_source import read_names
from opsin.data.formats.write_masks import write_coco_masks
from opsin.data.images import UnreadableImage
from opsin.data.inputs import Inputs
from opsin.data.map_counts import MapFault, Tally
from opsin.data.masks import Outline, Outlines, draw_outlines
from opsin.data.source import Source, Split
from opsin.data.truth import Problem, Size
from opsin.errors import InputError

BACKGROUND = "background"


@dataclass(frozen=True, eq=False)
class OutlineMaps:
    """`Maps` drawn from the outlines of objects when they are asked for.

    inputs: the images, for their sizes. boxes: the objects. outlines: of each image its objects'. places: of each class
    of the objects its number in a map, -1 where it says that nothing is known. num_classes: of the maps. overlapping:
    maps are (K, H, W) bool. filled: whether an object without an outline is its box.
    """

    inputs: Inputs
    boxes: Boxes
    outlines: Sequence[Sequence[Outline | None]]
    places: np.ndarray
    num_classes: int
    overlapping: bool = False
    filled: bool = False

    def __len__(self) -> int:
        return len(self.inputs)

    def select(self, places: np.ndarray) -> OutlineMaps:
        kept = [self.outlines[i] for i in places.tolist()]
        return replace(self, inputs=self.inputs.select(places), boxes=self.boxes.select(places), outlines=kept)

    def name(self, i: int) -> str:
        return f"the outlines of {self.inputs.name(i)}"

    def read(self, i: int, size: Size | None) -> np.ndarray:
        height, width = size or self.inputs.size(i) or (0, 0)
        dtype, unknown = map_type(self.num_classes)
        found = np.zeros((height, width), dtype)
        layers = np.zeros((self.num_classes if self.overlapping else 0, height, width), bool)
        one = self.boxes.at(i)
        assert one.labels is not None
        labels = [int(self.places[label]) if label >= 0 else -1 for label in one.labels.tolist()]
        order = sorted(range(len(labels)), key=lambda k: labels[k] >= 0)  # what is unknown first, the rest over it
        for k in order:
            outline = self.outlines[i][k] or (_rectangle(one.boxes[k].tolist()) if self.filled else None)
            if outline is None:
                if labels[k] < 0:
                    continue
                raise InputError(f"{self.name(i)}: object {k + 1} has only a box; a mask needs its outline")
            drawn = draw_outlines([outline], (height, width))[0].numpy()
            if not self.overlapping:
                found[drawn] = unknown if labels[k] < 0 else labels[k]
            elif labels[k] >= 0:
                layers[labels[k]] |= drawn
        return layers if self.overlapping else found

    def tally(self, i: int) -> Tally:
        try:
            size = self.inputs.size(i)
        except UnreadableImage as error:  # which is said of the image
            return Tally.failed(self.num_classes, MapFault("unreadable_image", str(error), "note"))
        return tally_map(self, i, self.num_classes, size)


def _rectangle(box: Sequence[float]) -> Outline:
    """Every pixel whose middle is in a box."""
    x1, y1, x2, y2 = box
    return [np.array([x1, y1, x2, y1, x2, y2, x1, y2], np.float64)]


def as_maps(source: Source, *, names: str | list[str] | None, overlapping: bool, filled: bool = False) -> Source:
    """A source of boxes with outlines as one of maps. names: of the classes, without the background."""
    own = source.classes
    called = read_names(names) or own
    if len(called) != len(own):
        raise InputError(f"{len(called)} names are given, and {source.name} has {len(own)} classes: {', '.join(own)}")
    kept = [name for old, name in zip(own, called, strict=True) if not is_background(old) and not is_unknown(old)]
    classes = kept if overlapping else [BACKGROUND, *kept]
    numbers = {name: k for k, name in enumerate(classes)}
    empty = -1 if overlapping else 0
    places = [
        empty if is_background(old) else -1 if is_unknown(old) else numbers[name]
        for old, name in zip(own, called, strict=True)
    ]
    splits: dict[str, Split] = {}
    for key, split in source.splits.items():
        boxes = split.kind
        drawn = boxes.drawn if boxes.drawn is not None else Outlines([[None] * len(one) for one in boxes.instances])
        maps = OutlineMaps(split.inputs, boxes, drawn.rows, np.array([*places, -1]), len(classes), overlapping, filled)
        splits[key] = split.with_truth(ClassMaps(maps, classes, None, overlapping))
    found = replace(source, splits=splits, problems=[one for one in source.problems if not _of_boxes(one)])
    return replace(found, format=f"{source.format}, as maps")


def _of_boxes(problem: Problem) -> bool:
    """Whether a problem is of boxes alone, whose outlines are used here."""
    return problem.kind in ("clipped_box", "duplicate_box", "conflicting_boxes")


def open_coco_maps(path: Path, names: str | list[str] | None = None, overlapping: bool = False) -> Source:
    """COCO's json files with segmentations; see `opsin.data.formats.coco`."""
    files = coco.find_coco(path) if path.is_dir() else [path]
    source = coco.open_coco(files, path.name if path.is_dir() else path.stem)
    return as_maps(source, names=names, overlapping=overlapping)


def open_labelme_maps(path: Path, names: str | list[str] | None = None, overlapping: bool = False) -> Source:
    """labelme's JSON files; a rectangle is all that is in it. See `opsin.data.formats.labelme`."""
    return as_maps(labelme.open_labelme(path), names=names, overlapping=overlapping, filled=True)


def _by_shape(claims: Callable[[Path], Claim]) -> Callable[[Path], Claim]:
    """Less surely than where boxes are read: whoever wants maps of them says --task segment."""
    return lambda path: 1 if claims(path) >= 2 else 0


COCO = Format(
    "COCO's outlines",
    "a class of each pixel",
    "COCO (annotations/*.json) with segmentations",
    _by_shape(coco.FORMAT.claims),
    open_coco_maps,
    options=("names", "overlapping"),
    written="coco",
    write=write_coco_masks,
)
LABELME = Format(
    "labelme's outlines",
    "a class of each pixel",
    "labelme (a JSON beside each image)",
    _by_shape(labelme.FORMAT.claims),
    open_labelme_maps,
    options=("names", "overlapping"),
)

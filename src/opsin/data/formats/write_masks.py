"""Maps of classes as PNG of their numbers, in Pascal VOC's layout, or as COCO's json of runs.

What the readers of these formats read back as the same. Numbers are the classes' places, 255 where nothing is known;
of more than 255 classes, 16 bits and 65535. Each writer returns what was not kept, in words.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from opsin.data.class_maps import UNKNOWN, is_background
from opsin.data.drawing import distinct_colours, index_image
from opsin.data.formats.writing import ImageWriter, new_folder
from opsin.data.masks import describe_mask
from opsin.data.source import Source, Split
from opsin.errors import InputError

_UNKNOWN_16 = 65535


def write_masks(source: Source, out: Path, link: bool = False) -> list[str]:
    """images and masks, each with a folder for each split, and a table of the classes.

    Of classes that overlap, a mask of 0 and 255 for each that an image shows, in a folder of the class.
    """
    writer, classes, overlapping = ImageWriter(link), source.classes, bool(source.meaning.get("overlapping"))
    colours = _colours(source)
    if overlapping:
        _check_names(classes)
    with new_folder(out) as root:
        for key, split in source.splits.items():
            home = "" if key == "all" else key
            for i in range(len(split)):
                name = writer.name(split, i, key)
                size = writer.write(split, i, root / "images" / home / name)
                values = split.kind.maps.read(i, size)
                file = f"{Path(name).stem}.png"
                if not overlapping:
                    _save(index_image(values, colours), root / "masks" / home / file)
                    continue
                for label, layer in zip(classes, values, strict=True):
                    if layer.any() or label == classes[0]:  # one at least, or the image would have none
                        _save(index_image(layer, ()), root / "masks" / home / label / file)
        if not overlapping:
            _write_table(root, classes, colours)
    return _notes(source)


def write_voc_masks(source: Source, out: Path, link: bool = False) -> list[str]:
    """JPEGImages, SegmentationClass, for each split a list in ImageSets/Segmentation, and a table of the classes."""
    if source.meaning.get("overlapping"):
        raise InputError("VOC's masks have one class a pixel, these overlap; take --as masks or --as coco")
    writer, colours = ImageWriter(link), _colours(source)
    with new_folder(out) as root:
        for key, split in source.splits.items():
            names = []
            for i in range(len(split)):
                name = writer.name(split, i)
                size = writer.write(split, i, root / "JPEGImages" / name)
                names.append(Path(name).stem)
                values = split.kind.maps.read(i, size)
                _save(index_image(values, colours), root / "SegmentationClass" / f"{names[-1]}.png")
            if key != "all":
                listed = root / "ImageSets/Segmentation" / f"{key}.txt"
                listed.parent.mkdir(parents=True, exist_ok=True)
                listed.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        _write_table(root, source.classes, colours)
    return _notes(source)


def write_coco_masks(source: Source, out: Path, link: bool = False) -> list[str]:
    """annotations/instances_train.json with an annotation for each class of an image, and images by split."""
    writer, unknown = ImageWriter(link), 0
    overlapping = bool(source.meaning.get("overlapping"))
    plain = [] if overlapping else [k for k, name in enumerate(source.classes) if is_background(name)]
    with new_folder(out) as root:
        for key, split in source.splits.items():
            home = "images" if key == "all" else key
            content: dict[str, Any] = {"images": [], "annotations": []}
            content["categories"] = [
                {"id": k + 1, "name": name} for k, name in enumerate(source.classes) if k not in plain
            ]
            for i in range(len(split)):
                name = writer.name(split, i, key)
                height, width = writer.write(split, i, root / home / name)
                content["images"].append({"id": i + 1, "file_name": name, "height": height, "width": width})
                for label, crowd, layer in _layers(split, i, (height, width), plain):
                    unknown += crowd
                    entry = {"id": len(content["annotations"]) + 1, "image_id": i + 1, "category_id": label + 1}
                    content["annotations"].append({**entry, "iscrowd": crowd, **describe_mask(layer)})
            file = root / "annotations" / f"instances_{key}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    notes = [f"what is unknown in {unknown} images is a crowd of the first category"] if unknown else []
    if not overlapping and not plain:
        notes.append("COCO's maps have a background: read again, there is one more class, which is nowhere")
    return notes


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "PNG")


def _colours(source: Source) -> list[tuple[int, int, int]]:
    own = [(red, green, blue) for red, green, blue in source.meaning.get("colours", ())]
    return own or distinct_colours(len(source.classes))


def _write_table(root: Path, classes: Sequence[str], colours: Sequence[tuple[int, int, int]]) -> None:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["name", "r", "g", "b"])
    rows.writerows([name, *colour] for name, colour in zip(classes, colours, strict=True))
    (root / "class_dict.csv").write_text(text.getvalue(), encoding="utf-8")


def _check_names(classes: Sequence[str]) -> None:
    for name in classes:
        if set(name) & set('/\\:*?"<>|') or name.strip(". ") != name:
            raise InputError(f"the class {name!r} cannot be the name of a folder; rename it")


def _notes(source: Source) -> list[str]:
    if len(source.classes) > UNKNOWN and not source.meaning.get("overlapping"):
        return [
            f"of more than 255 classes, {_UNKNOWN_16} says that nothing is known: read them with --ignore {_UNKNOWN_16}"
        ]
    if source.meaning.get("overlapping"):
        return ["classes overlap: a mask for each; read them with --overlapping"]
    return []


def _layers(split: Split, i: int, size: tuple[int, int], plain: Sequence[int]) -> list[tuple[int, int, np.ndarray]]:
    """Of each class that an image shows its number, 0, and its pixels; and what is unknown as a crowd, 1."""
    values = split.kind.maps.read(i, size)
    if values.dtype == bool:
        return [(k, 0, layer) for k, layer in enumerate(values) if layer.any()]
    unknown = UNKNOWN if values.dtype == np.uint8 else -1
    first = next(k for k in range(len(plain) + 1) if k not in plain)
    found = [(first, 1, values == unknown)] if (values == unknown).any() else []
    return found + [(k, 0, values == k) for k in np.unique(values).tolist() if k != unknown and k not in plain]

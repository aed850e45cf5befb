"""Maps of classes written and read back: the same, class by class and pixel by pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from opsin.data.class_maps import ClassMaps, MapArray
from opsin.data.drawing import index_image
from opsin.data.formats.outline_maps import COCO
from opsin.data.formats.write_masks import write_coco_masks, write_masks, write_voc_masks
from opsin.data.inputs import ImageArray
from opsin.data.open_source import open_source
from opsin.data.source import Source, Split
from opsin.errors import InputError

NAMES = ["background", "cat, small", "dog"]
COLOURS = [(0, 0, 0), (200, 10, 10), (10, 200, 10)]


def made(*, overlapping: bool = False, keys: tuple[str, ...] = ("train", "val")) -> Source:
    splits = {}
    for seed, key in enumerate(keys):
        random = np.random.default_rng(seed)
        images = torch.from_numpy(random.integers(0, 256, (2, 3, 9, 13), np.uint8))
        maps: Any = random.choice(np.array([0, 1, 2, 255], np.uint8), (2, 9, 13))
        names, colours = NAMES, COLOURS
        if overlapping:
            maps, names, colours = random.random((2, 2, 9, 13)) > 0.6, ["cat", "dog"], None
        truth = ClassMaps(MapArray(maps, key, len(names)), names, colours, overlapping)
        splits[key] = Split(ImageArray(images, key), truth)
    return Source("made", "made", splits, task="segment")


def equal(source: Source, other: Source) -> None:
    assert list(source.splits) == list(other.splits)
    for key, split in source.splits.items():
        own, read = split.kind, other.splits[key].kind
        assert len(split) == len(other.splits[key])
        for i in range(len(split)):
            assert torch.equal(split.read(i), other.splits[key].read(i))
            assert np.array_equal(own.maps.read(i, (9, 13)), read.maps.read(i, (9, 13)))


@pytest.mark.parametrize("keys", [("train", "val"), ("all",)], ids=["splits", "all"])
@pytest.mark.parametrize("write", [write_masks, write_voc_masks, write_coco_masks])
def test_what_is_written_is_read_back(tmp_path: Path, write: Any, keys: tuple[str, ...]) -> None:
    source = made(keys=keys)
    notes = write(source, tmp_path / "out")
    read = open_source(tmp_path / "out", "segment")
    equal(source, read)
    assert read.classes == NAMES
    assert bool(notes) == (write is write_coco_masks)  # which has crowds in the place of 255
    if write is not write_coco_masks:
        assert read.meaning == source.meaning


@pytest.mark.parametrize("write", [write_masks, write_coco_masks])
def test_layers_are_read_back(tmp_path: Path, write: Any) -> None:
    source = made(overlapping=True)
    write(source, tmp_path / "out")
    read = open_source(tmp_path / "out", "segment", overlapping=True)
    equal(source, read)
    assert read.meaning == source.meaning
    with pytest.raises(InputError, match="VOC's masks have one class a pixel, these overlap"):
        write_voc_masks(source, tmp_path / "voc")


def test_png_has_numbers_and_a_palette(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2, 255]], np.uint8)
    index_image(values, COLOURS).save(tmp_path / "a.png")
    saved = Image.open(tmp_path / "a.png")
    assert saved.mode == "P"
    assert np.array_equal(np.asarray(saved), values)
    assert np.asarray(saved.convert("RGB")).tolist()[0][:3] == [list(one) for one in COLOURS]
    index_image(np.array([[0, 300, -1]], np.int16), COLOURS).save(tmp_path / "b.png")
    assert np.asarray(Image.open(tmp_path / "b.png")).tolist() == [[0, 300, 65535]]


def test_coco_of_maps_is_coco_of_boxes_too(tmp_path: Path) -> None:
    write_coco_masks(made(overlapping=True), tmp_path / "out")
    boxes = open_source(tmp_path / "out", "detect")
    assert boxes.classes == ["cat", "dog"]
    assert not [one for one in boxes.problems if one.severity == "error"]
    assert COCO.written == "coco"

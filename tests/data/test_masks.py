"""Masks of COCO json, polygons and runs, against pycocotools; what cannot be drawn has a name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import data
from opsin.data import Source
from opsin.errors import InputError


def annotation(shape: Any, **changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 7, "category_id": 18, "bbox": [10, 20, 30, 40], "segmentation": shape} | changes


def opened(folder: Path, *annotations: dict[str, Any]) -> Source:
    """Two images of 100x80, of which the first has the id 7, the second 3."""
    (folder / "annotations").mkdir()
    (folder / "train").mkdir()
    for name in "ab":
        Image.fromarray(np.full((80, 100, 3), 90, np.uint8)).save(folder / f"train/{name}.png")
    images = [{"id": 7, "file_name": "a.png"}, {"id": 3, "file_name": "b.png"}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 18, "name": "dog"}]}
    (folder / "annotations/instances_train.json").write_text(json.dumps(content))
    return data.open(folder, "detect")


def test_coco_masks_are_those_of_cocos_tools(tmp_path: Path) -> None:
    tools = pytest.importorskip("pycocotools.mask")
    blob = np.zeros((80, 100), np.uint8, order="F")
    blob[20:60:3, 10:41] = 1
    text = tools.encode(blob)["counts"].decode()
    shapes: list[Any] = [
        [[10.5, 20.2, 39.7, 22.1, 33.3, 58.9], [12, 50, 20, 50, 20, 59.5, 12, 59.5]],
        {"size": [80, 100], "counts": text},
        {"size": [80, 100], "counts": [1200, 30, 6770]},
    ]
    rows = [annotation(shape, iscrowd=int(k == 2)) for k, shape in enumerate(shapes)]
    gone = annotation(shapes[0], bbox=[10, 20, 0, 40])  # a box without area is left out, and so is its mask
    split = opened(tmp_path, gone, *rows).splits["train"]
    found = split.kind.masks(0, (80, 100))
    assert found is not None and found.shape == (3, 80, 100) and split.kind.unmasked() is None
    wanted = [tools.merge(tools.frPyObjects(shapes[0], 80, 100)), shapes[1], tools.frPyObjects(shapes[2], 80, 100)]
    for mask, runs in zip(found, wanted, strict=True):
        assert torch.equal(mask, torch.from_numpy(tools.decode(runs)).bool())
    empty = split.subset([1, 0]).kind.masks(0, (80, 100))
    assert empty is not None and empty.shape == (0, 80, 100)


@pytest.mark.parametrize(
    ("shape", "warned"),
    [
        ([], False),
        (None, False),
        ([[1, 2, 3, 4]], True),
        ([[1, 2, 3, 4, 5, 6, 7]], True),
        ([[1, 2, 3, 4, 5, "six"]], True),
        ([[1, 2, 3, 4, 5, float("nan")]], True),
        ({"size": [80, 100], "counts": [5]}, True),
        ({"size": [80], "counts": [8000]}, True),
        ("polygon", True),
    ],
)
def test_coco_without_a_usable_mask_has_boxes_only(tmp_path: Path, shape: Any, warned: bool) -> None:
    lacking, good = annotation(shape, image_id=3), annotation([[1, 1, 9, 1, 9, 9]])
    source = opened(tmp_path, lacking, good)
    assert [(p.kind, p.severity) for p in source.problems] == [("broken_mask", "warning")] * warned
    split = source.splits["train"]
    assert (
        split.kind.masks(0, (80, 100)) is not None
        and split.kind.masks(1, (80, 100)) is None
        and split.kind.unmasked() == 1
    )
    assert len(split.kind.instances[1]) == 1


def test_coco_runs_that_cannot_be_read_name_the_image(tmp_path: Path) -> None:
    source = opened(tmp_path, annotation({"size": [80, 100], "counts": "zzzz"}))
    with pytest.raises(InputError, match="a mask has runs that cannot be read"):
        source.splits["train"].kind.masks(0, (80, 100))

"""Outlines as maps of classes, against pixels that are set here one by one."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from opsin.data.open_source import open_source, recognize_task
from opsin.data.source import check_trainable
from opsin.errors import InputError

H, W = 12, 16


def square(x1: int, y1: int, x2: int, y2: int) -> list[float]:
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def coco(folder: Path, annotations: list[dict[str, Any]]) -> Path:
    Image.new("RGB", (W, H)).save(folder / "a.png")
    Image.new("RGB", (W, H), "red").save(folder / "b.png")
    filled = [
        {"id": k, "image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 0, **one}
        for k, one in enumerate(annotations)
    ]
    content = {
        "images": [
            {"id": k + 1, "file_name": name, "width": W, "height": H} for k, name in enumerate(("a.png", "b.png"))
        ],
        "annotations": filled,
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def read(folder: Path, **options: Any) -> np.ndarray:
    return np.asarray(open_source(folder, "segment", **options).splits["all"].kind.read(0, (H, W))["class_map"])


CAT = {"segmentation": [square(2, 2, 8, 8)]}
DOG = {"segmentation": [square(5, 5, 12, 10)], "category_id": 7, "bbox": [5, 5, 7, 5]}


def test_polygons_are_painted_in_the_order_of_the_file(tmp_path: Path) -> None:
    expected = np.zeros((H, W), np.uint8)
    expected[2:8, 2:8] = 1
    expected[5:10, 5:12] = 2
    assert np.array_equal(read(coco(tmp_path, [CAT, DOG])), expected)
    expected[2:8, 2:8] = 1
    assert np.array_equal(read(coco(tmp_path, [DOG, CAT])), expected)
    source = open_source(tmp_path, "segment")
    assert source.classes == ["background", "cat", "dog"]
    assert recognize_task(tmp_path) == "detect"
    check_trainable(source, 0, 0)


def test_overlapping_classes_keep_their_own_layers(tmp_path: Path) -> None:
    found = read(coco(tmp_path, [CAT, DOG]), overlapping=True)
    expected = np.zeros((2, H, W), bool)
    expected[0, 2:8, 2:8] = True
    expected[1, 5:10, 5:12] = True
    assert found.dtype == bool
    assert np.array_equal(found, expected)
    truth: Any = open_source(tmp_path, "segment", overlapping=True).splits["all"].truth
    assert truth.meaning == {"classes": ["cat", "dog"], "overlapping": True}
    assert truth.counts.tolist() == [[36, 35, H * W - 36 - 35 + 9], [0, 0, H * W]]


def test_runs_and_crowds(tmp_path: Path) -> None:
    crowd = {"segmentation": {"size": [H, W], "counts": [0, 3 * H, H * W - 3 * H]}, "iscrowd": 1}  # three columns
    expected = np.zeros((H, W), np.uint8)
    expected[:, :3] = 255
    expected[2:8, 2:8] = 1
    assert np.array_equal(read(coco(tmp_path, [CAT, crowd])), expected)


def test_an_object_without_an_outline_is_named(tmp_path: Path) -> None:
    source = open_source(coco(tmp_path, [CAT, {"bbox": [1, 1, 2, 2]}]), "segment")
    with pytest.raises(InputError, match="object 2 has only a box; a mask needs its outline"):
        source.splits["all"].kind.read(0, (H, W))


def labelme(folder: Path, shapes: list[dict[str, Any]]) -> Path:
    Image.new("RGB", (W, H)).save(folder / "a.png")
    content = {"version": "5", "flags": {}, "shapes": shapes, "imagePath": "a.png", "imageHeight": H, "imageWidth": W}
    (folder / "a.json").write_text(json.dumps(content))
    return folder


def test_labelme(tmp_path: Path) -> None:
    stamp = np.zeros((3, 4), np.uint8)
    stamp[1, :] = 1
    encoded = io.BytesIO()
    Image.fromarray(stamp.astype(bool)).save(encoded, "PNG")
    polygon = np.array(square(2, 2, 8, 8)).reshape(-1, 2).tolist()
    shapes = [
        {"label": "cell", "shape_type": "polygon", "points": polygon},
        {"label": "spot", "shape_type": "rectangle", "points": [[10, 1], [13, 4]]},
        {
            "label": "spot",
            "shape_type": "mask",
            "points": [[1, 8], [4, 10]],
            "mask": base64.b64encode(encoded.getvalue()).decode(),
        },
        {"label": "__ignore__", "shape_type": "rectangle", "points": [[0, 0], [16, 1]]},
    ]
    expected = np.zeros((H, W), np.uint8)
    expected[0] = 255
    expected[2:8, 2:8] = 1
    expected[1:4, 10:13] = 2
    expected[9, 1:5] = 2
    found = read(labelme(tmp_path, shapes))
    assert open_source(tmp_path, "segment").classes == ["background", "cell", "spot"]
    assert np.array_equal(found, expected)

"""Named points written and read back: the same, point by point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from opsin.data.formats.write_points import write_coco_keypoints, write_csv, write_pts
from opsin.data.inputs import ImageArray
from opsin.data.named_points import NamedPoints
from opsin.data.open_source import open_source
from opsin.data.source import Source, Split
from opsin.errors import InputError

NAMES = ["left_eye", "right_eye", "nose, tip"]


def made(*, whole: bool = False, keys: tuple[str, ...] = ("train", "val"), names: Any = NAMES) -> Source:
    splits = {}
    for seed, key in enumerate(keys):
        random = np.random.default_rng(seed)
        images = torch.from_numpy(random.integers(0, 256, (3, 3, 20, 30), np.uint8))
        points = random.uniform(0, 20, (3, 3, 2)).astype(np.float32)
        visible = random.random((3, 3)) > 0.4
        if not whole:
            points[0, 1] = np.nan
        splits[key] = Split(ImageArray(images, key), NamedPoints.of(points, names, None if whole else visible))
    return Source("made", "made", splits, task="landmark")


def equal(source: Source, other: Source, tolerance: float = 0.0) -> None:
    assert list(source.splits) == list(other.splits)
    for key, split in source.splits.items():
        own, read = split.kind, other.splits[key].kind
        assert all(torch.equal(split.read(i), other.splits[key].read(i)) for i in range(3))
        np.testing.assert_allclose(read.points, own.points, rtol=0, atol=tolerance)
        assert np.array_equal(read.visible, own.visible)


@pytest.mark.parametrize("keys", [("train", "val"), ("all",)], ids=["splits", "all"])
def test_a_table_is_read_back(tmp_path: Path, keys: tuple[str, ...]) -> None:
    source = made(keys=keys)
    assert write_csv(source, tmp_path / "out") == []
    read = open_source(tmp_path / "out", "landmark")
    equal(source, read)
    assert list(read.splits[keys[0]].kind.names) == NAMES


@pytest.mark.parametrize("keys", [("train", "val"), ("all",)], ids=["splits", "all"])
def test_keypoints_are_read_back(tmp_path: Path, keys: tuple[str, ...]) -> None:
    source = made(keys=keys)
    write_coco_keypoints(source, tmp_path / "out")
    read = open_source(tmp_path / "out", "landmark", crop="none")
    equal(source, read, 2e-6)
    assert list(read.splits[keys[0]].kind.names) == NAMES


def test_keypoints_by_hand(tmp_path: Path) -> None:
    points = np.array([[[1.5, 2.5], [4.5, 2.5], [np.nan, np.nan]], [[np.nan, np.nan]] * 3], np.float32)
    visible = np.array([[True, False, False], [False] * 3])
    images = ImageArray(torch.zeros(2, 3, 6, 8, dtype=torch.uint8), "x")
    source = Source("made", "made", {"all": Split(images, NamedPoints.of(points, NAMES, visible))}, task="landmark")
    notes = write_coco_keypoints(source, tmp_path / "out")
    assert "1 images without a known point" in notes[1]
    content = json.loads((tmp_path / "out/annotations/keypoints_all.json").read_text())
    (one,) = content["annotations"]
    assert one["keypoints"] == [1, 2, 2, 4, 2, 1, 0, 0, 0] and one["num_keypoints"] == 2
    assert one["bbox"] == [1.5, 2.5, 3, 1e-3] and content["categories"][0]["keypoints"] == NAMES


def test_pts_are_read_back(tmp_path: Path) -> None:
    source = made(whole=True, names=None)
    assert write_pts(source, tmp_path / "out") == []
    equal(source, open_source(tmp_path / "out", "landmark"), 2e-6)
    assert len(list((tmp_path / "out/train").glob("*.pts"))) == 3
    assert "names of the points" in write_pts(made(whole=True), tmp_path / "named")[0]
    with pytest.raises(InputError, match=r"points that are not known, which \.pts cannot say; write --as csv"):
        write_pts(made(), tmp_path / "some")
    assert not (tmp_path / "some").exists()

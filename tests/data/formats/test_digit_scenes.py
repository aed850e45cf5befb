"""Built-in scenes: the same every time, exact boxes, and nothing shared between splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from opsin import data
from opsin.data.formats import digit_scenes
from opsin.data.formats.digit_scenes import Scenes
from opsin.errors import InputError


@pytest.fixture(scope="module")
def source() -> data.Source:
    return data.open("scenes:40", "detect")


def test_sizes_and_splits(source: data.Source) -> None:
    assert {key: len(split) for key, split in source.splits.items()} == {"train": 40, "val": 8, "test": 8}
    assert source.classes == [str(k) for k in range(10)] and source.task == "detect"
    data.check_trainable(source)
    for split in source.splits.values():
        for k, one in enumerate(split.kind.instances):
            assert 1 <= len(one) <= 6 and one.boxes.dtype == torch.float32 and one.labels is not None
            assert np.flatnonzero(split.kind.presence[k]).tolist() == sorted(set(one.labels.tolist()))
            assert (one.boxes >= 0).all() and (one.boxes <= 160).all()
        image = split.read(0)
        assert image.shape == (3, 160, 160) and image.dtype == torch.uint8


def test_boxes_are_the_extents_of_the_masks(source: data.Source) -> None:
    split = source.splits["train"]
    assert isinstance(split.inputs, Scenes)
    for k in range(20):
        masks, boxes = split.kind.masks(k, (160, 160)), split.kind.instances[k].boxes
        assert (
            masks is not None and len(masks) == len(boxes) and int(masks.sum(dim=0).max()) == 1
        )  # no digit hides another
        for mask, box in zip(masks, boxes.tolist(), strict=True):
            rows, columns = mask.nonzero(as_tuple=True)
            assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box


def test_a_scene_depends_on_its_place_alone(source: data.Source) -> None:
    longer = data.open("scenes:60", "detect").splits["train"].subset([5, 50, 7])
    short = source.splits["train"].subset([5, 7])
    for place, other in ((0, 0), (1, 2)):
        assert torch.equal(short.read(place), longer.read(other))
        assert torch.equal(short.instances[place].boxes, longer.instances[other].boxes)  # type: ignore[index]
    assert not torch.equal(longer.read(0), longer.read(1))
    assert longer.name(1) == "scenes/train[50]"


def test_splits_share_no_digits_and_no_photographs() -> None:
    pools = digit_scenes._digits()
    assert sum(len(labels) for _, labels in pools.values()) == 1797 and len(pools["test"][1]) == 360
    seen = [{bytes(digit.numpy().tobytes()) for digit in images} for images, _ in pools.values()]
    shared = [a & b for n, a in enumerate(seen) for b in seen[n + 1 :]]
    assert max(map(len, shared)) == 0
    photographs = [set(names) for names in digit_scenes._PHOTOGRAPHS.values()]
    assert sum(map(len, photographs)) == len(set.union(*photographs))


def test_names(source: data.Source) -> None:
    assert len(data.open("scenes:1", "detect").splits["test"]) == 1
    with pytest.raises(InputError, match="expected scenes, or scenes:N"):
        data.open("scenes:0", "detect")
    with pytest.raises(InputError, match="for the task detect; to classify, take digits"):
        data.open("scenes")
    with pytest.raises(InputError, match="digits has class labels, for the task classify; to detect, take scenes"):
        data.open("digits", "detect")
    with pytest.raises(InputError, match="did you mean scenes"):
        data.open("scens", "detect")

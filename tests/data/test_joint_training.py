"""Images with boxes and images without, as one training split: classes, balance, batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from opsin.data import Preprocessing, create_loader, open
from opsin.data.boxes import Boxes
from opsin.data.inputs import ImageArray
from opsin.data.joint_training import join
from opsin.data.labels import ClassLabels
from opsin.data.loading import Partners
from opsin.data.source import Source, Split
from opsin.errors import InputError
from opsin.structures import Instances

PREPROCESSING = Preprocessing(size=(16, 16), channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)


def boxed(count: int, prefix: str) -> Split:
    """Images with one object of class k % 2 each."""
    labels = np.arange(count) % 2
    instances = [Instances(torch.tensor([[2.0, 3, 9, 8]]), torch.tensor([k])) for k in labels.tolist()]
    images = torch.zeros(count, 3, 20, 20, dtype=torch.uint8)
    return Split(ImageArray(images, prefix), Boxes.of(instances, ["cup", "jug"]))


def detection() -> Source:
    splits = {"train": boxed(4, "train"), "val": boxed(2, "val")}
    return Source("shelves", "test", splits, task="detect")


def images(labels: list[int], classes: list[str], split: str = "all") -> Source:
    images = torch.full((len(labels), 1, 8, 8), 255, dtype=torch.uint8)
    truth = ClassLabels(np.array(labels), classes)
    return Source("photos", "test", {split: Split(ImageArray(images, "photos"), truth)})


def test_classes_are_matched_by_name_and_new_ones_come_last() -> None:
    # jug is class 0 there and 1 here; one image names no class
    joined, told = join(detection(), images([0, 1, 1, -1], ["jug", "bowl"]), ratio=4)
    assert joined.classes == ["cup", "jug", "bowl"]
    train, val = joined.splits["train"], joined.splits["val"]
    assert train.kind.boxed.tolist() == [True] * 4 + [False] * 3
    assert [train.kind.shown(k) for k in range(7)] == [[0], [1], [0], [1], [1], [2], [2]]
    assert train.kind.presence.tolist() == [0, 1, 0, 1, 1, 2, 2]
    assert [len(one) for one in train.kind.instances] == [1, 1, 1, 1, 0, 0, 0]
    assert [train.name(k) for k in (3, 4, 6)] == ["train[3]", "photos[0]", "photos[2]"]
    assert train.read(0).shape == (3, 20, 20) and train.read(4).shape == (1, 8, 8)
    assert val.kind.presence.tolist() == [[1, 0, 0], [0, 1, 0]]
    for fact in (
        "joint training: 3 images of photos (test)",
        "2 classes, 1 of them without boxes: 'bowl'",
        "1 that name no class",
    ):
        assert fact in told
    part = train.subset([6, 1])
    assert part.kind.boxed.tolist() == [False, True]
    assert part.name(0) == "photos[2]" and [len(one) for one in part.kind.instances] == [0, 1]
    moved = part.kind.relabel([3, 2, 0], list("wxyz"))
    assert [moved.shown(0), moved.shown(1)] == [[0], [2]] and moved.presence.tolist() == [0, 2]
    assert moved.instances[1].labels.tolist() == [2]


@pytest.mark.parametrize(("count", "ratio", "each"), [(16, 4, 1), (17, 4, 2), (33, 4, 3), (17, 0.5, 9), (1, 4, 1)])
def test_images_with_boxes_are_repeated_until_the_others_are_not_too_many(count: int, ratio: float, each: int) -> None:
    joined, told = join(detection(), images([0] * count, ["cup"]), ratio)
    train = joined.splits["train"]
    assert train.kind.boxed.sum() == 4 * each and (~train.kind.boxed).sum() == count
    assert count / (4 * each) <= ratio
    names = [train.name(k) for k in range(len(train))]
    assert all(names.count(f"train[{k}]") == each for k in range(4))
    assert (f"come {each} times each" in told) == (each > 1)


def test_only_images_to_train_on_are_taken(tmp_path: Path) -> None:
    for split, name in (("train", "cup"), ("train", "owl"), ("test", "cup"), ("test", "owl")):
        folder = tmp_path / "photos" / split / name
        folder.mkdir(parents=True)
        for k in range(3):
            Image.new("L", (9, 9), 20 * k).save(folder / f"{k}.png")
    source = open(tmp_path / "photos")
    joined, told = join(detection(), source, ratio=4)
    names = [joined.splits["train"].name(k) for k in range(4, len(joined.splits["train"]))]
    assert len(names) == 6 and all("/train/" in name for name in names)
    assert "6 images" in told and joined.classes == ["cup", "jug", "owl"]
    few, _ = join(detection(), source, ratio=4, limit=2)
    assert len(few.splits["train"]) == 6 and sorted(few.splits["train"].kind.presence[4:]) == [0, 2]


@pytest.mark.parametrize("labels", [[1, 0, 1], [[1, 1], [1, 0], [0, 0]]])
def test_images_that_show_several_classes(tmp_path: Path, labels: list[Any]) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 8, 8), np.uint8), labels=labels, classes=["jug", "owl"])
    source = open(tmp_path / "x.npz", multi_label=True)
    assert source.splits["all"].kind.presence.shape == (3, 2)  # also where each has one
    train = join(detection(), source, ratio=4)[0].splits["train"]
    expected = [[2], [1], [2]] if labels[0] == 1 else [[1, 2], [1]]
    assert [train.kind.shown(k) for k in range(4, len(train))] == expected


@pytest.mark.parametrize(("split", "labels"), [("all", [-1, -1]), ("test", [0, 1])])
def test_nothing_to_learn_from_is_refused(split: str, labels: list[int]) -> None:
    with pytest.raises(InputError, match=r"^joint training: photos has no training images with a class$"):
        join(detection(), images(labels, ["cup", "jug"], split), ratio=4)


def test_batches_say_of_which_images_the_boxes_are_known() -> None:
    joined, _ = join(detection(), images([1, 0], ["jug", "bowl"]), ratio=4)
    for workers in (0, 1):
        (batch,) = create_loader(joined.splits["train"], PREPROCESSING, batch_size=6, workers=workers)
        assert batch["somewhere"] == [None] * 4 + [[2], [1]]
        assert [len(one) for one in batch["instances"]] == [1, 1, 1, 1, 0, 0]
        assert batch["image"].shape == (6, 3, 16, 16)
    (plain,) = create_loader(joined.splits["val"], PREPROCESSING, batch_size=6)
    assert "somewhere" not in plain


def test_an_image_without_boxes_is_mixed_with_itself_alone() -> None:
    bright = []

    def mix(sample: dict[str, Any], partners: Partners) -> dict[str, Any]:
        every = [sample, *(partners[k] for k in range(3))]  # images without boxes are white, those with boxes are black
        bright.append({float(one["image"].float().mean()) for one in every})
        return {**sample, "image": sample["image"].new_zeros(3, 16, 16)}

    mix.partners = 3  # type: ignore[attr-defined]
    joined, _ = join(detection(), images([0] * 40, ["jug"]), ratio=4)
    list(create_loader(joined.splits["train"], PREPROCESSING, batch_size=8, training=True, augmentation=mix))
    assert len(bright) == 48 and all(len(shades) == 1 for shades in bright)
    assert {0.0} in bright and {255.0} in bright

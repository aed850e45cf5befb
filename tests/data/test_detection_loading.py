"""Batches of detection data: instances in pixels of the input, sizes, and partners that are seeded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from opsin.data import Preprocessing, create_loader
from opsin.data import open as open_source
from opsin.data.boxes import Boxes
from opsin.data.inputs import ImageArray
from opsin.data.labels import ClassLabels
from opsin.data.loading import Partners
from opsin.data.source import Split
from opsin.data.transforms.augmentation import create_detection_augmentation
from opsin.errors import InputError
from opsin.structures import Batch, Instances

N = 12
RANDOM = np.random.RandomState(0)
PREPROCESSING = Preprocessing(size=(20, 20), channels=3, mean=(0.5,) * 3, std=(0.2,) * 3, fit="pad")


def split() -> Split:
    """Images of 40x30; image k has k % 4 objects of class k % 3, and a region to ignore where k is 5."""
    images = torch.from_numpy(RANDOM.randint(0, 256, (N, 3, 40, 30), dtype=np.uint8))
    instances = []
    for k in range(N):
        boxes = torch.tensor([[n, n, n + 10, n + 20] for n in range(k % 4)], dtype=torch.float32).view(-1, 4)
        instances.append(Instances(boxes, torch.full((k % 4,), -1 if k == 5 else k % 3)))
    return Split(ImageArray(images, "x"), Boxes.of(instances, ["a", "b", "c"]))


SPLIT = split()


class Mosaic:
    """The halves of two images, one over the other; a stand-in that looks at its second partner alone."""

    partners = 3

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, sample: dict[str, Any], partners: Partners) -> dict[str, Any]:
        image, instances = sample["image"], sample["instances"]
        self.seen.append(partners.indices)
        assert len(partners) == 3 and len(partners[1:]) == 2
        other, its = partners[1]["image"], partners[1]["instances"]
        shift = torch.randint(0, 5, ()).item()
        joined = torch.cat([image[:, :10, :20], other[:, :10, :20]], dim=1)
        boxes = torch.cat([instances.boxes + shift, its.boxes])
        return {**sample, "image": joined, "instances": Instances(boxes, torch.cat([instances.labels, its.labels]))}


def load(**options: object) -> list[Batch]:
    options = {"batch_size": 4, **options}
    return list(create_loader(SPLIT, PREPROCESSING, **options))  # type: ignore[arg-type]


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for one, two in zip(ours, theirs, strict=True):
        assert torch.equal(one["image"], two["image"]) and torch.equal(one["size"], two["size"])
        for a, b in zip(one["instances"], two["instances"], strict=True):
            assert torch.equal(a.boxes, b.boxes) and torch.equal(a.labels, b.labels)  # type: ignore[arg-type]


def test_boxes_are_in_pixels_of_the_input() -> None:
    batches = load()
    assert len(batches) == 3
    for batch in batches:
        assert batch["image"].shape == (4, 3, 20, 20) and batch["size"].tolist() == [[40, 30]] * 4
        assert batch["size"].dtype == torch.int64 and batch["label"].shape == (4, 3)
        for index, one in zip(batch["index"].tolist(), batch["instances"], strict=True):
            truth = SPLIT.kind.instances[index]
            assert torch.equal(PREPROCESSING.return_boxes(one.boxes, (40, 30)).round(), truth.boxes)
            assert torch.equal(one.labels, truth.labels)  # type: ignore[arg-type]
            assert one.boxes.dtype == torch.float32 and one.labels.dtype == torch.int64  # type: ignore[union-attr]
    assert len(batches[0]["instances"][0]) == 0  # an image without objects


def test_classification_batches_are_as_they_were() -> None:
    plain = SPLIT.with_truth(ClassLabels(SPLIT.kind.presence, ["a", "b", "c"]))
    batch = next(iter(create_loader(plain, PREPROCESSING, batch_size=4)))
    assert batch.keys() == {"image", "label", "index", "path"}


def test_workers_and_resumes_give_the_same_batches() -> None:
    def loader(workers: int = 0) -> list[Batch]:
        return load(training=True, augmentation=Mosaic(), seed=3, workers=workers)

    expected = loader()
    assert_same(loader(workers=2), expected)
    resumed = create_loader(SPLIT, PREPROCESSING, batch_size=4, training=True, augmentation=Mosaic(), seed=3)
    resumed.position = (0, 2)
    assert_same(list(resumed), expected[2:])


def test_partners_are_seeded_and_differ_by_sample_and_epoch() -> None:
    seen = []
    for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0)):
        mosaic = Mosaic()
        loader = create_loader(SPLIT, PREPROCESSING, batch_size=4, training=True, augmentation=mosaic, seed=seed)
        loader.set_epoch(epoch)
        list(loader)
        seen.append(mosaic.seen)
    assert seen[0] == seen[1] != seen[2] != seen[3]
    assert len(set(seen[0])) > N // 2
    assert {index for indices in seen[0] for index in indices} <= set(range(N))


def test_an_augmentation_of_one_image_has_no_partners() -> None:
    def cut(sample: dict[str, Any], partners: Partners) -> dict[str, Any]:
        assert len(partners) == 0
        return {**sample, "image": sample["image"][:, :20, :20], "instances": sample["instances"][:1]}

    batches = load(training=True, augmentation=cut)
    assert max(len(one) for batch in batches for one in batch["instances"]) == 1


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(training=True, augmentation=Mosaic())
    assert torch.equal(torch.rand(3), expected)


def test_instances_stay_with_their_images() -> None:
    chosen = SPLIT.subset([7, 3, 3])
    assert [len(one) for one in chosen.kind.instances] == [3, 3, 3]
    assert chosen.kind.instances[0].labels.tolist() == [1, 1, 1]
    moved = SPLIT.kind.relabel([4, 0, 2], "abcde")
    assert moved.presence.shape == (N, 5)
    for k, (new, old) in enumerate(zip(moved.instances, SPLIT.kind.instances, strict=True)):
        labels = [-1 if label < 0 else (4, 0, 2)[label] for label in old.labels.tolist()]
        assert new.labels.tolist() == labels, k  # type: ignore[union-attr]
    assert moved.instances[5].labels.tolist() == [-1]  # type: ignore[union-attr]


def test_an_unreadable_image_is_named() -> None:
    class Broken(ImageArray):
        def read(self, i: int) -> Tensor:
            raise InputError("cannot read x[3]: truncated")

    broken = Split(Broken(torch.zeros(N, 3, 40, 30, dtype=torch.uint8), "x"), SPLIT.truth)
    with pytest.raises(InputError, match=r"x\[3\]"):
        list(create_loader(broken, PREPROCESSING, batch_size=4))


@pytest.mark.parametrize("augment", [None, "random_horizontal_flip", "mosaic"])
def test_masks_go_where_their_boxes_go(augment: str | None) -> None:
    """The rectangle around a digit's pixels is its box, to two pixels; that of one that is cut lies in what is left."""
    split = open_source("scenes:6", "detect").splits["train"]
    split = split.with_truth(split.kind.with_masks())
    preprocessing = Preprocessing(size=(320, 240), channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    augmentation = None if augment is None else create_detection_augmentation([augment], preprocessing)
    options: Any = {"batch_size": 3, "training": True, "augmentation": augmentation}
    for workers in (0, 1):
        seen = 0
        for batch in create_loader(split, preprocessing, workers=workers, **options):
            for one in batch["instances"]:
                assert one.masks is not None and one.masks.shape == (len(one), 320, 240)
                for box, mask in zip(one.boxes, one.masks, strict=True):
                    if not mask.any():
                        continue  # a corner of its box was left, without ink
                    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
                    around = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                    outside = torch.cat([box[:2] - around[:2], around[2:] - box[2:]])
                    assert outside.max() <= 2 and (augment == "mosaic" or outside.min() >= -2)
                    seen += 1
        assert seen >= 12


def test_an_image_without_masks_is_named() -> None:
    with pytest.raises(InputError, match=r"^x\[0\]: an object has no mask, only its box"):
        list(create_loader(SPLIT.with_truth(SPLIT.kind.with_masks()), PREPROCESSING, batch_size=4))

"""Images mixed for detectors: mosaic and MixUp, their partners, and the way through the loader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from opsin.data import Preprocessing, create_loader
from opsin.data.boxes import Boxes
from opsin.data.inputs import ImageArray
from opsin.data.source import Split
from opsin.data.transforms.augmentation import Augmentation, create_augmentation
from opsin.data.transforms.mosaic import MixUp
from opsin.data.transforms.sample import Sample
from opsin.errors import InputError
from opsin.structures import Instances

COLOUR = Preprocessing(size=(96, 128), channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)


def create(spec: Any) -> Augmentation:
    augmentation = create_augmentation(spec, COLOUR)
    assert augmentation is not None
    return augmentation


def extent(image: Tensor) -> Tensor:
    """The box around what is set in (H, W)."""
    places = image.nonzero()
    low, high = places.amin(dim=0), places.amax(dim=0) + 1
    return torch.stack([low[1], low[0], high[1], high[0]]).float()


class Counted(Sequence[Sample]):
    """Partners that count how often they are read."""

    def __init__(self, examples: Sequence[Sample], reads: list[Sample] | None = None) -> None:
        self.examples, self.read = list(examples), [] if reads is None else reads

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Counted(self.examples[place], self.read)
        self.read.append(self.examples[place])
        return self.examples[place]


def plain(level: int, size: tuple[int, int] = (60, 80)) -> Sample:
    box = torch.tensor([[0.0, 0, size[1], size[0]]])
    image = torch.full((3, *size), level, dtype=torch.uint8)
    return {"image": image, "instances": Instances(box, torch.tensor([level]))}


def test_mosaic_is_four_images_that_meet() -> None:
    augmentation = create([{"mosaic": {"p": 1.0, "cut": [0.25, 0.75]}}, {"keep": {"visible": 0}}])
    assert augmentation.partners == 3
    for seed in range(10):
        torch.manual_seed(seed)
        image, instances = augmentation(plain(10), [plain(20), plain(30), plain(40)]).values()
        assert sorted(image.unique().tolist()) == [10, 20, 30, 40] and instances.labels is not None
        assert instances.labels.tolist() == [10, 20, 30, 40]
        for label, box in zip([10, 20, 30, 40], instances.boxes, strict=True):
            assert torch.equal(extent(image[0] == label), box)  # every image is one box: the quarters, and no gap
        assert 24 <= instances.boxes[0, 3] <= 72 and 32 <= instances.boxes[0, 2] <= 96


def test_partners_are_read_only_when_wanted() -> None:
    augmentation = create([{"mosaic": {"p": 0.5}}])
    seen = set()
    for seed in range(12):
        partners = Counted([plain(20), plain(30), plain(40)])
        torch.manual_seed(seed)
        image, _ = augmentation(plain(10), partners).values()
        seen.add((len(partners.read), len(image.unique())))
    assert seen == {(0, 1), (3, 4)}


def test_partners_go_through_the_steps_before() -> None:
    augmentation = create([{"random_invert": {"p": 1.0}}, {"mosaic": {"p": 1.0}}, {"mixup": {"p": 1.0}}])
    assert augmentation.partners == 7  # 3, and one more that wants 3 of its own
    partners = Counted([plain(level) for level in (20, 30, 40, 100, 110, 120, 130)])
    torch.manual_seed(0)
    image, instances = augmentation(plain(10), partners).values()
    assert len(partners.read) == 7 and instances.labels is not None
    assert instances.labels.tolist() == [10, 20, 30, 40, 100, 110, 120, 130]
    assert image.min() >= 255 - 130 and image.max() <= 255 - 10  # inverted, all of them


def test_mixup_adds_images_and_keeps_all_objects() -> None:
    one, other = plain(200), plain(100)
    shares = []
    for seed in range(40):
        torch.manual_seed(seed)
        step = MixUp(p=1.0)
        image, instances = create([{"mixup": {"p": 1.0}}])(one, [other]).values()
        assert instances.labels is not None and instances.labels.tolist() == [200, 100] and len(image.unique()) == 1
        shares.append((int(image[0, 0, 0]) - 100) / 100)
        torch.manual_seed(seed)
        torch.rand(1)
        share = float(torch.distributions.Beta(step.alpha, step.alpha).sample())
        assert int(image[0, 0, 0]) == round(200 * share + 100 * (1 - share))
    assert 0.35 < np.mean(shares) < 0.65 and np.std(shares) < 0.4


def test_mixup_wants_images_of_one_size() -> None:
    with pytest.raises(InputError, match="mixup adds images of one size; put it behind"):
        create(["mixup", "expand"])
    with pytest.raises(InputError, match="mixup adds images of one size"):
        create(["mixup", "scale_jitter"])
    for spec in (["mixup"], ["random_horizontal_flip", "mixup"], ["expand", "mixup"], ["scale_jitter", "mixup"]):
        assert create(spec).partners == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_through_the_loader(workers: int) -> None:
    images = torch.randint(0, 256, (12, 3, 50, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    random = np.random.RandomState(0)
    instances = []
    for count in [0, 1, 9] * 4:
        corners = torch.from_numpy(random.uniform(0, 40, (count, 2)).astype(np.float32))
        instances.append(Instances(torch.cat([corners, corners + 9], dim=1), torch.arange(count) % 3))
    split = Split(ImageArray(images, "made"), Boxes.of(instances, ["a", "b", "c"]))
    options: dict[str, Any] = {"batch_size": 4, "training": True, "seed": 3}
    spec = ["photometric_distort", "expand", "random_iou_crop", {"mosaic": {"p": 0.7}}, "mixup"]
    augmentation = create(spec)
    batches = list(create_loader(split, COLOUR, augmentation=augmentation, workers=workers, **options))
    again = list(create_loader(split, COLOUR, augmentation=create(spec), workers=0, **options))
    assert len(batches) == 3
    for one, other in zip(batches, again, strict=True):
        assert one["image"].shape == (4, 3, 96, 128) and torch.equal(one["image"], other["image"])
        for mine, same in zip(one["instances"], other["instances"], strict=True):
            assert torch.equal(mine.boxes, same.boxes) and torch.equal(mine.labels, same.labels)

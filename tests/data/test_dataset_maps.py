"""Masks of data sets in Python, against the arrays that they are made of."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import data
from opsin.data import Preprocessing
from opsin.data.drawing import voc_palette
from opsin.data.loading import create_loader
from opsin.data.source import check_trainable
from opsin.errors import InputError

MAPS = np.random.default_rng(0).integers(0, 3, (6, 10, 14)).astype(np.uint8)
IMAGES = np.random.default_rng(1).integers(0, 256, (6, 10, 14, 3)).astype(np.uint8)


def palette(values: np.ndarray) -> Image.Image:
    saved = Image.fromarray(values)
    saved.putpalette(voc_palette().ravel().tolist())
    return saved


def cut_off(values: np.ndarray) -> Image.Image:
    """A PIL image whose file ends in its middle, not decoded yet."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return Image.open(io.BytesIO(file.getvalue()[:50]))


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "grey": Image.fromarray,
    "palette": palette,
    "palette and alpha": lambda values: palette(values).convert("PA"),
    "tensor": torch.from_numpy,
    "one channel": lambda values: torch.from_numpy(values)[None].long(),
    "floats": lambda values: values.astype(np.float32),
    "a dict": lambda values: {"mask": values},
}


class Pairs(torch.utils.data.Dataset[Any]):
    def __init__(self, form: Callable[[np.ndarray], Any] = Image.fromarray) -> None:
        self.form, self.reads = form, 0

    def __len__(self) -> int:
        return len(MAPS)

    def __getitem__(self, i: int) -> Any:
        self.reads += 1
        return Image.fromarray(IMAGES[i]), self.form(MAPS[i])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_mask(form: str) -> None:
    source = data.open(Pairs(FORMS[form]), "segment")
    assert source.classes == ["class 0", "class 1", "class 2"]
    split = source.splits["all"]
    for i in range(len(split)):
        assert np.array_equal(split.read(i).permute(1, 2, 0), IMAGES[i])
        assert np.array_equal(split.kind.read(i, (10, 14))["class_map"], MAPS[i])
    assert split.kind.counts.sum(axis=0).tolist() == [*np.bincount(MAPS.ravel(), minlength=3), 0]
    check_trainable(source)


def test_names_and_ignore_are_those_of_masks_in_files() -> None:
    source = data.open({"train": Pairs(), "val": Pairs()}, "segment", classes=["sky", "sea"], ignore=2)
    assert source.classes == ["sky", "sea"]
    read = np.asarray(source.splits["val"].kind.read(0, None)["class_map"])
    assert np.array_equal(read, np.where(MAPS[0] == 2, 255, MAPS[0]))
    source = data.open(Pairs(), "segment", classes=["background", "sea", "sky"], overlapping=True)
    read = np.asarray(source.splits["all"].kind.read(0, None)["class_map"])
    assert np.array_equal(read, np.stack([MAPS[0] == 1, MAPS[0] == 2]))


def test_an_example_is_read_once_for_its_image_and_its_map() -> None:
    pairs = Pairs()
    split = data.open(pairs, "segment", classes=["a", "b", "c"]).splits["all"]
    assert split.kind.counts.sum() == MAPS.size
    before = pairs.reads
    preprocessing = Preprocessing(size=(10, 14), channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    batch = next(iter(create_loader(split, preprocessing, batch_size=6)))
    assert pairs.reads - before == 6
    assert np.array_equal(batch["class_map"], MAPS)
    again = pickle.loads(pickle.dumps(split.kind))
    assert np.array_equal(again.maps.read(2, None), MAPS[2])


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda values: values / 7, "holds fractions; leave ToTensor out of the data set's target transform"),
        (lambda values: values[None].repeat(3, 0), r"has the shape \(3, 10, 14\); expected \(H, W\)"),
        (lambda values: 3, "the target is int; expected a mask"),
        (lambda values: {"box": 3}, "a dict of box; expected a mask under one of mask"),
        (lambda values: values.astype(np.int32) - 5, "from -5 to -3; expected 0 to 65535"),
        (lambda values: Image.fromarray(values.astype(np.float32)), "cannot read the mask: its pixels are floating"),
        (lambda values: {"bytes": b"no image", "path": None}, "cannot read the mask: "),
        (lambda values: cut_off(values), "cannot read the mask: not to be decoded: "),
    ],
)
def test_what_is_no_mask_is_one_line(form: Callable[[np.ndarray], Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"Pairs\[0\]: .*{message}"):
        data.open(Pairs(form), "segment")


def test_classes_that_torchvision_does_not_say() -> None:
    class VOCSegmentation(Pairs):
        pass

    class OxfordIIITPet(Pairs):
        pass

    assert data.open(VOCSegmentation(), "segment").classes[:2] == ["background", "aeroplane"]
    pets = data.open(OxfordIIITPet(lambda values: Image.fromarray(values + np.uint8(1))), "segment")
    assert pets.classes == ["background", "pet"]
    read = np.asarray(pets.splits["all"].kind.read(0, None)["class_map"])
    assert np.array_equal(read, np.array([1, 0, 255], np.uint8)[MAPS[0]])

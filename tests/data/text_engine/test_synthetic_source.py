"""Synthetic texts as data, by name: settings, splits, what is known of them, and going on in the middle of an epoch."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import data
from opsin.data.loading import create_loader
from opsin.data.preprocessing import Preprocessing
from opsin.data.text_engine.source import Settings, SyntheticTexts, truth_of
from opsin.data.texts import strings
from opsin.errors import InputError

SMALL = "count=40,val=4,test=4,fonts=built-in"
PREPARED = Preprocessing(size=(32, 64), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_settings_are_the_names_and_values_after_the_kind() -> None:
    assert Settings.parse("words") == Settings("words", val=1000, test=1000, strength=1.0)
    assert Settings.parse("lines,count=50,seed=7,length=3-8").extent == (3, 8)
    assert Settings.parse("pages,count=5,val=0,side=640") == Settings("pages", 5, 0, 1, side=640, strength=0.5)
    assert Settings.parse("words,anew=true,length=5").extent == (5, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sentences", "unknown synthetic data 'sentences'.*lines"),
        ("words,cuont=5", "unknown setting of synthetic:words 'cuont'.*count"),
        ("words,side=500", "unknown setting of synthetic:words 'side'"),
        ("pages,height=32", "unknown setting of synthetic:pages 'height'"),
        ("words,count", "'count'; expected count=VALUE once"),
        ("words,count=5,count=6", "'count=6' twice"),
        ("words,count=0", "count=0 of synthetic:words; expected 1 to 10000000"),
        ("words,count=many", "count=many; expected a whole number"),
        ("words,val=-1", "val=-1; expected 0 or more"),
        ("words,strength=nan", "strength=nan; expected 0 or more"),
        ("words,strength=2", "strength=2.0 of synthetic:words; expected 0 to 1"),
        ("words,anew=yes", "anew=yes; expected true or false"),
    ],
)
def test_wrong_settings_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings.parse(text)


@pytest.mark.parametrize("length", ["0", "8-3", "a", "3-", "900"])
def test_lengths_are_a_number_or_a_range(length: str) -> None:
    with pytest.raises(InputError, match=f"length={length} of synthetic:words; expected a number or a range as 3-8"):
        _ = Settings.parse(f"words,length={length}").extent


def test_words_have_their_texts() -> None:
    opened = data.open(f"synthetic:words,{SMALL},characters=lower", "read")
    assert {key: len(split) for key, split in opened.splits.items()} == {"train": 40, "val": 4, "test": 4}
    split = opened.splits["train"]
    texts = list(split.kind.texts)
    assert opened.meaning["alphabet"] == "abcdefghijklmnopqrstuvwxyz" and {*"".join(texts)} <= {
        *opened.meaning["alphabet"]
    }
    image = split.read(3)
    assert image.dtype is torch.uint8 and image.shape[:2] == (3, 32) and split.inputs.size(3) == image.shape[-2:]
    assert split.name(3) == "synthetic_words/train[3]" and texts != list(opened.splits["val"].kind.texts)
    assert " " in data.open(f"synthetic:lines,{SMALL}", "read").meaning["alphabet"]


def test_an_image_depends_on_its_place_alone() -> None:
    split, longer, other = (
        data.open(f"synthetic:words,fonts=built-in,val=1,test=1,{more}", "read").splits["train"]
        for more in ("count=8", "count=20", "count=8,seed=1")
    )
    chosen = pickle.loads(pickle.dumps(longer.subset([7, 2])))
    assert torch.equal(chosen.read(0), split.read(7)) and torch.equal(chosen.read(1), split.read(2))
    assert list(chosen.kind.texts) == [split.kind.texts[7], split.kind.texts[2]]
    assert list(other.kind.texts) != list(split.kind.texts)


def batches(split, *, anew_epoch: int = 0, workers: int = 0, skip: int = 0) -> list[tuple[list[str], torch.Tensor]]:
    loader = create_loader(split, PREPARED, batch_size=8, training=True, seed=3, workers=workers)
    loader.load_state_dict({"epoch": anew_epoch, "batch": skip})
    return [(strings(batch["text"]), batch["image"]) for batch in loader]  # type: ignore[typeddict-item]


def test_a_training_goes_on_where_it_was() -> None:
    split = data.open(f"synthetic:words,{SMALL},anew=true", "read").splits["train"]
    whole, rest, loaded = batches(split), batches(split, skip=3), batches(split, workers=1)
    assert len(whole) == len(loaded) == 5 and len(rest) == 2
    for (texts, images), (again, others) in [*zip(whole[3:], rest, strict=True), *zip(whole, loaded, strict=True)]:
        assert texts == again and torch.equal(images, others)


def test_drawn_anew_each_epoch_has_the_same_texts_in_other_images() -> None:
    fixed, anew = (data.open(f"synthetic:words,{SMALL}{more}", "read").splits for more in ("", ",anew=true"))
    assert isinstance(anew["train"].inputs, SyntheticTexts) and anew["train"].inputs.draws
    assert not anew["val"].inputs.draws and not fixed["train"].inputs.draws and anew["train"].inputs.size(0) is None
    first, second = (
        dict(pair for texts, images in batches(anew["train"], anew_epoch=k) for pair in zip(texts, images, strict=True))
        for k in (0, 1)
    )
    assert first.keys() == second.keys() and sum(torch.equal(first[t], second[t]) for t in first) <= 1


def test_test_fonts_are_those_of_the_test_alone() -> None:
    opened = data.open("synthetic:words,count=3,val=1,test=3,fonts=built-in,test_fonts=built-in", "read")
    inputs: list[Any] = [opened.splits[part].inputs for part in ("train", "val", "test")]
    engines = [one.engine for one in inputs]
    assert engines[0].fonts.faces == engines[2].fonts.faces
    with pytest.raises(InputError, match=r"there is no new font at nowhere.ttf"):
        data.open("synthetic:words,count=3,fonts=built-in,test_fonts=nowhere.ttf", "read")


def test_words_are_boxes_of_characters_to_detect() -> None:
    split = data.open(f"synthetic:words,{SMALL},characters=lower", "detect").splits["train"]
    texts = list(data.open(f"synthetic:words,{SMALL},characters=lower", "read").splits["train"].kind.texts)
    for i in range(5):
        one = split.kind.at(i)
        assert "".join(split.kind.classes[k] for k in one.labels.tolist()) == texts[i]
        height, width = split.read(i).shape[-2:]
        assert (one.boxes >= 0).all() and (one.boxes <= torch.tensor([width, height, width, height])).all()
        masks = split.kind.masks(i, (height, width))
        assert masks.shape == (len(texts[i]), height, width)
    size = (split.read(4).shape[-2], split.read(4).shape[-1])
    assert torch.equal(split.subset([4]).kind.masks(0, size), split.kind.masks(4, size))
    with pytest.raises(InputError, match="anew=true moves the characters"):
        data.open(f"synthetic:words,{SMALL},anew=true", "detect")


def test_pages_are_boxes_of_lines_with_texts_and_quads() -> None:
    opened = data.open("synthetic:pages,count=3,val=1,test=0,fonts=built-in,side=400", "detect")
    assert list(opened.splits) == ["train", "val"] and opened.classes == ["text"]
    split = opened.splits["train"]
    regions = split.kind.regions(1)
    image = split.read(1)
    assert split.inputs.size(1) == image.shape[-2:] and max(image.shape) == 400
    assert len(regions.texts) == len(regions.boxes) > 2 and all(regions.texts)
    for box, quad in zip(regions.boxes, regions.polygons, strict=True):
        torch.testing.assert_close(torch.cat([quad.min(0).values, quad.max(0).values]), box, atol=2.0, rtol=0)
    assert split.subset([1]).kind.regions(0).texts == regions.texts and torch.equal(split.subset([1]).read(0), image)


def test_the_task_follows_from_the_name() -> None:
    assert [truth_of(kind) for kind in ("words", "lines,count=3", "pages")] == ["texts", "texts", "boxes"]
    assert data.recognize_task("synthetic:words,count=2") == "read"
    assert data.recognize_task("synthetic:pages,count=2") == "detect"
    with pytest.raises(
        InputError, match=r"synthetic:pages has boxes, which the task read .*; synthetic:lines has texts"
    ):
        data.open("synthetic:pages,count=2", "read")
    with pytest.raises(InputError, match="synthetic:words has texts, which the task classify does not learn from"):
        data.open("synthetic:words,count=2", "classify")


def test_ones_own_photographs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder; expected one with images"):
        data.open(f"synthetic:words,photographs={tmp_path}/none", "read")
    folder = tmp_path / "own"
    folder.mkdir()
    with pytest.raises(InputError, match="has no images"):
        data.open(f"synthetic:words,photographs={folder}", "read")
    Image.fromarray(np.full((50, 80, 3), (200, 40, 40), np.uint8)).save(folder / "red.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        data.open(f"synthetic:words,photographs={folder}", "read")
    (folder / "broken.jpg").unlink()
    assert data.open(f"synthetic:words,{SMALL},photographs={folder}", "read").splits["train"].read(0).shape[1] == 32

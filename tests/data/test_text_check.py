"""What the data check says of texts and their crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from opsin import data
from opsin.data.inputs import ImageArray
from opsin.data.source import Source, Split
from opsin.data.texts import PackedTexts, Texts


def make_source(texts: dict[str, list[str]], size: tuple[int, int] = (12, 40)) -> Source:
    """Noise with texts, by split."""
    characters = "".join(sorted({one for some in texts.values() for text in some for one in text}))
    splits = {}
    for seed, (key, some) in enumerate(texts.items()):
        pixels = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (len(some), 1, *size), np.uint8))
        splits[key] = Split(ImageArray(pixels, key), Texts.of(some, characters))
    return Source("made", "made", splits, task="read")


def test_characters_lengths_and_what_training_lacks() -> None:
    found = data.inspect(make_source({"train": ["abba", "ab c"], "test": ["xax", "b"]}), "read")
    assert found.facts == {
        "texts": 4,
        "length": [1, 3.5, 4],
        "characters": {"a": 4, "b": 4, "x": 2, " ": 1, "c": 1},
        "elsewhere": {"x": 2},
        "once": [" ", "c"],
        "spaced": 1,
    }
    assert found.to_dict()["texts"]["elsewhere"] == {"x": 2}
    text = data.render(found)
    assert "characters: 5: [0020]abcx" in text
    assert "1 of them not in the training texts, 2 times: x" in text
    assert found.healthy


def test_pages_and_word_lists_are_counted() -> None:
    truth = Texts.of(
        ["a", "b", "c"],
        pages=PackedTexts.pack(["one", "one", "two"]),
        lexicons=np.array([0, -1, 1]),
        words=[PackedTexts.pack(["a", "b"]), PackedTexts.pack(["c"])],
    )
    facts = truth.summary().facts()
    assert (facts["pages"], facts["lists"]) == (2, {"examples": 2, "words": [1, 2]})


def test_odd_texts_and_crops() -> None:
    texts = ["fine", "caf\ufffd", "a\u200bb", "ab\nc", "long enough", "up"]
    sizes = {0: (12, 40), 1: (12, 40), 2: (1, 1), 3: (40, 12), 4: (40, 30), 5: (7, 20)}
    found = [(one.index, one.kind) for one in Texts.of(texts).problems(sizes)]
    assert found == [
        (1, "odd_character"),
        (2, "odd_character"),
        (2, "odd_crop"),
        (3, "odd_character"),
        (3, "odd_crop"),
        (4, "odd_crop"),
        (5, "odd_crop"),
    ]


def test_equal_crops_with_other_texts() -> None:
    source = make_source({"all": ["one", "two", "three"]})
    source.splits["all"].inputs.images[1] = source.splits["all"].inputs.images[0]  # type: ignore[attr-defined]
    (problem,) = data.inspect(source, "read").problems
    assert problem.kind == "conflicting_labels"
    assert "'one'" in problem.reason
    assert "'two'" in problem.reason


def test_a_sheet_shows_each_text_under_its_crop(tmp_path: Path) -> None:
    source = make_source({"all": ["short", "中文", "x"] * 3})
    sheet = Image.open(data.contact_sheet(source, tmp_path / "sheet.png", per_class=4))
    truth = source.splits["all"].kind
    crop = Image.new("RGB", (200, 60))
    drawn, other = truth.draw(crop, 0), truth.draw(crop, 1)
    assert drawn.width == 200
    assert drawn.height > 60
    assert drawn.tobytes() != other.tobytes()
    assert sheet.height > 3 * drawn.height


def test_a_font_without_a_character_writes_its_number() -> None:
    crop = Image.new("RGB", (200, 60))
    assert Texts.of(["中"]).draw(crop, 0).tobytes() == Texts.of(["[4E2D]"]).draw(crop, 0).tobytes()
    assert Texts.of(["é"]).draw(crop, 0).tobytes() != Texts.of(["[00E9]"]).draw(crop, 0).tobytes()


def test_texts_without_characters_are_no_training() -> None:
    (problem,) = Texts.of(["", ""]).problems({}, training=True)
    assert problem.kind == "no_texts"

"""The members of a training's splits: written, read back whatever the file, and held against what is there now."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opsin import data
from opsin.data import members as kept
from opsin.data.members import Members, members_of, restore
from opsin.data.source import Source, examine
from opsin.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in range(40):
        path = tmp_path / "d" / f"c{k % 2}" / f"{k:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), k).save(path)
    return tmp_path / "d"


def divided(path: Path) -> tuple[Source, Members]:
    source = examine(data.open(path))[0]
    splits = data.divide(source, split="hash")
    return source, members_of(source, splits, {})


def names(members: Members) -> dict[str, set[str]]:
    return {key: set(one) for key, one in members.names.items()}


def test_what_is_packed_is_read_back(folder: Path) -> None:
    _, members = divided(folder)
    found = Members.unpack(members.pack())
    assert found.names == members.names and found.cut == "all" and found.meaning == members.meaning
    assert all(np.array_equal(found.marks[key], rows) for key, rows in members.marks.items())
    assert np.array_equal(found.trained(), members.trained()) and len(found.trained()) == len(members.names["train"])
    assert len(found) == 40 and found.nameless().names == {}


def test_what_is_damaged_is_refused(folder: Path) -> None:
    packed = divided(folder)[1].pack()
    random = np.random.RandomState(0)
    for k in range(40):
        place = int(random.randint(len(packed)))
        broken = packed[:place] if k % 2 else packed[:place] + bytes([packed[place] ^ 0x55]) + packed[place + 1 :]
        with pytest.raises(InputError, match="members is damaged"):
            Members.unpack(broken)
    with pytest.raises(InputError, match="members is damaged"):
        Members.unpack(zlib.compress(b"no arrays"))


def test_too_many_names_are_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "NAMED", 39)
    _, members = divided(folder)
    assert members.names == {} and len(members) == 40
    (folder / "c0" / "00.png").unlink()
    parts, new, changes = restore(examine(data.open(folder))[0], members)
    assert sum(map(len, changes.removed.values())) == 1 and "1 removed" in changes.describe()
    assert sum(map(len, parts.values())) == 39 and not len(new)


def test_nothing_changed_gives_the_same_places(folder: Path) -> None:
    source, members = divided(folder)
    parts, new, changes = restore(source, members)
    assert not changes and not len(new)
    fresh = data.divide(source, split="hash")
    for key, places in parts.items():
        assert [source.splits["all"].name(i) for i in places] == [fresh[key].name(i) for i in range(len(fresh[key]))]


@pytest.mark.parametrize("looked", [True, False])
def test_each_change_is_found_where_it_is(looked: bool, folder: Path) -> None:
    _, members = divided(folder)
    gone = [next(iter(sorted(names(members)[key]))) for key in ("train", "test")]
    edited = sorted(names(members)["val"])[0]
    for name in gone:
        (folder / name).unlink()
    Image.new("L", (4, 4), 99).save(folder / edited)
    Image.new("L", (4, 4), 98).save(folder / "c1" / "new.png")
    source = data.open(folder)
    parts, new, changes = restore(examine(source)[0] if looked else source, members)
    assert changes.removed == {"train": [gone[0]], "test": [gone[1]], "val": []}
    assert changes.edited == {"train": [], "test": [], "val": [edited]}
    assert changes.added == {"new": ["c1/new.png"]}
    said = [f"train: 1 removed ({gone[0]})", f"val: 1 edited ({edited})", f"test: 1 removed ({gone[1]})"]
    assert changes.describe() == "; ".join([*said, "new: 1 added (c1/new.png)"])
    assert [source.splits["all"].name(i) for i in new] == [f"{folder}/c1/new.png"]
    assert [len(parts[key]) for key in ("train", "val", "test")] == [
        len(names(members)["train"]) - 1,
        len(names(members)["val"]),
        len(names(members)["test"]) - 1,
    ]


def test_a_copied_folder_is_the_same_and_a_label_is_an_edit(folder: Path, tmp_path: Path) -> None:
    _, members = divided(folder)
    folder.rename(tmp_path / "moved")
    for file in (tmp_path / "moved").rglob("*.png"):
        os.utime(file, (1, 1))  # as of a copy: its bytes are read
    source = data.open(tmp_path / "moved")
    assert not restore(source, members)[2]
    truth = source.splits["all"].kind
    labels = truth.labels.copy()
    labels[3] ^= 1
    other = source.with_splits({"all": source.splits["all"].with_truth(type(truth)(labels, truth.classes))})
    changes = restore(other, members)[2]
    assert sum(map(len, changes.edited.values())) == 1 and not any(changes.removed.values())
    renamed = source.with_splits({"all": source.splits["all"].with_truth(type(truth)(labels, ["x", "y"]))})
    assert not restore(renamed, members)[2]  # of other classes the numbers say nothing; those are refused elsewhere


def test_given_splits_are_compared_one_by_one(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "given"
    for key in ("train", "test"):
        for k in range(6):
            (root / key / f"c{k % 2}").mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), k).save(root / key / f"c{k % 2}" / f"{k}.png")
    source = examine(data.open(root))[0]
    members = members_of(source, data.divide(source, val_fraction=0, split="hash"), {})
    assert members.cut == "train"  # of which nothing was taken
    (root / "test" / "c0" / "0.png").rename(root / "test" / "c0" / "9.png")
    changes = restore(data.open(root), members)[2]
    assert changes.removed["test"] == ["test/c0/0.png"] and changes.added["test"] == ["test/c0/9.png"]
    assert not changes.removed["train"] and not changes.edited["train"]


def test_many_files_are_known_by_their_length(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "FULL", 10)
    source = examine(data.open(folder), full=10)[0]
    members = members_of(source, data.divide(source, split="hash"), {})
    assert members.lengths and not len(members.trained())
    assert not restore(data.open(folder), members)[2]
    Image.new("L", (40, 40)).save(folder / "c0" / "00.png")
    assert sum(map(len, restore(data.open(folder), members)[2].edited.values())) == 1

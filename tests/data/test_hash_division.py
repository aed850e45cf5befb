"""A division by hash: a pure function of names, that a new file does not change, and that parts no twins."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import data
from opsin.data.boxes import Boxes
from opsin.data.digests import of_bytes, of_value
from opsin.data.hash_division import hash_of, place_new
from opsin.data.inputs import ImageArray
from opsin.data.labels import ClassLabels
from opsin.data.names import names_within
from opsin.data.source import Source, Split, examine
from opsin.data.splits import divide_source, fractions_of
from opsin.data.truth import Summary
from opsin.structures import Instances

RANDOM = np.random.RandomState(0)
SHARES = fractions_of(0.1, 0.2)


class Named(ImageArray):
    """Images in memory with names of their own."""

    def __init__(self, names: list[str], images: torch.Tensor) -> None:
        super().__init__(images, "")
        object.__setattr__(self, "names", names)

    def name(self, i: int) -> str:
        return self.names[i]  # type: ignore[attr-defined]

    def select(self, places: np.ndarray) -> Named:
        return Named([self.names[i] for i in places.tolist()], self.images[torch.from_numpy(places)])  # type: ignore[attr-defined]


class Identities(ClassLabels):
    """Whose image is whose: no classes to be kept in every split."""

    def groups(self) -> list[str]:
        return [f"identity {label}" for label in self.labels]

    def summary(self) -> Summary:
        return Summary()

    def select(self, places: np.ndarray) -> Identities:
        return Identities(self.labels[places], self.classes)


def source(
    labels: np.ndarray, pixels: np.ndarray | None = None, names: list[str] | None = None, kind: type = ClassLabels
) -> Source:
    count = len(labels)
    pixels = np.arange(count) if pixels is None else pixels
    images = torch.from_numpy(np.stack([pixels % 256, pixels // 256], 1).astype(np.uint8).reshape(count, 1, 1, 2))
    classes = [f"c{k}" for k in range(labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=0)) + 1)]
    truth = kind(labels, classes)
    inputs = Named(names or [f"f{i:04d}.png" for i in range(count)], images)
    return examine(Source("set", "array", {"all": Split(inputs, truth)}))[0]


def where(opened: Source, seed: int = 0) -> dict[str, str]:
    """Of each name its split."""
    splits, _ = divide_source(opened, SHARES, seed, "hash")
    return {name: key for key, split in splits.items() for name in names_within(opened, split)}


def test_a_hash_is_that_of_its_definition() -> None:
    digest = hashlib.blake2b(b"3:cat/1.jpg", digest_size=8).digest()
    assert hash_of("cat/1.jpg", 3) == pytest.approx(int.from_bytes(digest, "big") / 2**64, abs=2**-52)
    assert 0 <= hash_of("", 0) < 1
    # Frozen: which images a run was trained on must not change with a release.
    assert [round(hash_of(f"cat/{i}.jpg", 0), 4) for i in range(3)] == FROZEN


FROZEN = [0.5936, 0.9236, 0.4496]


def test_thresholds_cut_test_val_and_train() -> None:
    found = where(source(np.zeros(2000, np.int64)))
    for name, split in found.items():
        place = hash_of(name, 0)
        assert split == ("test" if place < 0.2 else "val" if place < 0.3 else "train")
    counts = {key: list(found.values()).count(key) for key in ("train", "val", "test")}
    assert abs(counts["test"] - 400) < 60 and abs(counts["val"] - 200) < 45  # three standard deviations


@pytest.mark.parametrize("seed", range(12))
def test_another_file_moves_no_other(seed: int) -> None:
    labels = RANDOM.choice(3, 300)
    before = where(source(labels), seed)
    names = [*(f"f{i:04d}.png" for i in range(300)), f"a{seed}.png"]
    order = RANDOM.permutation(301)  # nor does the order in which files are found
    grown = source(np.append(labels, seed % 3)[order], order, [names[i] for i in order])
    after = where(grown, seed)
    assert {name: after[name] for name in before} == before and len(after) == 301
    fewer = source(labels[50:], np.arange(50, 300), names[50:300])
    assert where(fewer, seed) == {name: before[name] for name in names[50:300]}
    assert before != where(source(labels), seed + 100)


@pytest.mark.parametrize("seed", range(6))
def test_twins_are_on_one_side(seed: int) -> None:
    pixels = np.arange(400) % 100  # four of each
    names = [f"f{i}.png" for i in RANDOM.permutation(400)]
    found = where(source(np.zeros(400, np.int64), pixels, names), seed)
    for twin in range(100):
        four = names[twin::100]
        place = hash_of(min(four, key=lambda name: (len(name), name)), seed)
        assert {found[name] for name in four} == {"test" if place < 0.2 else "val" if place < 0.3 else "train"}


def test_a_copy_goes_beside_its_original() -> None:
    labels = RANDOM.choice(2, 100)
    before = where(source(labels))
    for i in range(0, 100, 7):
        names = [*(f"f{k:04d}.png" for k in range(100)), f"f{i:04d} (1).png"]
        after = where(source(np.append(labels, labels[i]), np.append(np.arange(100), i), names))
        assert after == {**before, names[100]: before[names[i]]}


def test_groups_and_their_twins_stay_together() -> None:
    labels = np.repeat(np.arange(60), 3)
    pixels = np.arange(180)
    pixels[3] = pixels[0]  # of the second identity an image of the first
    found = where(source(labels, pixels, kind=Identities))
    sides = [{found[f"f{i:04d}.png"] for i in np.flatnonzero(labels == k)} for k in range(60)]
    assert all(len(one) == 1 for one in sides) and sides[0] == sides[1]
    assert {next(iter(one)) for one in sides} == {"train", "val", "test"}
    assert all((sides[k] == {"test"}) == (hash_of(f"identity {k}", 0) < 0.2) for k in range(2, 60))


@pytest.mark.parametrize("seed", range(8))
def test_a_class_left_empty_gets_its_lowest_hash(seed: int) -> None:
    labels = np.repeat([0, 1, 2], [200, 5, 3])
    opened = source(labels)
    splits, lines = divide_source(opened, SHARES, seed, "hash")
    for split in splits.values():
        assert set(split.kind.presence.tolist()) == {0, 1, 2}
    plain = {n: "test" if (p := hash_of(n, seed)) < 0.2 else "val" if p < 0.3 else "train" for n in where(opened, seed)}
    moved = [name for name, key in where(opened, seed).items() if key != plain[name]]
    assert bool(moved) == bool(lines) and all(int(name[1:5]) >= 200 for name in moved)
    if moved:
        assert "lowest hash" in lines[0] and any(name in lines[0] for name in moved)
    rare = [f"f{i:04d}.png" for i in (200, 201, 202, 203, 204)]
    if all(plain[name] == "train" for name in rare):  # the lowest goes to test, the next to val
        found, first, second = where(opened, seed), *sorted(rare, key=lambda name: hash_of(name, seed))[:2]
        assert (found[first], found[second]) == ("test", "val")


@pytest.mark.parametrize("seed", range(5))
def test_several_labels_are_all_in_each_split(seed: int) -> None:
    labels = (RANDOM.rand(150, 5) < [0.6, 0.4, 0.2, 0.1, 0.08]).astype(np.float32)
    splits, _ = divide_source(source(labels), SHARES, seed, "hash")
    for split in splits.values():
        assert (split.kind.presence.sum(axis=0) > 0).all()


@pytest.mark.parametrize("counts", [[1], [2], [3], [1, 1], [1, 1, 1, 1], [2, 1], [1, 4], [2, 2, 2]])
def test_few_examples_never_fail_and_are_all_trained_on_first(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    for seed in range(10):
        splits, _ = divide_source(source(labels), SHARES, seed, "hash")
        assert sum(map(len, splits.values())) == len(labels)
        assert set(splits["train"].kind.presence.tolist()) == set(range(len(counts)))
        if min(counts) >= 3:
            assert all(set(one.kind.presence.tolist()) == set(range(len(counts))) for one in splits.values())


def test_boxes_and_no_truth_are_divided_too() -> None:
    objects = [Instances(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([i % 2])) for i in range(40)]
    images = torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1)
    for truth in (Boxes.of(objects, ["a", "b"]), None):
        opened = examine(Source("set", "array", {"all": Split(ImageArray(images, "x"), truth)}))[0]
        assert set(divide_source(opened, SHARES, 0, "hash")[0]) == {"train", "val", "test"}


def test_given_splits_are_kept_and_val_alone_is_cut() -> None:
    whole = source(np.arange(90) % 3).splits["all"]
    given = Source("set", "array", {"train": whole.subset(np.arange(60)), "test": whole.subset(np.arange(60, 90))})
    splits = data.divide(given, split="hash")
    assert splits["test"] is given.splits["test"] and {len(splits["train"]) + len(splits["val"])} == {60}
    assert all((hash_of(splits["val"].name(i), 0) < 0.1) for i in range(len(splits["val"])))
    assert set(data.divide(given, split="hash", val_fraction=0)) == {"train", "test"}


def test_new_ones_go_beside_their_twins_and_groups() -> None:
    opened = source(np.zeros(6, np.int64), np.array([0, 1, 2, 0, 7, 8]))
    known = np.array([2, 0, 1, -1, -1, -1])  # the fourth equals the first, which is in val
    hashed = ["test" if (p := hash_of(f"f{i:04d}.png", 0)) < 0.2 else "val" if p < 0.3 else "train" for i in (4, 5)]
    numbers = {"train": 0, "test": 1, "val": 2}
    found = place_new(opened, opened.splits["all"], SHARES, 0, known)
    assert found.tolist() == [2, *(numbers[one] for one in hashed)]


def write(folder: Path, names: dict[str, int]) -> None:
    for name, grey in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), grey).save(folder / name)


def test_names_do_not_depend_on_where_the_data_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accented = unicodedata.normalize("NFD", "caf\u00e9")
    write(tmp_path / "one", {f"{accented}/a.png": 1, "cat/b.png": 2, "cat/deep/c.png": 3})
    monkeypatch.chdir(tmp_path)
    wanted = {"caf\u00e9/a.png", "cat/b.png", "cat/deep/c.png"}
    (tmp_path / "link").symlink_to("one")
    for given in ("one", tmp_path / "one", "./one", "../" + tmp_path.name + "/one", "link"):
        opened = data.open(given)
        assert set(names_within(opened, opened.splits["all"])) == wanted
    monkeypatch.chdir(tmp_path / "one")
    opened = data.open(".")
    assert set(names_within(opened, opened.splits["all"])) == wanted
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "one").rename(tmp_path / "elsewhere" / "two")
    opened = data.open(tmp_path / "elsewhere" / "two")
    assert set(names_within(opened, opened.splits["all"])) == wanted


def test_images_beside_the_file_that_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"images/a.png": 1, "images/b.png": 2})
    (tmp_path / "table").mkdir()
    (tmp_path / "labels.csv").write_text("path,label\nimages/a.png,x\nimages/b.png,y\nimages/a.png,x\n")
    monkeypatch.chdir(tmp_path)
    for given in ("labels.csv", tmp_path / "labels.csv"):
        opened = data.open(given)
        assert names_within(opened, opened.splits["all"]) == ["images/a.png", "images/b.png", "images/a.png#2"]


def test_digests_tell_one_changed_byte() -> None:
    for size in (0, 1, 100, 1 << 14, (1 << 14) + 1, 100_003, 40_000_001):
        content = RANDOM.randint(0, 256, size).astype(np.uint8)
        digest = of_bytes(content.tobytes())
        assert digest == of_bytes(content) != 0
        for place in {0, 7, 8191, 8192, size // 2, size - 1} if size else ():
            if place < size:
                other = content.copy()
                other[place] ^= 0x80
                assert of_bytes(other) != digest
    image = torch.arange(24, dtype=torch.uint8).reshape(1, 4, 6)
    assert of_value(image) != of_value(image.reshape(1, 6, 4)) and of_value(image) == of_value(image.numpy())
    turned = image.permute(0, 2, 1)  # another layout in memory
    assert of_value(turned) == of_value(turned.contiguous())
    assert of_value(torch.zeros(3, 0, 4)) and of_value("text") != of_value("texts")


def test_pixels_are_compared_not_files(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (9, 8, 7)).save(tmp_path / "a.png")
    (tmp_path / "x").mkdir()
    Image.open(tmp_path / "a.png").save(tmp_path / "x" / "a.bmp")
    Image.open(tmp_path / "a.png").save(tmp_path / "x" / "b.png", compress_level=0)
    (tmp_path / "a.png").unlink()
    (looked,) = examine(data.open(tmp_path, class_folders=True))[0].splits.values()
    assert looked.digests is not None
    assert len(set(looked.digests[:, 0].tolist())) == 2 and len(set(looked.digests[:, 1].tolist())) == 1

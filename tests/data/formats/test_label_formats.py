"""Folders, zips and tables open to the same images and labels; what is wrong with one is said in a line."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import data
from opsin.data.labels import ClassLabels
from opsin.data.source import Source
from opsin.errors import InputError

RANDOM = np.random.RandomState(0)
Images = dict[str, np.ndarray]  # from relative paths to pixels


def images(*paths: str) -> Images:
    return {path: RANDOM.randint(0, 256, (6, 5, 3), dtype=np.uint8) for path in paths}


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def as_folder(root: Path, contents: Images) -> Path:
    for path, pixels in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(png(pixels))
    return root


def as_zip(path: Path, contents: Images) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, pixels in contents.items():
            archive.writestr(name, png(pixels))
    return path


def content(source: Source) -> dict[str, list[tuple[bytes, str]]]:
    """From splits to sorted pairs of pixels and class name."""
    return {
        key: sorted(
            (split.read(i).contiguous().numpy().tobytes(), source.classes[split.kind.presence[i]])
            for i in range(len(split))
        )
        for key, split in source.splits.items()
    }


def expected(contents: Images, parse: Callable[[str], tuple[str, str]]) -> dict[str, list[tuple[bytes, str]]]:
    found: dict[str, list[tuple[bytes, str]]] = {}
    for path, pixels in contents.items():
        split, name = parse(path)
        found.setdefault(split, []).append((pixels.transpose(2, 0, 1).tobytes(), name))
    return {split: sorted(pairs) for split, pairs in found.items()}


SPLIT = images(*(f"{s}/{c}/{i}.png" for s in ("train", "val", "test") for c in ("cat", "dog") for i in range(3)))
FLAT = images(*(f"{c}/{i}.png" for c in ("cat", "dog") for i in range(4)), "dog/deep/er/5.png")


# Image folders


def test_split_folders(tmp_path: Path) -> None:
    source = data.open(as_folder(tmp_path, SPLIT))
    assert (source.format, source.classes, list(source.splits)) == (
        "image folders",
        ["cat", "dog"],
        ["train", "val", "test"],
    )
    assert content(source) == expected(SPLIT, lambda path: (path.split("/")[0], path.split("/")[1]))
    assert source.splits["val"].name(0) == str(tmp_path / "val/cat/0.png")
    assert not source.problems
    data.check_trainable(source)


@pytest.mark.parametrize("names", [("Training", "valid", "TESTING"), ("train", "validation", "test")])
def test_names_of_splits(names: tuple[str, ...], tmp_path: Path) -> None:
    as_folder(tmp_path, images(*(f"{name}/{c}/1.jpg" for name in names for c in "ab")))
    assert list(data.open(tmp_path).splits) == ["train", "val", "test"]


def test_class_folders(tmp_path: Path) -> None:
    source = data.open(as_folder(tmp_path / "pets", FLAT))
    assert (source.name, list(source.splits)) == ("pets", ["all"])
    assert content(source) == expected(FLAT, lambda path: ("all", path.split("/")[0]))


def test_wrapping_folder_and_class_called_test(tmp_path: Path) -> None:
    as_folder(tmp_path / "outer/inner", images("test/1.png", "exam/1.png"))
    source = data.open(tmp_path)
    assert (list(source.splits), source.classes) == (["all"], ["exam", "test"])


def test_what_systems_hide_is_ignored(tmp_path: Path) -> None:
    as_folder(tmp_path, SPLIT)
    for name in (
        ".DS_Store",
        "train/.DS_Store",
        "train/cat/._0.png",
        "train/cat/Thumbs.db",
        ".git/x.png",
        "__MACOSX/train/cat/._0.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"hidden")
    source = data.open(tmp_path)
    assert [len(split) for split in source.splits.values()] == [6, 6, 6]
    assert not source.problems


def test_oddities_are_reported(tmp_path: Path) -> None:
    as_folder(tmp_path, {**FLAT, **images("loose.png")})
    (tmp_path / "cat/notes.txt").write_text("about cats")
    (tmp_path / "README.md").write_text("pets")
    (tmp_path / "mouse").mkdir()
    source = data.open(tmp_path)
    found = {(p.kind, Path(p.path).name, p.severity) for p in source.problems}
    assert found == {
        ("stray", "loose.png", "warning"),
        ("not_an_image", "notes.txt", "note"),
        ("empty_class", "mouse", "error"),
    }
    with pytest.raises(InputError, match=r"mouse.*holds no images"):
        data.check_trainable(source)


def test_unlabelled_test_folder_is_left_out(tmp_path: Path) -> None:
    as_folder(tmp_path, images("train/cat/1.png", "train/dog/1.png", "test/1.png", "test/2.png", "extra/x/1.png"))
    source = data.open(tmp_path)
    assert list(source.splits) == ["train"]
    assert {(p.kind, p.severity) for p in source.problems} == {("unlabelled", "warning"), ("ignored", "warning")}


def test_classes_that_differ_are_named(tmp_path: Path) -> None:
    as_folder(tmp_path, images("train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "test/dogs/1.png"))
    source = data.open(tmp_path)
    with pytest.raises(InputError, match=r"train: classes differ between splits: no folder 'dogs'"):
        data.check_trainable(source)
    assert [p.reason.split("'")[1] for p in source.problems if p.kind == "class_mismatch"] == ["dogs", "dog"]


def test_class_may_be_empty_in_test(tmp_path: Path) -> None:
    as_folder(tmp_path, images("train/cat/1.png", "train/dog/1.png", "test/cat/1.png"))
    (tmp_path / "test/dog").mkdir()
    source = data.open(tmp_path)
    assert [(p.kind, p.severity) for p in source.problems] == [("empty_class", "warning")]
    data.check_trainable(source, val_fraction=0)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    as_folder(tmp_path / "store", images("1.png", "2.png"))
    as_folder(tmp_path / "set", images("dog/1.png"))
    (tmp_path / "set/cat").symlink_to(tmp_path / "store")
    (tmp_path / "set/dog/loop").symlink_to(tmp_path / "set")
    assert np.bincount(data.open(tmp_path / "set").splits["all"].kind.presence).tolist() == [2, 1]


REFUSED_FOLDERS = {
    "empty": ([], "is empty"),
    "only hidden": ([".DS_Store"], "is empty"),
    "no classes": (["1.png", "2.png"], "2 images but no class folders"),
    "no images": (["cat/1.txt", "dog/2.txt"], "no images in them"),
    "train without classes": (["train/1.png", "test/2.png"], "train holds 1 images but no class folders"),
    "two for one split": (["val/a/1.png", "valid/a/1.png", "train/a/1.png"], "val/ and valid/ for one split"),
    "two zips for one split": (["train_a.zip", "train_b.zip"], "both train_a.zip and train_b.zip"),
}


@pytest.mark.parametrize("kind", REFUSED_FOLDERS)
def test_refused_folder(kind: str, tmp_path: Path) -> None:
    names, message = REFUSED_FOLDERS[kind]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(FLAT["cat/0.png"]))
    with pytest.raises(InputError, match=message) as caught:
        data.open(tmp_path)
    assert "\n" not in str(caught.value)


# Zips


def test_zip_of_class_folders_in_place(tmp_path: Path) -> None:
    path = as_zip(tmp_path / "pets.zip", {f"pets/{name}": pixels for name, pixels in FLAT.items()})
    source = data.open(path)
    assert content(source) == expected(FLAT, lambda path: ("all", path.split("/")[0]))
    assert source.splits["all"].name(0) == f"{path}/pets/cat/0.png"
    assert list(tmp_path.iterdir()) == [path]


def test_zip_of_split_folders_without_hidden(tmp_path: Path) -> None:
    path = as_zip(tmp_path / "x.zip", {**SPLIT, **images("__MACOSX/train/cat/._0.png", "train/cat/.DS_Store")})
    assert content(data.open(path)) == expected(SPLIT, lambda path: (path.split("/")[0], path.split("/")[1]))


def test_folder_of_zips(tmp_path: Path) -> None:
    for split in ("train", "test"):
        part = {path: pixels for path, pixels in SPLIT.items() if path.startswith(split)}
        as_zip(tmp_path / f"{split}_small.zip", part)
    source = data.open(tmp_path)
    assert list(source.splits) == ["train", "test"]
    whole = expected(SPLIT, lambda path: (path.split("/")[0], path.split("/")[1]))
    assert content(source) == {split: whole[split] for split in ("train", "test")}


def test_zip_split_survives_pickling_and_forking(tmp_path: Path) -> None:
    split = data.open(as_zip(tmp_path / "x.zip", FLAT)).splits["all"]
    first = split.read(0)
    assert torch.equal(pickle.loads(pickle.dumps(split)).read(0), first)
    if hasattr(os, "fork"):
        if (child := os.fork()) == 0:  # the child moves about in the archive
            os._exit(0 if all(torch.equal(split.read(i), split.read(i)) for i in range(len(split))) else 1)
        again = [split.read(0) for _ in range(20)]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert all(torch.equal(image, first) for image in again)


def test_refused_zips(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(InputError, match="not a readable zip"):
        data.open(tmp_path / "text.zip")
    whole = as_zip(tmp_path / "cut.zip", FLAT)
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(InputError, match="not a readable zip"):
        data.open(whole)
    with pytest.raises(InputError, match="no class folders and no images"):
        data.open(as_zip(tmp_path / "none.zip", {}))


def test_damaged_member_is_named(tmp_path: Path) -> None:
    path = as_zip(tmp_path / "x.zip", FLAT)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IDAT") + 20] ^= 0xFF  # in the first image: its checksum no longer holds
    path.write_bytes(raw)
    source = data.open(path)
    problems = data.verify(source)
    assert [(p.kind, p.path) for p in problems] == [("unreadable", f"{path}/cat/0.png")]
    assert "Bad CRC-32" in problems[0].reason


def test_encrypted_member_is_named(tmp_path: Path) -> None:
    path = as_zip(tmp_path / "x.zip", images("cat/1.png", "dog/1.png"))
    raw = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = raw.index(mark)
        raw[place + offset] |= 1  # the flag for encryption
    path.write_bytes(raw)
    assert "encrypted" in data.verify(data.open(path))[0].reason


# CSV


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    as_folder(folder, TABLED)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


TABLED = images("a/1.png", "a/2.png", "b/3.png", "b/4.png")
ROWS = "a/1.png,cat\nb/3.png,dog\na/2.png,cat\nb/4.png,dog\n"


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        "path,label\n" + ROWS,
        "\ufefffilename,class\r\n" + ROWS.replace("\n", "\r\n"),
        "label,id,image\n" + "".join(f"{b},7,{a}\n" for a, b in (row.split(",") for row in ROWS.split())),
        ROWS.replace(",", "\t"),
        "path;label\n" + ROWS.replace(",", ";"),
        "path,cat,dog\na/1.png,1,0\na/2.png,1,0\nb/3.png,0,1\nb/4.png,0,1\n",
        "\n" + ROWS.replace("a/1.png", '"a/1.png"') + "\n\n",
    ],
    ids=["plain", "header", "bom and crlf", "other order", "tabs", "semicolons", "one-hot", "quotes and blanks"],
)
def test_table(text: str, tmp_path: Path) -> None:
    source = data.open(table(tmp_path, text))
    assert (source.classes, list(source.splits), source.multi_label) == (["cat", "dog"], ["all"], False)
    assert content(source) == expected(TABLED, lambda path: ("all", "cat" if path < "b" else "dog"))


def test_table_with_splits_and_folder_with_table(tmp_path: Path) -> None:
    table(tmp_path, "path,label,split\na/1.png,cat,train\na/2.png,cat,test\nb/3.png,dog,Train\nb/4.png,dog,testing\n")
    source = data.open(tmp_path)
    assert {key: len(split) for key, split in source.splits.items()} == {"train": 2, "test": 2}
    assert content(source)["test"] == content(data.open(tmp_path / "labels.csv"))["test"]


def test_a_table_for_each_split(tmp_path: Path) -> None:
    table(tmp_path, "a/1.png,cat\nb/3.png,dog\n", "train.csv")
    table(tmp_path, "a/2.png,cat\nb/4.png,dog\n", "test.csv")
    source = data.open(tmp_path)
    assert {key: split.kind.presence.tolist() for key, split in source.splits.items()} == {
        "train": [0, 1],
        "test": [0, 1],
    }


@pytest.mark.parametrize(
    "text",
    [
        "path,labels\na/1.png,cat|dog\na/2.png,\nb/3.png,dog\nb/4.png,dog;cat\n",
        "path,cat,dog\na/1.png,1,1\na/2.png,0,0\nb/3.png,0,1\nb/4.png,1.0,1\n",
    ],
    ids=["separated", "columns"],
)
def test_multi_label_table(text: str, tmp_path: Path) -> None:
    source = data.open(table(tmp_path, text), multi_label=True)
    assert source.multi_label and source.splits["all"].kind.presence.dtype == np.float32
    assert source.splits["all"].kind.presence.tolist() == [[1, 1], [0, 0], [0, 1], [1, 1]]
    data.check_trainable(source)
    with pytest.raises(
        InputError, match=r"line 2: 'a/1.png' has several labels \(cat, dog\); set classify.multi_label=true"
    ):
        data.open(tmp_path / "labels.csv")


REFUSED_TABLES = {
    "empty": ("", "is empty"),
    "only a header": ("path,label\n", "lists no images"),
    "no label": ("path,label\na/1.png,\n", "line 2: 'a/1.png' has no label"),
    "short row": ("path,label\na/1.png,cat\nb/3.png\n", "line 3: 1 columns, expected 2"),
    "no path": ("path,label\n,cat\n", "line 2: the path is empty"),
    "split": ("path,label,split\na/1.png,cat,trian\n", "line 2: unknown split 'trian'"),
    "columns": ("path,width,height\na/1.png,640,480\n", "column 'width' holds '640'"),
    "no columns": ("path,size\na/1.png,640\n", "expected path and label"),
}


@pytest.mark.parametrize("kind", REFUSED_TABLES)
def test_refused_table(kind: str, tmp_path: Path) -> None:
    text, message = REFUSED_TABLES[kind]
    with pytest.raises(InputError, match=message):
        data.open(table(tmp_path, text))


def test_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"path,label\n\xff\xfe\x00,cat\n")
    with pytest.raises(InputError, match="not UTF-8"):
        data.open(tmp_path / "x.csv")


def test_file_missing_from_a_table_is_unreadable(tmp_path: Path) -> None:
    source = data.open(table(tmp_path, ROWS + "a/9.png,cat\n"))
    problems = data.verify(source)
    assert [(Path(p.path).name, p.reason) for p in problems] == [("9.png", "there is no such file")]
    assert len(source.without(problems).splits["all"]) == 4


# Names, and what cannot be opened


def test_digits_are_divided_once_and_for_all() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    source = data.open("digits")
    assert {key: len(split) for key, split in source.splits.items()} == {"train": 1437, "test": 360}
    places = []
    for split in source.splits.values():
        for i in range(len(split)):
            place = int(split.name(i)[len("digits[") : -1])
            assert split.kind.presence[i] == labels[place]
            assert np.array_equal(split.read(i).numpy().flatten(), np.rint(pixels[place] / 16 * 255))
            places.append(place)
    assert sorted(places) == list(range(1797))
    share = data.class_counts(source.splits["test"].kind.presence, 10) / np.bincount(labels)
    assert share.min() > 0.195 and share.max() < 0.205
    frozen = "f238ddf9079044c4"  # published scores depend on it
    names = " ".join(source.splits["test"].name(i) for i in range(360))
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == frozen


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_folder(tmp_path / "pets", FLAT)
    monkeypatch.delenv("OPSIN_DATA", raising=False)
    with pytest.raises(InputError, match="unknown data source 'digts'; did you mean digits"):
        data.open("digts")
    with pytest.raises(InputError, match="unknown data source ''"):
        data.open("")
    monkeypatch.setenv("OPSIN_DATA", str(tmp_path))
    assert data.open("pets").classes == ["cat", "dog"]
    assert data.open("pets/cat/..").classes == ["cat", "dog"]
    with pytest.raises(InputError, match="unknown data source 'pest'; did you mean pets"):
        data.open("pest")
    with pytest.raises(InputError, match=r"no file or folder at pest/x\.zip"):
        data.open("pest/x.zip")
    with pytest.raises(
        InputError,
        match="is a file of no known format of class labels; expected a folder of class folders, a zip of one, a CSV",
    ):
        data.open(tmp_path / "pets/cat/0.png")
    with pytest.raises(InputError, match="unknown task 'clasify'; did you mean classify"):
        data.open("digits", "clasify")


def test_name_of_the_folder_we_are_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(as_folder(tmp_path / "pets", FLAT))
    assert data.open(".").name == data.open("../pets").name == "pets"


def test_single_labels_become_rows(tmp_path: Path) -> None:
    source = data.open(as_folder(tmp_path, FLAT), multi_label=True)
    assert source.multi_label and source.splits["all"].kind.presence.tolist() == [[1, 0]] * 4 + [[0, 1]] * 5


# Trainable or not


def test_one_class_and_no_training_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only the class 'cat'; a classifier needs two"):
        data.check_trainable(data.open(as_folder(tmp_path / "one", images("cat/1.png", "cat/2.png"))))
    with pytest.raises(InputError, match="no training split, only test"):
        data.check_trainable(data.open(as_folder(tmp_path / "two", images("test/a/1.png", "test/b/2.png"))))


def test_class_with_one_image(tmp_path: Path) -> None:
    source = data.open(as_folder(tmp_path, {**FLAT, **images("mouse/1.png")}))
    with pytest.raises(
        InputError, match="only one image of class 'mouse', which cannot be both trained on and evaluated"
    ):
        data.check_trainable(source)
    data.check_trainable(source, val_fraction=0, test_fraction=0)


def test_bad_files_are_found_and_left_out(tmp_path: Path) -> None:
    as_folder(tmp_path, FLAT)
    (tmp_path / "cat/empty.jpg").touch()
    (tmp_path / "dog/note.png").write_text("woof")
    source = data.open(tmp_path)
    calls: list[tuple[int, int]] = []
    problems = data.verify(source, progress=lambda done, total: calls.append((done, total)))
    assert {Path(p.path).name: p.reason.split(";")[0].split(" (")[0] for p in problems} == {
        "empty.jpg": "the file is empty",
        "note.png": "not an image that can be read",
    }
    assert calls == [(done, 11) for done in range(1, 12)]
    assert data.verify(source, full=0) == problems  # by their headers alone
    clean = source.without(problems)
    assert clean.skipped == problems and not data.verify(clean)
    assert content(clean) == expected(FLAT, lambda path: ("all", path.split("/")[0]))
    assert data.open(tmp_path, skip_bad=True).skipped == problems
    for name in ("cat", "dog"):
        for path in (tmp_path / name).glob("?.png"):
            path.write_text("gone")
    with pytest.raises(InputError, match="no readable training images of class 'cat'"):
        data.check_trainable(data.open(tmp_path, skip_bad=True).without([]))


def test_channels_are_found(tmp_path: Path) -> None:
    grey = {f"{c}/{i}.png": RANDOM.randint(0, 256, (5, 5), dtype=np.uint8) for c in "ab" for i in range(3)}
    as_folder(tmp_path, grey)
    assert data.find_channels(data.open(tmp_path).splits["all"]) == 1
    as_folder(tmp_path, images("a/9.png"))
    assert data.find_channels(data.open(tmp_path).splits["all"]) == 3


def test_subset_and_relabel_keep_images_and_labels_together(tmp_path: Path) -> None:
    for source in (data.open(as_folder(tmp_path, FLAT)), data.open("digits")):
        split = next(iter(source.splits.values()))
        part = split.subset([5, 2]).subset(np.array([1, 0, 0]))
        assert [part.name(i) for i in range(3)] == [split.name(i) for i in (2, 5, 5)]
        assert part.kind.presence.tolist() == split.kind.presence[[2, 5, 5]].tolist()
        assert torch.equal(part.read(1), split.read(5))
        moved = split.kind.relabel(np.arange(len(source.classes)) + 1, ["new", *source.classes])
        assert (moved.presence == split.kind.presence + 1).all()
        assert split.with_truth(moved).inputs is split.inputs
    some = ClassLabels(np.array([[1, 0], [0, 0], [0, 1]], np.float32), ["a", "b"])
    assert some.relabel([0, 0], ["a"]).labels.tolist() == [[1], [0], [1]]  # two classes become one
    rows = ClassLabels(np.array([[1, 0], [1, 1]], np.float32), ["a", "b"]).relabel([2, 0], ["b", "c", "a"]).labels
    assert rows.tolist() == [[0, 0, 1], [1, 0, 1]]


@pytest.mark.real_data
@pytest.mark.skipif("OPSIN_DATA" not in os.environ, reason="OPSIN_DATA is not set")
@pytest.mark.parametrize(
    ("name", "counts", "classes", "shape"),
    [
        ("mnist", {"train": 60000, "test": 10000}, 10, (1, 28, 28)),
        ("fashion_mnist", {"train": 60000, "test": 10000}, 10, (1, 28, 28)),
        ("usps", {"train": 7291, "test": 2007}, 10, (1, 16, 16)),
        ("cifar10_jpg", {"train": 10000, "test": 10000}, 10, (3, 32, 32)),
        ("omniglot/images_background_small1.zip", {"all": 2720}, 5, (1, 105, 105)),
    ],
)
def test_real_data(name: str, counts: dict[str, int], classes: int, shape: tuple[int, ...]) -> None:
    source = data.open(name)
    assert {key: len(split) for key, split in source.splits.items()} == counts
    assert len(source.classes) == classes
    assert all(split.read(len(split) // 2).shape == shape for split in source.splits.values())
    if "train" in counts:
        data.check_trainable(source)

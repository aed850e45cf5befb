"""Annotations as other tools write them, and wrong ones: what is found, or what the one line says."""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from opsin import data
from opsin.errors import InputError

BOX = [10.0, 8.0, 40.0, 40.0]


def image(path: Path, size: tuple[int, int] = (96, 64), **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path, **options)


def coco(root: Path, annotation: dict[str, Any], file: dict[str, Any], categories: list[Any] | None = None) -> Path:
    """Two images of 96x64 with an object each."""
    images, objects = [], []
    for i in range(2):
        image(root / f"images/p{i}.png")
        images.append({"id": i + 1, "file_name": f"p{i}.png", "width": 96, "height": 64} | file)
        objects.append({"id": i, "image_id": i + 1, "category_id": 1, "bbox": [10, 8, 30, 32]} | annotation)
    content = {"images": images, "annotations": objects, "categories": categories or [{"id": 1, "name": "cat"}]}
    (root / "annotations").mkdir()
    (root / "annotations/instances.json").write_text(json.dumps(content))
    return root


def boxes(source: data.Source, split: str = "all") -> list[list[list[float]]]:
    """Those to learn from, of each image."""
    truth = source.splits[split].kind
    ones = [truth.at(i) for i in range(len(source.splits[split]))]
    return [one.boxes[one.labels >= 0].tolist() for one in ones]


@pytest.mark.parametrize(
    ("annotation", "file"),
    [
        ({"iscrowd": "0"}, {}),
        ({"iscrowd": 0.0, "ignore": "false"}, {}),
        ({"category_id": "1"}, {}),
        ({"category_id": 1.0, "bbox": ["10", "8", "30", "32"]}, {}),
        ({}, {"width": "96", "height": 64.0}),
        ({}, {"width": None, "height": None}),
    ],
)
def test_coco_values_of_other_types(annotation: dict[str, Any], file: dict[str, Any], tmp_path: Path) -> None:
    source = data.open(coco(tmp_path, annotation, file), "detect")
    assert not source.problems and boxes(source) == [[BOX], [BOX]]


@pytest.mark.parametrize("prefix", ["images\\", "C:\\work\\images\\", "/srv/somebody/images/"])
def test_coco_paths_of_other_computers(prefix: str, tmp_path: Path) -> None:
    source = data.open(coco(tmp_path, {}, {"file_name": f"{prefix}p1.png"}), "detect")
    assert [Path(source.splits["all"].name(i)) for i in range(2)] == [tmp_path / "images/p1.png"] * 2


@pytest.mark.parametrize(
    ("annotation", "file", "reason"),
    [
        ({"iscrowd": "maybe"}, {}, "annotations[0]: iscrowd: 'maybe' is neither true nor false; expected 0 or 1"),
        ({"iscrowd": 2}, {}, "annotations[0]: iscrowd: 2 is neither true nor false; expected 0 or 1"),
        ({"category_id": True}, {}, "annotations[0]: the id True is neither a whole number nor a text"),
        ({"bbox": [1, 2, 3]}, {}, "annotations[0]: its bbox is a list; expected [x, y, width, height], four numbers"),
        ({"bbox": [10**400, 8, 30, 32]}, {}, "annotations[0]: its bbox is a list"),
        ({}, {"width": float("inf")}, "images[0]: its width: inf is not a whole number"),
        ({}, {"file_name": None}, "images[0]: its file_name is None"),
        ({}, {"file_name": "a\0b"}, r"images[0]: its file_name is 'a\x00b'"),
        ({}, {"id": [1]}, "images[0]: the id a list is neither a whole number nor a text"),
        ({}, {"width": 192, "height": 128}, "p0.png is 96x64 pixels (width x height), but its annotation says 192x128"),
    ],
)
def test_coco_that_is_wrong_is_refused(
    annotation: dict[str, Any], file: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    source = data.open(coco(tmp_path, annotation, file), "detect")
    said = [f"{problem.path}: {problem.reason}".replace(": ", " ", 1) for problem in source.problems]
    assert any(reason.replace(": ", " ", 1) in one for one in said) or any(reason in one for one in said), said
    with pytest.raises(InputError, match=r"instances\.json"):
        data.check_trainable(source)


@pytest.mark.parametrize(
    ("categories", "reason"),
    [
        ([{"id": 1, "name": "cat"}, {"id": 1, "name": "bird"}], "categories.1.: the id 1 is that of 'cat' too"),
        ([{"id": 1, "name": "cat"}, {"id": "1", "name": "bird"}], "categories.1.: the id 1 is that of 'cat' too"),
        ([{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}], "categories.1.: the name 'cat' is another category's"),
        ([{"id": 1, "name": None}], "categories.0.: its name is None"),
        ([{"id": 1.5, "name": "cat"}], "categories.0.: the id 1.5 is neither"),
    ],
)
def test_coco_categories_that_are_wrong(categories: list[Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        data.open(coco(tmp_path, {}, {}, categories), "detect")


def test_a_split_of_regions_to_ignore_is_refused(tmp_path: Path) -> None:
    source = data.open(coco(tmp_path, {"iscrowd": 1}, {}), "detect")
    with pytest.raises(InputError, match="no image of the all split has a box to learn from"):
        data.check_trainable(source)


def test_boxes_in_the_frame_before_the_image_was_turned_are_refused(tmp_path: Path) -> None:
    coco(tmp_path, {}, {})
    exif = Image.Exif()
    exif[0x0112] = 6
    image(tmp_path / "images/p1.png", exif=exif)
    (problem,) = data.open(tmp_path, "detect").problems
    assert problem.severity == "error"
    assert "p1.png is 64x96 pixels (width x height) once turned as its orientation asks" in problem.reason


XML = "<annotation><filename>{file}</filename>{size}<object><name>{name}</name>{flag}<bndbox><xmin>11</xmin>"
XML += "<ymin>9</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object></annotation>"


def voc(root: Path, stem: str, name: str = "cat", flag: str = "", encoding: str = "") -> None:
    image(root / f"JPEGImages/{stem}.jpg")
    (root / "Annotations").mkdir(exist_ok=True)
    text = XML.format(file=f"{stem}.jpg", size="", name=name, flag=flag)
    head = f'<?xml version="1.0" encoding="{encoding}"?>' if encoding else ""
    (root / f"Annotations/{stem}.xml").write_bytes((head + text).encode(encoding or "utf-8"))


@pytest.mark.parametrize("encoding", ["GB2312", "GBK", "Big5", "Shift_JIS", "UTF-7", "UTF-16", "cp1252", "EUC-JP"])
def test_voc_in_other_encodings(encoding: str, tmp_path: Path) -> None:
    name = "Katze" if encoding in ("cp1252", "UTF-7") else "日本"
    name = "Hündin" if encoding == "cp1252" else name
    voc(tmp_path, "a", name, encoding=encoding)
    source = data.open(tmp_path, "detect")
    assert source.classes == [name] and boxes(source) == [[BOX]] and not source.problems


def test_voc_of_an_unknown_encoding_is_one_line(tmp_path: Path) -> None:
    voc(tmp_path, "a")
    (tmp_path / "Annotations/a.xml").write_text('<?xml version="1.0" encoding="klingon"?><annotation/>')
    (problem,) = data.open(tmp_path, "detect").problems
    assert problem.severity == "error" and "unknown encoding" in problem.reason


@pytest.mark.parametrize(("flag", "found"), [("0", 1), ("1", 0), ("1.0", 0), ("false", 1), ("", 1)])
def test_voc_difficult(flag: str, found: int, tmp_path: Path) -> None:
    voc(tmp_path, "a", flag=f"<difficult>{flag}</difficult>")
    assert len(boxes(data.open(tmp_path, "detect"))[0]) == found


def test_voc_difficult_that_is_not_understood(tmp_path: Path) -> None:
    voc(tmp_path, "a", flag="<difficult>Unspecified</difficult>")
    (problem,) = data.open(tmp_path, "detect").problems
    assert problem.severity == "error" and "difficult is 'Unspecified' is neither" in problem.reason


@pytest.mark.parametrize("line", ["my pic", '"my pic"', "my pic.jpg", "my pic.xml", "JPEGImages/my pic.jpg", "my pic "])
def test_voc_lists_as_people_write_them(line: str, tmp_path: Path) -> None:
    voc(tmp_path, "my pic")
    voc(tmp_path, "000012")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text(f"{line}\n000012  1\n")
    source = data.open(tmp_path, "detect")
    assert boxes(source, "train") == [[BOX], [BOX]] and not source.problems


@pytest.mark.parametrize("encoding", ["gbk", "utf-16", "utf-8-sig", "big5"])
def test_voc_list_in_another_encoding(encoding: str, tmp_path: Path) -> None:
    name = "圖一" if encoding == "big5" else "图一"
    voc(tmp_path, name)
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_bytes(f"{name}\n".encode(encoding))
    assert boxes(data.open(tmp_path, "detect"), "train") == [[BOX]]


def test_voc_image_that_its_filename_names_is_not_left_out(tmp_path: Path) -> None:
    voc(tmp_path, "a")
    (tmp_path / "Annotations/a.xml").rename(tmp_path / "Annotations/other.xml")
    source = data.open(tmp_path, "detect")
    assert not source.problems and boxes(source) == [[BOX]]


def test_voc_lists_of_images_in_folders(tmp_path: Path) -> None:
    for k, folder in enumerate("ab"):
        voc(tmp_path / folder, "1", name=f"class {folder}")
        (tmp_path / f"JPEGImages/{folder}").mkdir(parents=True)
        (tmp_path / f"Annotations/{folder}").mkdir(parents=True)
        (tmp_path / f"{folder}/JPEGImages/1.jpg").rename(tmp_path / f"JPEGImages/{folder}/1.jpg")
        (tmp_path / f"{folder}/Annotations/1.xml").rename(tmp_path / f"Annotations/{folder}/1.xml")
        (tmp_path / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        line = (f"{folder}/1\n", f"JPEGImages/{folder}/1.jpg\n")[k]
        (tmp_path / f"ImageSets/Main/{('train', 'val')[k]}.txt").write_text(line)
    source = data.open(tmp_path, "detect")
    assert not source.problems and source.classes == ["class a", "class b"]
    assert [source.splits[key].kind.at(0).labels.tolist() for key in ("train", "val")] == [[0], [1]]


@pytest.mark.parametrize("name", ["", "  "])
def test_voc_names_that_are_empty(name: str, tmp_path: Path) -> None:
    voc(tmp_path, "a", name=name)
    source = data.open(tmp_path, "detect")
    assert [(one.severity, one.reason) for one in source.problems] == [("error", "an object with an empty name")]
    assert not source.classes and boxes(source) == [[]]


def yolo(root: Path, row: str, settings: str) -> Path:
    image(root / "images/train/p.png")
    (root / "labels/train").mkdir(parents=True)
    (root / "labels/train/p.txt").write_text(row + "\n")
    (root / "data.yaml").write_text("train: images/train\n" + settings)
    return root


ROW = "0 0.260416667 0.375 0.3125 0.5"


def test_yolo_rows_with_points(tmp_path: Path) -> None:
    source = data.open(yolo(tmp_path, f"{ROW} 0.1 0.1 0.9 0.9", "names: [cat]\nkpt_shape: [2, 2]\n"), "detect")
    assert boxes(source, "train")[0][0] == pytest.approx(BOX, abs=1e-4)  # not the hull of six points


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("[yes, no]", ["yes", "no"]),
        ("[012, 1:30]", ["012", "1:30"]),
        ("[~]", ["~"]),
        ("{0: on, 1: null}", ["on", "null"]),
        ("[1.50]", ["1.50"]),
    ],
)
def test_yolo_names_are_texts(names: str, classes: list[str], tmp_path: Path) -> None:
    assert data.open(yolo(tmp_path, ROW, f"names: {names}\n"), "detect").classes == classes


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("nc: 1000000000000\n", "nc is 1000000000000; expected 1 to 100,000 classes"),
        ("nc: many\n", "nc: 'many' is not a whole number"),
        ("names: [[cat]]\n", "names is a list; expected a list of names"),
        ("names: [cat]\nkpt_shape: [17]\n", "kpt_shape is not"),
        ("names: [cat]\nkpt_shape: [17, 4]\n", r"kpt_shape is \[17, 4\]"),
        ("names: [cat]\nval: {a: 1}\n", "a dict stands where a path is expected"),
    ],
)
def test_yolo_settings_that_cannot_be(settings: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        data.open(yolo(tmp_path, ROW, settings), "detect")


@pytest.mark.parametrize("value", ["0", "0.0", "false", "1", "maybe"])
def test_csv_flags(value: str, tmp_path: Path) -> None:
    image(tmp_path / "p.png")
    (tmp_path / "x.csv").write_text(f"path,x1,y1,x2,y2,label,iscrowd\np.png,10,8,40,40,cat,{value}\n")
    source = data.open(tmp_path / "x.csv", "detect")
    if value == "maybe":
        assert "expected 0 or 1" in source.problems[0].reason
    else:
        assert len(boxes(source)[0]) == (value != "1")


@pytest.mark.parametrize(
    "table",
    [
        '"a/1.png", "cat"\n"b/1.png", "dog"\n',
        "foto,klasse\na/1.png,cat\nb/1.png,dog\n",
        "klasse;foto\ncat;a/1.png\ndog;b/1.png\n",
        '"path","label"\n"a/1.png","cat"\n"b/1.png","dog"\n',
        "path,label\na\\1.png,cat\nb\\1.png,dog\n",
        "path,label\r\na/1.png,cat\r\nb/1.png,dog\r\n",
    ],
)
def test_tables_as_people_write_them(table: str, tmp_path: Path) -> None:
    image(tmp_path / "a/1.png")
    image(tmp_path / "b/1.png")
    (tmp_path / "t.csv").write_bytes(table.encode())
    split = data.open(tmp_path / "t.csv").splits["all"]
    assert split.kind.classes == ["cat", "dog"] and split.kind.labels.tolist() == [0, 1]
    assert all(Path(split.name(i)).is_file() for i in range(2))


def test_a_line_separator_within_a_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\na.png,cat\u2028dog\n", encoding="utf-8")
    assert data.open(tmp_path / "t.csv").classes == ["cat\u2028dog"]


def test_sizes_that_cannot_be_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "label.npz", x=np.zeros((4, 8, 8), np.uint8), y=np.array([0, 1, 2, 10**8]))
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (100, 64000, 64000), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(tmp_path / "header.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))
    idx = tmp_path / "idx"
    idx.mkdir()
    for name, head in (
        ("images-idx3", b"\0\0\x08\x03" + b"\0\0\xff\xff" * 3),
        ("labels-idx1", b"\0\0\x08\x01\0\0\0\x01"),
    ):
        (idx / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(head + bytes(10**7)))
    for source, reason in (
        ("label.npz", r"label.npz:y has the label 100000000; without names, labels go to 99,999 at most"),
        ("header.npz", r"header.npz:x.npy is damaged: its header promises 409,600,000,000 bytes, it has 192"),
        ("idx", r"images-idx3-ubyte.gz: its header promises 281,462,092,005,375 bytes"),
    ):
        with pytest.raises(InputError, match=reason):
            data.open(tmp_path / source)
    (idx / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x03" + b"\0\0\0\1" * 3 + bytes(10**7)))
    with pytest.raises(InputError, match="promises 1 bytes, it has 2"):  # and no more of it was unpacked
        data.open(idx)


def test_tables_that_are_no_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(InputError, match="not a regular file"):
        data.open(tmp_path / "t.csv")
    coco(tmp_path / "c", {}, {})
    (tmp_path / "c/annotations/instances.json").unlink()
    os.mkfifo(tmp_path / "c/annotations/instances.json")
    with pytest.raises(InputError, match="not a regular file"):
        data.open(tmp_path / "c", "detect")


def class_folders(root: Path, *names: str) -> None:
    for k, name in enumerate(names):
        for i in range(2):
            image(root / name / f"{i}.png", (8 + k, 9 + i))


def test_folders_in_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    class_folders(tmp_path, "train/dog", "train/caf\u00e9", "val/dog", "val/cafe\u0301")
    source = data.open(tmp_path)
    assert source.classes == ["caf\u00e9", "dog"]
    assert [problem.kind for problem in source.problems] == ["unicode_forms"]
    assert {key: split.kind.labels.tolist() for key, split in source.splits.items()} == {
        "train": [0, 0, 1, 1],
        "val": [0, 0, 1, 1],
    }


def test_a_split_that_is_a_link_to_another_is_read_and_a_leak(tmp_path: Path) -> None:
    class_folders(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog")
    (tmp_path / "val").symlink_to("test")
    found = data.inspect(tmp_path)
    assert {split: sum(counts.values()) for split, counts in found.splits.items()} == {"train": 4, "val": 4, "test": 4}
    assert "leak" in {problem.kind for problem in found.problems}


def test_a_zip_with_backslashes(tmp_path: Path) -> None:
    class_folders(tmp_path / "z", "cat", "dog")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for file in sorted((tmp_path / "z").rglob("*.png")):
            name = zipfile.ZipInfo(str(file.relative_to(tmp_path / "z")).replace("/", "\\"))
            archive.writestr(name, file.read_bytes())
    source = data.open(tmp_path / "w.zip")
    assert source.classes == ["cat", "dog"] and not data.verify(source)
    assert source.splits["all"].read(0).shape == (3, 9, 8)


def test_special_files_among_images_are_named(tmp_path: Path) -> None:
    class_folders(tmp_path, "cat", "dog")
    os.mkfifo(tmp_path / "dog/pipe.png")
    (problem,) = data.verify(data.open(tmp_path))
    assert problem.path.endswith("pipe.png") and problem.reason == "not a regular file"

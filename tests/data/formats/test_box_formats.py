"""VOC, COCO, YOLO and CSV: hand-made files open to the boxes that they mean; what is wrong has its line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import data
from opsin.errors import InputError

Truth = dict[str, list[tuple[str, list[float]]]]


def image(path: Path, size: tuple[int, int] = (100, 80)) -> None:
    """An image of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(path)


def voc_object(name: str, box: tuple[object, ...], extra: str = "") -> str:
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object>\n<name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>\n"


def voc(path: Path, objects: str, size: str = "<size><width>100</width><height>80</height></size>") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation>\n<filename>{path.stem}.png</filename>{size}\n{objects}</annotation>")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def truth(source: data.Source, split: str = "all") -> Truth:
    part, found = source.splits[split], {}
    for k, one in enumerate(part.kind.instances):
        names = [source.classes[label] if label >= 0 else "ignored" for label in one.labels.tolist()]  # type: ignore[union-attr]
        found[Path(part.name(k)).stem] = list(zip(names, one.boxes.tolist(), strict=True))
    return found


def problems(source: data.Source) -> list[tuple[str, str, str]]:
    return [(p.kind, Path(p.path).name, p.severity) for p in source.problems]


# Pascal VOC


def test_voc_counts_from_one_and_includes_the_last(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    voc(
        tmp_path / "Annotations/a.xml",
        voc_object("dog", (1, 1, 100, 80))
        + voc_object("cat", (11, 21, 30, 40), "<difficult>1</difficult>" + part)
        + voc_object("cat", (11.5, 21, 30, 40)),
    )
    voc(tmp_path / "Annotations/b.xml", "")
    for name in "ab":
        image(tmp_path / f"JPEGImages/{name}.png")
    source = data.open(tmp_path, "detect")
    assert source.format == "Pascal VOC" and source.classes == ["cat", "dog"] and not source.problems
    assert truth(source) == {
        "a": [("dog", [0, 0, 100, 80]), ("ignored", [10, 20, 30, 40]), ("cat", [10.5, 20, 30, 40])],
        "b": [],
    }
    assert source.splits["all"].kind.presence.tolist() == [[1, 1], [0, 0]]


def test_voc_lists(tmp_path: Path) -> None:
    for name in "abcd":
        voc(tmp_path / f"Annotations/{name}.xml", voc_object("dog", (2, 2, 9, 9)))
        image(tmp_path / f"JPEGImages/{name}.png")
    lists = tmp_path / "ImageSets/Main"
    write(lists / "trainval.txt", "a\nb  1\nc -1\n")
    write(lists / "val.txt", "b\n\n")
    write(lists / "dog_train.txt", "d 1\n")
    source = data.open(tmp_path, "detect")
    assert {key: list(truth(source, key)) for key in source.splits} == {"train": ["a", "c"], "val": ["b"]}
    assert problems(source) == [("unlisted", "Annotations", "note")]
    write(lists / "train.txt", "a\nx\n")
    source = data.open(tmp_path, "detect")
    assert list(truth(source, "train")) == ["a"]
    assert ("missing_annotation", "train.txt line 2", "error") in problems(source)
    with pytest.raises(InputError, match=r"train.txt line 2: 'x' has no file x.xml"):
        data.check_trainable(source)


def test_voc_in_split_folders_and_wrapped(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        voc(tmp_path / f"set/{split}/{split}.xml", voc_object("dog", (2, 2, 9, 9)))
        image(tmp_path / f"set/{split}/{split}.png")
    source = data.open(tmp_path, "detect")
    assert {key: list(truth(source, key)) for key in source.splits} == {"train": ["train"], "val": ["valid"]}
    source.splits["val"].read(0)


def test_voc_what_is_wrong_has_its_line(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "dog\ncat\n")
    boxes = [
        voc_object("dog", (5, 5, 5, 30)),  # line 3: a click
        voc_object("dog", (9, 5, 3, 30)),  # 5: inside out
        voc_object("dgo", (5, 5, 20, 30)),  # 7: no class
        voc_object("dog", (5, 5, 130, 30)),  # 9: reaches out
        voc_object("dog", (91, 5, 130, 30)),  # 11: a quarter inside
        voc_object("dog", ("nan", 5, 20, 30)),  # 13
        voc_object("dog", (5, "x", 20, 30)),  # 15
        "<object>\n<name>dog</name></object>\n",  # 17
        voc_object("dog", (0, 0, 101, 81)),  # 19: a pixel, not worth a word
        voc_object("dog", (1, 1, 100, 80)),  # 21: the same box once cut
        voc_object("cat", (1, 1, 100, 80)),  # 23: of another class
        voc_object("dog", (1e300, 5, 2e300, 30)),  # 25
    ]
    voc(tmp_path / "Annotations/a.xml", "".join(boxes))
    image(tmp_path / "images/a.png")
    source = data.open(tmp_path, "detect")
    assert sorted(problems(source), key=lambda p: int(p[1].split()[-1])) == [
        ("degenerate_box", "a.xml line 3", "warning"),
        ("degenerate_box", "a.xml line 5", "warning"),
        ("unknown_class", "a.xml line 7", "error"),
        ("clipped_box", "a.xml line 9", "warning"),
        ("outside_box", "a.xml line 11", "error"),
        ("not_finite", "a.xml line 13", "error"),
        ("broken_annotation", "a.xml line 15", "error"),
        ("broken_annotation", "a.xml line 17", "error"),
        ("duplicate_box", "a.xml line 21", "warning"),
        ("conflicting_boxes", "a.xml line 23", "warning"),
        ("not_finite", "a.xml line 25", "error"),
    ]
    assert truth(source)["a"] == [("dog", [4, 4, 100, 30])] + [
        (name, [0, 0, 100, 80]) for name in ("dog", "dog", "cat")
    ]
    reasons = {p.path.split()[-1]: p.reason for p in source.problems}
    assert reasons["7"] == "unknown class 'dgo'; classes.txt has 'dog', 'cat'"
    assert "(4, 4, 130, 30) of 100x80; cut at the border" in reasons["9"]
    assert "fix or remove" in reasons["11"]
    with pytest.raises(InputError, match=r"a\.xml line \d+"):
        data.check_trainable(source)


def test_voc_broken_xml_and_missing_sizes(tmp_path: Path) -> None:
    write(tmp_path / "Annotations/a.xml", "<annotation>\n<object>\n</annotation>")
    write(tmp_path / "Annotations/b.xml", "<html></html>")
    write(tmp_path / "Annotations/e.xml", "")
    zero = "<size><width>0</width><height>0</height></size>"
    voc(tmp_path / "Annotations/c.xml", voc_object("dog", (5, 5, 99, 30)), size=zero)
    voc(tmp_path / "Annotations/d.xml", voc_object("dog", (5, 5, 60, 130)), size="")
    for name in "abce":
        image(tmp_path / f"JPEGImages/{name}.png", (60, 80))
    source = data.open(tmp_path, "detect")
    assert truth(source)["c"] == [("dog", [4, 4, 60, 30])]
    assert truth(source)["d"] == [("dog", [4, 4, 60, 130])]  # its image is missing
    assert [p[:2] for p in problems(source)] == [
        ("broken_annotation", "a.xml line 3"),
        ("broken_annotation", "b.xml line 1"),
        ("broken_annotation", "e.xml line 1"),
        ("clipped_box", "c.xml line 3"),
    ]
    assert [Path(p.path).name for p in data.verify(source)] == ["d.png"]


# COCO


def coco(path: Path, **changes: object) -> Path:
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 100, "height": 80},
            {"id": 3, "file_name": "b.png", "width": 100, "height": 80},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [10, 20, 30, 40], "iscrowd": 0, "area": 1200},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 100, 80], "iscrowd": 1, "area": 8000},
            {"id": 3, "image_id": 7, "category_id": 2, "bbox": [1.5, 2.5, 3.25, 4], "area": 13},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 90, "name": "never"}],
    } | changes
    return write(path, json.dumps(content))


def test_coco_boxes_gaps_and_crowds(tmp_path: Path) -> None:
    for name in "ab":
        image(tmp_path / f"val2017/{name}.png")
    coco(tmp_path / "annotations/instances_val2017.json")
    write(tmp_path / "annotations/captions_val2017.json", "{}")
    source = data.open(tmp_path, "detect")
    assert source.classes == ["cat", "dog", "never"] and not source.problems
    expected = [("dog", [10, 20, 40, 60]), ("ignored", [0, 0, 100, 80]), ("cat", [1.5, 2.5, 4.75, 6.5])]
    assert truth(source, "val") == {"a": expected, "b": []}
    assert source.splits["val"].kind.presence.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert not data.verify(source)
    with pytest.raises(InputError, match="has no training split, only val"):
        data.check_trainable(source)


@pytest.mark.parametrize("where", ["train", "images", "images/train", "JPEGImages", "."])
def test_coco_finds_its_images(tmp_path: Path, where: str) -> None:
    coco(tmp_path / "annotations/instances_train.json")
    for name in "ab":
        image(tmp_path / where / f"{name}.png")
    for given in (tmp_path, tmp_path / "annotations/instances_train.json"):
        assert not data.verify(data.open(given, "detect"))


def test_coco_beside_the_images_of_each_split(tmp_path: Path) -> None:
    for split, changes in (
        ("train", {}),
        ("valid", {"categories": [{"id": 2, "name": "dog"}, {"id": 18, "name": "cat"}]}),
    ):
        coco(tmp_path / split / "_annotations.coco.json", **changes)
        for name in "ab":
            image(tmp_path / split / f"{name}.png")
    source = data.open(tmp_path, "detect")
    assert list(source.splits) == ["train", "val"] and source.classes == ["cat", "dog", "never"]
    assert [name for name, _ in truth(source, "val")["a"]] == ["cat", "ignored", "dog"]  # matched by name
    assert problems(source) == [("class_mismatch", "_annotations.coco.json", "warning")]


def test_coco_what_is_wrong_has_its_number(tmp_path: Path) -> None:
    bad = [
        {"image_id": 99, "category_id": 2, "bbox": [0, 0, 5, 5]},
        {"image_id": 7, "category_id": 5, "bbox": [0, 0, 5, 5]},
        {"image_id": 7, "category_id": 2, "bbox": [0, 0, 5]},
        {"image_id": 7, "category_id": 2},
        {"image_id": 7, "category_id": 2, "bbox": [9, 9, 0, 5]},
        {"image_id": 7, "category_id": 2, "bbox": [9, 9, float("nan"), 5]},
        {"image_id": 7, "category_id": 2, "bbox": [200, 9, 5, 5]},
        {"image_id": 7, "category_id": 2, "bbox": [9, 9, 5, 5], "ignore": 1},
    ]
    source = data.open(coco(tmp_path / "x.json", annotations=bad), "detect")
    assert sorted(problems(source), key=lambda p: p[1]) == [
        ("broken_annotation", "x.json annotations[0]", "error"),
        ("unknown_class", "x.json annotations[1]", "error"),
        ("broken_annotation", "x.json annotations[2]", "error"),
        ("broken_annotation", "x.json annotations[3]", "error"),
        ("degenerate_box", "x.json annotations[4]", "warning"),
        ("not_finite", "x.json annotations[5]", "error"),
        ("outside_box", "x.json annotations[6]", "error"),
    ]
    assert truth(source)["a"] == [("ignored", [9, 9, 14, 14])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [],\n "annotations": [}', r"x\.json line 2: not readable JSON"),
        ('{"images": []}', r"x\.json has no annotations and categories; a COCO file of boxes has images"),
        ("[]", r"x\.json has no object at its top"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "its name is None"),
    ],
)
def test_coco_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        data.open(write(tmp_path / "x.json", text), "detect")


def test_coco_equals_pycocotools(tmp_path: Path) -> None:
    reference = pytest.importorskip("pycocotools.coco")
    random = np.random.RandomState(0)
    images = [{"id": int(k), "file_name": f"{k}.png", "width": 640, "height": 480} for k in random.permutation(30)]
    corners = random.uniform(0, 400, (500, 4)).round(2)
    annotations = [
        {
            "id": n,
            "image_id": int(random.randint(30)),
            "category_id": int(random.choice([2, 5, 11])),
            "bbox": [x, y, w / 5 + 1, h / 8 + 1],
            "iscrowd": int(random.rand() < 0.1),
            "area": 1,
        }
        for n, (x, y, w, h) in enumerate(corners.tolist(), 1)
    ]
    categories = [{"id": k, "name": str(k)} for k in (11, 2, 5)]
    file = coco(tmp_path / "x.json", images=images, annotations=annotations, categories=categories)
    theirs, source = reference.COCO(str(file)), data.open(file, "detect")
    assert source.classes == ["2", "5", "11"] == [theirs.cats[k]["name"] for k in sorted(theirs.cats)]
    ours = truth(source)
    for image in images:
        boxes = theirs.loadAnns(theirs.getAnnIds(image["id"]))
        expected = [("ignored" if a["iscrowd"] else str(a["category_id"]), a["bbox"]) for a in boxes]
        assert [name for name, _ in ours[str(image["id"])]] == [name for name, _ in expected]
        for (_, (x1, y1, x2, y2)), (_, bbox) in zip(ours[str(image["id"])], expected, strict=True):
            assert [x1, y1, x2 - x1, y2 - y1] == pytest.approx(bbox, abs=1e-3)


# YOLO


def yolo(root: Path, labels: str = "1 0.5 0.5 0.2 0.25\n") -> None:
    for split in ("train", "val"):
        for name in "ab":
            image(root / f"images/{split}/{name}.png")
        write(root / f"labels/{split}/a.txt", labels)
        write(root / f"labels/{split}/b.txt", "")


def test_yolo_with_data_yaml(tmp_path: Path) -> None:
    yolo(tmp_path, "1 0.5 0.5 0.2 0.25\n\n0 .1 .1 .2 .2\n")
    write(tmp_path / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n")
    source = data.open(tmp_path, "detect")
    assert source.classes == ["cat", "dog"] and source.format == "YOLO txt" and not source.problems
    for split in ("train", "val"):
        found = truth(source, split)
        assert [name for name, _ in found["a"]] == ["dog", "cat"] and found["b"] == []
        assert found["a"][0][1] == [40, 30, 60, 50] and found["a"][1][1] == pytest.approx([0, 0, 20, 16], abs=1e-5)
    assert truth(data.open(tmp_path / "data.yaml", "detect"), "val") == truth(source, "val")


@pytest.mark.parametrize(
    "text",
    [
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cat, dog]\n",  # as exported, one folder too high
        "path: /nowhere/on/this/computer\ntrain: [train/images]\nval: valid/images\nnames: [cat, dog]\n",
    ],
)
def test_yolo_paths_of_another_computer(tmp_path: Path, text: str) -> None:
    for split in ("train", "valid"):
        image(tmp_path / f"{split}/images/a.png")
        write(tmp_path / f"{split}/labels/a.txt", "1 0.5 0.5 0.2 0.25")
    write(tmp_path / "data.yaml", text)
    source = data.open(tmp_path, "detect")
    assert truth(source, "train") == truth(source, "val") == {"a": [("dog", [40, 30, 60, 50])]}


def test_yolo_with_obj_data_and_with_classes_txt(tmp_path: Path) -> None:
    image(tmp_path / "d/obj_train_data/a.png")
    write(tmp_path / "d/obj_train_data/a.txt", "0 0.5 0.5 0.2 0.25")
    write(tmp_path / "d/train.txt", "data/obj_train_data/a.png\n")
    write(tmp_path / "d/obj.names", "cat\ndog\n")
    write(tmp_path / "d/obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    assert truth(data.open(tmp_path / "d", "detect"), "train") == {"a": [("cat", [40, 30, 60, 50])]}
    yolo(tmp_path / "e")
    write(tmp_path / "e/classes.txt", "cat\ndog\n")
    assert truth(data.open(tmp_path / "e", "detect"), "val") == {"a": [("dog", [40, 30, 60, 50])], "b": []}
    (tmp_path / "e/classes.txt").unlink()
    source = data.open(tmp_path / "e", "detect")  # numbers, and that is said
    assert truth(source, "val") == {"a": [("1", [40, 30, 60, 50])], "b": []} and source.classes == ["0", "1"]
    assert [problem.kind for problem in source.problems] == ["unnamed_classes"]


def test_yolo_sees_the_image_as_it_is_read(tmp_path: Path) -> None:
    yolo(tmp_path)
    write(tmp_path / "data.yaml", "train: images/train\nnames: [cat, dog]\n")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    path = tmp_path / "images/train/a.png"
    Image.open(path).save(path.with_suffix(".jpg"), exif=exif)
    path.unlink()
    source = data.open(tmp_path, "detect")
    assert source.splits["train"].read(0).shape == (3, 100, 80)
    assert truth(source, "train")["a"] == [("dog", [32, 37.5, 48, 62.5])]


def test_yolo_outlines_and_what_is_wrong(tmp_path: Path) -> None:
    lines = [
        "0 0.1 0.1 0.3 0.1 0.2 0.5",  # an outline
        "0 0.5 0.5 0.2",
        "0 0.5 0.5 0.2 0.2 0.9",
        "x 0.5 0.5 0.2 0.2",
        "7 0.5 0.5 0.2 0.2",
        "0.5 0.5 0.5 0.2 0.2",
        "0 50 40 20 20",
        "0 0.5 0.5 0 0.2",
        "0 0.9 0.5 0.3 0.2",
        "0 nan 0.5 0.3 0.2",
        "-1 0.5 0.5 0.2 0.2",
    ]
    yolo(tmp_path, "\n".join(lines))
    write(tmp_path / "data.yaml", "train: images/train\nnames: [cat, dog]\n")
    source = data.open(tmp_path, "detect")
    assert sorted(problems(source), key=lambda p: int(p[1].split()[-1])) == [
        ("broken_annotation", "a.txt line 2", "error"),
        ("broken_annotation", "a.txt line 3", "error"),
        ("broken_annotation", "a.txt line 4", "error"),
        ("unknown_class", "a.txt line 5", "error"),
        ("broken_annotation", "a.txt line 6", "error"),
        ("broken_annotation", "a.txt line 7", "error"),
        ("degenerate_box", "a.txt line 8", "warning"),
        ("clipped_box", "a.txt line 9", "warning"),
        ("not_finite", "a.txt line 10", "error"),
        ("unknown_class", "a.txt line 11", "error"),
    ]
    found = truth(source, "train")["a"]
    assert found[0][1] == pytest.approx([10, 8, 30, 40]) and found[1][1] == pytest.approx([75, 32, 100, 48])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train\nnc: 3\nnames: [cat, dog]", "says nc: 3 but names 2 classes"),
        ("train: images/train\nnames: [cat, cat]", "names the class 'cat' twice"),
        ("train: images/nowhere\nnames: [cat, dog]", "there is no file or folder 'images/nowhere'"),
        ("names: [cat, dog]", "names no train, val or test images"),
        ("train: images/train\nnames: {a: cat}", "'a' is not a whole number"),
        ("train: [", "cannot be read as YAML"),
    ],
)
def test_yolo_settings_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    yolo(tmp_path)
    with pytest.raises(InputError, match=message):
        data.open(write(tmp_path / "data.yaml", text), "detect")


def test_yolo_class_gaps(tmp_path: Path) -> None:
    yolo(tmp_path, "5 0.5 0.5 0.2 0.25\n1 0.5 0.5 0.2 0.2\n")
    write(tmp_path / "data.yaml", "train: images/train\nnames: {0: cat, 5: dog}\n")
    source = data.open(tmp_path, "detect")
    assert source.classes == ["cat", "dog"] and truth(source, "train")["a"][0][0] == "dog"
    assert problems(source) == [("unknown_class", "a.txt line 2", "error")]


# CSV

ROWS = [
    ["a.png", "10", "20", "30", "40.5", "dog"],
    ["a.png", "0", "0", "100", "80", "cat"],
    ["b.png", "", "", "", "", ""],
]
EXPECTED: Truth = {"a": [("dog", [10, 20, 30, 40.5]), ("cat", [0, 0, 100, 80])], "b": []}


@pytest.mark.parametrize(
    "arrange",
    [
        lambda: "\n".join(",".join(row) for row in ROWS),
        lambda: "path,x1,y1,x2,y2,label\n" + "\n".join(",".join(row) for row in ROWS),
        lambda: (
            "filename;width;height;class;xmin;ymin;xmax;ymax\n"
            + "\n".join(";".join([r[0], "100", "80", r[5], *r[1:5]]) for r in ROWS)
        ),
        lambda: "label\tx\ty\tw\th\timage\ndog\t10\t20\t20\t20.5\ta.png\ncat\t0\t0\t100\t80\ta.png\n\t\t\t\t\tb.png",
    ],
    ids=["plain", "header", "sizes", "xywh"],
)
def test_csv_columns(tmp_path: Path, arrange: Callable[[], str]) -> None:
    for name in "ab":
        image(tmp_path / f"images/{name}.png")
    write(tmp_path / "annotations.csv", arrange())
    source = data.open(tmp_path, "detect")
    assert truth(source) == EXPECTED and source.format == "CSV of boxes" and not source.problems
    assert not data.verify(source)


def test_csv_splits(tmp_path: Path) -> None:
    header = "path,x1,y1,x2,y2,label,split,ignore\n"
    rows = "a.png,1,2,3,4,dog,train,0\nb.png,1,2,3,4,cat,Test,0\na.png,1,2,3,5,dog,training,1\nc.png,,,,,,val,\n"
    source = data.open(write(tmp_path / "x.csv", header + rows), "detect")
    assert list(source.splits) == ["train", "val", "test"]
    assert truth(source, "train") == {"a": [("dog", [1, 2, 3, 4]), ("ignored", [1, 2, 3, 5])]}
    for split in ("train", "val"):
        write(tmp_path / f"two/{split}.csv", f"{split}.png,1,2,3,4,dog\n")
    assert list(truth(data.open(tmp_path / "two", "detect"), "val")) == ["val"]


def test_csv_what_is_wrong_has_its_line(tmp_path: Path) -> None:
    rows = [
        "a.png,1,2,3,x,dog",
        "a.png,1,2,3",
        ",1,2,3,4,dog",
        "a.png,1,2,3,4,",
        "a.png,5,2,3,4,dog",
        "a.png,1,1,9,9,dog",
    ]
    source = data.open(write(tmp_path / "x.csv", "path,x1,y1,x2,y2,label\n" + "\n".join(rows)), "detect")
    assert problems(source) == [
        *[("broken_annotation", f"x.csv line {n}", "error") for n in (2, 3, 4, 5)],
        ("degenerate_box", "x.csv line 6", "warning"),
    ]
    assert truth(source) == {"a": [("dog", [1, 1, 9, 9])]}
    for text, message in (
        ("path,label\na.png,dog", "has the columns path, label"),
        ("a.png,dog", "has 2 columns in its first row"),
        ("path,x1,y1,x2,y2,label\n", "lists no images"),
    ):
        with pytest.raises(InputError, match=message):
            data.open(write(tmp_path / "y.csv", text), "detect")


# All of them


def test_no_boxes_at_all_and_one_class(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    source = data.open(write(tmp_path / "x.csv", "path,x1,y1,x2,y2,label\na.png,,,,,\n"), "detect")
    with pytest.raises(InputError, match="no image of the all split has a box"):
        data.check_trainable(source)
    one = data.open(write(tmp_path / "y.csv", "a.png,1,2,30,40,dog\n"), "detect")
    data.check_trainable(one)  # a detector of one class is a fine one
    assert one.classes == ["dog"] and one.splits["all"].kind.presence.tolist() == [[1]]


def test_thousands_of_boxes(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    corners = np.random.RandomState(0).uniform(0, 70, (5000, 2))
    rows = [f"a.png,{x},{y},{x + 5},{y + 7},dog" for x, y in corners]
    source = data.open(write(tmp_path / "x.csv", "\n".join(rows)), "detect")
    (one,) = source.splits["all"].kind.instances
    assert len(one) == 5000 and bool(one.boxes.isfinite().all())
    preprocessing = data.Preprocessing(size=(16, 16), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    (batch,) = data.create_loader(source.splits["all"], preprocessing, batch_size=2)
    assert len(batch["instances"][0]) == 5000


def test_an_image_of_another_size_than_its_boxes(tmp_path: Path) -> None:
    voc(tmp_path / "Annotations/a.xml", voc_object("dog", (5, 5, 99, 30)))
    image(tmp_path / "JPEGImages/a.png", (80, 100))  # lies on its side
    source = data.open(tmp_path, "detect")
    (problem,) = data.verify(source)
    assert (
        problem.path.endswith("a.png")
        and "it has 80x100 pixels (width x height), but its boxes reach to 99, 30" in problem.reason
    )
    assert len(source.without([problem]).splits["all"].kind.instances) == 0


def test_folders_of_no_known_format(tmp_path: Path) -> None:
    image(tmp_path / "cats/a.png")
    image(tmp_path / "dogs/a.png")
    with pytest.raises(InputError, match=r"is a folder of no known format of boxes; expected Pascal VOC"):
        data.open(tmp_path, "detect")
    with pytest.raises(InputError, match="is a file of no known format of boxes"):
        data.open(tmp_path / "cats/a.png", "detect")
    write(tmp_path / "boxes.csv", "cats/a.png,1,2,30,40,cat\n")
    write(tmp_path / "data.yaml", "train: dogs\nnames: [dog]\n")
    assert ("several_formats", tmp_path.name, "note") in problems(data.open(tmp_path, "detect"))


@pytest.mark.real_data
def test_blood_cells(data_dir: Path) -> None:
    source = data.open(data_dir / "bccd", "detect")
    assert {key: len(split) for key, split in source.splits.items()} == {"train": 205, "val": 87, "test": 72}
    assert source.classes == ["Platelets", "RBC", "WBC"]
    assert sum(len(one) for split in source.splits.values() for one in split.kind.instances) == 4888 - 2
    assert sorted(problems(source)) == [
        ("degenerate_box", "BloodImage_00338.xml line 158", "warning"),
        ("degenerate_box", "BloodImage_00343.xml line 50", "warning"),
    ]
    data.check_trainable(source)


@pytest.mark.real_data
def test_one_set_in_three_formats(data_dir: Path) -> None:
    places = {"voc": "voc100", "coco": "voc100/coco/instances.json", "yolo": "voc100/labels_yolo"}
    opened = {key: data.open(data_dir / place, "detect") for key, place in places.items()}
    found = {}
    for key, source in opened.items():
        assert not source.problems and not data.verify(source)
        (split,) = source.splits
        found[key] = {name: sorted((box, label) for label, box in one) for name, one in truth(source, split).items()}
    for name, expected in found["coco"].items():
        boxes = torch.tensor([box for box, _ in expected])
        theirs = torch.tensor([box for box, _ in found["yolo"][name]])
        assert torch.allclose(boxes, theirs, atol=1e-3)  # six digits
        assert [label for _, label in expected] == [label for _, label in found["yolo"][name]]
        # The converter left VOC's first pixel at 1; ours counts it from 0, as VOC's own evaluation means it.
        ours = torch.tensor([box for box, _ in found["voc"][name]]) + torch.tensor([1.0, 1, 0, 0])
        assert torch.allclose(boxes, ours, atol=1e-3)
        labels = [(a, b) for (_, a), (_, b) in zip(expected, found["voc"][name], strict=True) if b != "ignored"]
        assert all(a == b for a, b in labels)
    assert sum(label == "ignored" for one in found["voc"].values() for _, label in one) == 38  # difficult


def test_ids_and_classes_of_another_kind_have_their_place(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    box = {"bbox": [1, 1, 9, 9], "image_id": 1, "category_id": 1}
    content = {
        "images": [
            {"id": 1, "file_name": "a.png"},
            {"id": [2], "file_name": "a.png"},
            {"id": {}, "file_name": "a.png"},
        ],
        "annotations": [box, {**box, "image_id": [1]}, {**box, "category_id": [1]}, {**box, "category_id": None}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    source = data.open(write(tmp_path / "x.json", json.dumps(content)), "detect")
    assert truth(source) == {"a": [("cat", [1, 1, 10, 10])]}
    places = ["images[1]", "images[2]", "annotations[1]", "annotations[2]", "annotations[3]"]
    assert [Path(p.path).name.removeprefix("x.json ") for p in source.problems] == places
    assert {p.severity for p in source.problems} == {"error"}

    image(tmp_path / "yolo/images/a.png")
    write(tmp_path / "yolo/classes.txt", "cat")
    write(tmp_path / "yolo/labels/a.txt", "nan .5 .5 .1 .1\ninf .5 .5 .1 .1\n.5 .5 .5 .1 .1\n0 .5 .5 .5 .5")
    source = data.open(tmp_path / "yolo", "detect")
    assert len(truth(source)["a"]) == 1
    reasons = [p.reason for p in source.problems]
    assert reasons == [f"the class is {written}; expected a whole number" for written in ("nan", "inf", ".5")]

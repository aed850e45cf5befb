"""CVAT, labelme, KITTI, Open Images, WIDER FACE, CreateML, DOTA and bare YOLO: each sample opens to what it means."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import data
from opsin.errors import InputError

Truth = dict[str, list[tuple[str, list[float]]]]


def image(path: Path, size: tuple[int, int] = (100, 80)) -> Path:
    """An image of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def truth(source: data.Source, split: str = "all") -> Truth:
    """Of each image its objects, corners to a thousandth."""
    part, found = source.splits[split], {}
    for k, one in enumerate(part.kind.instances):
        names = [source.classes[label] if label >= 0 else "ignored" for label in one.labels.tolist()]  # type: ignore[union-attr]
        boxes = [[round(value, 3) for value in box] for box in one.boxes.tolist()]
        found[Path(part.name(k)).stem] = list(zip(names, boxes, strict=True))
    return found


def problems(source: data.Source) -> list[tuple[str, str]]:
    return [(p.kind, Path(p.path).name) for p in source.problems]


# CVAT

_CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><name>t</name><labels><label><name>dog</name><attributes><attribute><name>age</name></attribute>
  </attributes></label><label><name>cat</name></label></labels></task></meta>
  <image id="0" name="a.png" subset="Train" width="100" height="80">
    <box label="cat" source="manual" occluded="1" xtl="10.5" ytl="20" xbr="30" ybr="40.25" z_order="0"></box>
    <box label="dog" occluded="0" xtl="40" ytl="30" xbr="60" ybr="40" rotation="90"></box>
    <polygon label="dog" occluded="0" points="1,2;21,2;11,32"/>
    <mask label="cat" occluded="0" rle="1, 2, 3" left="5" top="6" width="3" height="2"/>
    <polyline label="cat" points="1,2;3,4"/>
    <tag label="dog" source="manual"></tag>
  </image>
  <image id="1" name="sub\\b.png" subset="Validation" width="100" height="80"></image>
</annotations>"""


def cvat(folder: Path, text: str = _CVAT) -> Path:
    image(folder / "images/a.png")
    image(folder / "images/sub/b.png")
    write(folder / "annotations.xml", text)
    return folder


def test_cvat(tmp_path: Path) -> None:
    source = data.open(cvat(tmp_path), "detect")
    assert source.format == "CVAT" and source.classes == ["dog", "cat"] and data.recognize_task(tmp_path) == "detect"
    assert problems(source) == [("no_objects", "annotations.xml")]
    assert "1 polyline, 1 tag" in source.problems[0].reason
    assert truth(source, "train") == {
        "a": [
            ("cat", [10.5, 20, 30, 40.25]),
            ("dog", [45, 25, 55, 45]),  # 20x10 about (50, 35), a quarter turn
            ("dog", [1, 2, 21, 32]),
            ("cat", [5, 6, 8, 8]),
        ]
    }
    assert truth(source, "val") == {"b": []}
    drawn = source.splits["train"].kind.drawn.draw(0, (80, 100))
    assert not drawn[0].any() and drawn[1].sum() == 200 and drawn[2, 10, 11] and not drawn[2, 30, 2]
    runs = torch.zeros(80, 100, dtype=torch.bool)
    runs[6, 6:8] = True  # row by row: one off, two on, three off
    assert torch.equal(drawn[3], runs)
    source.splits["val"].read(0)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('<image id="0"', '<track id="0"/><image id="0"', "export the task as CVAT for images"),
        ("<annotations>", "<!DOCTYPE a [<!ENTITY x 'y'>]><annotations>", "declares an entity"),
        ("</annotations>", "", r"annotations.xml line \d+: not readable XML"),
    ],
)
def test_cvat_that_is_not_read(tmp_path: Path, old: str, new: str, reason: str) -> None:
    cvat(tmp_path, _CVAT.replace(old, new))
    with pytest.raises(InputError, match=reason):
        data.open(tmp_path, "detect")


def test_cvat_what_is_wrong_has_its_line(tmp_path: Path) -> None:
    text = _CVAT.replace('xtl="10.5"', 'xtl="ten"').replace('rle="1, 2, 3"', 'rle="1, 2, 99"')
    text = text.replace('points="1,2;21,2;11,32"', 'points="1,2;21"').replace('name="sub\\b.png"', 'name="../x.png"')
    source = data.open(cvat(tmp_path, text), "detect")
    broken = [p.path.rpartition("/")[2] for p in source.problems if p.kind == "broken_annotation"]
    assert broken == ["annotations.xml line 7", "annotations.xml line 9", "annotations.xml line 10"]
    assert Path(source.splits["val"].name(0)).parent == tmp_path / "images"  # never above the data
    source = data.open(cvat(tmp_path, _CVAT.replace('height="80"', 'height="90"', 1)), "detect")
    assert ("declared_size", "annotations.xml") in problems(source)


# labelme


def labelme(file: Path, shapes: list[dict[str, object]], **values: object) -> None:
    known = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{file.stem}.png", "imageData": None}
    write(file, json.dumps({**known, "imageHeight": 80, "imageWidth": 100, **values}))


def shape(label: object, points: object, kind: str) -> dict[str, object]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}}


@pytest.mark.parametrize("inside", ["", "annotations/"])
def test_labelme(tmp_path: Path, inside: str) -> None:
    for split in ("train", "val"):
        image(tmp_path / split / ("images/a.png" if inside else "a.png"))
        shapes = [
            shape("cat", [[30, 40], [10, 20.5]], "rectangle"),
            shape("dog", [[1, 2], [21, 2], [11, 32]], "polygon"),
            shape("dog", [[50, 40], [53, 44]], "circle"),
            shape("dog", [[5, 5]], "point"),
        ]
        labelme(tmp_path / split / f"{inside}a.json", shapes)
    source = data.open(tmp_path, "detect")
    assert source.format == "labelme" and list(source.splits) == ["train", "val"] and source.classes == ["cat", "dog"]
    found = truth(source, "train")["a"]
    assert found[:2] == [("cat", [10, 20.5, 30, 40]), ("dog", [1, 2, 21, 32])]
    assert found[2] == ("dog", [45, 35, 55, 45])  # a radius of 5
    assert {kind for kind, _ in problems(source)} == {"no_objects"}
    area = source.splits["train"].kind.drawn.draw(0, (80, 100))[2].sum().item()
    assert area == pytest.approx(np.pi * 25, rel=0.05)


def test_labelme_what_is_wrong_has_its_place(tmp_path: Path) -> None:
    for name in "abc":
        image(tmp_path / f"{name}.png")
    bad = [
        shape(None, [[1, 2], [3, 4]], "rectangle"),
        shape("x", [[1, "y"], [3, 4]], "rectangle"),
        shape("x", 3, "mask"),
    ]
    labelme(tmp_path / "a.json", bad)
    write(tmp_path / "b.json", '{"shapes": [')
    source = data.open(tmp_path, "detect")
    assert problems(source) == [
        ("broken_annotation", "a.json shapes[0]"),
        ("broken_annotation", "a.json shapes[1]"),
        ("broken_annotation", "a.json shapes[2]"),
        ("broken_annotation", "b.json line 1"),
        ("unannotated", tmp_path.name),
    ]
    labelme(tmp_path / "a.json", [], imageHeight=90)
    assert ("declared_size", "a.json") in problems(data.open(tmp_path, "detect"))


# KITTI

_KITTI = (
    "Car 0.00 0 -1.58 10.50 20.00 30.00 40.25 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
    "DontCare -1 -1 -10 50.00 10.00 60.00 20.00 -1 -1 -1 -1000 -1000 -1000 -10\n"
)


def kitti(folder: Path) -> Path:
    for name in ("000000", "000001"):
        image(folder / f"training/image_2/{name}.png")
        write(folder / f"training/label_2/{name}.txt", _KITTI if name == "000000" else "")
    image(folder / "testing/image_2/000000.png")
    return folder


def test_kitti(tmp_path: Path) -> None:
    source = data.open(kitti(tmp_path), "detect")
    assert source.format == "KITTI" and source.classes == ["Car"] and data.recognize_task(tmp_path) == "detect"
    assert truth(source) == {
        "000000": [("Car", [10.5, 20, 30, 40.25]), ("ignored", [50, 10, 60, 20])],
        "000001": [],
    }
    assert problems(source) == [("unlabelled", "testing")]
    write(tmp_path / "ImageSets/train.txt", "000000\n")
    write(tmp_path / "ImageSets/val.txt", "000001\n")
    write(tmp_path / "ImageSets/test.txt", "000000\n000001\n000002\n")
    source = data.open(tmp_path, "detect")
    assert {key: list(truth(source, key)) for key in ("train", "val")} == {"train": ["000000"], "val": ["000001"]}
    write(tmp_path / "training/label_2/000001.txt", "Car 1 2 3\n" + _KITTI.replace("10.50", "x"))
    lines = [path for kind, path in problems(data.open(tmp_path, "detect")) if kind == "broken_annotation"]
    assert lines == ["000001.txt line 1", "000001.txt line 2"]


# Open Images

_OPEN = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)


def openimages(folder: Path) -> Path:
    image(folder / "train/a1.jpg")
    image(folder / "validation/b1.jpg")
    rows = "a1,xclick,/m/01,1,0.1,0.3,0.25,0.5,0,0,0,0,0\na1,xclick,/m/02,1,0.5,0.6,0,1,0,0,1,0,0\n"
    write(folder / "train-annotations-bbox.csv", _OPEN + rows + "zz,xclick,/m/02,1,0,1,0,1,0,0,0,0,0\n")
    write(folder / "validation-annotations-bbox.csv", _OPEN + "b1,xclick,/m/02,1,0.5,0.6,0,1,-1,-1,-1,1,-1\n")
    write(folder / "class-descriptions-boxable.csv", "/m/02,Zebra\n/m/01,Apple\n/m/03,Never\n")
    return folder


def test_openimages(tmp_path: Path) -> None:
    source = data.open(openimages(tmp_path), "detect")
    assert source.format == "Open Images" and source.classes == ["Zebra", "Apple"]
    assert truth(source, "train") == {"a1": [("Apple", [10, 20, 30, 40]), ("ignored", [50, 0, 60, 80])]}
    assert truth(source, "val") == {"b1": [("Zebra", [50, 0, 60, 80])]}
    assert problems(source) == [("missing_images", "train-annotations-bbox.csv")]
    write(
        tmp_path / "train-annotations-bbox.csv",
        _OPEN + "a1,x,/m/01,1,10,30,25,50,0,0,0,0,0\na1,x,/m/01,1,0,1,0,1,0,0,2,0,0\n",
    )
    assert problems(data.open(tmp_path, "detect")) == [
        ("broken_annotation", "train-annotations-bbox.csv line 2"),
        ("broken_annotation", "train-annotations-bbox.csv line 3"),
    ]


# WIDER FACE


def wider_face(folder: Path) -> Path:
    image(folder / "WIDER_train/images/0--Parade/a.jpg")
    image(folder / "WIDER_train/images/0--Parade/b.jpg")
    image(folder / "WIDER_val/images/1--Talk/c.jpg")
    rows = "0--Parade/a.jpg\n2\n10 20 20 20 2 0 0 0 2 0\n1 2 3 4 0 0 0 1 0 0\n"
    write(folder / "wider_face_split/wider_face_train_bbx_gt.txt", rows + "0--Parade/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n")
    write(folder / "wider_face_split/wider_face_val_bbx_gt.txt", "1--Talk/c.jpg\n1\n1 1 9 9 0 0 0 0 0 0 \n")
    return folder


def test_wider_face(tmp_path: Path) -> None:
    source = data.open(wider_face(tmp_path), "detect")
    assert source.format == "WIDER FACE" and source.classes == ["face"] and not source.problems
    assert truth(source, "train") == {"a": [("face", [10, 20, 30, 40]), ("ignored", [1, 2, 4, 6])], "b": []}
    assert truth(source, "val") == {"c": [("face", [1, 1, 10, 10])]}
    source.splits["val"].read(0)
    write(tmp_path / "wider_face_split/wider_face_val_bbx_gt.txt", "1--Talk/c.jpg\n9\n1 1 9 9 0 0 0 0 0 0 \n")
    with pytest.raises(InputError, match=r"wider_face_val_bbx_gt.txt line 2: 9 faces"):
        data.open(tmp_path, "detect")


# CreateML


def test_createml(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        image(tmp_path / split / "a.jpg")
        where = {"x": 20, "y": 30, "width": 20, "height": 20}
        rows = [
            {"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": where}, {"label": 3, "coordinates": 1}]}
        ]
        write(tmp_path / split / "_annotations.createml.json", json.dumps(rows))
    source = data.open(tmp_path, "detect")
    assert source.format == "CreateML" and list(source.splits) == ["train", "val"]
    assert truth(source, "val") == {"a": [("cat", [10, 20, 30, 40])]}
    assert problems(source) == [("broken_annotation", "_annotations.createml.json [0].annotations[1]")] * 2
    named = tmp_path / "train/_annotations.createml.json"
    named.rename(tmp_path / "train/boxes.json")
    assert truth(data.open(tmp_path / "train/boxes.json", "detect")) == {"a": [("cat", [10, 20, 30, 40])]}


# DOTA, and YOLO's oriented boxes


def test_dota(tmp_path: Path) -> None:
    image(tmp_path / "train/images/P0000.png")
    rows = (
        "imagesource:GoogleEarth\ngsd:0.146\n20 10 40 20 30 40 10 30 small-vehicle 0\n1 1 5 1 5 5 1 5 plane 1\n1 2 3\n"
    )
    write(tmp_path / "train/labelTxt/P0000.txt", rows)
    source = data.open(tmp_path, "detect")
    assert source.format == "DOTA" and source.classes == ["plane", "small-vehicle"]
    assert truth(source, "train") == {"P0000": [("small-vehicle", [10, 10, 40, 40]), ("ignored", [1, 1, 5, 5])]}
    assert problems(source) == [("oriented_boxes", tmp_path.name), ("broken_annotation", "P0000.txt line 5")]
    drawn = source.splits["train"].kind.drawn.draw(0, (80, 100))
    assert drawn[0].sum().item() == pytest.approx(500, abs=25)  # a square of sides of sqrt(500), not its box's 900


def test_oriented_boxes_of_yolo(tmp_path: Path) -> None:
    image(tmp_path / "images/train/a.png")
    write(tmp_path / "labels/train/a.txt", "1 0.2 0.125 0.4 0.25 0.3 0.5 0.1 0.375\n")
    write(tmp_path / "data.yaml", "train: images/train\nnames: [plane, ship]\n")
    source = data.open(tmp_path, "detect")
    assert truth(source, "train") == {"a": [("ship", [10, 10, 40, 40])]}
    assert problems(source) == [("oriented_boxes", "data.yaml")]
    assert source.splits["train"].kind.drawn.draw(0, (80, 100))[0].sum().item() == pytest.approx(500, abs=25)


@pytest.mark.parametrize("names", [None, "classes.txt", "obj.names", "_darknet.labels"])
def test_yolo_text_beside_the_images(tmp_path: Path, names: str | None) -> None:
    for split in ("train", "valid"):
        image(tmp_path / split / "a.jpg")
        image(tmp_path / split / "b.jpg")
        write(tmp_path / split / "a.txt", "1 0.2 0.375 0.2 0.25\n")
        write(tmp_path / split / "b.txt", "")
        if names:
            write(tmp_path / split / names, "cat\ndog\n")
    source = data.open(tmp_path, "detect")
    assert data.recognize_task(tmp_path) == "detect" and list(source.splits) == ["train", "val"]
    assert source.classes == (["cat", "dog"] if names else ["0", "1"])
    assert truth(source, "train") == {"a": [("dog" if names else "1", [10, 20, 30, 40])], "b": []}
    assert [kind for kind, _ in problems(source)] == ([] if names else ["unnamed_classes"])
    assert truth(data.open(tmp_path / "train", "detect")) == truth(source, "train")


# Tables and VOC by other names


def test_csv_of_boxes_in_split_folders(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        image(tmp_path / split / "p0.jpg")
        row = "p0.jpg,100,80,cat,10,8,40,40"
        write(tmp_path / split / "_annotations.csv", f"filename,width,height,class,xmin,ymin,xmax,ymax\n{row}\n")
    source = data.open(tmp_path, "detect")
    assert truth(source, "train") == truth(source, "val") == {"p0": [("cat", [10, 8, 40, 40])]}


def test_csv_with_the_box_in_one_column(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    write(tmp_path / "boxes.csv", 'image_id,width,height,bbox,label\na.jpg,100,80,"[10.0, 8.0, 30.0, 32.0]",cat\n')
    assert truth(data.open(tmp_path, "detect")) == {"a": [("cat", [10, 8, 40, 40])]}


@pytest.mark.parametrize("xmls", ["annots", "xmls", "labels", "annotations/xmls", "images", "Annotations/2012", "."])
def test_voc_by_other_names(tmp_path: Path, xmls: str) -> None:
    size = "<size><width>100</width><height>80</height></size>"
    box = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    text = f"<annotation><filename>a.jpg</filename>{size}<object><name>cat</name>{box}</object></annotation>"
    write(tmp_path / xmls / "a.xml", text)
    image(tmp_path / ("images/a.jpg" if xmls != "." else "a.jpg"))
    source = data.open(tmp_path, "detect")
    assert data.recognize_task(tmp_path) == "detect" and source.format == "Pascal VOC"
    assert truth(source) == {"a": [("cat", [10, 20, 30, 40])]} and not source.problems
    source.splits["all"].read(0)


@pytest.mark.parametrize("make", [cvat, kitti, openimages, wider_face])
def test_what_is_asked_for_alone_is_read_with_a_pipe_beside(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    make(tmp_path)
    for name in ("zz.xml", "zz.json", "zz.csv", "zz.txt"):
        os.mkfifo(tmp_path / name)
    data.recognize_task(tmp_path)
    data.open(tmp_path, "detect")

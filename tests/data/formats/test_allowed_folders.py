"""Files that a data set names outside of its folder: refused unless the user names theirs, and never echoed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image
from tests.processes import run_python

from opsin import data
from opsin.data.formats import annotations
from opsin.errors import InputError

SECRET = "root:x:0:0:secret"
ROW = "0 0.5 0.5 0.4 0.4\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder with two images, and another beside it with an image and a text."""
    for place in ("set/images/a.png", "set/images/b.png", "away/c.png", "away/deep/d.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (len(place), 9, 99)).save(tmp_path / place)
    for place in ("set/labels/a.txt", "set/labels/b.txt", "away/c.txt"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(ROW)
    (tmp_path / "away/secret.txt").write_text(f"{SECRET}\n")
    return tmp_path


def coco(root: Path, named: str) -> Path:
    content = {
        "images": [{"id": 1, "file_name": "images/a.png"}, {"id": 2, "file_name": named}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (root / "set/boxes.json").write_text(json.dumps(content))
    return root / "set/boxes.json"


def boxes_csv(root: Path, named: str) -> Path:
    (root / "set/b.csv").write_text(f"path,x1,y1,x2,y2,label\nimages/a.png,1,1,9,9,cat\n{named},1,1,9,9,cat\n")
    return root / "set/b.csv"


def labels_csv(root: Path, named: str) -> Path:
    (root / "set/t.csv").write_text(f"path,label\nimages/a.png,cat\n{named},dog\n")
    return root / "set/t.csv"


def yolo_list(root: Path, named: str) -> Path:
    (root / "set/train.txt").write_text(f"images/a.png\n{named}\n")
    (root / "set/data.yaml").write_text("train: train.txt\nnames: [cat]\n")
    return root / "set/data.yaml"


def darknet(root: Path, named: str) -> Path:
    (root / "set/train.txt").write_text(f"images/a.png\n{named}\n")
    (root / "set/obj.names").write_text("cat\n")
    (root / "set/obj.data").write_text("train = train.txt\nnames = obj.names\n")
    return root / "set/obj.data"


def cvat(root: Path, named: str) -> Path:
    images = "".join(
        f'<image id="{k}" name="{name}" width="40" height="30">'
        '<box label="cat" xtl="1" ytl="1" xbr="9" ybr="9"/></image>'
        for k, name in enumerate(("images/a.png", named))
    )
    (root / "set/c.xml").write_text(f"<annotations><version>1.1</version>{images}</annotations>")
    return root / "set/c.xml"


def labelme(root: Path, named: str) -> Path:
    shape = {"label": "cat", "points": [[2, 2], [20, 20]], "shape_type": "rectangle"}
    for stem, name in (("a", "images/a.png"), ("c", named)):
        content = {"version": "5.0", "flags": {}, "shapes": [shape], "imagePath": name, "imageData": None}
        (root / f"set/{stem}.json").write_text(json.dumps(content | {"imageHeight": 30, "imageWidth": 40}))
    return root / "set"


def createml(root: Path, named: str) -> Path:
    box = {"label": "cat", "coordinates": {"x": 9, "y": 9, "width": 4, "height": 4}}
    content = [{"image": name, "annotations": [box]} for name in ("images/a.png", named)]
    (root / "set/c.json").write_text(json.dumps(content))
    return root / "set/c.json"


def open_images(root: Path, named: str) -> Path:
    header = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    )
    rows = [f"{name.removesuffix('.png')},x,/m/01,1,0.1,0.5,0.1,0.5,0,0,0,0,0" for name in ("a", named)]
    (root / "set/train-annotations-bbox.csv").write_text("\n".join([header, *rows, ""]))
    (root / "set/images").rename(root / "set/train")
    return root / "set"


def wider_face(root: Path, named: str) -> Path:
    (root / "set/WIDER_train").mkdir()
    (root / "set/images").rename(root / "set/WIDER_train/images")
    (root / "set/wider_face_split").mkdir()
    rows = "".join(f"{name}\n1\n1 1 9 9 0 0 0 0 0 0\n" for name in ("a.png", named))
    (root / "set/wider_face_split/wider_face_train_bbx_gt.txt").write_text(rows)
    return root / "set"


NAMING = [coco, boxes_csv, yolo_list, darknet]
WRITERS = [
    (coco, "detect"),
    (boxes_csv, "detect"),
    (labels_csv, "classify"),
    (yolo_list, "detect"),
    (darknet, "detect"),
]


@pytest.mark.parametrize("named", ["{root}/away/c.png", "../away/c.png", "images/../../away/c.png", "link/../c.png"])
@pytest.mark.parametrize(("write", "task"), WRITERS)
def test_images_outside_are_refused_until_their_folder_is_allowed(
    write: Callable[[Path, str], Path], task: str, named: str, root: Path
) -> None:
    (root / "set/link").symlink_to(root / "away/deep")  # `..` of it is away, not set
    source = write(root, named.format(root=root))
    with pytest.raises(InputError, match="outside of the data's folder") as refused:
        data.open(source, task)
    allowed = yaml.safe_load(shlex.split(re.findall(r"--set (\S+)", str(refused.value))[0])[0].partition("=")[2])
    assert allowed == [str(root / "away")]
    (split,) = data.open(source, task, allow=allowed).splits.values()
    assert [Path(split.name(i)).resolve().name for i in range(2)] == ["a.png", "c.png"]
    assert data.open(source, task, allow=str(root)).splits  # one folder, not in a list


@pytest.mark.parametrize("named", ["{root}/away/c.png", "{up}away/c.png", "link/../c.png"])
@pytest.mark.parametrize(
    "write", [coco, boxes_csv, yolo_list, darknet, cvat, labelme, createml, open_images, wider_face]
)
def test_no_byte_outside_is_read(
    write: Callable[[Path, str], Path], named: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for its size, before it is refused."""
    up = "../../../" if write is wider_face else "../../" if write is open_images else "../"
    (root / "set/link").symlink_to(root / "away/deep")
    read: list[Path] = []
    source = write(root, named.format(root=root, up=up))
    header = annotations.read_header
    monkeypatch.setattr(annotations, "read_header", lambda path, name: (read.append(path), header(path, name))[1])
    if write in NAMING:
        with pytest.raises(InputError, match="outside of the data's folder"):
            data.open(source, "detect")
    else:  # these look for images in their own folders alone
        (split,) = data.open(source, "detect").splits.values()
        named_images = {Path(os.path.abspath(split.name(k))) for k in range(len(split))}  # noqa: PTH100
        assert all(path.is_relative_to(root / "set") for path in named_images)
    assert not [path for path in read if path.name == "c.png" and path.exists()]


@pytest.mark.parametrize(("write", "task"), WRITERS)
def test_links_within_the_folder_count_as_inside(write: Callable[[Path, str], Path], task: str, root: Path) -> None:
    (root / "set/linked").symlink_to(root / "away")
    (split,) = data.open(write(root, "linked/c.png"), task).splits.values()
    assert [split.read(i).shape for i in range(2)] == [(3, 30, 40)] * 2


@pytest.mark.parametrize(("write", "task"), WRITERS)
def test_the_folder_by_another_name_is_the_same(write: Callable[[Path, str], Path], task: str, root: Path) -> None:
    (root / "short").symlink_to(root / "set")
    source = write(root, f"{root}/short/images/b.png")  # the list knows the link, the user the folder
    assert len(next(iter(data.open(source, task).splits.values()))) == 2
    source = write(root, f"{root}/set/images/b.png")  # and the other way
    assert len(next(iter(data.open(root / "short" / source.name, task).splits.values()))) == 2


@pytest.mark.parametrize(
    "settings",
    [
        "train: images\nnames: {away}/secret.txt\n",
        "train: images\nnames: ../away/secret.txt\n",
        "train: {away}/secret.txt\nnames: [cat]\n",
        "path: {away}\ntrain: .\nnames: [cat]\n",
        "path: ../../{above}\ntrain: away\nnames: [cat]\n",
    ],
)
def test_settings_name_no_text_outside(settings: str, root: Path) -> None:
    filled = settings.format(away=root / "away", above=root.name)
    (root / "set/data.yaml").write_text(filled)
    with pytest.raises(InputError, match="outside of the data's folder") as refused:
        data.open(root / "set/data.yaml", "detect")
    assert "secret" not in str(refused.value).replace("secret.txt", "") and "root:x" not in str(refused.value)


def test_layouts_that_are_honest_open(root: Path) -> None:
    for split in ("set/project/cfg", "set/annotations", "datasets/x/labels/train"):
        (root / split).mkdir(parents=True)
    (root / "datasets/x/images/train").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(root / "datasets/x/images/train/e.png")
    (root / "datasets/x/labels/train/e.txt").write_text(ROW)
    (root / "set/data.yaml").write_text("path: ../datasets/x\ntrain: images/train\nnames: [cat]\n")
    for source in ("set/data.yaml", "set"):
        assert len(data.open(root / source, "detect").splits["train"]) == 1
    (root / "set/data.yaml").write_text("train: ../set/images\nnames: [cat]\n")  # as Roboflow writes it
    assert len(data.open(root / "set/data.yaml", "detect").splits["train"]) == 2
    (root / "set/data.yaml").unlink()
    content = json.loads(coco(root, "../images/b.png").read_text())
    content["images"][0]["file_name"] = "../images/a.png"
    (root / "set/annotations/instances.json").write_text(json.dumps(content))
    (root / "set/boxes.json").unlink()
    for source in ("set/annotations/instances.json", "set"):
        assert len(data.open(root / source, "detect").splits["all"]) == 2
    (root / "set/annotations/t.csv").write_text("path,label\n../images/a.png,cat\n../images/b.png,dog\n")
    assert len(data.open(root / "set/annotations/t.csv").splits["all"]) == 2


def test_files_that_are_not_there_stay_missing(root: Path) -> None:
    source = data.open(labels_csv(root, "/nowhere/at/all.png"))
    assert [problem.reason for problem in data.verify(source)] == ["there is no such file"]


def test_the_command_line_takes_what_the_error_says(root: Path) -> None:
    source = labels_csv(root, f"{root}/away/c.png")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return run_python(["-m", "opsin", *words], root)

    refused = run("data", str(source))
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    flags = re.findall(r"opsin data, opsin eval: (.*?);", refused.stderr)[0]
    assert " 2 images" in run("data", str(source), *shlex.split(flags)).stdout


def test_contents_are_never_shown(root: Path) -> None:
    for name, task in (("x.csv", "classify"), ("x.csv", "detect"), ("x.json", "detect"), ("x.yaml", "detect")):
        place = root / "set" / name
        place.unlink(missing_ok=True)
        place.symlink_to(root / "away/secret.txt")
        with pytest.raises(InputError) as refused:
            data.inspect(data.open(place, task))
        assert SECRET not in str(refused.value), (name, task)

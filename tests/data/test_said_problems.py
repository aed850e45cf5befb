"""What `opsin data` finds, a training refuses or says: every kind of problem, on the least data that has it."""

from __future__ import annotations

import ast
import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from opsin import data, rooms
from opsin.engine.recipe import Recipe, load_recipe
from opsin.errors import InputError


def image(path: Path, shade: int = 0, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(abs(hash((str(path), shade))) % 2**32).integers(0, 255, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def classes(root: Path, *names: str, count: int = 3) -> None:
    for name in names:
        for i in range(count):
            image(root / name / f"{i}.png")


def folders(change: Callable[[Path], object], *names: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        classes(root, *(names or ("cat", "dog")))
        change(root)
        return root

    return make


def coco(*boxes: Any, size: tuple[int, int] = (40, 30), **more: Any) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        image(root / "images/a.png")
        entries = [
            {"id": k, "image_id": 1, "category_id": one[4] if len(one) > 4 else 1, "bbox": list(one[:4])} | more
            for k, one in enumerate(boxes)
        ]
        files = [{"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}]
        named = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        (root / "annotations").mkdir()
        content = {"images": files, "annotations": entries, "categories": named}
        (root / "annotations/instances.json").write_text(json.dumps(content))
        return root

    return make


def yolo(rows: str | None, images: int = 1) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        for i in range(images):
            image(root / f"images/{i}.png")
        (root / "labels").mkdir()
        if rows is not None:
            (root / "labels/0.txt").write_text(rows)
        (root / "data.yaml").write_text("train: images\nnames: [cat]\n")
        return root

    return make


def voc(listed: str, annotated: str = "a", images: str = "a") -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        for name in images:
            image(root / f"JPEGImages/{name}.png")
        (root / "Annotations").mkdir()
        for name in annotated:
            corners = "<xmin>2</xmin><ymin>2</ymin><xmax>20</xmax><ymax>20</ymax>"
            text = f"<annotation><object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>"
            (root / f"Annotations/{name}.xml").write_text(text)
        if listed:
            (root / "ImageSets/Main").mkdir(parents=True)
            (root / "ImageSets/Main/train.txt").write_text("\n".join(listed))
        return root

    return make


def boxes_csv(root: Path) -> Path:
    image(root / "train/a.png")
    (root / "train/_annotations.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.png,cat,2,2,9,9\n")
    return root


def npz(root: Path) -> Path:
    arrays = {"x": np.zeros((4, 8, 8), np.uint8), "y": np.array([0, 1, 0, 7]), "classes": np.array(["a", "b"])}
    np.savez(root / "a.npz", **arrays)
    return root / "a.npz"


def two_categories(root: Path) -> Path:
    for split, name in (("train", "cat"), ("val", "ox")):
        image(root / f"{split}/a.png")
        content = {
            "images": [{"id": 1, "file_name": "a.png"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 9]}],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": name + "x"}],
        }
        (root / f"{split}/_annotations.coco.json").write_text(json.dumps(content))
    return root


def fax(path: Path) -> None:
    """A TIFF that libtiff reads with complaints."""
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (30, 40), np.uint8) * 255).convert("1").save(
        path, compression="group4"
    )
    content = bytearray(path.read_bytes())
    content[40:50] = bytes([255]) * 10
    path.write_bytes(content)


def maps(*values: int, size: tuple[int, int] = (40, 30)) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        for n in range(3):
            image(root / f"images/{n}.png", n)
            (root / "masks").mkdir(exist_ok=True)
            Image.fromarray(np.resize(np.array(values, np.uint8), size[::-1])).save(root / f"masks/{n}.png")
        (root / "classes.txt").write_text("road\nsky\n")
        return root

    return make


def page(text: str) -> Callable[[Path], Path]:
    """Three pages of 40x30 pixels with a quad each, and on the first one more."""

    def make(root: Path) -> Path:
        for n in range(3):
            image(root / f"{n}.png", n)
            (root / f"{n}.txt").write_text("5,5,25,5,25,15,5,15,fine\n" + (text if n == 0 else ""))
        return root

    return make


def words(label: bytes) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        rows = [b"path,text"]
        for n in range(6):
            image(root / f"{n}.png", n, (100, 32))
            rows.append(b"%d.png,%s" % (n, label if n == 0 else b"stop"))
        (root / "labels.csv").write_bytes(b"\n".join(rows))
        return root

    return make


def pairs(*rows: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        for name in "abc":
            image(root / f"{name}.png")
        (root / "pairs.csv").write_text("\n".join(["first,second,same", *rows]))
        return root / "pairs.csv"

    return make


def points(*cells: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        for n in range(len(cells)):
            image(root / f"{n}.png", n)
        rows = "".join(f"{n}.png,{x},{x}\n" for n, x in enumerate(cells))
        (root / "points.csv").write_text(f"image,nose_x,nose_y\n{rows}")
        return root

    return make


def people(root: Path) -> Path:
    for split, numbers in (("train", "123"), ("test", "4")):
        for name in [f"Ann_{k}_{n}" for k in "abcdef" for n in numbers]:
            image(root / split / f"{name}.png")
        rows = "".join(f"{split}/Ann_{k}_{n}.png,2,3\n" for k in "abcdef" for n in numbers)
        (root / f"{split}.csv").write_text(f"image,nose_x,nose_y\n{rows}")
    return root


def broken_keypoints(root: Path) -> Path:
    image(root / "a.png")
    person = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}
    people = [{**person, "keypoints": [3, 3, 2]}, {**person, "keypoints": [3, 3, 2, 1]}]
    category = {"id": 1, "name": "person", "keypoints": ["nose"]}
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": people, "categories": [category]}
    (root / "people.json").write_text(json.dumps(content))
    return root / "people.json"


def views(turn: float, **more: float) -> Callable[[Path], Path]:
    """Two views from either side. turn: the length of the first axis, 1 of a rotation."""

    def make(root: Path) -> Path:
        frames = []
        for n, side in enumerate((1.0, -1.0)):
            image(root / f"{n}.png", n)
            pose = [[side * turn, 0, 0, 0], [0, 1, 0, 0], [0, 0, side, 4 * side], [0, 0, 0, 1]]
            frames.append({"file_path": f"{n}.png", "transform_matrix": pose})
        (root / "transforms.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames, **more}))
        return root

    return make


BOX = (2, 2, 9, 9)
SPLITS = ("train/cat", "train/dog", "val/cat", "val/dog")
REFUSED, SAID = "refused", "said"
CASES: list[tuple[str, str, str, str, Callable[[Path], Path]]] = [
    ("broken_annotation", "error", REFUSED, "detect", yolo("0 .5 .5 .5\n")),
    ("missing_annotation", "error", REFUSED, "detect", voc("ab")),
    ("unknown_class", "error", REFUSED, "detect", coco(BOX, (*BOX, 7))),
    ("not_finite", "error", REFUSED, "detect", coco(BOX, ("nan", 2, 9, 9))),
    ("outside_box", "error", REFUSED, "detect", coco(BOX, (90, 2, 9, 9))),
    ("declared_size", "error", REFUSED, "detect", coco(BOX, size=(30, 40))),
    ("size_mismatch", "error", REFUSED, "detect", coco((2, 25, 9, 14), size=(30, 40))),
    ("unlabelled", "error", REFUSED, "detect", yolo(None)),
    ("untrainable", "error", REFUSED, "detect", coco(BOX, iscrowd=1)),
    ("untrainable", "error", REFUSED, "classify", folders(lambda root: shutil.rmtree(root / "dog"))),
    ("class_mismatch", "error", REFUSED, "classify", folders(lambda root: shutil.rmtree(root / "val/dog"), *SPLITS)),
    ("empty_class", "error", REFUSED, "classify", folders(lambda root: (root / "ox").mkdir())),
    ("label_out_of_range", "error", REFUSED, "classify", npz),
    ("unreadable", "error", REFUSED, "classify", folders(lambda root: (root / "cat/x.png").write_bytes(b"\x89PNG"))),
    ("conflicting_labels", "error", SAID, "classify", folders(lambda r: shutil.copy(r / "cat/0.png", r / "dog/x.png"))),
    ("leak", "error", SAID, "classify", folders(lambda r: shutil.copy(r / "train/cat/0.png", r / "val/cat"), *SPLITS)),
    ("not_a_class", "error", REFUSED, "segment", maps(0, 1, 7)),
    ("size_mismatch", "error", REFUSED, "segment", maps(0, 1, size=(20, 15))),
    ("outside_quad", "error", REFUSED, "read", page("60,60,80,60,80,70,60,70,lost\n")),
    ("wrong_encoding", "error", REFUSED, "read", words("caf\u00e9".encode("cp1252"))),
    ("pairs_of_one_kind", "error", REFUSED, "embed", pairs("a.png,b.png,1", "b.png,c.png,1")),
    ("missing_file", "error", REFUSED, "embed", pairs("a.png,b.png,1", "b.png,c.png,0", "a.png,lost.png,0")),
    ("identity_on_both_sides", "warning", SAID, "embed", folders(lambda _: None, *SPLITS[:2], "test/dog", "test/ox")),
    ("untrainable", "error", REFUSED, "landmark", points("", "", "")),
    ("broken_annotation", "error", REFUSED, "landmark", broken_keypoints),
    ("people_on_both_sides", "warning", SAID, "landmark", people),
    ("no_rotation", "error", REFUSED, "render", views(2.0)),
    ("near_beyond_far", "error", REFUSED, "render", views(1.0, near=6.0, far=2.0)),
    ("clipped_box", "warning", SAID, "detect", coco(BOX, (32, 2, 12, 9))),
    ("degenerate_box", "warning", SAID, "detect", coco(BOX, (2, 2, 0, 9))),
    ("duplicate_box", "warning", SAID, "detect", coco(BOX, BOX)),
    ("conflicting_boxes", "warning", SAID, "detect", coco(BOX, (*BOX, 2))),
    ("broken_mask", "warning", SAID, "detect", coco(BOX, segmentation=[[1, 2, 3]])),
    ("class_mismatch", "warning", SAID, "detect", two_categories),
    ("unlabelled", "warning", SAID, "detect", yolo("0 .5 .5 .5 .5\n", images=3)),
    ("unannotated", "warning", SAID, "detect", voc("", images="ab")),
    ("empty_class", "warning", SAID, "detect", coco(BOX)),
    ("ignored", "warning", SAID, "classify", folders(lambda root: classes(root, "extra"), *SPLITS)),
    ("stray", "warning", SAID, "classify", folders(lambda root: image(root / "x.png"))),
    ("unlabelled", "warning", SAID, "classify", folders(lambda r: image(r / "test/1.png"), *SPLITS)),
    ("imbalance", "warning", SAID, "classify", folders(lambda root: classes(root, "cat", count=40))),
    ("damaged_image", "warning", SAID, "classify", folders(lambda root: fax(root / "cat/x.tif"))),
    ("not_an_image", "note", SAID, "classify", folders(lambda root: (root / "cat/x.heic").write_text("x"))),
    ("unlisted", "note", SAID, "detect", voc("a", annotated="ab", images="ab")),
]


@pytest.mark.parametrize(("kind", "severity", "answer", "task", "make"), CASES)
def test_what_data_finds_a_training_refuses_or_says(
    kind: str, severity: str, answer: str, task: str, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    source = make(tmp_path)
    found = data.inspect(data.open(source, task), task).problems
    assert (kind, severity) in {(problem.kind, problem.severity) for problem in found}
    model = {
        "classify": "lenet5",
        "detect": "yolov3_tiny",
        "segment": "unet",
        "read": "crnn",
        "embed": "conv4",
        "landmark": "wing_cnn6",
        "render": "nerf",
    }[task]
    recipe = load_recipe({"task": task, "model": {"name": model}, "data": {"source": str(source)}})
    said: list[str] = []
    trains = rooms.load(rooms.find_room(task).trains or "")

    def begins(recipe: Recipe, say: Callable[[str], None]) -> None:
        for line in trains.open(recipe, say).division.lines:
            say(line)

    if answer == REFUSED:
        with pytest.raises(InputError):
            begins(recipe, said.append)
    else:
        begins(recipe, said.append)
        line = "images that are in train too" if kind == "leak" else f"{severity}: {kind.replace('_', ' ')} ("
        assert [one for one in said if one.startswith(line)], said


FOUND_AS_UNTRAINABLE = {
    "no_boxes",
    "one_class",
    "nothing_labelled",
    "no_texts",
    "one_identity",
    "single_images",
    "no_points",
}  # what a truth says to a training; `opsin data` wraps it


def test_every_kind_of_error_is_among_the_cases() -> None:
    kinds = set()
    for path in Path(data.__file__).parents[1].rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "Problem":
                continue
            severity = call.args[3] if len(call.args) > 3 else None
            said = {one.value for one in ast.walk(severity) if isinstance(one, ast.Constant)} if severity else {"error"}
            if isinstance(call.args[0], ast.Constant) and ("error" in said or isinstance(severity, ast.Name)):
                kinds.add(call.args[0].value)
    assert len(kinds) > 12
    assert kinds - FOUND_AS_UNTRAINABLE <= {kind for kind, severity, *_ in CASES if severity == "error"}


def test_files_of_other_endings_are_counted(tmp_path: Path) -> None:
    classes(tmp_path, "cat", "dog")
    for name in ("a.heic", "b.HEIC", "c.psd", "d"):
        (tmp_path / "cat" / name).write_text("x")
    recipe = load_recipe({"task": "classify", "model": {"name": "lenet5"}, "data": {"source": str(tmp_path)}})
    said: list[str] = []
    rooms.load(rooms.find_room("classify").trains or "").open(recipe, said.append)
    (line,) = said
    assert line.startswith("note: not an image (4): ") and "; 2 of .heic, 1 of .psd, 1 of no ending" in line


BOXES_BY_FOLDER: dict[str, tuple[Callable[[Path], Path], str]] = {
    "COCO": (coco(BOX), "images"),
    "YOLO": (yolo("0 .5 .5 .5 .5\n"), "images"),
    "VOC": (voc("a"), "JPEGImages"),
    "CSV": (boxes_csv, "train"),
}


@pytest.mark.parametrize("layout", BOXES_BY_FOLDER)
def test_files_of_other_endings_beside_boxes_are_counted(layout: str, tmp_path: Path) -> None:
    make, folder = BOXES_BY_FOLDER[layout]
    source = make(tmp_path)
    for name in ("a.heic", "b.HEIC", "c.dng", "notes.txt", ".hidden", "LICENSE"):
        (tmp_path / folder / name).write_text("x")
    found = [one for one in data.inspect(data.open(source, "detect"), "detect").problems if one.kind == "not_an_image"]
    assert [one.path for one in found] == [str(tmp_path / folder / name) for name in ("a.heic", "b.HEIC", "c.dng")]
    recipe = load_recipe({"task": "detect", "model": {"name": "yolov3_tiny"}, "data": {"source": str(source)}})
    said: list[str] = []
    with contextlib.suppress(InputError):  # there is too little to divide
        rooms.load(rooms.find_room("detect").trains or "").open(recipe, said.append)
    (line,) = [one for one in said if one.startswith("note: not an image (3): ")]
    assert "; 2 of .heic, 1 of .dng" in line

"""Which text file of YOLO is an image's, and what it means that there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from opsin import data
from opsin.errors import InputError

ROW = "0 0.5 0.5 0.5 0.5\n"


def lay_out(root: Path, images: list[str], labels: list[str], train: str | None = "images") -> data.Source:
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(root / name)
    for name in labels:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(ROW)
    if train is not None:
        (root / "data.yaml").write_text(f"{train if ':' in train else f'train: {train}'}\nnames: [cat]\n")
    return data.open(root, "detect")


def counts(source: data.Source, split: str = "train") -> dict[str, list[list[float]]]:
    """The boxes of each image, by its name."""
    one = source.splits[split]
    return {Path(one.name(i)).name: one.kind.at(i).boxes.tolist() for i in range(len(one))}


@pytest.mark.parametrize(
    ("image", "label", "train"),
    [
        ("images/a.png", "labels/a.txt", "images"),
        ("images/a.png", "Labels/a.txt", "images"),
        ("Images/a.png", "LABELS/a.txt", "Images"),
        ("images/a.png", "labels/a.TXT", "images"),
        ("images/train/x/a.png", "labels/train/x/a.txt", "images/train"),
        ("images/train/x/a.png", "Labels/train/x/a.Txt", "images/train"),
        ("train/images/a.png", "train/Labels/a.txt", "train/images"),
        ("images/train/images/a.png", "labels/train/images/a.txt", "images/train"),
        ("images/train/images/a.png", "images/train/labels/a.txt", "images/train/images"),
        ("JPEGImages/a.png", "labels/a.txt", "JPEGImages"),
        ("photos/a.png", "photos/a.TXT", "photos"),
    ],
)
def test_the_text_file_of_an_image(image: str, label: str, train: str, tmp_path: Path) -> None:
    source = lay_out(tmp_path, [image], [label], train)
    assert counts(source) == {"a.png": [[10.0, 5.0, 30.0, 15.0]]} and not source.problems


@pytest.mark.parametrize(("images", "labels"), [("Images", "Labels"), ("images", "LABELS")])
def test_folders_in_capitals_need_no_yaml(images: str, labels: str, tmp_path: Path) -> None:
    names = [f"{images}/{split}/a.png" for split in ("train", "val")]
    texts = [f"{labels}/{split}/a.txt" for split in ("train", "val")]
    source = lay_out(tmp_path, names, texts, None)
    assert list(source.splits) == ["train", "val"] and all(
        len(counts(source, key)["a.png"]) == 1 for key in source.splits
    )


def test_missing_text_files_are_background_and_counted(tmp_path: Path) -> None:
    source = lay_out(tmp_path, ["images/a.png", "images/b.png", "images/c.png"], ["labels/a.txt"])
    (tmp_path / "labels/b.txt").touch()  # an empty one says that there is nothing
    source = data.open(tmp_path, "detect")
    assert {name: len(boxes) for name, boxes in counts(source).items()} == {"a.png": 1, "b.png": 0, "c.png": 0}
    (problem,) = source.problems
    assert (problem.kind, problem.severity) == ("unlabelled", "warning")
    assert problem.reason.startswith("1 of 3 train images have no text file and count as without objects")
    assert problem.reason.endswith("c.png the first")


def test_a_split_without_any_text_file_is_no_background(tmp_path: Path) -> None:
    splits = "train: images/train\nval: images/val\ntest: images/test"
    names = [f"images/{split}/a.png" for split in ("train", "val", "test")]
    source = lay_out(tmp_path, names, ["labels/train/a.txt"], splits)
    assert list(source.splits) == ["train"]
    assert [(one.severity, one.reason.partition(",")[0]) for one in source.problems] == [
        ("warning", f"none of the 1 {split} images has a text file") for split in ("val", "test")
    ]
    (tmp_path / "labels/train/a.txt").unlink()
    with pytest.raises(InputError, match=r"none of the 1 train images has a text file; expected labels/NAME\.txt"):
        data.check_trainable(data.open(tmp_path, "detect"))


def test_a_class_without_a_name(tmp_path: Path) -> None:
    lay_out(tmp_path, ["images/a.png"], ["labels/a.txt"])
    (tmp_path / "data.yaml").write_text("train: images\nnames: ['  ']\n")
    with pytest.raises(InputError, match="has a class without a name"):
        data.open(tmp_path, "detect")

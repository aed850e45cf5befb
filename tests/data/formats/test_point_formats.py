"""Tables of points: what they say, and what is wrong with them, by line and column."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opsin import data
from opsin.data.formats.csv_points import find_columns
from opsin.data.named_points import NamedPoints
from opsin.errors import InputError


def picture(path: Path, size: tuple[int, int] = (20, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(str(path))).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(path)


def table(folder: Path, text: str, name: str = "points.csv") -> Path:
    for stem in "abc":
        picture(folder / f"{stem}.png")
    (folder / name).write_text(text)
    return folder / name


def truth_of(source: data.Source, split: str = "all") -> NamedPoints:
    return source.splits[split].kind


def test_headers_of_names_and_of_numbers() -> None:
    named = find_columns(["file", "left_x", "left_y", "left_visible", "Nose_x", "Nose_y"])
    assert named is not None and named.names == ("left", "Nose")
    assert named.places == ((1, 2), (4, 5)) and named.visible == (3, None) and named.path == 0
    numbered = find_columns(["", *map(str, range(6))])
    assert numbered is not None and numbered.names == ("0", "1", "2") and numbered.places[2] == (5, 6)
    assert (
        find_columns(["image", "label"]) is None and find_columns(["image", "min_x", "min_y", "max_x", "max_y"]) is None
    )


def test_a_table_with_hidden_and_unknown_points(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "image,eye_x,eye_y,eye_visible,tail_x,tail_y\na.png,1.5,2,1,,\nb.png,3,4,0,5,nan\n\nc.png,7,8,1,9,1\n",
    )
    assert data.recognize_task(path) == "landmark"
    source = data.open(path, "landmark")
    truth = truth_of(source)
    assert list(truth.names) == ["eye", "tail"] and source.splits["all"].name(2).endswith("c.png")
    assert np.array_equal(truth.points[0], [[1.5, 2], [np.nan, np.nan]], equal_nan=True)
    assert truth.known.tolist() == [[True, False], [True, False], [True, True]]
    assert truth.visible.tolist() == [[True, False], [False, False], [True, True]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,eye_x,eye_y\na.png,1,x\n", "line 2, column 'eye_y': 'x' is not a number"),
        ("image,eye_x,eye_y\na.png,1,inf\n", "line 2, column 'eye_y': inf is no place in an image"),
        ("image,eye_x,eye_y\na.png,1\n", "line 2: 2 columns, expected 3"),
        ("image,eye_x,eye_y\n,1,2\n", "line 2: the name of the image is empty"),
        ("image,eye_x,eye_y,eye_v\na.png,1,2,3\n", "line 2, column 'eye_v': '3' is neither true nor false"),
        ("image,eye_x,eye_y\n", "lists no images"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        data.open(table(tmp_path, text), "landmark")


def test_a_table_for_each_split_and_people_on_both_sides(tmp_path: Path) -> None:
    names = [f"Ann_{k}_{n}.png" for k in "abcdef" for n in (1, 2)]
    for split, own in (("training", names[:-1]), ("test", names[-1:])):
        rows = "".join(f"{name},1,2,3,4\n" for name in own)
        (tmp_path / f"{split}_points.csv").write_text(f",0,1,2,3\n{rows}")
        for name in own:
            picture(tmp_path / split / name)
    source = data.open(tmp_path, "landmark")
    assert {key: len(split) for key, split in source.splits.items()} == {"train": 11, "test": 1}
    assert source.splits["test"].read(0).shape == (3, 10, 20)
    (problem,) = source.problems
    assert problem.kind == "people_on_both_sides" and "1 of 1 images in test" in problem.reason
    assert "Ann_f" in problem.reason
    pooled = data.open(tmp_path, "landmark", pool_splits=True, person_before="_")
    assert list(pooled.splits) == ["all"] and len(pooled.splits["all"]) == 12 and not pooled.problems
    people = truth_of(pooled).groups()
    assert people is not None and people[0] == "Ann_a" and len(set(people)) == 6
    parts = data.divide(pooled, split="hash", val_fraction=0.2, test_fraction=0.3)
    owners = [set(split.kind.people) for split in parts.values()]
    assert sum(map(len, owners)) == 6  # nobody twice


def test_tables_of_other_points_are_refused(tmp_path: Path) -> None:
    table(tmp_path, "image,eye_x,eye_y\na.png,1,2\n", "train.csv")
    table(tmp_path, "image,ear_x,ear_y\nb.png,1,2\n", "test.csv")
    with pytest.raises(InputError, match=r"test.csv has 1 points by other names than .*train.csv"):
        data.open(tmp_path, "landmark")


def test_drawn_faces_have_exact_points_and_the_same_beginning() -> None:
    few, more = (data.open(f"drawn_faces:{n}", "landmark") for n in (4, 9))
    for place in range(4):
        assert (few.splits["train"].read(place) == more.splits["train"].read(place)).all()
    truth = truth_of(more, "train")
    assert truth.flip == (3, 2, 1, 0, 4, 6, 5, 7, 8, 9) and truth.visible[:3].all() and not truth.visible[3::4].all()
    image, point = few.splits["train"].read(0).float(), truth.points[0]
    inner = (point[1] * 0.5 + point[0] * 0.5).astype(int)  # the middle of an eye is its pupil, and dark
    outside = (point[9] + (0, 6)).astype(int).clip(0, 95)
    assert image[:, inner[1], inner[0]].mean() < image[:, outside[1], outside[0]].mean() + 60
    with pytest.raises(InputError, match="drawn_faces:N"):
        data.open("drawn_faces:0", "landmark")


@pytest.mark.skipif(not os.environ.get("OPSIN_DATA"), reason="needs face_keypoints68 in OPSIN_DATA")
def test_published_faces_are_recognised_as_the_68_points_of_300w() -> None:
    source = data.open("face_keypoints68", "landmark")
    assert {key: len(split) for key, split in source.splits.items()} == {"train": 400, "test": 120}
    assert set(truth_of(source, "test").eyes) == {"inter_ocular", "inter_pupil"}
    (problem,) = source.problems
    assert (
        "115 of 120 images in test show people who are in train too" in problem.reason
    )  # counted by the data's README

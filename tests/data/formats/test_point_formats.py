"""Tables of points: what they say, and what is wrong with them, by line and column."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

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


def coco(folder: Path, **person: object) -> Path:
    """Two people in an image of 40x30, and a crowd; the second has a hidden point and one that is not labelled."""
    picture(folder / "images" / "a.png", (40, 30))
    people = [
        {"image_id": 7, "category_id": 3, "bbox": [4, 6, 10, 8], "keypoints": [5, 7, 2, 9, 8, 2, 8, 12, 2]},
        {"image_id": 7, "category_id": 3, "bbox": [30, 0, 8, 20], "keypoints": [31, 2, 2, 33, 9, 1, 0, 0, 0]} | person,
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 40, 30], "keypoints": [1, 1, 2] * 3, "iscrowd": 1},
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 40, 30], "keypoints": [0] * 9},
    ]
    category = {"id": 3, "name": "person", "keypoints": ["nose", "left_hand", "right_hand"]}
    content = {"images": [{"id": 7, "file_name": "a.png"}], "annotations": people, "categories": [category]}
    (folder / "people.json").write_text(json.dumps(content))
    return folder / "people.json"


def test_people_of_coco_are_squares_with_points_in_their_own_pixels(tmp_path: Path) -> None:
    source = data.open(coco(tmp_path), "landmark")
    split, truth = source.splits["all"], truth_of(source)
    assert source.format == "COCO keypoints" and list(truth.names) == ["nose", "left_hand", "right_hand"]
    assert len(split) == 2 and truth.flip == (0, 2, 1)
    # A box of 10x8 about (9, 10), 1.25 times its longer side: 12 pixels from (3, 4) on; a pixel's middle is at + 0.5.
    assert split.read(0).shape == (3, 12, 12) and split.inputs.size(0) == (12, 12)
    assert np.allclose(truth.points[0], [[2.5, 3.5], [6.5, 4.5], [5.5, 8.5]])
    whole = data.open(tmp_path / "people.json", "landmark", crop="none").splits["all"]
    assert (split.read(0) == whole.read(0)[:, 4:16, 3:15]).all()
    assert np.allclose(whole.kind.points[0], [[5.5, 7.5], [9.5, 8.5], [8.5, 12.5]])
    assert truth.visible[1].tolist() == [True, False, False] and truth.known[1].tolist() == [True, True, False]
    over = split.read(1)  # 25 pixels about (34, 10): it reaches over the upper and the right border
    assert over.shape == (3, 25, 25) and not over[:, 0].any() and not over[:, :, -1].any() and over.any()


@pytest.mark.parametrize(
    ("person", "reason"),
    [
        ({"keypoints": [1, 2, 2]}, "it has 3 numbers for 3 keypoints"),
        ({"keypoints": ["x", 2, 2] * 3}, "'x' is not a number"),
        ({"bbox": [0, 0, 0, 4]}, "its bbox is 0 wide and 4 high"),
        ({"image_id": 9}, "image_id 9 is unknown"),
    ],
)
def test_broken_people_are_left_out_and_named(tmp_path: Path, person: dict[str, object], reason: str) -> None:
    source = data.open(coco(tmp_path, **person), "landmark")
    (problem,) = source.problems
    assert len(source.splits["all"]) == 1 and problem.path.endswith("annotations[1]") and problem.reason == reason


def pts(folder: Path, name: str, text: str) -> None:
    picture(folder / f"{name}.png")
    (folder / f"{name}.pts").write_text(text)


def test_pts_files_count_from_the_middle_of_the_first_pixel(tmp_path: Path) -> None:
    pts(tmp_path, "a", "version: 1\nn_points:  2\n{\n1 1\n3.5 2.25\n}\n")
    pts(tmp_path, "b", "version: 1\nn_points:  2\n{\n2 2\n3 4\n}\n")
    assert data.recognize_task(tmp_path) == "landmark"
    source = data.open(tmp_path, "landmark")
    assert np.allclose(truth_of(source).points[0], [[0.5, 0.5], [3, 1.75]])
    square = data.open(tmp_path, "landmark", crop="points", box_scale=2.0)
    assert square.splits["all"].read(0).shape == (3, 5, 5)  # twice the 2.5 pixels between the points
    for text, message in (
        ("n_points: 3\n{\n1 1\n}\n", "has 1 points and says n_points: 3"),
        ("n_points: 1\n{\n1 x\n}\n", "line 3: expected x and y"),
        ("1 1\n", "no points between braces"),
    ):
        pts(tmp_path, "a", text)
        with pytest.raises(InputError, match=message):
            data.open(tmp_path, "landmark")
    pts(tmp_path, "a", "n_points: 1\n{\n1 1\n}\n")
    with pytest.raises(InputError, match="images with 1 and with 2 points; expected as many in each"):
        data.open(tmp_path, "landmark")


def test_lists_of_wflw_and_plain_ones(tmp_path: Path) -> None:
    picture(tmp_path / "WFLW_images" / "0--Parade" / "a.jpg", (60, 60))
    numbers = [round(10 + k % 14 * 2.5, 2) for k in range(196)]
    folder = tmp_path / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    folder.mkdir(parents=True)
    line = f"{' '.join(map(str, numbers))} 10 10 50 50 0 0 1 0 0 0 0--Parade/a.jpg\n"
    (folder / "list_98pt_rect_attr_train.txt").write_text(line)
    (folder / "list_98pt_rect_attr_test.txt").write_text(line * 2)
    assert data.recognize_task(tmp_path) == "landmark"
    source = data.open(tmp_path, "landmark")
    assert {key: len(split) for key, split in source.splits.items()} == {"train": 1, "test": 2}
    assert source.splits["train"].read(0).shape == (3, 50, 50)
    assert np.allclose(truth_of(source, "train").points[0], np.reshape(numbers, (98, 2)) - 5)
    table(tmp_path, "a.png 1 2 3 4 -1 -1\nb.png 5 6 7 8 9 1\n", "plain.txt")
    plain = truth_of(data.open(tmp_path / "plain.txt", "landmark"))
    assert plain.points[1].tolist() == [[5, 6], [7, 8], [9, 1]] and np.isnan(plain.points[0, 2]).all()
    (tmp_path / "plain.txt").write_text("a.png 1 2 3 4 5 6\nb.png 1 2 3\n")
    with pytest.raises(InputError, match="line 2: 3 numbers beside the image"):
        data.open(tmp_path / "plain.txt", "landmark")


@pytest.mark.parametrize(
    "content",
    [
        {"a.png": {"nose": [1, 2], "chin": [3, 4]}, "b.png": {"chin": [7, 8, 0], "nose": None}},
        [
            {"image": "a.png", "points": {"nose": [1, 2], "chin": [3, 4]}},
            {"image": "b.png", "points": {"chin": [7, 8, 0]}},
        ],
    ],
)
def test_json_of_points_by_name(tmp_path: Path, content: object) -> None:
    table(tmp_path, json.dumps(content), "points.json")
    assert data.recognize_task(tmp_path) == "landmark"
    truth = truth_of(data.open(tmp_path, "landmark"))
    assert list(truth.names) == ["nose", "chin"] and truth.points[0].tolist() == [[1, 2], [3, 4]]
    assert truth.known[1].tolist() == [False, True] and not truth.visible[1].any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a.png": [[1, 2], [3]]}, r"'a.png': a point is \[x, y\]"),
        ({"a.png": [[1, 2]], "b.png": {"nose": [1, 2]}}, "'b.png': its points have names where others have none"),
        ({"a.png": {"nose": [1, 2]}, "b.png": {"node": [1, 2]}}, "the first image has no point 'node'"),
        ({"a.png": [[1, 1e9]]}, "is no place in an image"),
        ({"a.png": [["x", 1]]}, "'x' is not a number"),
        ({"a": 1}, "no images by name"),
    ],
)
def test_what_is_wrong_in_a_json_is_named_by_its_image(tmp_path: Path, content: object, message: str) -> None:
    from opsin.data.formats.point_json import read_json

    with pytest.raises(InputError, match=message):
        read_json(table(tmp_path, json.dumps(content), "points.json"))


def test_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "image,eye_x,eye_y\na.png,1,2\n")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"crop": "box"}, "says no boxes around"),
        ({"crop": "face"}, "crop is 'face'; expected one of box, points, none"),
        ({"crop": "points", "box_scale": 99.0}, "box_scale is 99.0; expected a number from 0.1 to 10"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            data.open(path, "landmark", **options)

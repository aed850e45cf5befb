"""Formats of identities: Omniglot, pair lists, CUB and Stanford Online Products, on the least data that has each."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opsin import data
from opsin.data.identity_trials import ListedPairs, OneShotRuns
from opsin.errors import InputError


def image(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (12, 10), shade).save(path)


def zip_folder(folder: Path, archive: Path, prefix: str = "") -> None:
    with zipfile.ZipFile(archive, "w") as opened:
        for file in sorted(folder.rglob("*.*")):
            opened.write(file, f"{prefix}{file.relative_to(folder)}")


def make_run(root: Path, name: str) -> None:
    for number in (1, 2, 3):
        image(root / name / f"test/item{number:02d}.png", number)
        image(root / name / f"training/class{number:02d}.png", number)
    pairs = [(1, 3), (2, 1), (3, 3)]
    lines = [f"{name}/test/item{a:02d}.png {name}/training/class{b:02d}.png" for a, b in pairs]
    (root / name / "class_labels.txt").write_text("\n".join(lines))


@pytest.mark.parametrize("zipped", [False, True])
def test_omniglot_takes_a_character_of_two_archives_once(tmp_path: Path, zipped: bool) -> None:
    root = tmp_path / "omniglot"
    for part, alphabets in (("small1", "AB"), ("small2", "BC")):
        for alphabet in alphabets:
            for drawing in range(3):
                image(
                    root / f"images_background_{part}" / alphabet / "character01" / f"0001_{drawing:02d}.png", drawing
                )
    make_run(root / "all_runs", "run01")
    make_run(root / "all_runs", "run02")
    if zipped:
        for name in ("images_background_small1", "images_background_small2"):
            zip_folder(root / name, tmp_path / f"{name}.zip", f"{name}/")
        zip_folder(root / "all_runs", tmp_path / "all_runs.zip")
        root = tmp_path
        (root / "omniglot").rename(tmp_path.parent / f"{tmp_path.name}_gone")
    assert data.recognize_task(root) == "embed"
    source = data.open(root, "embed")
    assert source.splits["train"].kind.names == ["A/character01", "B/character01", "C/character01"]
    assert source.splits["train"].kind.counts().tolist() == [3, 3, 3]
    assert source.splits["train"].read(8).shape == (1, 10, 12)
    runs = source.splits["test"]
    assert isinstance(runs.truth, OneShotRuns)
    # of each run three that are asked, and the two that are named as their classes
    assert runs.truth.query.tolist() == [True, True, True, False, False] * 2
    assert runs.truth.labels.tolist() == [0, 1, 0, 0, 1, 2, 3, 2, 2, 3]
    assert runs.truth.names == ["run01/class03", "run01/class01", "run02/class03", "run02/class01"]
    assert runs.name(5).endswith("run02/test/item01.png")


@pytest.mark.real_data
def test_omniglot_as_published(data_dir: Path) -> None:
    for name in ("", "all_runs.zip", "images_background_small1.zip"):
        assert data.recognize_task(data_dir / "omniglot" / name) == "embed"
    source = data.open(data_dir / "omniglot", "embed")
    assert len(source.splits["train"].kind.names) == 242
    assert (source.splits["train"].kind.counts() == 20).all()
    runs = source.splits["test"].kind
    assert len(runs) == 800
    assert (np.bincount(runs.run) == 40).all()
    assert (np.bincount(runs.labels) == 2).all()


def make_lfw(root: Path, lines: str) -> Path:
    for name, count in (("Ann_A", 2), ("Bob", 2), ("Cy", 1)):
        for number in range(count):
            image(root / "lfw" / name / f"{name}_{number + 1:04d}.jpg", number)
    (root / "pairs.txt").write_text(lines)
    return root / "pairs.txt"


def test_pairs_as_lfw_lists_them(tmp_path: Path) -> None:
    lines = "2\t1\nAnn_A\t1\t2\nAnn_A\t1\tBob\t2\nBob\t1\t2\nCy\t1\tBob\t1\n"
    file = make_lfw(tmp_path, lines)
    assert data.recognize_task(file) == "embed"
    split = data.open(tmp_path, "embed").splits["test"]
    truth = split.truth
    assert isinstance(truth, ListedPairs)
    assert [Path(split.name(i)).stem for i in range(len(split))] == [
        "Ann_A_0001", "Ann_A_0002", "Bob_0002", "Bob_0001", "Cy_0001",
    ]  # fmt: skip
    assert truth.names == ["Ann_A", "Bob", "Cy"]
    assert truth.labels.tolist() == [0, 0, 1, 1, 2]
    assert truth.pairs.tolist() == [[0, 1], [0, 2], [3, 2], [4, 3]]
    assert truth.is_same.tolist() == [True, False, True, False]
    assert truth.folds.tolist() == [0, 0, 1, 1]
    some = truth.select(np.array([3, 2, 4]))  # both Bobs and Cy
    assert some.pairs.tolist() == [[0, 1], [2, 0]]
    assert some.folds.tolist() == [1, 1]


def test_pairs_of_a_csv(tmp_path: Path) -> None:
    for name in "abc":
        image(tmp_path / f"{name}.png")
    (tmp_path / "mine.csv").write_text("image1,image2,same,fold\na.png,b.png,1,0\na,c.png,0,1\nb.png,lost.png,0,1\n\n")
    source = data.open(tmp_path / "mine.csv", "embed")
    truth = source.splits["test"].kind
    assert truth.pairs.tolist() == [[0, 1], [0, 2]]
    assert truth.labels.tolist() == [-1, -1, -1]
    assert truth.folds.tolist() == [0, 1]
    assert [(one.kind, one.path.rpartition("mine.csv ")[2]) for one in source.problems] == [("missing_file", "line 4")]
    assert "'lost.png'" in source.problems[0].reason


def test_equal_images_of_a_list_of_pairs_are_said(tmp_path: Path) -> None:
    for name in "ab":
        image(tmp_path / f"{name}.png", 7)
    image(tmp_path / "c.png", 9)
    (tmp_path / "x.csv").write_text("a,b,same\na.png,b.png,1\na.png,c.png,0\n")
    problems = data.inspect(data.open(tmp_path / "x.csv", "embed"), "embed").problems
    assert [one.kind for one in problems if one.severity != "error"] == ["duplicate"]


def write(name: str, text: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        image(root / "a.png")
        (root / name).write_text(text)
        return root / name

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (write("pairs.txt", "10\t300\nA\t1\t2\n"), "10 folds of 300 and 300 pairs, 6,000 in all, and 1 follow"),
        (write("pairs.txt", "1\nA\t1\tB\nA\t1\tB\t1\n"), "line 2: 'B' is not a whole number"),
        (write("pairs.txt", "1\nA\t1\t2\nA\t1\t2\n"), "line 3: 3 words; expected a name and a number, twice"),
        (write("x.csv", "a,b,same\na.png,a.png,maybe\n"), "line 2: 'maybe' is neither true nor false"),
        (write("x.csv", "a,b,same\na.png\n"), "line 2: 1 columns"),
        (write("x.csv", "a,b,same\nq.png,r.png,1\n"), "none of 1 pairs has its images beside the list"),
    ],
)
def test_bad_lists_of_pairs_are_refused(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        data.open(make(tmp_path), "embed")


def test_pairs_outside_the_folder_are_refused(tmp_path: Path) -> None:
    image(tmp_path / "secret.png")
    inside = tmp_path / "inside"
    image(inside / "a.png")
    (inside / "x.csv").write_text("a,b,same\na.png,../secret.png,1\n")
    with pytest.raises(InputError, match="outside"):
        data.open(inside / "x.csv", "embed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("run01/test/item01.png\n", "line 1: 1 names"),
        ("run01/test/item01.png run01/training/class77.png\n", "line 1: 'run01/training/class77.png' is not there"),
        ("../../etc/passwd run01/training/class01.png\n", "is not there"),
    ],
)
def test_bad_runs_are_refused(tmp_path: Path, change: str, message: str) -> None:
    make_run(tmp_path, "run01")
    (tmp_path / "run01/class_labels.txt").write_text(change)
    with pytest.raises(InputError, match=message):
        data.open(tmp_path, "embed")


def test_birds_are_divided_by_their_classes(tmp_path: Path) -> None:
    names = [f"{k:03d}.Bird_{k}" for k in range(1, 5)]
    for k, name in enumerate(names):
        image(tmp_path / f"images/{name}/{name}_1.jpg", k)
    (tmp_path / "images.txt").write_text("".join(f"{k} {n}/{n}_1.jpg\n" for k, n in enumerate(names, 1)))
    (tmp_path / "image_class_labels.txt").write_text("".join(f"{k} {k}\n" for k in range(1, 5)))
    source = data.open(tmp_path, "embed")
    assert data.recognize_task(tmp_path) == "embed"
    assert [source.splits[key].kind.names for key in ("train", "test")] == [names[:2], names[2:]]
    assert source.splits["test"].read(0).shape[0] == 1
    (tmp_path / "image_class_labels.txt").write_text("1 1\n7 2\n")
    with pytest.raises(InputError, match="line 2: image 7 is not in"):
        data.open(tmp_path, "embed")
    (tmp_path / "image_class_labels.txt").write_text("1 1\n")
    with pytest.raises(InputError, match="no class for image 2 and 2 more"):
        data.open(tmp_path, "embed")


def test_products_keep_their_splits(tmp_path: Path) -> None:
    for split, classes in (("train", (1, 2)), ("test", (3,))):
        lines = ["image_id class_id super_class_id path"]
        for k in classes:
            image(tmp_path / f"chair_final/{k}.JPG")
            lines.append(f"{k} {k} 1 chair_final/{k}.JPG")
        (tmp_path / f"Ebay_{split}.txt").write_text("\n".join(lines))
    source = data.open(tmp_path, "embed")
    assert [source.splits[key].kind.names for key in ("train", "test")] == [["1", "2"], ["3"]]
    assert source.splits["train"].read(1).shape == (1, 10, 12)

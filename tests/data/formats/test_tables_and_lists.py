"""Tables as competitions give them, and ImageNet's lists: names of images and of classes as they are meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opsin import data
from opsin.data.formats import image_lists
from opsin.errors import InputError


def images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 12, 3), 90, np.uint8)).save(folder / name, "PNG")
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def content(source: data.Source) -> dict[str, dict[str, str]]:
    """split -> image's stem -> its classes."""
    return {
        key: {
            Path(part.name(i)).stem: "+".join(source.classes[k] for k in part.kind.shown(i)) for i in range(len(part))
        }
        for key, part in source.splits.items()
    }


@pytest.mark.parametrize("header", ["id,label", "image_id,breed", "Image,Id", "image_name,tags"])
@pytest.mark.parametrize("folder", ["train", "train_images", "train-jpg", "train/train"])
def test_names_without_an_ending_are_found_beside_the_table(tmp_path: Path, header: str, folder: str) -> None:
    images(tmp_path, f"{folder}/a1.png", f"{folder}/b2.png", "test/a1.png", "test/c3.png")
    write(tmp_path / "train.csv", f"{header}\na1,cat\nb2,dog\n")
    write(tmp_path / "test.csv", f"{header.split(',')[0]}\na1\nc3\n")
    write(tmp_path / "sample_submission.csv", f"{header}\na1,cat\n")
    assert data.recognize_task(tmp_path) == "classify"
    source = data.open(tmp_path)
    assert content(source) == {"train": {"a1": "cat", "b2": "dog"}}
    assert [(p.kind, Path(p.path).name) for p in source.problems] == [("unlabelled", "test.csv")]
    assert Path(source.splits["train"].name(0)) == tmp_path / folder / "a1.png"


def test_one_table_of_another_name(tmp_path: Path) -> None:
    images(tmp_path, "images/a1.png", "images/b2.png")
    write(tmp_path / "metadata.csv", "image_id,diagnosis\na1,0\nb2,4\n")
    assert content(data.open(tmp_path)) == {"all": {"a1": "0", "b2": "4"}}
    write(tmp_path / "metadata.csv", "image_id,dx,age\na1,x,9\nb2,y,8\n")
    with pytest.raises(InputError, match=r"has the columns image_id, dx, age; expected path and label|holds 'x'"):
        data.open(tmp_path)


def test_class_folders_with_a_table_beside_stay_class_folders(tmp_path: Path) -> None:
    images(tmp_path, "cats/a1.png", "dogs/b2.png")
    write(tmp_path / "metadata.csv", "image_id,label\na1,x\nb2,y\n")
    assert content(data.open(tmp_path)) == {"all": {"a1": "cats", "b2": "dogs"}}


def test_columns_of_classes(tmp_path: Path) -> None:
    images(tmp_path, "images/a1.png", "images/b2.png")
    write(tmp_path / "train.csv", "image_id,scab,rust\na1,1,-1\nb2,1.0,1.0\n")
    assert content(data.open(tmp_path, multi_label=True)) == {"train": {"a1": "scab", "b2": "rust+scab"}}


@pytest.mark.parametrize(
    ("cells", "found", "noted"),
    [
        (["scab rust", "rust", "scab rust mildew"], ["scab+rust", "rust", "scab+rust+mildew"], ["parted_labels"]),
        (["golden retriever", "persian cat", "poodle"], ["golden retriever", "persian cat", "poodle"], []),
        (["big cat|dog", "dog", "big cat"], ["big cat+dog", "dog", "big cat"], []),
        (["big cat;dog", "dog", "big cat"], ["big cat+dog", "dog", "big cat"], []),
    ],
)
def test_several_labels_in_a_cell(tmp_path: Path, cells: list[str], found: list[str], noted: list[str]) -> None:
    """Blanks part labels, which is noted, unless they are those of names."""
    images(tmp_path, "images/a.png", "images/b.png", "images/c.png")
    write(tmp_path / "train.csv", "image,labels\n" + "".join(f"{n},{c}\n" for n, c in zip("abc", cells, strict=True)))
    source = data.open(tmp_path, multi_label=True)
    assert [(one.kind, one.path) for one in source.problems] == [(kind, str(tmp_path / "train.csv")) for kind in noted]
    named = content(source)["train"]
    assert [set(one.split("+")) for one in named.values()] == [set(one.split("+")) for one in found]


def test_a_name_that_two_folders_have_is_not_guessed(tmp_path: Path) -> None:
    images(tmp_path, "images1/a.png", "images2/a.png", "images1/b.png")
    write(tmp_path / "labels.csv", "id,label\na,cat\nb,dog\n")
    source = data.open(tmp_path)
    assert source.splits["all"].name(0) == str(tmp_path / "a") and Path(source.splits["all"].name(1)).exists()


# ImageNet's lists


def imagenet(folder: Path) -> Path:
    images(folder, "train/n01/x1.png", "train/n02/x2.png", "val/v1.png", "val/v2.png")
    write(folder / "train.txt", "n01/x1.png 0\nn02/x2.png 1\n")
    write(folder / "val.txt", "v1.png 1\nv2.png 0\n")
    return folder


@pytest.mark.parametrize(
    ("files", "classes"),
    [
        ({}, ["0", "1"]),
        ({"synsets.txt": "n01440764\nn02012849\n"}, ["n01440764", "n02012849"]),
        (
            {
                "synsets.txt": "n01440764\nn02012849\n",
                "synset_words.txt": "n02012849 crane\nn01440764 tench, Tinca tinca\n",
            },
            ["tench", "crane"],
        ),
        ({"LOC_synset_mapping.txt": "n01440764 crane, bird\nn02012849 crane, lift\n"}, ["crane, bird", "crane, lift"]),
        ({"classes.txt": "fish\nbird\n"}, ["fish", "bird"]),
    ],
)
def test_lists(tmp_path: Path, files: dict[str, str], classes: list[str]) -> None:
    imagenet(tmp_path)
    for name, text in files.items():
        write(tmp_path / name, text)
    source = data.open(tmp_path)
    assert source.format == "image lists" and source.classes == classes
    a, b = classes
    assert content(source) == {"train": {"x1": a, "x2": b}, "val": {"v1": b, "v2": a}}
    source.splits["val"].read(1)


def test_lists_without_numbers_name_their_folders(tmp_path: Path) -> None:
    images(tmp_path, "images/pie/1.jpg", "images/soup/2.jpg")
    write(tmp_path / "meta/train.txt", "pie/1\n")
    write(tmp_path / "meta/test.txt", "soup/2\n")
    source = data.open(tmp_path)
    assert content(source) == {"train": {"1": "pie"}, "test": {"2": "soup"}}


def test_lists_what_is_wrong_has_its_line(tmp_path: Path) -> None:
    write(imagenet(tmp_path) / "val.txt", "v1.png 1\nv2.png\n")
    with pytest.raises(InputError, match=r"val.txt line 2: neither the number of a class nor a folder"):
        data.open(tmp_path)
    write(tmp_path / "val.txt", "v1.png 1\n../../etc/passwd 0\n")
    assert Path(data.open(tmp_path).splits["val"].name(1)).is_relative_to(tmp_path)
    write(tmp_path / "synsets.txt", "n01440764\n")
    with pytest.raises(InputError, match="has the class 1, and 1 are named"):
        data.open(tmp_path)


def test_class_folders_called_by_codes_take_the_names_beside_them(tmp_path: Path) -> None:
    images(tmp_path, "train/n01440764/1.png", "train/n02012849/2.png", "val/n01440764/3.png", "val/n02012849/4.png")
    write(tmp_path / "synset_words.txt", "n02012849 crane\nn01440764 tench, Tinca tinca\nn09 x\n")
    source = data.open(tmp_path)
    assert content(source)["train"] == {"1": "tench", "2": "crane"}
    (tmp_path / "synset_words.txt").unlink()
    assert data.open(tmp_path).classes == ["n01440764", "n02012849"]


def test_an_empty_line_of_an_image_list_ends_nothing(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    (tmp_path / "train.txt").write_text("a.png 0\n\nb.png 1\n   \nc.png 0\n")
    read = list(image_lists._read(tmp_path / "train.txt", "train", tmp_path))
    assert read == [(str(tmp_path / f"{name}.png"), label) for name, label in (("a", 0), ("b", 1), ("c", 0))]

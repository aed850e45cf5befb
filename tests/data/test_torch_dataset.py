"""Data sets of other libraries as a source: torch's, torchvision's, and what looks like Hugging Face's."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

import opsin
from opsin import data
from opsin.data.loading import create_loader
from opsin.data.torch_dataset import source_of
from opsin.errors import InputError


class Colours(Dataset):
    """Twelve images of 6x8, whose red is their number; three classes in turn. form: of an image."""

    classes = ("red", "green", "blue")

    def __init__(self, form: str = "pil", count: int = 12) -> None:
        self.form, self.count, self.read = form, count, []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Any, int]:
        self.read.append(i)
        array = np.full((6, 8, 3), i, np.uint8)
        forms = {
            "pil": lambda: Image.fromarray(array),
            "array": lambda: array,
            "uint8": lambda: torch.from_numpy(array).permute(2, 0, 1),
            "float": lambda: torch.from_numpy(array).permute(2, 0, 1).float() / 255,
        }
        return forms[self.form](), i % 3


class Ready(Colours):
    """With its labels ready, as torchvision's."""

    @property
    def targets(self) -> list[int]:
        return [i % 3 for i in range(self.count)]


class Objects(Dataset):
    """Images of 20x30 with a box each, as torchvision's references have them."""

    def __init__(self, targets: list[Any]) -> None:
        self.items = targets

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Tensor, Any]:
        return torch.zeros(3, 20, 30, dtype=torch.uint8), self.items[i]


class ClassLabel:
    def __init__(self, names: list[str]) -> None:
        self.names = names


class Rows:
    """What a split of Hugging Face's `datasets` is to its users."""

    def __init__(self, features: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        self.features, self.rows, self.column_names, self.read = features, rows, list(features), []

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return [row[key] for row in self.rows]
        self.read.append(key)
        return self.rows[key]


@pytest.mark.parametrize("form", ["pil", "array", "uint8", "float"])
def test_images_in_every_form_are_the_same_pixels(form: str) -> None:
    split = source_of(Colours(form)).splits["all"]
    for i in range(12):
        assert torch.equal(split.read(i), torch.full((3, 6, 8), i, dtype=torch.uint8))
    assert split.kind.labels.tolist() == [i % 3 for i in range(12)]
    assert split.kind.classes == ["red", "green", "blue"]
    assert split.name(4) == "Colours[4]"


def test_labels_that_are_ready_are_taken_without_reading_every_image() -> None:
    slow, quick = Colours(count=200), Ready(count=200)
    one, two = source_of(slow).splits["all"], source_of(quick).splits["all"]
    assert np.array_equal(one.kind.labels, two.kind.labels)
    assert len(set(slow.read)) == 200 and len(set(quick.read)) == 3


def test_labels_that_say_otherwise_than_the_examples_are_not_taken() -> None:
    class Turned(Ready):
        @property
        def targets(self) -> list[int]:
            return [2 - i % 3 for i in range(self.count)]

    assert source_of(Turned()).splits["all"].kind.labels.tolist() == [i % 3 for i in range(12)]


def test_parts_of_data_sets_have_their_labels_ready_too() -> None:
    whole = Ready(count=40)
    parts = Subset(whole, [5, 4, 39]), ConcatDataset([Subset(whole, [1, 2, 3]), Ready(count=6)])
    labels = [source_of(part).splits["all"].kind.labels.tolist() for part in parts]
    assert labels == [[2, 1, 0], [1, 2, 0, 0, 1, 2, 0, 1, 2]]
    assert source_of(parts[0]).classes == ["red", "green", "blue"]
    images, numbers = torch.zeros(5, 1, 4, 4), torch.tensor([0, 1, 2, 1, 0])
    assert source_of(TensorDataset(images, numbers)).splits["all"].kind.labels.tolist() == numbers.tolist()


def test_selections_keep_images_with_their_labels() -> None:
    source = source_of({"train": Ready(), "validation": Ready(count=6)}, name="colours")
    assert list(source.splits) == ["train", "val"]
    part = source.splits["train"].subset([7, 2]).subset([1])
    assert part.name(0) == "colours/train[2]" and int(part.read(0)[0, 0, 0]) == 2 and part.kind.labels.tolist() == [2]


def test_classes_are_named_by_what_says_them_first() -> None:
    def classes(labels: list[Any], given: list[str] | None = None) -> tuple[list[str], list[int]]:
        items = TensorDataset(torch.zeros(len(labels), 1, 2, 2), torch.tensor(labels))
        source = source_of(items, classes=given)
        return source.classes, source.splits["all"].kind.labels.tolist()

    assert classes([0, 2, 2]) == (["0", "1", "2"], [0, 2, 2])  # a gap stays: a network may have its place
    assert classes([1, 3, -1]) == (["1", "3"], [0, 1, -1])
    assert classes([0, 1, 1], ["a", "b"]) == (["a", "b"], [0, 1, 1])
    with pytest.raises(InputError, match=r"TensorDataset\[2\] has the label 5, and there are 2 classes, 0 to 1"):
        classes([0, 1, 5], ["a", "b"])


def test_rows_of_0_and_1_are_several_labels() -> None:
    rows = torch.tensor([[1, 0, 1], [0, 0, 0]])
    items = TensorDataset(torch.zeros(2, 1, 2, 2), rows)
    assert source_of(items, multi_label=True).splits["all"].kind.labels.tolist() == rows.tolist()
    with pytest.raises(InputError, match=r"several labels; set classify\.multi_label=true"):
        source_of(items)
    single = TensorDataset(torch.zeros(2, 1, 2, 2), torch.tensor([[0, 0, 1], [1, 0, 0]]))
    assert source_of(single).splits["all"].kind.labels.tolist() == [2, 0]


def test_a_split_of_hugging_face_is_read_by_its_features() -> None:
    class Picture:
        pass

    Picture.__name__ = "Image"
    rows = [{"photo": Image.new("L", (4, 3), i), "label": i % 2} for i in range(6)]
    split = Rows({"photo": Picture(), "label": ClassLabel(["cat", "dog"])}, rows)
    source = source_of({"train": split, "validation": split}, name="pets")
    assert source.classes == ["cat", "dog"] and list(source.splits) == ["train", "val"]
    assert source.splits["train"].kind.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert torch.equal(source.splits["val"].read(5), torch.full((1, 3, 4), 5, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"unknown split of pets 'unsupervised'"):
        source_of({"train": split, "unsupervised": split}, name="pets")


def test_the_real_datasets(tmp_path: Path) -> None:
    library = pytest.importorskip("datasets")
    features = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["cat", "dog"])})
    images = [Image.fromarray(np.full((5, 7, 3), 40 * i, np.uint8)) for i in range(6)]
    made = library.Dataset.from_dict({"image": images, "label": [0, 1, 0, 1, 0, 1]}, features=features)
    source = source_of(library.DatasetDict({"train": made, "validation": made}))
    assert source.classes == ["cat", "dog"] and source.format == "Hugging Face data set"
    assert source.splits["val"].kind.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert torch.equal(source.splits["val"].read(3), torch.full((3, 5, 7), 120, dtype=torch.uint8))
    batches = create_loader(source.splits["train"], None, batch_size=6, workers=2)
    assert next(iter(batches))["label"].tolist() == [0, 1, 0, 1, 0, 1]


def test_the_real_objects_of_hugging_face() -> None:
    library = pytest.importorskip("datasets")
    kinds = {
        "bbox": library.Sequence(library.Value("float32"), length=4),
        "category": library.ClassLabel(names=["a", "b"]),
    }
    features = library.Features({"image": library.Image(), "objects": library.Sequence(kinds)})
    rows = {"image": [Image.new("RGB", (30, 20))], "objects": [{"bbox": [[1, 2, 3, 4]], "category": [1]}]}
    boxes = source_of(library.Dataset.from_dict(rows, features=features), "detect").splits["all"].kind
    assert boxes.classes == ["a", "b"] and boxes.at(0).boxes.tolist() == [[1, 2, 4, 6]] and boxes.labels.tolist() == [1]


def test_boxes_are_known_by_their_keys() -> None:
    corners = {"boxes": torch.tensor([[1.0, 2.0, 4.0, 8.0]]), "labels": torch.tensor([1])}
    sides = {"bbox": [[1, 2, 3, 6]], "category": [1]}
    annotations = [{"bbox": [1, 2, 3, 6], "category_id": 1, "iscrowd": 0}]
    for target in (corners, annotations):
        truth = source_of(Objects([target]), "detect", classes=["a", "b"]).splits["all"].kind
        assert truth.at(0).boxes.tolist() == [[1, 2, 4, 8]] and truth.labels.tolist() == [1]
    kinds = {"image": object(), "objects": {"bbox": None, "category": ClassLabel(["a", "b"])}}
    split = Rows(kinds, [{"image": np.zeros((20, 30, 3), np.uint8), "objects": sides}] * 9)
    truth = source_of(split, "detect").splits["all"].kind
    assert truth.at(8).boxes.tolist() == [[1, 2, 4, 8]] and truth.classes == ["a", "b"]
    assert sorted(set(split.read)) == [0, 4, 8]


def test_the_format_of_torchvisions_boxes_is_followed() -> None:
    from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

    boxes = BoundingBoxes([[2.5, 5.0, 3.0, 6.0]], format=BoundingBoxFormat.CXCYWH, canvas_size=(20, 30))  # type: ignore[call-overload]
    truth = source_of(Objects([{"boxes": boxes, "labels": [0]}]), "detect").splits["all"].kind
    assert truth.at(0).boxes.tolist() == [[1, 2, 4, 8]]


def test_a_background_before_the_classes_is_taken_off(capfd: pytest.CaptureFixture[str]) -> None:
    def labels(given: list[int], classes: list[str]) -> tuple[list[int], list[str]]:
        boxes = torch.tensor([[1.0, 2.0, 4.0, 8.0]] * len(given))
        truth = source_of(Objects([{"boxes": boxes, "labels": torch.tensor(given)}]), "detect", classes=classes)
        return truth.splits["all"].kind.labels.tolist(), truth.classes

    assert labels([1, 2], ["background", "a", "b"]) == ([0, 1], ["a", "b"])
    assert labels([0, 1], ["a", "b"]) == ([0, 1], ["a", "b"]) and not capfd.readouterr().err
    assert labels([1, 2], ["a", "b"]) == ([0, 1], ["a", "b"])
    assert "labels are 1 to 2, so 0 is read as the background" in capfd.readouterr().err
    assert labels([1, 1], ["a", "b"]) == ([1, 1], ["a", "b"])
    assert "no box has the label 0, a; where labels count from 1" in capfd.readouterr().err
    with pytest.raises(InputError, match=r"Objects\[0\] has a box of the class 7, which is none of 'a', 'b'"):
        labels([0, 7], ["a", "b"])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"boxes": [[4, 8, 1, 2]], "labels": [0]}, r"box 0 is 4, 8, 1, 2; expected x1, y1, x2, y2 with x2 above x1"),
        ({"boxes": [[4, 8, 50, 12]], "labels": [0]}, r"Objects\[0\]: it has 30x20 pixels .* reach to 50, 12"),
        ({"objects": {"bbox": [[1, 2, -3, 4]], "category": [0]}}, "expected x, y, width, height"),
        ({"boxes": [[1, 2, 3, 4]], "labels": [0, 1]}, "1 boxes and 2 labels"),
        ({"masks": 3}, r"the target is a dict of masks; expected \{'boxes'"),
        (3, "the target is int"),
    ],
)
def test_boxes_that_cannot_be_are_refused_with_their_index(target: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        source_of(Objects([target]), "detect")


class Endless(Dataset):
    def __getitem__(self, i: int) -> tuple[int, int]:
        return 0, 0


class Broken(Colours):
    def __getitem__(self, i: int) -> tuple[Any, int]:
        if i == 7:
            raise OSError("disk is gone")
        return super().__getitem__(i)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Endless(), "Endless has no length; give Endless a method __len__"),
        (Colours(count=0), "Colours is empty"),
        ({}, "the mapping of data sets is empty"),
        ({"train": Colours(), "trial": Colours()}, "unknown split of Colours 'trial'"),
        (iter([1]), "no data set: .* load it without streaming"),
        (Broken(), r"cannot read Broken\[7\]: OSError: disk is gone"),
        (
            TensorDataset(torch.randn(3, 3, 4, 4) * 3, torch.arange(3)),
            "leave Normalize out of the data set's transform",
        ),
        (TensorDataset(torch.zeros(3, 3, 4, 4), torch.randn(3)), r"TensorDataset\[0\]: a class label must be a number"),
        (TensorDataset(torch.zeros(3, 3, 4, 4)), r"TensorDataset\[0\] is a tuple of 1; expected \(image, target\)"),
    ],
    ids=["length", "empty", "nothing", "split", "iterator", "broken", "normalised", "target", "pair"],
)
def test_what_is_no_data_set_is_one_clear_line(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        source_of(given)


class Noisy(Ready):
    """Draws from every generator that transforms draw from."""

    def __getitem__(self, i: int) -> tuple[Any, int]:
        noise = [torch.randint(0, 80, ()).item(), random.randint(0, 80), np.random.randint(0, 80)]
        return torch.tensor(noise, dtype=torch.uint8)[:, None, None].expand(3, 4, 4).contiguous(), i % 3


def test_random_transforms_are_the_same_for_any_number_of_workers_and_position() -> None:
    split = source_of(Noisy()).splits["all"]
    prepared = data.Preprocessing(size=(4, 4), channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)

    def batches(workers: int, position: tuple[int, int] = (1, 0)) -> list[Tensor]:
        loader = create_loader(split, prepared, batch_size=4, training=True, seed=3, workers=workers)
        loader.position = position
        return [batch["image"] for batch in loader]

    alone, shared = batches(0), batches(2)
    assert all(torch.equal(one, two) for one, two in zip(alone, shared, strict=True))
    assert torch.equal(batches(0, (1, 2))[0], alone[2])
    assert not torch.equal(batches(0, (2, 0))[0], alone[0])
    before = random.getstate()
    batches(0)
    assert random.getstate() == before


def test_a_target_that_changes_is_refused() -> None:
    class Flipping(Ready):
        turned = False

        def __getitem__(self, i: int) -> tuple[Any, int]:
            return super().__getitem__(i)[0], (i + self.turned) % 3

    items = Flipping()
    split = source_of(items).splits["all"]
    items.turned = True
    with pytest.raises(InputError, match=r"Flipping\[2\] came with another target than before"):
        split.read(2)


def test_a_split_is_pickled_without_its_images() -> None:
    split = pickle.loads(pickle.dumps(source_of(Ready()).splits["all"]))
    assert int(split.read(3)[0, 0, 0]) == 3 and split.kind.labels.tolist() == [i % 3 for i in range(12)]


def test_opening_takes_data_sets_too_and_the_check_reads_them() -> None:
    source = opsin.data.open(Ready(), classes=["r", "g", "b"], name="mine")
    assert source.name == "mine" and source.classes == ["r", "g", "b"] and source.task == "classify"
    assert data.inspect(source).images == {"all": 12}


def test_names_paths_and_data_sets_are_splits_of_one_source(tmp_path: Path) -> None:
    for name, count in (("seven", 3), ("three", 2)):
        (tmp_path / "digits" / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((6, 5), 10 * i, np.uint8)).save(tmp_path / "digits" / name / f"{i}.png")
    numbers = [(np.zeros((6, 5), np.uint8), label) for label in (1, 0, 1, 1)]
    named = [(np.zeros((6, 5), np.uint8), name) for name in ("three", "seven")]
    source = data.open({"train": tmp_path / "digits", "val": numbers, "test": named}, "classify")
    assert source.classes == ["seven", "three"] and [*source.splits] == ["train", "val", "test"]
    labels = {key: split.kind.labels.tolist() for key, split in source.splits.items()}
    assert labels == {"train": [0, 0, 0, 1, 1], "val": [1, 0, 1, 1], "test": [1, 0]}
    assert source.splits["train"].read(2)[0, 0, 0] == 20 and source.format == "image folders and torch data set"
    swapped = data.open({"val": named, "train": tmp_path / "digits"}, "classify")
    assert swapped.classes == ["seven", "three"] and swapped.splits["val"].kind.labels.tolist() == [1, 0]
    with pytest.raises(InputError, match="digits has the splits train, test and no val; give other data as val"):
        data.open({"train": numbers, "val": "digits"}, "classify")
    with pytest.raises(InputError, match=r"label .five., which is none of the classes .seven., .three."):
        data.open({"train": tmp_path / "digits", "val": [(numbers[0][0], "five")]}, "classify")
    # Names and classes are of the data set, whose 1 is then a seven, and no options of a path.
    other = data.open(
        {"train": tmp_path / "digits", "val": numbers}, "classify", name="mine", classes=["three", "seven"]
    )
    assert other.splits["val"].kind.labels.tolist() == [0, 1, 0, 0] and other.classes == ["seven", "three"]
    several = data.open({"train": tmp_path / "digits", "val": numbers}, "classify", multi_label=True)
    assert several.splits["train"].kind.labels.tolist() == [[1, 0]] * 3 + [[0, 1]] * 2

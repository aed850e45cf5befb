"""The contract of inputs and truth, held by kinds that no task has: rays, pairs of texts, two sources, pairs of images.

Each goes through a split, a subset and a loader, with an order of its own too; it goes on in the middle of an epoch bit
for bit, and two processes cover every place. Below: what the kinds that there are say of themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from opsin import data
from opsin.data.boxes import Boxes
from opsin.data.inputs import Concatenated, ImageArray, ImageFiles, Inputs
from opsin.data.labels import ClassLabels
from opsin.data.loading import create_loader
from opsin.data.source import Source, Split
from opsin.data.splits import divide
from opsin.data.truth import Truth
from opsin.errors import InputError
from opsin.structures import Instances

N = 24
PREPROCESSING = data.Preprocessing(size=(6, 8), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


class Rays(Inputs):
    """Rays as rows of numbers: no images, no files, no sizes."""

    key = "rays"

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, i: int) -> str:
        return f"ray {self.rows[i, 0]:g}"

    def read(self, i: int) -> Tensor:
        return self.rows[i]

    def select(self, places: np.ndarray) -> Rays:
        return Rays(self.rows[places])


class Colors(Truth):
    """A colour a ray; nothing else."""

    def __init__(self, colors: Tensor) -> None:
        self.colors = colors

    def __len__(self) -> int:
        return len(self.colors)

    def select(self, places: np.ndarray) -> Colors:
        return Colors(self.colors[places])

    def read(self, i: int, size: Any) -> dict[str, Any]:
        return {"color": self.colors[i]}


class Texts(Rays):
    """Texts of any length, as their code points."""

    key = "text"

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)

    def __len__(self) -> int:
        return len(self.texts)

    def name(self, i: int) -> str:
        return self.texts[i]

    def read(self, i: int) -> Tensor:
        return torch.tensor([ord(letter) for letter in self.texts[i]])

    def select(self, places: np.ndarray) -> Texts:
        return Texts([self.texts[i] for i in places.tolist()])


class Translations(Truth):
    """The other text of each, packed as one tensor and unpacked into a list; those of one speaker stay together."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, places: np.ndarray) -> Translations:
        return Translations([self.texts[i] for i in places.tolist()])

    def groups(self) -> Sequence[str]:
        return [text[0] for text in self.texts]

    def read(self, i: int, size: Any) -> dict[str, Any]:
        return {"answer": torch.tensor([ord(letter) for letter in self.texts[i]])}

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "answer": (torch.cat([s["answer"] for s in samples]), torch.tensor([len(s["answer"]) for s in samples]))
        }

    def unpack(self, batch: dict[str, Any]) -> None:
        letters, lengths = batch["answer"]
        batch["answer"] = ["".join(map(chr, part.tolist())) for part in letters.split(lengths.tolist())]


class Second(Truth):
    """The second image of each pair, as it is."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def select(self, places: np.ndarray) -> Second:
        return Second(self.images[places])

    def read(self, i: int, size: tuple[int, int] | None) -> dict[str, Any]:
        assert size in ((6, 8), None)
        return {"second": self.images[i]}


def pixels(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).randint(0, 256, (count, 3, 6, 8), dtype=np.uint8))


def rays() -> Split:
    rows = torch.arange(N * 6, dtype=torch.float32).view(N, 6)
    return Split(Rays(rows), Colors(rows[:, :3] / 255))


def texts() -> Split:
    words = [f"{'abcdef'[k % 6]}{'x' * (k % 5)}{k}" for k in range(N)]
    return Split(Texts(words), Translations([word.upper() for word in words]))


def two_sources() -> Split:
    """Images with labels, and as many of another source without."""
    inputs = Concatenated([ImageArray(pixels(N // 2), "source"), ImageArray(pixels(N // 2, 1), "target")])
    return Split(inputs, ClassLabels(np.array([0, 1] * (N // 4) + [-1] * (N // 2)), ["cat", "dog"]))


def pairs() -> Split:
    return Split(ImageArray(pixels(N), "pair"), Second(pixels(N, 1)))


def unknown() -> Split:
    return Split(ImageArray(pixels(N), "x"))


def half_of_each(epoch: int) -> list[np.ndarray]:
    """Batches of three of the first half and three of the second, of unlike orders."""
    random = np.random.RandomState(epoch)
    first, second = random.permutation(N // 2), N // 2 + random.permutation(N // 2)
    return [np.concatenate([first[k : k + 3], second[k : k + 3]]) for k in range(0, N // 2, 3)]


def same(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def alike(ours: list[Any], theirs: list[Any]) -> bool:
    return len(ours) == len(theirs) > 0 and all(
        a.keys() == b.keys() and all(same(a[key], b[key]) for key in a) for a, b in zip(ours, theirs, strict=True)
    )


KINDS = pytest.mark.parametrize("made", [rays, texts, two_sources, pairs, unknown], ids=lambda made: made.__name__)
ORDERS = pytest.mark.parametrize("order", [None, half_of_each], ids=["shuffled", "of its own"])


@KINDS
def test_a_sample_is_what_inputs_and_truth_say(made: Callable[[], Split]) -> None:
    split = made()
    part = split.subset([5, 2, 20]).subset([2, 0])
    assert [part.name(k) for k in range(2)] == [split.name(20), split.name(5)]
    for whole in (split, part):
        (batch,) = create_loader(whole, None, batch_size=N)
        key = split.inputs.key
        assert [*batch][:2] == ["index", "path"] and len(batch[key]) == len(whole) == len(batch["path"])
        assert same(list(batch[key]), [whole.read(k) for k in range(len(whole))])
        for k in range(len(whole)) if whole.truth is not None else ():
            assert batch.keys() == {"index", "path", key, *whole.truth.read(k, (6, 8))}  # type: ignore[union-attr]
    if split.truth is not None:
        assert part.truth is not None and part.truth.digest(1) == split.truth.digest(5)


@KINDS
@ORDERS
@pytest.mark.parametrize("workers", [0, 1])
def test_goes_on_in_the_middle_of_an_epoch(made: Callable[[], Split], order: Any, workers: int) -> None:
    def loader(workers: int = 0) -> Any:
        return create_loader(made(), None, batch_size=6, training=True, order=order, seed=4, workers=workers)

    whole = loader()
    whole.set_epoch(3)
    expected = list(whole)
    assert len(expected) == len(whole) == 4
    stopped = loader(workers)
    stopped.load_state_dict({"epoch": 3, "batch": 2})
    assert alike(list(stopped), expected[2:])
    whole.set_epoch(4)
    assert not alike(list(whole), expected)


@KINDS
@ORDERS
def test_two_processes_cover_every_place(made: Callable[[], Split], order: Any) -> None:
    options: dict[str, Any] = {"training": True, "order": order, "seed": 1}
    alone = list(create_loader(made(), None, batch_size=6, **options))
    ranks = [list(create_loader(made(), None, batch_size=3, rank=r, world_size=2, **options)) for r in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == len(alone) == 4
    for place, batch in enumerate(alone):
        shared = torch.cat([rank[place]["index"] for rank in ranks])
        assert torch.equal(shared, batch["index"])
    assert sorted(torch.cat([batch["index"] for batch in alone]).tolist()) == list(range(N))


def test_uneven_batches_of_an_order_are_shared_too() -> None:
    def order(epoch: int) -> list[np.ndarray]:
        return [np.arange(5), np.array([7]), np.arange(10, 24)]

    ranks = [list(create_loader(rays(), None, batch_size=9, order=order, rank=r, world_size=2)) for r in range(2)]
    assert [[len(batch["index"]) for batch in rank] for rank in ranks] == [[3, 1, 7], [2, 1, 7]]
    assert ranks[0][1]["index"].tolist() == ranks[1][1]["index"].tolist() == [7]  # none waits for the other


def test_images_of_any_truth_are_prepared_and_changed_at_random() -> None:
    small = data.Preprocessing(size=(3, 4), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    noise = data.create_augmentation(["random_erasing", "random_horizontal_flip"], small)
    for split in (two_sources(), pairs(), unknown()):
        (plain,) = create_loader(split, small, batch_size=N)
        assert plain["image"].shape == (N, 3, 3, 4)
        options: dict[str, Any] = {"batch_size": N, "training": True, "augmentation": noise, "drop_last": False}
        one, two = (list(create_loader(split, small, workers=workers, **options)) for workers in (0, 1))
        assert alike(one, two) and not torch.equal(one[0]["image"], plain["image"][one[0]["index"]])
    (batch,) = create_loader(pairs(), small, batch_size=N)
    assert torch.equal(batch["second"], pixels(N, 1))  # what has no place in the image is carried as it is


def test_a_kind_brings_its_own_form_of_a_batch() -> None:
    (batch,) = create_loader(texts(), None, batch_size=N, workers=1)
    assert batch["answer"] == [name.upper() for name in batch["path"]]
    assert [len(letters) for letters in batch["text"]] == [len(name) for name in batch["path"]]


def test_a_division_asks_the_truth() -> None:
    plain = divide(Source("rays", "made", {"all": rays()}), val_fraction=0.25, test_fraction=0.25, seed=2)
    other = divide(Source("rays", "made", {"all": rays()}), val_fraction=0.25, test_fraction=0.25, seed=3)
    assert {key: len(split) for key, split in plain.items()} == {"train": 12, "val": 6, "test": 6}
    names = [[split.name(k) for k in range(len(split))] for split in plain.values()]
    assert len({name for part in names for name in part}) == N
    assert names[1] != [other["val"].name(k) for k in range(6)]
    spoken = divide(Source("texts", "made", {"all": texts()}), val_fraction=0.2, test_fraction=0.3, seed=2)
    speakers = [{split.name(k)[0] for k in range(len(split))} for split in spoken.values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 6 and all(speakers)


def test_the_doctor_and_the_sheet_take_any_kind(tmp_path: Path) -> None:
    found = data.inspect(Source("rays", "made", {"all": rays()}), "render")
    assert found.healthy and found.classes == [] and found.sizes == {} and found.images == {"all": N}
    assert data.render(found).splitlines()[0] == "rays: made, 24 images"
    twice = pairs().subset([0, 1, 0])
    (problem,) = data.inspect(Source("pairs", "made", {"all": twice}), "x").problems
    assert problem.kind == "duplicate" and problem.path == "pair[0]"
    mixed = Split(twice.inputs, Second(pixels(3)))
    assert "but with another truth" in data.inspect(Source("pairs", "made", {"all": mixed}), "x").problems[0].reason
    for source in (Source("pairs", "made", {"all": pairs()}), Source("x", "made", {"all": unknown()})):
        assert data.contact_sheet(source, tmp_path / "sheet.png").stat().st_size > 1000
        data.check_trainable(source)
    with pytest.raises(InputError, match="rays holds no images to draw"):
        data.contact_sheet(Source("rays", "made", {"all": rays()}), tmp_path / "none.png")


def test_a_truth_is_of_as_many_examples() -> None:
    with pytest.raises(ValueError, match="a truth of 2 examples, and there are 24"):
        Split(ImageArray(pixels(N), "x"), ClassLabels(np.zeros(2, np.int64), ["a"]))


# The kinds that there are


def boxes(classes: Sequence[str] = ("cup", "jug", "pot")) -> Boxes:
    """Of four images: a cup and a jug; two pots and a cup; a region to ignore; nothing."""
    rows = [
        [(0, 0, 9, 9, 0), (5, 5, 20, 30, 1)],
        [(1, 1, 4, 4, 2), (2, 2, 9, 9, 2), (3, 3, 7, 9, 0)],
        [(0, 0, 5, 5, -1)],
    ]
    parts = [torch.tensor(part, dtype=torch.float32).view(-1, 5) for part in [*rows, []]]
    return Boxes.of([Instances(part[:, :4], part[:, 4].long()) for part in parts], classes)


def test_boxes_are_columns_that_select_and_relabel_together() -> None:
    truth = boxes()
    assert truth.boxes.values.shape == (6, 4) and truth.boxes.offsets.tolist() == [0, 2, 5, 6, 6]
    chosen = truth.select(np.array([3, 1, 1]))
    assert [len(chosen.at(k)) for k in range(3)] == [0, 3, 3] and torch.equal(chosen.at(2).boxes, truth.at(1).boxes)
    assert truth.presence.tolist() == [[1, 1, 0], [1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert truth.strata().tolist() == [1, 2, -1, -1]  # the rarest class; of equally rare ones the first
    moved = truth.relabel([1, 0, 1], ["jug", "ware"])
    assert [moved.shown(k) for k in range(4)] == [[0, 1], [1], [], []] and moved.at(2).labels.tolist() == [-1]  # type: ignore[union-attr]
    assert truth.summary().counts == {"cup": 2, "jug": 1, "pot": 1}
    assert truth.summary().objects == {"cup": 2, "jug": 1, "pot": 2}
    assert [truth.members(name).tolist() for name in ("cup", "pot")] == [[0, 1], [1]]


def test_strata_of_boxes_are_those_of_the_rows_of_classes() -> None:
    random = np.random.RandomState(0)
    for _ in range(20):
        counts = random.randint(0, 5, 30)
        labels = [torch.from_numpy(random.randint(-1, 6, count)) for count in counts]
        truth = Boxes.of([Instances(torch.rand(len(one), 4), one) for one in labels], list("abcdef"))
        assert np.array_equal(truth.strata(), ClassLabels(truth.presence, list("abcdef")).strata())


def test_proposals_go_with_their_images() -> None:
    given = [torch.full((k, 4), float(k)) for k in range(4)]
    truth = boxes().with_proposals(given).select(np.array([3, 0, 2]))
    split = Split(ImageArray(pixels(3), "x"), truth)
    (batch,) = create_loader(split, None, batch_size=3)
    assert [one.tolist() for one in batch["proposals"]] == [[[3.0] * 4] * 3, [], [[2.0] * 4] * 2]
    assert [len(one) for one in batch["instances"]] == [0, 2, 1]
    with pytest.raises(InputError, match="proposals of 3 images, and the split has 4"):
        boxes().with_proposals(given[:3])


def test_a_truth_is_matched_to_a_model_by_names() -> None:
    labels = ClassLabels(np.array([0, 1, -1]), ["cat", "dog"])
    assert labels.match({"classes": ["dog", "cow", "cat"]}).labels.tolist() == [2, 0, -1]
    assert labels.match(labels.meaning).labels.tolist() == [0, 1, -1]
    rows = ClassLabels(np.eye(2, dtype=np.float32), ["cat", "dog"])
    assert rows.meaning == {"classes": ["cat", "dog"], "multi_label": True}
    assert rows.match({"classes": ["dog", "cat"]}).labels.tolist() == [[0, 1], [1, 0]]
    moved = boxes().match({"classes": ["pot", "jug", "cup"]})
    assert moved.meaning == {"classes": ["pot", "jug", "cup"]} and moved.at(0).labels.tolist() == [2, 1]  # type: ignore[union-attr]
    for truth in (labels, rows, boxes()):
        with pytest.raises(InputError, match=r"^the model does not know the classes .*; it was trained on cow$"):
            truth.match({"classes": ["cow"]})
    with pytest.raises(InputError, match="the model was trained on data of"):
        rays().truth.match({"points": 5})  # type: ignore[union-attr]


def test_a_size_is_known_without_decoding(tmp_path: Path) -> None:
    from PIL import Image

    for name, size in (("a", (7, 5)), ("b", (4, 9))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    files = ImageFiles([str(tmp_path / "a.png"), str(tmp_path / "b.png")])
    both = Concatenated([ImageArray(pixels(2), "x"), files], np.array([3, 0, 2]))
    assert [both.size(k) for k in range(3)] == [(9, 4), (6, 8), (5, 7)] and both.stored
    assert [both.name(k) for k in (1, 2)] == ["x[0]", files.name(0)]
    assert both.encoded(1) is None and both.encoded(2) == (tmp_path / "a.png").read_bytes()
    assert both.select(np.array([2])).read(0).shape == (3, 5, 7)


def test_data_that_several_tasks_claim_alike_is_asked_about(tmp_path: Path) -> None:
    """A folder of IDX files in which a YOLO data.yaml lies: nothing says which is meant."""
    for role, rank in (("images", 3), ("labels", 1)):
        header = bytes([0, 0, 8, rank]) + b"".join(n.to_bytes(4, "big") for n in (2, 4, 4)[:rank])
        (tmp_path / f"train-{role}-idx{rank}-ubyte").write_bytes(header + bytes([0, 1]) * (16 if rank == 3 else 1))
    assert data.recognize_task(tmp_path) == "classify"
    (tmp_path / "data.yaml").write_text("train: .\nnames: [cat]\n")
    with pytest.raises(InputError, match=r"several formats: IDX to classify; YOLO to detect; say which .* --task$"):
        data.recognize_task(tmp_path)
    assert data.open(tmp_path, "classify").format == "idx"
    with pytest.raises(InputError, match="unknown option of data 'multi_lable'; did you mean multi_label"):
        data.open(tmp_path, multi_lable=True)

"""The doctor finds each planted illness, names its file, and finds nothing in a healthy set."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import data
from opsin.data.dataset_check import Diagnosis
from opsin.data.inputs import ImageArray
from opsin.data.labels import ClassLabels
from opsin.data.source import Source, Split
from opsin.data.truth import Summary
from opsin.errors import InputError, JobError

RANDOM = np.random.RandomState(0)


def png(size: tuple[int, int] = (6, 5), grey: bool = False) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(RANDOM.randint(0, 256, size if grey else (*size, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A healthy set: 4 + 4 images to train on, 2 + 2 to evaluate on."""
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for i in range(count):
                (tmp_path / "pets" / split / name / f"{i}.png").write_bytes(png())
    return tmp_path / "pets"


def found(diagnosis: Diagnosis) -> set[tuple[str, str, str]]:
    return {(p.kind, Path(p.path).name, p.severity) for p in diagnosis.problems}


def test_a_healthy_set(root: Path) -> None:
    diagnosis = data.inspect(root)
    assert diagnosis.problems == [] and diagnosis.healthy
    assert diagnosis.images == {"train": 8, "test": 4}
    assert diagnosis.splits == {"train": {"cat": 4, "dog": 4}, "test": {"cat": 2, "dog": 2}}
    assert (diagnosis.imbalance, diagnosis.sizes, diagnosis.channels) == (1.0, {"6x5": 12}, {"colour": 12})
    assert diagnosis.encodings == {"PNG": 12}
    assert json.loads(json.dumps(diagnosis.to_dict()))["healthy"] is True
    text = data.render(diagnosis)
    assert "pets: image folders, one label an image, 12 images, 2 classes" in text
    assert "no problems found" in text


@dataclass(frozen=True)
class _Lengths(Summary):
    section: str = "texts"

    def facts(self, others: Sequence[Summary] = ()) -> dict[str, float]:
        return {"longest": 7 + len(others)}

    def lines(self, facts: Mapping[str, float]) -> list[str]:
        return [f"texts of up to {facts['longest']} letters"]


class _Texts(ClassLabels):
    def summary(self) -> Summary:
        return _Lengths("a text an image", super().summary().counts)


def test_facts_stand_under_the_name_of_their_truth() -> None:
    images = torch.from_numpy(RANDOM.randint(0, 256, (4, 1, 5, 5), dtype=np.uint8))
    parts = {name: _Texts(np.array([k, 1 - k]), ["a", "b"]) for k, name in enumerate(("train", "test"))}
    splits = {name: Split(ImageArray(images[2 * k : 2 * k + 2], name), parts[name]) for k, name in enumerate(parts)}
    diagnosis = data.inspect(Source("t", "texts", splits))
    found = diagnosis.to_dict()
    assert found["texts"] == {"longest": 8} and found["boxes"] == {} == diagnosis.boxes
    assert "texts of up to 8 letters" in data.render(diagnosis)


def test_sizes_colours_and_endings_are_counted(root: Path) -> None:
    (root / "train/cat/9.png").write_bytes(png((8, 8), grey=True))
    (root / "train/dog/9.jpg").write_bytes(png((7, 7)))
    diagnosis = data.inspect(root)
    assert diagnosis.sizes == {"6x5": 12, "8x8": 1, "7x7": 1}
    assert diagnosis.channels == {"colour": 13, "grey": 1}
    assert found(diagnosis) == {("wrong_ending", "9.jpg", "note")} and diagnosis.healthy


def test_leaks_duplicates_and_conflicts_are_told_apart(root: Path) -> None:
    twin = (root / "train/cat/0.png").read_bytes()
    (root / "train/cat/again.png").write_bytes(twin)
    (root / "test/cat/leak.png").write_bytes(twin)
    (root / "test/dog/wrong.png").write_bytes(twin)
    Image.open(io.BytesIO((root / "train/dog/1.png").read_bytes())).save(
        root / "train/cat/other.bmp"
    )  # the same pixels
    diagnosis = data.inspect(root)
    assert found(diagnosis) == {
        ("duplicate", "again.png", "warning"),
        ("leak", "leak.png", "error"),
        ("leak", "wrong.png", "error"),
        ("conflicting_labels", "wrong.png", "error"),
        ("conflicting_labels", "1.png", "error"),
    }
    leak = next(p for p in diagnosis.problems if p.path.endswith("leak.png"))
    assert leak.reason == f"in test, the same image as {root}/train/cat/0.png in train"
    conflict = next(p for p in diagnosis.problems if p.path.endswith("dog/1.png"))
    assert conflict.reason == f"the same image as {root}/train/cat/other.bmp, but labelled dog, not cat"


def test_duplicates_of_a_set_that_will_be_divided(root: Path) -> None:
    (root / "train/cat/again.png").write_bytes((root / "train/cat/0.png").read_bytes())
    problem = data.inspect(root / "train").problems[0]
    assert (problem.kind, problem.severity) == ("duplicate", "warning")
    assert "both in train and in test" in problem.reason


def test_unreadable_files_are_listed_with_their_reasons(root: Path) -> None:
    (root / "train/cat/empty.jpg").touch()
    (root / "test/dog/text.png").write_text("hello")
    (root / "train/cat/notes.txt").write_text("about cats")
    diagnosis = data.inspect(root)
    assert found(diagnosis) == {
        ("unreadable", "empty.jpg", "error"),
        ("unreadable", "text.png", "error"),
        ("not_an_image", "notes.txt", "note"),
    }
    text = data.render(diagnosis)
    assert "error: unreadable (2)" in text and f"{root}/train/cat/empty.jpg: the file is empty (0 bytes)" in text


def test_what_makes_training_refuse_is_an_error(root: Path) -> None:
    (root / "test/dog").rename(root / "test/dogs")
    assert {kind for kind, _, severity in found(data.inspect(root)) if severity == "error"} >= {"class_mismatch"}
    one = root / "train/cat"
    (one / "cat").mkdir()
    for path in one.glob("*.png"):
        path.rename(one / "cat" / path.name)
    assert ("untrainable", "cat", "error") in found(data.inspect(one))


def test_imbalance_and_empty_classes() -> None:
    labels = np.repeat([0, 1, 3], [40, 3, 7])
    images = torch.from_numpy(RANDOM.randint(0, 256, (50, 1, 6, 6), dtype=np.uint8))
    split = Split(ImageArray(images, "x"), ClassLabels(labels, ["a", "b", "c", "d"]))
    diagnosis = data.inspect(Source("set", "npz", {"all": split}))
    assert diagnosis.imbalance is None
    assert [(p.kind, p.severity) for p in diagnosis.problems] == [("empty_class", "warning")]
    three = split.with_truth(ClassLabels(np.minimum(labels, 2), ["a", "b", "c"]))
    diagnosis = data.inspect(Source("set", "npz", {"all": three}))
    assert diagnosis.imbalance == round(40 / 3, 3)
    assert diagnosis.problems[0].reason.startswith("40 images of 'a' but 3 of 'b'")


def test_labels_out_of_range(tmp_path: Path) -> None:
    images = RANDOM.randint(0, 256, (6, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=[0, 1, 7, 0, 1, 0], classes=["a", "b"])
    diagnosis = data.inspect(tmp_path / "set.npz")
    assert found(diagnosis) == {("label_out_of_range", "set.npz:labels[2]", "error")}
    assert diagnosis.splits == {"all": {"a": 3, "b": 2}}


def test_multi_label_sets(tmp_path: Path, root: Path) -> None:
    (root / "x.csv").write_text(
        "path,label\ntrain/cat/0.png,cat\ntrain/dog/0.png,cat|dog\ntest/dog/0.png,\ntrain/cat/0.png,dog\n"
    )
    diagnosis = data.inspect(root / "x.csv", multi_label=True)
    assert diagnosis.splits == {"all": {"cat": 2, "dog": 2}}
    assert [p.reason.split(", ")[-2:] for p in diagnosis.problems] == [["but labelled dog", "not cat"]]


def test_progress_and_long_lists(root: Path) -> None:
    for i in range(30):
        (root / f"train/cat/bad{i:02d}.png").touch()
    calls = []
    diagnosis = data.inspect(root, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 42) for done in range(1, 43)]  # over all splits
    assert "... and 27 more" in data.render(diagnosis, limit=3)
    assert len(diagnosis.to_dict()["problems"]) == 30


def test_real_digits_are_healthy() -> None:
    diagnosis = data.inspect("digits")
    assert diagnosis.problems == [] and diagnosis.sizes == {"8x8": 1797} and diagnosis.channels == {"grey": 1797}


def test_contact_sheet(root: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), "blue").save(root / "train/dog/00.png")
    (root / "train/cat/zz.png").write_text("broken")
    path = data.contact_sheet(data.open(root), tmp_path / "new/sheet.png", per_class=6, cell=30)
    sheet = np.asarray(Image.open(path))
    left = sheet.shape[1] - 6 * 34
    assert sheet.shape[0] == 2 * 34 + 4 and 8 < left < 60
    blue = (sheet == (0, 0, 255)).all(axis=2)
    assert blue.sum() == 27 * 27 and blue[38:].sum() == 27 * 27  # three times as large, in the row of dogs
    assert (sheet == (255, 0, 0)).all(axis=2)[:38].any()  # the broken one is crossed out
    assert (sheet[:, :left] < 100).any()  # the names
    (root / "train/cat").rename(root / f"train/{'c' * 99}")
    longer = Image.open(data.contact_sheet(data.open(root / "train"), tmp_path / "long.png", per_class=6, cell=30))
    assert 100 < longer.width - 6 * 34 <= 148  # a long name is cut
    with pytest.raises(InputError, match="end its name in"):
        data.contact_sheet(data.open(root), tmp_path / "sheet.xyz")
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match="cannot write"):
        data.contact_sheet(data.open(root), tmp_path / "file/sheet.png")


def test_export_and_open_again(tmp_path: Path) -> None:
    source = data.open("digits")
    written = data.export(source, tmp_path / "few", split="test", limit=20)
    assert len(written) == 20
    again = data.open(tmp_path / "few")
    assert again.classes == source.classes and len(again.splits["all"]) == 20
    for path in written:
        image = source.splits["test"].read(int(path.stem))
        assert torch.equal(data.read_image(path), image)
        assert source.splits["test"].kind.presence[int(path.stem)] == int(path.parent.name)
    both = data.open(data.export(source, tmp_path / "both", limit=30)[0].parents[2])
    assert {key: len(split) for key, split in both.splits.items()} == {"train": 30, "test": 30}
    with pytest.raises(InputError, match="unknown split of digits 'tset'; did you mean test"):
        data.export(source, tmp_path, split="tset")

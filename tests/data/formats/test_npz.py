"""Arrays in IDX and npz files: every layout and type, and every way to be wrong."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from opsin import data
from opsin.data.source import Source
from opsin.errors import InputError

RANDOM = np.random.RandomState(0)

# IDX

IMAGES, LABELS = RANDOM.randint(0, 256, (20, 4, 3), dtype=np.uint8), np.arange(20, dtype=np.uint8) % 4


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def as_idx(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return folder


def mnist(folder: Path, ending: str = "", labels: np.ndarray = LABELS) -> Path:
    return as_idx(
        folder,
        {
            f"train-images-idx3-ubyte{ending}": idx(IMAGES[:12]),
            f"train-labels-idx1-ubyte{ending}": idx(labels[:12]),
            f"t10k-images-idx3-ubyte{ending}": idx(IMAGES[12:]),
            f"t10k-labels-idx1-ubyte{ending}": idx(labels[12:]),
        },
    )


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx(ending: str, tmp_path: Path) -> None:
    source = data.open(mnist(tmp_path, ending))
    assert (source.format, source.classes, list(source.splits)) == ("idx", ["0", "1", "2", "3"], ["train", "test"])
    for key, part in (("train", slice(12)), ("test", slice(12, None))):
        split = source.splits[key]
        assert np.array_equal(torch.cat([split.read(i) for i in range(len(split))]).numpy(), IMAGES[part])
        assert np.array_equal(split.kind.presence, LABELS[part]) and split.kind.presence.dtype == np.int64
    assert source.splits["test"].name(3) == f"{tmp_path}/t10k-images-idx3-ubyte{ending}[3]"


def test_idx_with_class_names(tmp_path: Path) -> None:
    (mnist(tmp_path) / "classes.txt").write_text("shirt\nshoe\n\nbag \ncoat\n")
    assert data.open(tmp_path).classes == ["shirt", "shoe", "bag", "coat"]
    (tmp_path / "classes.txt").write_text("shirt\nshoe\nbag\n")
    source = data.open(tmp_path)
    assert [p.path.rpartition("/")[2] for p in source.problems[:2]] == [
        "train-labels-idx1-ubyte[3]",
        "train-labels-idx1-ubyte[7]",
    ]
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte\[3\]: label 3 is out of range, expected 0 to 2"):
        data.check_trainable(source)
    (tmp_path / "classes.txt").write_text("shirt\nshirt\n")
    with pytest.raises(InputError, match="twice: shirt"):
        data.open(tmp_path)


REFUSED_IDX = {
    "truncated": (
        {"train-images-idx3-ubyte": idx(IMAGES)[:-5], "train-labels-idx1-ubyte": idx(LABELS)},
        "truncated or damaged",
    ),
    "no labels": ({"train-images-idx3-ubyte": idx(IMAGES)}, "has no labels file beside it"),
    "no images": ({"train-labels-idx1-ubyte": idx(LABELS)}, "has no images file beside it"),
    "not idx": ({"train-images-idx3-ubyte": b"hello there", "train-labels-idx1-ubyte": idx(LABELS)}, "is no IDX file"),
    "empty": ({"train-images-idx3-ubyte": b"", "train-labels-idx1-ubyte": idx(LABELS)}, "is no IDX file"),
    "counts": (
        {"train-images-idx3-ubyte": idx(IMAGES), "train-labels-idx1-ubyte": idx(LABELS[:-1])},
        "19 labels for 20 images",
    ),
    "two": ({"train-images-idx3-ubyte": idx(IMAGES), "train-images-idx3-ubyte.gz": idx(IMAGES)}, "keep one data set"),
    "split": ({"letters-images-idx3-ubyte": idx(IMAGES)}, "the name tells no split"),
}


@pytest.mark.parametrize("kind", REFUSED_IDX)
def test_refused_idx(kind: str, tmp_path: Path) -> None:
    files, message = REFUSED_IDX[kind]
    with pytest.raises(InputError, match=message):
        data.open(as_idx(tmp_path, files))


def test_truncated_gzip(tmp_path: Path) -> None:
    path = mnist(tmp_path, ".gz") / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged or truncated"):
        data.open(tmp_path)


# npz

X, Y = RANDOM.randint(0, 256, (12, 4, 5), dtype=np.uint8), np.arange(12) % 3
X[0, 0, 0] = 255


def npz(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "set.npz", **arrays)  # type: ignore[arg-type]
    return folder / "set.npz"


def stack(source: Source, key: str) -> np.ndarray:
    split = source.splits[key]
    return torch.stack([split.read(i) for i in range(len(split))]).numpy()


@pytest.mark.parametrize(
    "keys",
    [
        "train_x train_y test_x test_y",
        "x_train y_train x_test y_test",
        "train_images train_labels test_images test_labels",
    ],
)
def test_npz_with_splits(keys: str, tmp_path: Path) -> None:
    arrays = dict(zip(keys.split(), (X[:9], Y[:9], X[9:], Y[9:]), strict=True))
    source = data.open(npz(tmp_path, **arrays))
    assert (list(source.splits), source.classes) == (["train", "test"], ["0", "1", "2"])
    assert np.array_equal(stack(source, "train")[:, 0], X[:9]) and np.array_equal(stack(source, "test")[:, 0], X[9:])
    assert source.splits["test"].kind.presence.tolist() == [0, 1, 2]
    assert source.splits["test"].name(1) == f"{tmp_path / 'set.npz'}:{keys.split()[2]}[1]"


RGB = RANDOM.randint(0, 256, (12, 4, 5, 3), dtype=np.uint8)
RGB[0, 0, 0] = 255
STORED = {
    "grey": (X, X[:, None]),
    "grey last": (X[..., None], X[:, None]),
    "grey first": (X[:, None], X[:, None]),
    "colour last": (RGB, RGB.transpose(0, 3, 1, 2)),
    "colour first": (RGB.transpose(0, 3, 1, 2), RGB.transpose(0, 3, 1, 2)),
    "floats to 1": ((X / 255).astype(np.float32), X[:, None]),
    "doubles to 255": (X.astype(np.float64), X[:, None]),
    "halves to 1": ((X / 255).astype(np.float16), X[:, None]),
    "integers": (X.astype(np.int64), X[:, None]),
    "16 bits": (X.astype(np.uint16) * 257, X[:, None]),
    "booleans": (X > 127, (X > 127)[:, None] * np.uint8(255)),
}


@pytest.mark.parametrize("kind", STORED)
def test_layouts_and_types_of_npz(kind: str, tmp_path: Path) -> None:
    stored, images = STORED[kind]
    source = data.open(npz(tmp_path, images=stored, labels=Y[:, None], classes=np.array(["a", "b", "c"])))
    assert (list(source.splits), source.classes) == (["all"], ["a", "b", "c"])
    assert np.array_equal(stack(source, "all"), images)


def test_multi_label_npz(tmp_path: Path) -> None:
    rows = np.eye(3, dtype=np.uint8)[Y]
    assert data.open(npz(tmp_path, x=X, y=rows)).splits["all"].kind.presence.tolist() == Y.tolist()
    rows[0] = 1
    source = data.open(npz(tmp_path, x=X, y=rows), multi_label=True)
    assert source.splits["all"].kind.presence[:2].tolist() == [[1, 1, 1], [0, 1, 0]]
    with pytest.raises(InputError, match=r"no or several labels; set classify\.multi_label=true"):
        data.open(tmp_path / "set.npz")


def broken(array: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    changed = array.astype(np.float32)
    changed[place] = value
    return changed


REFUSED_NPZ = {
    "nan": ({"x": broken(X / 255, (3, 1, 2), np.nan), "y": Y}, r"set.npz:x holds nan at \[3, 1, 2\] \(1 in all\)"),
    "infinite": ({"x": broken(X / 255, (0, 0, 0), np.inf), "y": Y}, "set.npz:x holds inf"),
    "negative": (
        {"x": broken(X / 255, (0, 0, 0), -1), "y": Y},
        r"floats from -1 to 0.996078; expected \[0, 1\] or \[0, 255\]",
    ),
    "large floats": ({"x": broken(X, (0, 0, 0), 4096), "y": Y}, "floats from 0 to 4096"),
    "large integers": ({"x": X.astype(np.int32) * 300, "y": Y}, "integers from 0 to 76500"),
    "complex": ({"x": X.astype(np.complex64), "y": Y}, "type complex64"),
    "flat": ({"x": X.reshape(12, -1), "y": Y}, r"shape \(12, 20\)"),
    "two channels": ({"x": RGB[..., :2], "y": Y}, "with 1 or 3|C = 1 or 3"),
    "counts": ({"x": X, "y": Y[:-1]}, "11 labels for 12 images"),
    "no labels": ({"x": X}, "holds the arrays x; expected images and labels"),
    "test labels missing": ({"x_train": X, "y_train": Y, "x_test": X}, "expected images and labels"),
    "other names": ({"foo": X, "bar": Y}, "holds the arrays foo, bar"),
    "twice": ({"x": X, "images": X, "y": Y}, "both x and images"),
    "fractions": ({"x": X, "y": Y + 0.5}, "no whole numbers"),
    "names": ({"x": X, "y": np.array(list("abcabcabcabc"))}, "no whole numbers"),
    "objects": ({"x": X, "y": np.array([object()] * 12)}, "Python objects"),
}


@pytest.mark.parametrize("kind", REFUSED_NPZ)
def test_refused_npz(kind: str, tmp_path: Path) -> None:
    arrays, message = REFUSED_NPZ[kind]
    with pytest.raises(InputError, match=message):
        data.open(npz(tmp_path, **arrays))


def test_pickle_in_npz_does_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    path = npz(tmp_path, x=X, y=np.array([Bomb()] * 12, dtype=object))
    with pytest.raises(InputError, match="never loaded"):
        data.open(path)
    assert not (tmp_path / "ran").exists()


def test_damaged_npz(tmp_path: Path) -> None:
    path = npz(tmp_path, x=X, y=Y)
    whole = path.read_bytes()
    for raw in (b"", b"hello", whole[:-100], whole[:200]):
        path.write_bytes(raw)
        with pytest.raises(InputError, match=r"not a readable npz|Python objects"):
            data.open(path)
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(InputError, match="holds one array without a name"):
        data.open((tmp_path / "one.npy").rename(tmp_path / "one.npz"))


def test_labels_out_of_range(tmp_path: Path) -> None:
    source = data.open(npz(tmp_path, x=X, y=np.where(np.arange(12) == 5, -2, Y)))
    assert source.splits["all"].kind.presence[5] == -1
    with pytest.raises(InputError, match=r"set.npz:y\[5\]: label -2 is out of range, expected 0 to 2"):
        data.check_trainable(source)
    source = data.open(npz(tmp_path, x_train=X, y_train=Y, x_test=X, y_test=Y + 1))
    with pytest.raises(InputError, match="no training images of class '3', which other splits hold"):
        data.check_trainable(source)

"""Data sets of adaptation that are made from others, as npz files and folders, for benchmarks/recipes/adapt_*.yaml.

    python benchmarks/adaptation_data.py mnist_m FOLDER           # MNIST over patches of photographs
    python benchmarks/adaptation_data.py colours FOLDER           # coloured digits: two sources and a test domain
    python benchmarks/adaptation_data.py rotated FOLDER           # digits at 0, 20, 40 and 60 degrees
    python benchmarks/adaptation_data.py usps FOLDER              # USPS at 28x28, stretched; --pad: 20x20 in the middle
    python benchmarks/adaptation_data.py pacs FOLDER              # the four domains of PACS, each a folder

From what lies in the folder that OPSIN_DATA names. The photographs of MNIST-M are those of cifar10_jpg, where the paper
has BSDS500: each digit is |patch - digit|, a patch of 28x28 at random (Ganin and Lempitsky 2015, section 4). Coloured
digits are Arjovsky et al.'s: label = digit >= 5, flipped by 25 %, colour = label flipped by 10 %, 20 % and 90 %.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

PARTS = {"train": "train", "test": "t10k"}


def data_folder() -> Path:
    return Path(os.environ.get("OPSIN_DATA", "."))


def read_mnist(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,) uint8."""
    content = [
        gzip.decompress((data_folder() / "mnist" / f"{PARTS[part]}-{what}.gz").read_bytes())
        for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
    ]
    return np.frombuffer(content[0], np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(
        content[1], np.uint8, offset=8
    )


def write(folder: Path, name: str, parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """An npz as opsin reads it: train_x, train_y, test_x, test_y."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"{part}_{axis}": value for part, pair in parts.items() for axis, value in zip("xy", pair, strict=True)}
    np.savez_compressed(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type] - no array is called allow_pickle
    print(f"{folder / name}.npz: " + ", ".join(f"{len(pair[1])} {part}" for part, pair in parts.items()))


def mnist_m(folder: Path) -> None:
    random = np.random.RandomState(0)
    with zipfile.ZipFile(next((data_folder() / "cifar10_jpg").glob("*.zip"))) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg"))]
        chosen = random.choice(len(names), min(2000, len(names)), replace=False)
        photographs = np.stack(
            [np.asarray(Image.open(io.BytesIO(archive.read(names[k]))).convert("RGB")) for k in chosen]
        )
    parts = {}
    for part in PARTS:
        digits, labels = read_mnist(part)
        which = random.randint(len(photographs), size=len(digits))
        rows, columns = random.randint(0, 5, (2, len(digits)))
        patches = np.stack(
            [photographs[w, y : y + 28, x : x + 28] for w, y, x in zip(which, rows, columns, strict=True)]
        )
        ink = np.where(digits[..., None] > 0, digits[..., None], 0)
        parts[part] = np.abs(patches.astype(np.int16) - ink).astype(np.uint8), labels
    write(folder, "mnist_m", parts)


def colours(folder: Path) -> None:
    images, labels = read_mnist("train")
    random = np.random.RandomState(0)
    order = random.permutation(len(labels))
    images, labels = images[order], labels[order]
    domains = {
        "source_1": (images[:25000], labels[:25000], 0.1),
        "source_2": (images[25000:50000], labels[25000:50000], 0.2),
    }
    domains["target"] = (images[50000:], labels[50000:], 0.9)
    for name, (digits, truth, flipped) in domains.items():
        label = ((truth >= 5) ^ (random.rand(len(truth)) < 0.25)).astype(np.uint8)
        colour = label ^ (random.rand(len(truth)) < flipped).astype(np.uint8)
        small = digits[:, ::2, ::2]  # 14x14, as the authors' code has it
        coloured = np.zeros((*small.shape, 3), np.uint8)
        coloured[np.arange(len(small)), :, :, colour] = small
        cut = len(label) * 4 // 5
        write(folder, name, {"train": (coloured[:cut], label[:cut]), "test": (coloured[cut:], label[cut:])})


def rotated(folder: Path) -> None:
    parts = {part: read_mnist(part) for part in PARTS}
    for place, angle in enumerate((0, 20, 40, 60)):
        turned = {}
        for part, (digits, labels) in parts.items():
            rows = slice(place * 5000, place * 5000 + 5000) if part == "train" else slice(0, 2000)
            made = [
                np.asarray(Image.fromarray(digit).rotate(angle, Image.Resampling.BILINEAR)) for digit in digits[rows]
            ]
            turned[part] = np.stack(made), labels[rows]
        write(folder, f"rotated_{angle}", turned)


def usps(folder: Path, pad: bool) -> None:
    content = np.load(next((data_folder() / "usps").glob("*.npz")))
    parts = {}
    for part in PARTS:
        side = 20 if pad else 28
        images = content[f"{part}_x"].reshape(-1, 16, 16).astype(np.uint8)
        made = [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BILINEAR)) for one in images]
        parts[part] = np.pad(np.stack(made), ((0, 0), *((((28 - side) // 2,) * 2,) * 2))), content[f"{part}_y"]
    policy = "shrunk to 20x20 and padded" if pad else "stretched from 16x16"
    print(f"28x28: {policy}")
    write(folder, "usps_padded" if pad else "usps_28", parts)


def pacs(folder: Path) -> None:
    with zipfile.ZipFile(next((data_folder() / "pacs64").glob("*.zip"))) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith((".jpg", ".png"))]
        archive.extractall(folder, names)
    print("\n".join(sorted(str(folder / name) for name in {name.split("/")[0] for name in names})))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    makers: dict[str, Callable[[Path], None]] = {
        "mnist_m": mnist_m,
        "colours": colours,
        "rotated": rotated,
        "pacs": pacs,
    }
    parser.add_argument("what", choices=(*makers, "usps"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pad", action="store_true")
    given = parser.parse_args()
    if given.what == "usps":
        usps(given.folder, given.pad)
    else:
        makers[given.what](given.folder)

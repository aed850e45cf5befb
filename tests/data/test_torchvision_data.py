"""Data sets of torchvision by name: tiny ones in its layouts, and a download from a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

import opsin
from opsin import cli, data, schemes
from opsin.errors import InputError, JobError

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (2, 40, 28, 28), np.uint8)  # of training and of test
LABELS = np.stack([np.arange(40) % 10, np.arange(40)[::-1] % 10]).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPSIN_OFFLINE", raising=False)
    return tmp_path / "home" / "data" / "torchvision"


class Handler(SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Another MNIST, of 80 images, on a server here. What it was asked for."""
    served, resources = tmp_path / "served", []
    served.mkdir()
    for place, split in enumerate(("train", "t10k")):
        for kind, array in (("images-idx3", IMAGES[place]), ("labels-idx1", LABELS[place])):
            name = f"{split}-{kind}-ubyte.gz"
            (served / name).write_bytes(gzip.compress(idx(array)))
            resources.append((name, hashlib.md5((served / name).read_bytes()).hexdigest()))
    Handler.asked = []  # torchvision asks twice for a file: for its address, and for its content
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_address[1]}/"])
        monkeypatch.setattr(datasets.MNIST, "resources", resources)
        yield Handler.asked
        server.shutdown()


def put_mnist(folder: Path) -> None:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for place, split in enumerate(("train", "t10k")):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(idx(IMAGES[place]))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx(LABELS[place]))


def test_a_named_data_set_is_downloaded_once(
    mnist: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = data.open("torchvision:mnist")  # upper and lower case are one
    said = capsys.readouterr().err
    assert "downloading torchvision:mnist (about 12 MB, from 127.0.0.1:" in said
    assert f"licence: CC BY-SA 3.0) to {folder}; torchvision checks it by MD5" in said
    assert len(mnist) == 8
    assert {key: len(split) for key, split in source.splits.items()} == {"train": 40, "test": 40}
    assert source.classes[3] == "3 - three" and (source.name, source.format) == ("MNIST", "torchvision")
    for place, key in enumerate(("train", "test")):
        split = source.splits[key]
        assert split.kind.labels.tolist() == LABELS[place].tolist()
        assert np.array_equal(split.read(7).numpy()[0], IMAGES[place][7])
    data.open("torchvision:MNIST", fetch=False)
    assert len(mnist) == 8 and "downloading" not in capsys.readouterr().err


def test_a_recipe_alone_and_offline_download_nothing(
    mnist: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InputError, match=r"^torchvision:MNIST is not on this machine, and .*only a recipe.*: --data torchvision:M"
    ):
        data.open("torchvision:MNIST", fetch=False)
    monkeypatch.setenv("OPSIN_OFFLINE", "1")
    with pytest.raises(InputError, match=rf"^offline, and torchvision:MNIST is not in {folder}"):
        data.open("torchvision:MNIST")
    assert mnist == [] and not folder.exists()
    put_mnist(folder)
    assert len(data.open("torchvision:MNIST").splits["test"]) == 40
    assert mnist == []


def test_what_is_not_the_published_file_is_refused(mnist: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [(name, "0" * 32) for name, _ in datasets.MNIST.resources]
    monkeypatch.setattr(datasets.MNIST, "resources", wrong)
    with pytest.raises(JobError, match=r"torchvision:MNIST could not be downloaded: RuntimeError: .*corrupted"):
        data.open("torchvision:MNIST")


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(JobError, match=r"torchvision:MNIST could not be downloaded: .*; check the network"):
        data.open("torchvision:MNIST")


def test_splits_by_their_names(folder: Path) -> None:
    for place, split in enumerate(("train", "test")):
        folder.mkdir(parents=True, exist_ok=True)
        stored = {"X": IMAGES[place][:, :, :, None].repeat(3, 3).transpose(1, 2, 3, 0), "y": LABELS[place][:, None]}
        scipy.io.savemat(folder / f"{split}_32x32.mat", stored)
    md5 = {s: hashlib.md5((folder / f"{s}_32x32.mat").read_bytes()).hexdigest() for s in ("train", "test")}
    with pytest.MonkeyPatch.context() as patch:
        known = {s: ["http://127.0.0.1:9/", f"{s}_32x32.mat", md5[s]] for s in ("train", "test")}
        patch.setattr(datasets.SVHN, "split_list", known)
        source = data.open("torchvision:SVHN", fetch=False)
    assert {key: len(split) for key, split in source.splits.items()} == {"train": 40, "test": 40}
    assert source.splits["test"].kind.labels.tolist() == LABELS[1].tolist()
    assert source.splits["train"].read(3).shape == (3, 28, 28)


def test_what_a_class_must_be_given_follows_its_name(folder: Path) -> None:
    with pytest.raises(InputError, match=r"torchvision's EMNIST must be given its split too: torchvision:EMNIST/SPLIT"):
        data.open("torchvision:EMNIST")
    with pytest.raises(InputError, match=r"torchvision's MNIST takes nothing beside its name; leave /letters out"):
        data.open("torchvision:MNIST/letters")
    raw = folder / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for place, split in enumerate(("train", "test")):
        (raw / f"emnist-letters-{split}-images-idx3-ubyte").write_bytes(idx(IMAGES[place]))
        (raw / f"emnist-letters-{split}-labels-idx1-ubyte").write_bytes(idx(LABELS[place] + 1))
    source = data.open("torchvision:EMNIST/letters", fetch=False)
    assert source.splits["test"].kind.labels.tolist() == (LABELS[1] + 1).tolist() and len(source.classes) == 27


def test_voc_is_read_with_its_boxes(folder: Path) -> None:
    voc = folder / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (voc / name).mkdir(parents=True)
    for split in ("train", "val"):
        Image.new("RGB", (60, 40)).save(voc / "JPEGImages" / f"{split}1.jpg")
        box = "<bndbox><xmin>11</xmin><ymin>5</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
        text = f"<annotation><filename>{split}1.jpg</filename><object><name>cat</name>{box}</object></annotation>"
        (voc / "Annotations" / f"{split}1.xml").write_text(text, encoding="utf-8")
        (voc / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{split}1\n", encoding="utf-8")
    name = "torchvision:VOCDetection"
    assert data.recognize_task(name, fetch=False) == "detect"
    source = data.open(name, "detect", fetch=False)
    assert (source.classes, set(source.splits)) == (["cat"], {"train", "val"})
    assert source.splits["val"].kind.instances[0].boxes.tolist() == [[10, 4, 30, 20]]


def test_names(folder: Path) -> None:
    with pytest.raises(InputError, match=r"unknown torchvision data set 'CIFAR11'.*CIFAR10"):
        data.open("torchvision:CIFAR11")
    with pytest.raises(InputError, match="torchvision: names no runs"):
        schemes.SCHEMES["torchvision"].load("runs")
    assert data.recognize_task("torchvision:Food101") == "classify"
    assert not folder.exists()


def test_the_verbs(
    mnist: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--data downloads; a saved recipe takes what is here, and nothing else."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["opsin", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    run = tmp_path / "run"
    short = ("--set", "train.max_steps=1", "--set", "train.tensorboard=false", "--device", "cpu")
    status, _, err = call("train", "lenet5", "--data", "torchvision:MNIST", "--out", str(run), *short)
    assert status == 0 and "downloading torchvision:MNIST" in err and len(mnist) == 8
    assert call("eval", str(run))[0] == 0
    status, out, _ = call("data", "torchvision:MNIST", "--json")
    assert status == 0 and json.loads(out)["images"]["test"] == 40
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "elsewhere"))
    recipe = str(run / "recipe.yaml")
    for words in (("eval", str(run)), ("train", recipe, "--out", str(tmp_path / "two"))):
        status, _, err = call(*words)
        assert status == 2 and "to download it: --data torchvision:MNIST" in err and len(err.splitlines()) == 1
    assert len(mnist) == 8
    assert call("eval", str(run), "--data", "torchvision:MNIST")[0] == 0 and len(mnist) == 16
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "third"))
    with pytest.raises(InputError, match="only a recipe"):
        opsin.train(recipe, out=tmp_path / "three")
    opsin.train(recipe, {"data.source": "torchvision:MNIST", "data.limit": 10}, out=tmp_path / "three")
    assert len(mnist) == 24


def test_of_two_at_a_time_one_downloads(mnist: list[str], folder: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        opened = list(pool.map(data.open, ["torchvision:MNIST"] * 2))
    assert [len(one.splits["train"]) for one in opened] == [40, 40]
    assert len(mnist) == 8
    assert not list(folder.glob("*.lock"))

"""The verbs as a user calls them: what they print, and their exit status."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from opsin import cli

SHORT = ["--set", "train.max_steps=2", "--set", "data.limit=60", "--set", "train.tensorboard=false"]


class Result(NamedTuple):
    status: int
    out: str
    err: str


Call = Callable[..., Result]


@pytest.fixture
def opsin(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Calls the command line in this process."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["opsin", *map(str, arguments)])
        monkeypatch.delenv("OPSIN_RUN_FOLDER", raising=False)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        return Result(int(stop.value.code or 0), out, err)

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, to be used by tests that only read it."""
    import opsin

    out = tmp_path_factory.mktemp("runs") / "run"
    settings = {"train.max_steps": 2, "data.limit": 60}
    opsin.train("lenet5_digits", settings, out=out, say=lambda line: None)
    return out


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of six grey images."""
    random = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(6):
            array = np.clip(random.normal(level, 20, (32, 32)), 0, 255).astype(np.uint8)
            Image.fromarray(array).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def refused(result: Result, *words: str, status: int = 2) -> None:
    """One line on standard error, with these words, and the exit status."""
    assert result.status == status, result
    lines = [line for line in result.err.splitlines() if line.startswith("opsin: ")]
    assert len(lines) == 1, result.err
    assert "Traceback" not in result.err
    for word in words:
        assert word in lines[0], lines[0]


def test_train_writes_a_whole_run(opsin: Call, tmp_path: Path):
    out = tmp_path / "run"
    result = opsin("train", "lenet5_digits", "--out", out, "--json", *SHORT)
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert report["split"] == "test"
    assert 0 <= report["metrics"]["accuracy"] <= 1
    for name in ("recipe.yaml", "metrics.csv", "last.ckpt", "best.ckpt", "model.safetensors", "report.html"):
        assert (out / name).stat().st_size > 0, name
    assert "moving average" in result.err


def test_train_by_flags(opsin: Call, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    flags = ("--model", "lenet5", "--data", images, "--epochs", 1, "--batch-size", 4, "--lr", 0.01)
    result = opsin("train", "classify", *flags, "--set", "train.tensorboard=false")
    assert result.status == 0, result.err
    assert (tmp_path / "runs" / "lenet5_images" / "report.html").exists()
    result = opsin("train", "classify", *flags, "--set", "train.tensorboard=false")
    assert (tmp_path / "runs" / "lenet5_images-2" / "report.html").exists()


@pytest.mark.parametrize("name", ["alexnet_2012_imagenet", "resnet50_imagenet", "vgg16_imagenet"])
def test_imagenet_recipes_start(name: str, opsin: Call, images: Path, tmp_path: Path):
    # a small batch of small images, and a narrow head, keep the big networks affordable
    small = ["--set", "data.size=72", "--set", "data.channels=3", "--set", "train.workers=0", "--batch-size", "2"]
    small += ["--set", "augment=[{scale_jitter_crop: {min: 73, max: 80}}, random_horizontal_flip, pca_lighting]"]
    small += ["--set", "train.keep=last"]
    if name != "resnet50_imagenet":
        small += ["--set", "model.hidden_features=32"]
    result = opsin("train", name, "--data", images, "--out", tmp_path / "run", *small, *SHORT)
    assert result.status == 0, result.err


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["lenet5_1998_mnist", "lenet5_mnist", "resnet20_fashion"])
def test_recipes_on_real_data_start(name: str, opsin: Call, tmp_path: Path):
    result = opsin("train", name, "--out", tmp_path / "run", "--set", "train.batch_size=16", *SHORT)
    assert result.status == 0, result.err


def test_eval_prints_metrics(opsin: Call, run: Path):
    result = opsin("eval", run, "--json")
    assert result.status == 0, result.err
    metrics = json.loads(result.out)
    assert {"accuracy", "top5_accuracy", "precision", "recall", "f1", "nll", "ece"} <= metrics.keys()
    saved = json.loads((run / "evaluation_test.json").read_text())
    assert saved["metrics"] == metrics
    assert len(saved["confusion"]) == 10
    assert "accuracy" in opsin("eval", run, "--split", "val").out


def test_eval_refuses_another_split_and_other_classes(opsin: Call, run: Path, images: Path):
    refused(opsin("eval", run, "--split", "tset"), "'tset'", "train, val, test")
    refused(opsin("eval", run, "--data", images), "dark", "light")
    refused(opsin("eval", run.parent / "rnu"), "rnu")


def test_predict_prints_class_and_probability(opsin: Call, run: Path, tmp_path: Path):
    opsin("data", "digits", "--export", tmp_path / "digits", "--split", "test", "--limit", 3)
    files = sorted((tmp_path / "digits").rglob("*.png"))
    assert len(files) == 3
    result = opsin("predict", run, tmp_path / "digits", "--out", tmp_path / "drawn")
    assert result.status == 0, result.err
    assert len(result.out.splitlines()) == 3
    assert all("%" in line for line in result.out.splitlines())
    drawn = sorted((tmp_path / "drawn").rglob("*.png"))
    assert [p.name for p in drawn] == [p.name for p in files]
    answers = json.loads(opsin("predict", run, *files, "--json", "--top", 2).out)
    assert all(len(a["top"]) == 2 and a["label"] == a["top"][0]["label"] for a in answers)


def test_predict_names_bad_images_and_does_the_others(opsin: Call, run: Path, images: Path, tmp_path: Path):
    (images / "dark" / "0.png").write_bytes(b"")
    result = opsin("predict", run, images / "dark", "--json")
    assert result.status == 2
    assert "0.png" in result.err
    answers = json.loads(result.out)
    assert ["error" in answer for answer in answers] == [True, False, False, False, False, False]
    refused(opsin("predict", run, tmp_path / "nothing.png"), "nothing.png")
    (tmp_path / "empty").mkdir()
    refused(opsin("predict", run, tmp_path / "empty"), "no images", "empty")


def test_models_lists_facts(opsin: Call):
    facts = {entry["name"]: entry for entry in json.loads(opsin("models", "--json").out)}
    assert facts["resnet50"]["params"] == 25_557_032
    assert facts["alexnet_2012"]["params"] == 60_965_224
    assert "resnet50" in opsin("models", "resnet*").out
    refused(opsin("models", "resnet5O?x"), "resnet5O?x")


def test_data_says_what_it_is(opsin: Call, tmp_path: Path):
    result = opsin("data", "digits", "--sheet", tmp_path / "sheet.png")
    assert result.status == 0, result.err
    assert "1,437" in result.out or "1437" in result.out
    assert Image.open(tmp_path / "sheet.png").size > (50, 50)
    assert json.loads(opsin("data", "digits", "--json").out)["classes"][0] == "0"


def test_help_of_every_verb_has_an_example(opsin: Call):
    assert opsin("--help").status == 0
    for verb in ("train", "eval", "predict", "models", "data"):
        result = opsin(verb, "--help")
        assert result.status == 0
        assert f"opsin {verb}" in result.out


# Bad input: one clear line, the right exit status, nothing lost


def test_refuses_unknown_names(opsin: Call, tmp_path: Path):
    refused(opsin("tarin"), "'train'")
    refused(opsin("train", "lenet5_digts"), "lenet5_digits")
    refused(opsin("train", "classify", "--model", "resnet5", "--data", "digits"), "'resnet5'", "resnet50")
    refused(opsin("train", "classify", "--model", "lenet5", "--data", "digit"), "'digit'", "digits")
    refused(opsin("train", "lenet5_digits", "--epoch", 3), "--epoch", "--epochs")
    refused(opsin("train", "lenet5_digits", "--set", "optim.momentun=0.8"), "momentun")
    refused(opsin("train", "lenet5_digits", "--set", "schedule.nam=step"), "schedule.nam", "schedule.name")
    refused(opsin("train", "resnet18"), "resnet18 is a model", "opsin train resnet18 --data")
    refused(opsin("train", "lenet5_digits", "--set", "train.batchsize=3"), "train.batchsize", "train.batch_size")
    refused(opsin("train", "lenet5_digits", "--set", "augment=[random_crp]"), "random_crp", "random_crop")
    refused(opsin("train", "lenet5_digits", "--set", "loss.name=crossentropy"), "crossentropy", "cross_entropy")
    refused(
        opsin("train", "lenet5_digits", "--set", "train.monitor=val_acuracy", "--out", tmp_path / "m"),
        "val_acuracy",
        "val_accuracy",
    )
    refused(opsin("train"), "say what to train")


def train_on(opsin: Call, source: Path, tmp_path: Path, *more: object) -> Result:
    flags = ("--model", "lenet5", "--epochs", 1, "--batch-size", 4, "--lr", 0.01, "--set", "train.tensorboard=false")
    return opsin("train", "classify", "--data", source, "--out", tmp_path / "out", *flags, *more)


def test_refuses_data_that_cannot_be_learned(opsin: Call, images: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    refused(train_on(opsin, tmp_path / "empty", tmp_path), "empty")
    refused(train_on(opsin, tmp_path / "absent", tmp_path), "absent")
    one = tmp_path / "one"
    shutil.copytree(images / "dark", one / "dark")
    refused(train_on(opsin, one, tmp_path), "dark", "class")
    split = tmp_path / "split"
    shutil.copytree(images, split / "train")
    shutil.copytree(images / "dark", split / "test" / "drak")
    refused(train_on(opsin, split, tmp_path), "drak")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_refuses_unreadable_files_or_skips_them(content: bytes | None, opsin: Call, images: Path, tmp_path: Path):
    bad = images / "light" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60] if content is None else content)
    refused(train_on(opsin, images, tmp_path), "3.png", "--skip-bad")
    assert not (tmp_path / "out").exists()
    result = train_on(opsin, images, tmp_path, "--skip-bad")
    assert result.status == 0, result.err
    assert "skipped" in result.err and "3.png" in result.err


def test_refuses_labels_out_of_range(opsin: Call, images: Path, tmp_path: Path):
    np.savez(tmp_path / "wrong.npz", images=np.zeros((6, 32, 32), np.uint8), labels=np.array([0, 1, 0, 1, -3, 1]))
    refused(train_on(opsin, tmp_path / "wrong.npz", tmp_path), "-3")


def test_refuses_nan_in_the_data(opsin: Call, tmp_path: Path):
    images = np.zeros((8, 32, 32), np.float32)
    images[5, 3, 3] = np.nan
    np.savez(tmp_path / "nan.npz", images=images, labels=np.arange(8) % 2)
    refused(train_on(opsin, tmp_path / "nan.npz", tmp_path), "nan.npz", "5")


def test_refuses_what_the_network_cannot_take(opsin: Call, images: Path, tmp_path: Path):
    refused(train_on(opsin, images, tmp_path, "--set", "data.size=28"), "32", "28", "data.size")
    refused(train_on(opsin, images, tmp_path, "--model", "vgg11", "--set", "data.size=16"), "16", "data.size")
    refused(train_on(opsin, images, tmp_path, "--set", "data.channels=2"), "data.channels")
    refused(train_on(opsin, images, tmp_path, "--set", "data.mean=[0.5, 0.5]"), "mean")


def test_refuses_weights_of_another_architecture(opsin: Call, run: Path, images: Path, tmp_path: Path):
    other = ["--model", "resnet20", "--set", f"train.init={run}"]
    refused(train_on(opsin, images, tmp_path, *other), "train.init", "resnet20")
    result = train_on(opsin, images, tmp_path, "--set", f"train.init={run}")
    assert result.status == 0 and "fresh" in result.err, result.err


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_never_runs_code_from_a_checkpoint(opsin: Call, run: Path, images: Path, tmp_path: Path):
    import torch

    marker = tmp_path / "ran"
    plain, archive = tmp_path / "plain.ckpt", tmp_path / "archive.ckpt"
    plain.write_bytes(pickle.dumps(Malicious(marker)))
    torch.save({"state_dict": Malicious(marker)}, archive)
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for evil in (plain, archive):
        shutil.copy(evil, copy / "last.ckpt")
        refused(opsin("train", "--resume", copy), "last.ckpt")
        refused(opsin("predict", evil, images), evil.name)
        shutil.copy(evil, copy / "model.safetensors")
        refused(opsin("eval", copy), "model.safetensors")
        refused(train_on(opsin, images, tmp_path, "--set", f"train.init={evil}"), evil.name)
    assert not marker.exists()


def test_refuses_to_resume_with_other_classes(opsin: Call, run: Path, images: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "copy")
    refused(opsin("train", "--resume", tmp_path / "copy", "--data", images), "dark")
    refused(opsin("train", "--resume", tmp_path / "copy", "--model", "resnet20"), "resnet20")
    refused(opsin("train", "--resume", tmp_path / "nowhere"), "nowhere")
    assert (tmp_path / "copy" / "last.ckpt").read_bytes() == (run / "last.ckpt").read_bytes()


def test_refuses_to_overwrite_a_run(opsin: Call, run: Path):
    before = (run / "model.safetensors").read_bytes()
    refused(opsin("train", "lenet5_digits", "--out", run, *SHORT), "--resume")
    assert (run / "model.safetensors").read_bytes() == before


def test_refuses_an_output_folder_that_cannot_be_written(opsin: Call, images: Path, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    refused(opsin("train", "lenet5_digits", "--out", tmp_path / "file" / "run", *SHORT), "file", "--out")
    refused(opsin("train", "lenet5_digits", "--out", "/proc/run", *SHORT), "/proc/run", "--out")


def test_full_disk_keeps_the_run_that_there_was(
    opsin: Call, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The disk fills up while the checkpoint is written: the old one stays whole."""
    from opsin.engine import checkpoint

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    before = (copy / "last.ckpt").read_bytes()

    def full(value: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    result = opsin("train", "--resume", copy, "--set", "train.max_steps=4", "--set", "train.epochs=4")
    refused(result, "No space left on device", "last.ckpt", status=1)
    assert (copy / "last.ckpt").read_bytes() == before
    assert not list(copy.glob(".*tmp"))


def test_non_finite_loss_names_the_batch_and_saves_it(opsin: Call, images: Path, tmp_path: Path):
    result = train_on(opsin, images, tmp_path, "--set", "optim.lr=1e30", "--epochs", 3)
    refused(result, "not finite", "failed_batch.safetensors", ".png", status=1)
    from safetensors.torch import load_file

    assert load_file(tmp_path / "out" / "failed_batch.safetensors")["image"].shape == (4, 1, 32, 32)

"""A file of weights of one's own through the verbs: trained from, loaded, evaluated, and named in what is saved."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch

import opsin
from opsin import cli
from opsin.engine.checkpoint import read_model
from opsin.errors import InputError

MODEL = {"model": {"name": "lenet5"}, "data": {"source": "digits", "limit": 60}, "optim": {"lr": 1e-9}}
SHORT = {"train.max_steps": 1, "train.tensorboard": False, "train.accelerator": "cpu"}


def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["opsin", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capfd.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network that reads digits well, as another program would save them."""
    folder = tmp_path_factory.mktemp("theirs")
    settings = {
        "optim.name": "adamw",
        "optim.lr": 2e-3,
        "data.limit": 1500,
        "train.epochs": 4,
        "train.tensorboard": False,
    }
    run = opsin.train(MODEL, {**settings, "train.accelerator": "cpu"}, out=folder / "run", say=lambda line: None)
    state = {f"module.{key}": tensor for key, tensor in read_model(run.path).state.items()}
    torch.save({"state_dict": state, "epoch": 4}, folder / "digits.th")
    return folder / "digits.th"


def test_a_training_starts_from_it_and_says_so_in_what_it_saves(file: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = opsin.train(MODEL, {**SHORT, "model.weights": str(file)}, out=tmp_path / "run", say=said.append)
    assert f"first weights: 10 of 10 tensors are from {file}" in said
    saved, theirs = read_model(run.path), torch.load(file, weights_only=True)["state_dict"]
    for key, tensor in saved.state.items():
        torch.testing.assert_close(tensor, theirs[f"module.{key}"], rtol=0, atol=1e-6)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert saved.first_weights == {"file": "digits.th", "kept": 10, "fresh": [], "sha256": digest}
    again = opsin.train(resume=run.path, overrides={"train.max_steps": 2}, say=lambda line: None)
    assert read_model(again.path).first_weights == saved.first_weights
    init = opsin.train(MODEL, {**SHORT, "train.init": str(file)}, out=tmp_path / "init", say=said.append)
    assert said.count(f"initialized 10 of 10 tensors from {file}") == 1
    assert read_model(init.path).first_weights["file"] == "digits.th"


def test_it_is_loaded_with_its_network_and_evaluated(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    predictor = opsin.load(file, model="lenet5", device="cpu", classes=list("abcdefghij"))
    assert predictor.classes == list("abcdefghij")
    own = opsin.load(file, model="lenet5", device="cpu", preprocessing={"channels": 1, "mean": [0.25], "std": [0.5]})
    assert own.preprocessing is not None and (own.preprocessing.mean, own.preprocessing.std) == ((0.25,), (0.5,))
    assert opsin.evaluate(own, data="digits", split="test")["accuracy"] > 0.5
    named, on_cpu = f"lenet5:{file}", ("--json", "--device", "cpu")
    status, out, err = call(monkeypatch, capfd, "eval", named, "--data", "digits", *on_cpu)
    assert status == 0 and json.loads(out)["accuracy"] > 0.7, err
    folder = tmp_path / "named"  # the same digits in folders with names, in the order of the classes
    from opsin.data import open as open_data
    from opsin.data import to_pillow

    split = open_data("digits").splits["train"]
    for place in range(40):
        image, label = split.inputs.read(place), int(split.truth.labels[place])  # type: ignore[union-attr]
        (folder / f"{'abcdefghij'[label]}_digit").mkdir(parents=True, exist_ok=True)
        to_pillow(image).save(folder / f"{'abcdefghij'[label]}_digit" / f"{place}.png")
    status, out, err = call(monkeypatch, capfd, "eval", named, "--data", folder, *on_cpu)
    assert status == 0 and json.loads(out)["accuracy"] > 0.7, err
    assert "do not say what their classes are called" in err
    some = next(folder.rglob("*.png"))
    status, out, err = call(monkeypatch, capfd, "predict", named, some, *on_cpu)
    assert status == 0 and json.loads(out)[0]["label"].isdigit(), err


def test_what_to_call_is_said(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r'opsin\.load\(".*digits\.th", model="resnet50", classes=\[\.\.\.\]\)'):
        opsin.load(file)
    with pytest.raises(InputError, match="is for 10 classes, and 3 are given"):
        opsin.load(file, model="lenet5", classes=["a", "b", "c"])
    with pytest.raises(InputError, match="unknown key of preprocessing 'sizes'; did you mean size"):
        opsin.load(file, model="lenet5", preprocessing={"sizes": 32})
    with pytest.raises(InputError, match="say which network: model=NAME"):
        opsin.load(file, classes=["a"])
    with pytest.raises(InputError, match="published with its classes"):
        opsin.load("imagenet1k", model="resnet18", classes=["a"])
    torch.save({"head.0.bias": torch.zeros(120)}, tmp_path / "no.pt")
    with pytest.raises(InputError, match="does not fit lenet5"):
        opsin.load(tmp_path / "no.pt", model="lenet5")
    words = ("train", "lenet5", "--data", "digits", "--weights", tmp_path / "none.th", "--out", tmp_path / "run")
    status, _, err = call(monkeypatch, capfd, *words)
    assert status == 2 and err.strip() == f"opsin: no file of weights at {tmp_path / 'none.th'}"
    assert not (tmp_path / "run").exists()

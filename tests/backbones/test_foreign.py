"""A network of another library through the verbs, as a user calls them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from opsin import cli

pytest.importorskip("timm")

SHORT = ("--set", "train.max_steps=2", "--set", "data.limit=40", "--set", "train.tensorboard=false")


def call(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["opsin", *map(str, arguments)])
    monkeypatch.delenv("OPSIN_RUN_FOLDER", raising=False)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capfd.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.mark.parametrize("name", ["timm:test_convnext"])
def test_it_is_trained_evaluated_exported_and_explained(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = (*SHORT, "--set", "data.size=32")
    status, _, err = call(capfd, monkeypatch, "train", name, "--data", "digits", "--epochs", 1, *settings)
    assert status == 0, err
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name == f"{name.replace(':', '_')}_digits"
    assert yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))["model"]["name"] == name
    status, out, err = call(capfd, monkeypatch, "eval", run, "--json")
    assert status == 0 and "accuracy" in json.loads(out), err
    status, out, err = call(capfd, monkeypatch, "explain", run, "--json")
    assert status == 0 and json.loads(out)["identity"]["name"] == name, err
    pytest.importorskip("onnx")
    status, out, err = call(capfd, monkeypatch, "export", run, "--format", "onnx")
    assert status == 0 and "from PyTorch's" in out, err


def test_the_list_of_models_says_where_others_are(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capfd, monkeypatch, "models")
    assert status == 0 and "timm:NAME and torchvision:NAME" in err and "timm:" not in out
    status, out, _ = call(capfd, monkeypatch, "models", "timm:test_conv*")
    assert status == 0 and out.count("timm:test_convnext") == 3
    status, out, _ = call(capfd, monkeypatch, "models", "torchvision:swin_t", "--json")
    (entry,) = json.loads(out)
    assert (entry["params"], entry["paper"], entry["input"]) == (28_288_354, None, [3, 224, 224])
    for arguments in (("models", "timm:foo"), ("train", "timm:foo", "--data", "digits"), ("explain", "timm:foo")):
        status, _, err = call(capfd, monkeypatch, *arguments)
        assert status == 2 and "unknown network of timm 'foo'" in err and "`opsin models 'timm:*'`" in err


def test_weights_in_the_name_are_weights_in_the_recipe() -> None:
    from opsin.engine.recipe import load_recipe
    from opsin.errors import InputError

    data = {"source": "digits"}
    recipe = load_recipe({"task": "classify", "model": {"name": "timm:test_vit.r160_in1k"}, "data": data})
    assert (recipe.model.name, recipe.model.weights) == ("timm:test_vit", "r160_in1k")
    model = {"name": "ssd", "backbone": "timm:convnext_tiny.fb_in1k"}
    recipe = load_recipe({"task": "detect", "model": model, "data": data})
    assert recipe.model.options == {"backbone": "timm:convnext_tiny"} and recipe.model.backbone_weights == "fb_in1k"
    with pytest.raises(InputError, match="leave one of them out"):
        both = {"name": "timm:test_vit.r160_in1k", "weights": "imagenet1k"}
        load_recipe({"task": "classify", "model": both, "data": data})

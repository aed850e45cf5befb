"""Saved models that promise what cannot be: one line, at once, and no memory for it."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import opsin
from opsin import cli, registry
from opsin.engine.checkpoint import Facts, read_tensors, save_model
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError

Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[Change], Path]:
    """A whole lenet5 of ten classes with its description, or its tensors, changed."""
    path = tmp_path / "model.safetensors"
    recipe = load_recipe({"model": {"name": "lenet5"}, "data": {"source": "digits"}})
    preprocessing = opsin.data.Preprocessing(size=(32, 32), channels=1, mean=(0.5,), std=(0.5,))
    options: dict[str, Any] = {"num_classes": 10, "in_channels": 1}
    facts = Facts(recipe, preprocessing, {"classes": list("abcdefghij")}, options)
    save_model(path, registry.create_model("lenet5", **options), facts, {})

    def make(change: Change) -> Path:
        tensors, metadata = read_tensors(path)
        text = json.loads(metadata["opsin"])
        changed = change(text, tensors)
        text = changed if isinstance(changed, str) else json.dumps(text)
        save_file(tensors, path, metadata={"format": "pt", "opsin": text})
        return path

    return make


def with_value(*keys: str, value: Any) -> Change:
    def change(text: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for key in keys[:-1]:
            text = text[key]
        text[keys[-1]] = value

    return change


def of_many(**options: int) -> Change:
    """Classes or channels of another number, with as many names."""

    def change(text: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        text["options"] |= options
        if "num_classes" in options:
            del text["meaning"]["classes"]

    return change


def of_network(name: str, **options: Any) -> Change:
    return with_value("recipe", "model", value={"name": name, **options})


def with_tensor(value: float) -> Change:
    def change(text: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        tensors["head.1.weight"][3, 3] = value

    return change


DEEP = "[" * 100_000 + "]" * 100_000
CASES: dict[str, tuple[Change, str]] = {
    "nan": (with_tensor(float("nan")), r"damaged: head\.1\.weight holds values that are not numbers"),
    "infinite": (with_tensor(float("inf")), r"damaged: head\.1\.weight holds infinite values"),
    "temperature 0": (with_value("values", "temperature", value=0), r"damaged: temperature is 0\.0"),
    "temperature nan": (with_value("values", "temperature", value=float("nan")), "damaged: temperature is nan"),
    "temperature -1": (with_value("values", "temperature", value=-1), r"damaged: temperature is -1\.0"),
    "temperature text": (with_value("values", "temperature", value="x"), "damaged: could not convert"),
    "temperature huge": (with_value("values", "temperature", value=10**400), "damaged: int too large"),
    "nested": (lambda text, tensors: DEEP, "damaged description: it is nested deeper than 100 levels"),
    "nested within": (
        lambda text, tensors: json.dumps(text)[:-1] + f', "more": {DEEP}}}',
        "damaged description: it is nested deeper than 100 levels",
    ),
    "pixels": (with_value("preprocessing", "size", value=[40_000, 25_000]), "at most 67,108,864 pixels"),
    "size of truths": (with_value("preprocessing", "size", value=[True, True]), r"expected \(height, width\)"),
    "mean": (with_value("preprocessing", "mean", value=[float("nan")]), "damaged description: mean is"),
    "mean huge": (with_value("preprocessing", "mean", value=[10**400]), "damaged description: int too large"),
    "std": (with_value("preprocessing", "std", value=[float("inf")]), "std above 0"),
    "metrics": (with_value("metrics", value={"accuracy": 10**400}), "damaged description: int too large"),
    "recipe": (with_value("recipe", "schedule", value={"warmup_epochs": float("nan")}), "safetensors: recipe key"),
    "classes": (with_value("meaning", "classes", value=["a"]), "it names 1 classes for a network of 10"),
    "10^8 classes": (of_many(num_classes=10**8), r"is \(100000000, 84\) by the file's options and \(10, 84\)"),
    "10^12 classes": (of_many(num_classes=10**12), "by the file's options"),
    "10^30 classes": (of_many(num_classes=10**30), "cannot be built"),
    "10^9 channels": (of_many(in_channels=10**9), r"is \(6, 1000000000, 5, 5\) by the file's options"),
    "depth": (of_network("anynetx", depths=[10**9, 1, 1, 1]), "more layers than the file has weights"),
    "growth": (of_network("densenet121", growth=10**7), "more layers than the file has weights"),
    "other network": (of_network("resnet1202"), "more layers than the file has weights"),
    "unknown option": (of_network("lenet5", nothing=1), "unknown option of lenet5 'nothing'"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_in_a_line_without_memory(case: str, damaged: Callable[[Change], Path]) -> None:
    change, message = CASES[case]
    path = damaged(change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message) as caught:
        opsin.load(path, device="cpu")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # in KiB


@pytest.mark.parametrize("case", ["nan", "nested", "10^12 classes", "pixels"])
def test_the_command_says_it_with_status_2(
    case: str,
    damaged: Callable[[Change], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = damaged(CASES[case][0])
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "x.png")
    monkeypatch.setattr(sys, "argv", ["opsin", "predict", str(path), str(tmp_path / "x.png"), "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capfd.readouterr()
    assert stop.value.code == 2 and out == "" and err.count("\n") == 1 and "unexpected" not in err


def test_a_whole_one_is_loaded(damaged: Callable[[Change], Path]) -> None:
    assert opsin.load(damaged(lambda text, tensors: None), device="cpu").classes == list("abcdefghij")


def test_json_has_no_value_for_what_is_no_number() -> None:
    from opsin.cli.printing import to_json
    from opsin.errors import JobError

    with pytest.raises(JobError, match="a value that is no number"):
        to_json({"score": float("nan")})

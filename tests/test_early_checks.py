"""What is missing is said before torch is imported, and what is there is never called missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import registry
from opsin.cli import early_checks
from opsin.data import Preprocessing
from opsin.engine.checkpoint import Facts, save_model
from opsin.engine.recipe import list_recipes, load_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small classifier with random weights."""
    folder = tmp_path_factory.mktemp("run")
    values = {"model": {"name": "lenet5"}, "data": {"source": "digits"}}
    prepared = Preprocessing(size=(32, 32), channels=1, mean=(0.5,), std=(0.5,))
    facts = Facts(load_recipe(values), prepared, {"classes": ["0", "1"]}, {"num_classes": 2, "in_channels": 1})
    save_model(folder / "model.safetensors", facts.build(), facts, {})
    (folder / "recipe.yaml").write_text(facts.recipe.to_yaml(), encoding="utf-8")
    return folder


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "OPSIN_DATA"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_missing_things_are_said_without_torch(run: Path, tmp_path: Path) -> None:
    """All calls in one process: none of them may have imported torch when the last is over."""
    (tmp_path / "runs" / "own").mkdir(parents=True)
    (tmp_path / "runs" / "own" / "recipe.yaml").touch()
    image = str(run / "recipe.yaml")
    calls = {
        f"predict {run} missing.jpg": "no file or folder at missing.jpg",
        f"predict runs/nowhere {image}": "no run or file at runs/nowhere; runs there: runs/own",
        "eval runs/nowhere": "no run or file at runs/nowhere; runs there: runs/own",
        f"eval {run} --data nowhere/x": "no file or folder at nowhere/x",
        "export runs/ow": "no run or file at runs/ow; did you mean runs/own?",
        "explain nothing.safetensors": "no file at nothing.safetensors",
        f"explain {run} --html x.html --images nowhere.png": "no file or folder at nowhere.png",
        "train classify --model lenet5 --data nowhere/": "no file or folder at nowhere/",
        "train nowhere.yaml": "no recipe at nowhere.yaml",
        "train --resume nowhere": "no run at nowhere",
        "data nowhere/": "no file or folder at nowhere/",
    }
    code = f"""
import contextlib, io, sys
from opsin.cli import main
for call in {list(calls)!r}:
    sys.argv, said = ["opsin", *call.split()], io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as exit_:
            print(exit_.code, said.getvalue().strip())
print("torch" in sys.modules or "numpy" in sys.modules)
"""
    result = run_python(code, tmp_path)
    *lines, imported = result.stdout.splitlines()
    assert imported == "False", result.stderr
    for line, (call, expected) in zip(lines, calls.items(), strict=True):
        assert line.startswith("2 opsin: "), f"{call}: {line}"
        assert expected in line, f"{call}: {line}"


def test_what_is_there_is_never_called_missing() -> None:
    for name in registry.list_models():
        early_checks.check_run(f"{name}:weights")
        early_checks.check_explained(name)
    for name in list_recipes():
        early_checks.check_recipe(name)
    for name in ("digits", "scenes", None, "scenes:50", "hf:owner/name"):
        early_checks.check_data(name)


def test_using_a_model_imports_none_of_what_trains_it(run: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "image.jpg")
    code = f"""
import json, sys, opsin
answer = opsin.load({str(run)!r}).predict("image.jpg")
slow = {{"matplotlib", "torchmetrics", "scipy", "sklearn", "lightning", "torchvision", "sympy", "triton"}}
print(json.dumps([str(answer["label"]), sorted(slow & sys.modules.keys())]))
"""
    result = run_python(code, tmp_path)
    assert result.returncode == 0, result.stderr
    label, imported = json.loads(result.stdout)
    assert label in ("0", "1")
    assert imported == []


def test_using_a_detector_imports_none_of_what_trains_it(tmp_path: Path) -> None:
    """torchvision it needs, for suppression."""
    values = {"task": "detect", "model": {"name": "ssdlite320_mobilenet_v3_large"}, "data": {"source": "scenes"}}
    prepared = Preprocessing(size=(320, 320), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    facts = Facts(load_recipe(values), prepared, {"classes": ["0", "1"]}, {"num_classes": 2, "in_channels": 3})
    torch.manual_seed(0)
    save_model(tmp_path / "model.safetensors", facts.build(), facts, {})
    code = """
import sys, numpy, opsin
opsin.load("model.safetensors").predict(numpy.zeros((32, 32, 3), numpy.uint8))
print(sorted({"matplotlib", "torchmetrics", "scipy", "sklearn", "lightning"} & sys.modules.keys()))
"""
    result = run_python(code, tmp_path)
    assert result.stdout.strip() == "[]", result.stderr + result.stdout

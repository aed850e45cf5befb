"""What an earlier version wrote keeps working: models answer as they did, stopped runs go on, `--json` keeps its keys.

The files, the commands that made them and what they answered are in compatibility/, see its README. Numbers may differ
in their last digits from one processor to another.
"""

from __future__ import annotations

import csv
import json
import math
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import opsin

FILES = Path(__file__).parent / "compatibility"
RELATIVE, ABSOLUTE = 1e-4, 1e-5
PIXELS = 0.02  # boxes are rounded to hundredths
# Without AVX2, as on ARM, torch resizes bytes by another rounding: images differ by a grey level, answers visibly.
EXACT = torch.backends.cpu.get_cpu_capability().startswith("AVX")
FINISHED, STOPPED = ["classify", "multi_label", "detect"], ["classify_stopped", "detect_stopped", "staged_stopped"]
COMMANDS = {
    "predict_classify": "predict classify digits --top 3",
    "predict_multi_label": "predict multi_label digits --top 2",
    "predict_detect": "predict detect scenes --score-threshold 0.2",
    "eval_classify": "eval classify",
    "eval_detect": "eval detect --split val",
    "data_digits": "data digits",
    "data_scenes": "data scenes:20",
    "models": "models lenet5",
    "explain": "explain lenet5",
}


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "home"))  # where proposals are kept
    monkeypatch.delenv("OPSIN_RUN_FOLDER", raising=False)


def copy(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(FILES / name, folder / name))


def expected(name: str) -> Any:
    return json.loads((FILES / "expected" / f"{name}.json").read_text(encoding="utf-8"))


def images() -> dict[str, np.ndarray]:
    """Digits, uint8 (8, 8), and parts of scenes, uint8 (H, W, 3)."""
    with np.load(FILES / "images.npz") as content:
        return dict(content)


def check(found: Any, wanted: Any, place: str = "") -> None:
    """That every value that was there is there still. Keys may have been added, and sentences reworded.

    Where the processor resizes otherwise, only what kind of value it is.
    """
    if isinstance(wanted, dict):
        assert isinstance(found, dict), place
        for key, value in wanted.items():
            assert key in found, f"{place}: {key} is gone"
            check(found[key], value, f"{place}/{key}")
    elif isinstance(wanted, list):
        assert isinstance(found, list), place
        if place.endswith("/options"):  # names, of which there may be more
            assert set(wanted) <= set(found), place
            return
        assert len(found) == len(wanted) or not EXACT, f"{place}: {len(found)} entries, there were {len(wanted)}"
        for number, (one, other) in enumerate(zip(found, wanted, strict=EXACT)):
            check(one, other, f"{place}/{number}")
    elif isinstance(wanted, int | float) and not isinstance(wanted, bool):
        absolute = PIXELS if "/box/" in place else ABSOLUTE
        close = math.isclose(found, wanted, rel_tol=RELATIVE, abs_tol=absolute)
        assert close or not EXACT, f"{place}: {found}, it was {wanted}"
    elif isinstance(wanted, str) and (" " in wanted or not EXACT):
        assert isinstance(found, str), place
    else:
        assert found == wanted, f"{place}: {found}, it was {wanted}"


def predict(run: Path) -> dict[str, Any]:
    """Answers as JSON has them: of a classifier for the digits, of a detector for the scenes."""
    predictor = opsin.load(run, "cpu")
    detects = "task: detect" in (run / "recipe.yaml").read_text()
    options: dict[str, Any] = {"score_threshold": 0.2, "limit": 5} if detects else {}
    chosen = {name: image for name, image in images().items() if name.startswith("scene" if detects else "digit")}
    return json.loads(json.dumps({name: predictor.predict(image, **options) for name, image in chosen.items()}))


@pytest.mark.parametrize("name", FINISHED)
def test_finished_runs_answer_as_they_did(name: str, tmp_path: Path) -> None:
    run, wanted = copy(name, tmp_path), expected(name)
    check(predict(run), wanted["predict"], "predict")
    for split, metrics in wanted["evaluate"].items():
        check(opsin.evaluate(run, split=split, device="cpu"), metrics, split)
    check(json.loads((run / "evaluation_test.json").read_text()), wanted["evaluation"], "evaluation_test.json")


@pytest.mark.parametrize("name", STOPPED)
def test_stopped_runs_go_on_as_they_would_have(name: str, tmp_path: Path) -> None:
    if name == "staged_stopped" and not EXACT:
        pytest.skip("the built-in scenes have other pixels here, and stages go on with the same data alone")
    run, wanted = copy(name, tmp_path), expected(name)
    lines: list[str] = []
    done = opsin.train(resume=run, say=lines.append)
    with (run / "metrics.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    check(rows, wanted["history"], "metrics.csv")
    assert done.split == wanted["split"]
    check(done.metrics, wanted["metrics"], "metrics")
    norms = {key: float(value.double().norm()) for key, value in load_file(run / "model.safetensors").items()}
    check(norms, wanted["norms"], "model.safetensors")
    check(predict(run), wanted["predict"], "predict")
    if name == "staged_stopped":
        assert sum("finished before" in line for line in lines) == 3


@pytest.mark.parametrize("name", ["classify", "detect"])
def test_finished_runs_can_be_exported(name: str, tmp_path: Path) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    run = copy(name, tmp_path)
    written = opsin.export(run, "onnx")  # which compares the file with the model
    assert written.path == run / "model.onnx"
    described = {one.key: one.value for one in onnx.load(written.path).metadata_props}
    assert json.loads(described["classes"]) == [str(k) for k in range(10)]
    assert {"opsin", "model", "task", "usage", "preprocessing"} <= described.keys()
    session = onnxruntime.InferenceSession(str(written.path), providers=["CPUExecutionProvider"])
    given = np.zeros((2, *written.input), np.uint8)
    found = dict(zip([one.name for one in session.get_outputs()], session.run(None, {"images": given}), strict=True))
    if name == "classify":  # whose scores are calibrated in the file too
        black = opsin.load(run, "cpu").predict(torch.zeros(1, 8, 8, dtype=torch.uint8))
        assert found["scores"].shape == (2, 10)
        assert float(found["scores"][0].max()) == pytest.approx(black["score"], rel=RELATIVE)
    else:
        assert found["boxes"].shape == (2, 960, 4)
        assert found["scores"].shape == (2, 960, 10)
        fitted = expected("detect")["fitted"]["score_threshold"]
        assert json.loads(described["selection"])["score_threshold"] == pytest.approx(fitted, rel=RELATIVE)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished runs, and with the images as files."""
    folder = tmp_path_factory.mktemp("workplace")
    for name in FINISHED:
        copy(name, folder)
    for name, image in images().items():
        path = folder / f"{name.split('_')[0]}s" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_json_keeps_its_keys(
    name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", ["opsin", *COMMANDS[name].split(), "--json"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("opsin", run_name="__main__")
    out, err = capfd.readouterr()
    assert not stop.value.code, err
    check(json.loads(out), json.loads((FILES / "expected" / "json" / f"{name}.json").read_text()), name)

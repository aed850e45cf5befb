"""What proposals find: of a method and of trained detectors, through the command line and beside plain counting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou
from typer.testing import CliRunner

import opsin
from opsin import cli, data
from opsin.detect.proposals import COUNTS, SlidingWindows
from opsin.detect.recall import measure_recall
from opsin.engine.checkpoint import Facts, save_model
from opsin.engine.recipe import load_recipe
from opsin.engine.recipe_data import create_preprocessing
from opsin.errors import InputError

MOBILE: dict[str, Any] = {"backbone": "mobilenet_v3_small", "channels": 16}
MODELS: dict[str, dict[str, Any]] = {
    "rpn": {**MOBILE, "candidates": 40, "limit": 90},
    "faster_rcnn": {**MOBILE, "hidden": 8, "candidates": 50, "test_candidates": 30, "test_proposals": 70},
    "fast_rcnn": {
        "backbone": "mobilenet_v3_small",
        "hidden": 8,
        "proposals": "sliding_windows",
        "proposal_options": {"limit": 50},
    },
    "ssd": {"backbone": "mobilenet_v3_small", "extra_channels": [16]},
}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "home"))


def save_run(folder: Path, name: str) -> Path:
    settings = {"task": "detect", "model": {"name": name, **MODELS[name]}}
    recipe = load_recipe({**settings, "data": {"source": "scenes:5", "size": [96, 128], "fit": "pad"}})
    preprocessing = create_preprocessing(recipe, 3)
    torch.manual_seed(0)
    model = opsin.create_model(name, num_classes=10, **MODELS[name]).eval()
    folder.mkdir()
    classes = [str(k) for k in range(10)]
    facts = Facts(recipe, preprocessing, {"classes": classes}, {"num_classes": 10, "in_channels": 3})
    save_model(folder / "model.safetensors", model, facts, {})
    return folder


def run(*arguments: object) -> Any:
    words = [str(one) for one in arguments]
    return CliRunner().invoke(cli.app_for(words), words)


def shares(split: data.Split, boxes: list[torch.Tensor], threshold: float) -> list[float]:
    """Of all objects those that one of the first boxes of their image overlaps, one after the other."""
    found = []
    for count in COUNTS:
        hits = [
            bool((box_iou(truth[None], own[:count]) >= threshold).any())
            for one, own in zip(split.kind.instances, boxes, strict=True)
            for truth in one.boxes
        ]
        found.append(sum(hits) / len(hits))
    return found


def test_the_command_prints_and_draws_it(tmp_path: Path) -> None:
    asked = ("data", "scenes:5", "--proposals", "sliding_windows", "--set", "limit=700", "--split", "train")
    result = run(*asked, "--json", "--sheet", tmp_path / "with.png")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)["proposals"]
    train = data.open("scenes:5", "detect").splits["train"]
    windows = [SlidingWindows(limit=700)(train.read(k)) for k in range(len(train))]
    assert (said["method"], said["split"], said["images"]) == ("sliding_windows", "train", 5)
    assert said["objects"] == sum(map(len, train.kind.instances)) and said["mean_proposals"] == 700
    assert said["proposals"] == list(COUNTS)
    for threshold in (0.5, 0.7, 0.95):
        assert said["recall"][f"{threshold:g}"] == pytest.approx(shares(train, windows, threshold))
    assert run("data", "scenes:5", "--sheet", tmp_path / "without.png").exit_code == 0
    drawn, plain = Image.open(tmp_path / "with.png"), Image.open(tmp_path / "without.png")
    assert drawn.width == plain.width and drawn.height == plain.height + 340
    chart = drawn.crop((0, plain.height, 600, drawn.height))
    assert len(chart.getcolors(maxcolors=600 * 340) or []) > 20
    text = run(*asked).stdout
    assert f"sliding_windows on train, 5 images, {said['objects']} objects: 700 proposals of an image" in text
    assert f"    2,000  {said['recall']['0.5'][-1]:.3f}" in text


@pytest.mark.parametrize("name", ["rpn", "faster_rcnn", "fast_rcnn"])
def test_a_run_has_its_own(name: str, tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", name)
    result = run("data", "scenes:5", "--proposals", folder, "--split", "train", "--json")
    assert result.exit_code == 0, result.exception
    said = json.loads(result.stdout)["proposals"]
    assert said["method"] == str(folder)
    assert 0 < said["mean_proposals"] <= {"rpn": 90, "faster_rcnn": 70, "fast_rcnn": 50}[name]
    if name == "rpn":  # what it answers are its proposals
        train = data.open("scenes:5", "detect").splits["train"]
        images = [train.read(k) for k in range(len(train))]
        answers = opsin.load(folder, "cpu").predict(images, score_threshold=0.0)
        boxes = [torch.tensor([one["box"] for one in answer["instances"]]) for answer in answers]
        assert said["mean_proposals"] == sum(map(len, boxes)) / len(boxes)
        assert said["recall"]["0.5"] == pytest.approx(shares(train, boxes, 0.5))


def test_images_that_cannot_be_read_do_not_count(tmp_path: Path) -> None:
    rows = ["path,x1,y1,x2,y2,label"]
    for number in range(3):
        Image.new("RGB", (40, 30), (50 * number, 90, 20)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,5,5,30,25,cat")
    (tmp_path / "1.png").write_bytes(b"no image")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    result = run("data", tmp_path, "--proposals", "sliding_windows", "--json")
    assert result.exit_code == 1  # the doctor's, of the file
    assert json.loads(result.stdout)["proposals"]["images"] == 2


def test_refusals(tmp_path: Path) -> None:
    ssd, rpn = save_run(tmp_path / "ssd", "ssd"), save_run(tmp_path / "rpn", "rpn")
    for arguments, message in (
        (("scenes:5", "--proposals", "sliding_window"), "did you mean sliding_windows"),
        (("scenes:5", "--proposals", "sliding_windows", "--set", "limits=3"), "limits"),
        (("scenes:5", "--proposals", "sliding_windows", "--split", "tests"), "did you mean test"),
        (("scenes:5", "--proposals", ssd), "ssd looks at no proposals"),
        (("scenes:5", "--proposals", rpn, "--set", "limit=3"), "leave out --set limit"),
        (("scenes:5", "--proposals", tmp_path / "none"), "none"),
        (("scenes:5", "--set", "limit=3"), "--proposals NAME"),
        (("scenes:5", "--proposals", "sliding_windows", "--model", "ssd", "--set", "limit=3"), "give one of them"),
    ):
        error = run("data", *arguments).exception
        assert isinstance(error, InputError), error
        assert message in str(error)
    empty = data.open("scenes:5", "detect")
    empty.splits["test"] = empty.splits["test"].subset([])
    with pytest.raises(InputError, match="scenes, test, has no objects"):
        measure_recall(empty, "sliding_windows")
    assert run("data", "digits", "--proposals", "sliding_windows").exit_code == 2  # an option of another task

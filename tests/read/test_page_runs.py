"""Two saved runs as one: by flags, as a saved file, in Python, on PDF pages and in an evaluation."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import opsin
from opsin import cli
from opsin.data import Preprocessing
from opsin.engine.checkpoint import Facts, save_model
from opsin.engine.pipeline import load_pipeline, save_pipeline
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError

from .fake_pages import draw_page

Call = Callable[..., tuple[int, str, str]]
DETECTOR: dict[str, Any] = {"name": "yolov3", "backbone": "mobilenet_v3_small", "width": 0.25}


@pytest.fixture
def runs(readers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A detector and a recognizer that were never trained, and a page."""
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    parts = {
        "detector": ("detect", DETECTOR, {"classes": ["text"]}, (64, 96), 1),
        "recognizer": ("read", {"name": "tiny_reader"}, {"alphabet": "abc"}, (12, 32), 4),
    }
    for name, (task, model, meaning, size, classes) in parts.items():
        recipe = load_recipe({"task": task, "model": model, "data": {"source": ""}})
        channels = 3 if task == "detect" else 1
        prepared = Preprocessing(size=size, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)
        facts = Facts(recipe, prepared, meaning, {"num_classes": classes, "in_channels": channels})
        model: Any = facts.build()
        if task == "read":
            model.head.bias.data[-1] = -100.0  # no blanks: something is read everywhere
        save_model(Path(f"{name}.safetensors"), model, facts, {"loss": 1.0})
    Image.fromarray(draw_page([(10, 8, "bills cafe"), (10, 40, "tea")])[0].numpy()).save("page.png")
    return {name: Path(f"{name}.safetensors") for name in parts}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """The command line, in this process."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["opsin", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        return int(stop.value.code or 0), out, err

    return run


def test_a_saved_pipeline_is_its_runs(runs: dict[str, Path], call: Call) -> None:
    both = [word for name, run in runs.items() for word in (f"--{name}", run)]
    more = ("page.png", "--threshold", "0", "--turn", "off")
    status, out, _ = call("predict", *both, *more, "--json", "--save", "pages.safetensors")
    (by_flags,) = json.loads(out)
    assert status == 0 and by_flags["lines"] and by_flags["path"] == "page.png"
    _, out, _ = call("predict", "pages.safetensors", *more, "--json")
    assert json.loads(out) == [by_flags]
    predictor: Any = opsin.load("pages.safetensors", "cpu")
    assert dict(predictor.predict("page.png", threshold=0.0, turn="off")) == by_flags
    assert [part.recipe.task for part in predictor.parts.values()] == ["detect", "read"]
    in_python = load_pipeline(device="cpu", **{name: opsin.load(run, "cpu") for name, run in runs.items()})
    assert dict(in_python.predict("page.png", threshold=0.0, turn="off")) == by_flags
    one, other = (part.model.state_dict() for part in (predictor.second, opsin.load(runs["recognizer"], "cpu")))
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_forms_on_the_command_line(runs: dict[str, Path], call: Call) -> None:
    save_pipeline("pages.safetensors", **runs)
    for form, ending in (("text", "txt"), ("hocr", "hocr"), ("json", "json"), ("drawn", "png")):
        call("predict", "pages.safetensors", "page.png", "--threshold", "0", "--format", form, "--out", "out")
        assert Path("out", f"page.{ending}").stat().st_size, form
    status, _, err = call("predict", "pages.safetensors", "page.png", "--format", "index", "--out", "out")
    assert status == 2 and "drawn" in err and "hocr" in err
    _, out, _ = call("predict", "pages.safetensors", "--help")
    assert "--least-score" in out and "--order" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--detector", "detector.safetensors", "page.png"], "detector and recognizer make pages"),
        (["--detector", "no/run", "--recognizer", "recognizer.safetensors", "page.png"], "no/run"),
        (
            ["--detector", "recognizer.safetensors", "--recognizer", "detector.safetensors", "page.png"],
            "a run of detect",
        ),
        (["--detector", "detector.safetensors", "--recognizer", "recognizer.safetensors"], "say what to predict on"),
        (["detector.safetensors", "page.png", "--save", "x.safetensors"], "--detector RUN --recognizer RUN"),
        (["pages", "page.png"], "--detector RUN --recognizer RUN"),
        ([], "opsin predict RUN INPUT"),
    ],
)
def test_wrong_calls_are_one_line(runs: dict[str, Path], call: Call, words: list[str], said: str) -> None:
    status, _, err = call("predict", *words)
    assert status == 2 and said in err and err.count("\n") == 1


def test_a_pipeline_is_only_predicted_and_evaluated_with(runs: dict[str, Path], call: Call) -> None:
    file = save_pipeline("pages.safetensors", **runs)
    with pytest.raises(InputError, match="has to end in"):
        save_pipeline("pages.pt", **runs)
    with pytest.raises(InputError, match="has to be a run of read"):
        save_pipeline("two.safetensors", detector=runs["detector"], recognizer=runs["detector"])
    for words in (["export", file, "--format", "onnx"], ["explain", file]):
        status, _, err = call(*words)
        assert status == 2 and "detector and recognizer" in err, (words, err)


def test_pages_of_a_pdf(runs: dict[str, Path], call: Call) -> None:
    pytest.importorskip("pypdfium2")
    page = Image.open("page.png")
    Path("scans").mkdir()
    page.save("scans/two.pdf", save_all=True, append_images=[page.rotate(90, expand=True)], resolution=200)
    save_pipeline("pages.safetensors", **runs)
    _, out, _ = call("predict", "pages.safetensors", "scans", "--turn", "off", "--json", "--out", "drawn")
    found = json.loads(out)
    assert [one["path"] for one in found] == ["scans/two.pdf#page=1", "scans/two.pdf#page=2"]
    with Image.open("drawn/scans_two.pdf_page_2.png") as drawn:
        assert drawn.size == (2 * 160, 240)
    predictor = opsin.load("pages.safetensors", "cpu")
    answers = predictor.predict("scans/two.pdf", turn="off")
    assert [answer.size for answer in answers] == [(160, 240), (240, 160)]
    assert answers[1].image.shape == (240, 160, 3)  # drawn anew, and not kept
    assert predictor.predict("scans/two.pdf#page=2", turn="off") == answers[1]
    with pytest.raises(InputError, match="has 2 pages and no page 3"):
        predictor.predict("scans/two.pdf#page=3")
    Path("broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    status, _, err = call("predict", "pages.safetensors", "broken.pdf")
    assert status == 2 and "cannot read broken.pdf as a PDF" in err
    Path("broken.pdf").rename("scans/broken.pdf")  # among others it is one that could not be read
    status, out, err = call("predict", "pages.safetensors", "scans", "--turn", "off", "--json")
    assert status == 2 and "cannot read scans/broken.pdf as a PDF" in err and "1 of 3 inputs" in err
    assert [one["path"] for one in json.loads(out)] == ["scans/broken.pdf", *(one["path"] for one in found)]


def test_pages_are_evaluated(runs: dict[str, Path], call: Call) -> None:
    for folder in ("data/img", "data/box"):
        Path(folder).mkdir(parents=True)
    for name in ("000", "001"):
        Image.open("page.png").save(f"data/img/{name}.png")
        Path(f"data/box/{name}.csv").write_text("10,8,130,8,130,24,10,24,bills cafe\n10,40,46,40,46,56,10,56,tea\n")
    save_pipeline("pages.safetensors", **runs)
    status, out, err = call("eval", "pages.safetensors", "--data", "data", "--ignore-case", "--json")
    assert status == 0, err
    found = json.loads(out)
    assert 0 <= found["word_f1"] <= 1 and found["cer"] > 0 and found["word_recall"] == 0

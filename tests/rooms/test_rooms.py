"""Three tasks outside the package, from data to an exported file, with no line of opsin made for them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.processes import run_python

HERE = Path(__file__).parent
PATHS = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATHS}


def run(folder: Path, *arguments: str, status: int = 0) -> str:
    """What the command prints, in `folder`, with the tasks of this folder to import."""
    done = run_python(["-m", "opsin.cli", *arguments], folder, ENVIRONMENT)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


TRAIN = ("train", "dots", "--model", "dots_net", "--data", "dots.csv", "--epochs", "15", "--set", "optim.name=adam")
SETTINGS = ("--set", "optim.lr=0.02", "--set", "train.batch_size=8", "--set", "train.ema_decay=0.9", "--out", "run")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of dots, and a network trained to count them."""
    made = tmp_path_factory.mktemp("dots")
    code = "from pathlib import Path; from make_dots import make_dots; make_dots(Path('.'))"
    subprocess.run([sys.executable, "-c", code], cwd=made, env=ENVIRONMENT, check=True)
    (made / "log").write_text(run(made, "--import", "dots", *TRAIN, *SETTINGS))
    return made


def test_data_is_checked(folder: Path) -> None:
    refused = run(folder, "--import", "dots", "data", "dots.csv", "--export", "out", status=2)
    assert "not of one class an image (a count an image)" in refused
    found = run(folder, "--import", "dots", "data", "dots.csv")
    assert "a count an image, 60 images\n" in found and "shows no dots" in found


def test_a_metric_has_its_unit_and_the_report_its_section(folder: Path) -> None:
    lines = run(folder, "--import", "dots", "eval", "run").splitlines()
    (mae,) = (line.split() for line in lines if line.startswith("mae"))
    assert mae[2] == "dots" and float(mae[1]) < 2.0  # answering with the mean of 4 is off by 2.2
    assert re.search(r"^mae +\d\.\d\d dots +\d\.\d\d dots$", (folder / "log").read_text(), re.MULTILINE)
    assert "Furthest off" in (folder / "run" / "report.html").read_text()


def test_an_answer_an_option_and_a_verb_of_its_own(folder: Path) -> None:
    (answer,) = json.loads(run(folder, "--import", "dots", "predict", "run", "03.png", "--round", "--json"))
    assert answer["count"] == int(answer["count"])
    assert run(folder, "--import", "dots", "count-dots", "run", "03.png").strip() == f"{answer['count']:.0f}"


def test_it_is_exported_and_explained(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert "count   float32" in run(folder, "--import", "dots", "export", "run", "--format", "onnx")
    assert "density" in run(folder, "--import", "dots", "explain", "run")


def test_two_optimizers(folder: Path) -> None:
    settings = ("--set", "optim.lr=0.02", "--set", "dots.head_lr=0.05", "--out", "two")
    run(folder, "--import", "dots", *TRAIN, *settings)
    assert "mae" in run(folder, "--import", "dots", "eval", "two")


def test_a_rule_answers_without_a_network(folder: Path) -> None:
    (answer,) = json.loads(run(folder, "--import", "rule", "predict", "rule", "05.png", "--json"))
    assert answer["brightness"] == "dark"


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """Grey images in folders: of 40 and 150 levels, called dark, and of 200 and of 255, called bright."""
    for name, side, level in (("dark", 6, 40), ("dark", 9, 150), ("bright", 6, 200), ("bright", 7, 255)):
        (tmp_path / "shades" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, 8), level, np.uint8)).save(tmp_path / "shades" / name / f"{level}.png")
    return tmp_path


def test_a_rule_is_evaluated_without_a_network(shades: Path) -> None:
    found = run(shades, "--import", "rule", "eval", "rule", "--data", "shades")
    assert re.search(r"^right +75\.0 %$", found, re.MULTILINE)  # the one of 150 levels is called dark, and is bright
    assert re.search(r"^margin +77\.8 levels$", found, re.MULTILINE)  # (87 + 23 + 73 + 128) / 4
    found = run(shades, "--import", "rule", "eval", "rule", "--data", "shades", "--threshold", "160", "--json")
    assert json.loads(found) == {"right": 1.0, "margin": 66.25}  # (120 + 10 + 40 + 95) / 4
    assert "rule comes without data" in run(shades, "--import", "rule", "eval", "rule", status=2)
    (shades / "shades" / "dark").rename(shades / "shades" / "dim")
    refused = run(shades, "--import", "rule", "eval", "rule", "--data", "shades", status=2)
    assert "does not know the classes dim" in refused


def test_rows_of_numbers(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    np.savetxt(tmp_path / "t.rows", np.c_[rows, rows @ [1, 2, 3] + 0.5], delimiter=",")
    np.savetxt(tmp_path / "one.txt", np.ones((1, 3)), delimiter=",")
    assert "60 rows\n" in run(tmp_path, "--import", "rows", "data", "t.rows")
    settings = ("--epochs", "40", "--set", "optim.name=adam", "--set", "optim.lr=0.1", "--set", "train.batch_size=8")
    run(tmp_path, "--import", "rows", "train", "rows", "--model", "line", "--data", "t.rows", *settings, "--out", "r")
    (answer,) = json.loads(run(tmp_path, "--import", "rows", "predict", "r", "one.txt", "--json"))
    assert answer["value"] == pytest.approx(6.5, abs=0.3)
    said = run(tmp_path, "--import", "rows", "explain", "r", status=2)
    assert "add to Line a method `example(batch, size=None)`" in said
    assert "multiply-adds" not in (tmp_path / "r" / "report.html").read_text()
    counted = ("--model", "counted_line", "--data", "t.rows", "--epochs", "1", "--out", "c")
    run(tmp_path, "--import", "rows", "train", "rows", *counted)
    assert "multiply-adds" in (tmp_path / "c" / "report.html").read_text()
    _explains_rows(tmp_path)


def _explains_rows(folder: Path) -> None:
    """A network of rows is counted by its own example, whether it is named by its run or by itself."""
    for what in ("c", "counted_line"):
        found = json.loads(run(folder, "--import", "rows", "explain", what, "--measure", "--json"))
        assert found["identity"]["input"] == [3] and found["identity"]["images"] is False
        # Three weights and a bias; of a batch of 32 rows of 3 numbers in float32.
        assert (found["totals"]["macs"], found["totals"]["params"], found["memory"]["batch"]) == (3, 4, 32)
        assert found["memory"]["infer_peak"] >= 32 * 3 * 4 + 4 * 4
        assert all(layer["field"] is None for layer in found["layers"])
    assert "Totals, one input" in run(folder, "--import", "rows", "explain", "c", "--html", "c.html")
    assert "no field" not in (folder / "c.html").read_text()
    assert "takes no images" in run(folder, "--import", "rows", "explain", "c", "--input", "3,8,8", status=2)
    assert "--input C,H,W, or add to Line" in run(folder, "--import", "rows", "explain", "line", status=2)


def test_rows_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "t.rows").write_text("1,2,3\n4,5,6\n1,2,3\n")
    assert "row 2: the same row as row 0;" in run(tmp_path, "--import", "rows", "data", "t.rows")
    for flag, reason in (("--sheet", "no images to draw"), ("--export", "no images to write")):
        assert reason in run(tmp_path, "--import", "rows", "data", "t.rows", flag, "out.png", status=2)


@pytest.mark.parametrize("batches", [0, 3])
def test_several_optimizers_accumulate_clip_and_resume_bit_for_bit(folder: Path, batches: int) -> None:
    """Killed in the third epoch, after some batches: 3 are amid an accumulation, at a step that wants a checkpoint."""
    more = ("--set", "dots.head_lr=0.05", "--set", "train.accumulate=2", "--set", "train.clip_norm=1.0")
    more = (*more, "--set", "train.batch_size=8", "--set", "train.ema_decay=0.9", "--set", "train.epochs=4")
    more = (*more, "--set", "train.save_every_steps=3")
    run(folder, "--import", "dots", *TRAIN, *more, "--out", f"whole{batches}")
    code = (
        "import os, sys; from lightning.pytorch import Callback, Trainer\n"
        "class Stop(Callback):\n"
        "    def on_train_batch_start(self, trainer, task, batch, batch_idx):\n"
        f"        if (trainer.current_epoch, batch_idx) == (2, {batches}): os._exit(9)\n"
        "before = Trainer.__init__\n"
        "def make(self, *a, callbacks=None, **k): before(self, *a, callbacks=[*(callbacks or []), Stop()], **k)\n"
        "Trainer.__init__ = make\n"
        "from opsin.cli.command import main; main()"
    )
    words = ["-c", code, "--import", "dots", *TRAIN, *more, "--out", f"part{batches}"]
    killed = run_python(words, folder, ENVIRONMENT)
    assert killed.returncode == 9, killed.stdout + killed.stderr
    run(folder, "--import", "dots", "train", "--resume", f"part{batches}")
    whole, part = (load_file(folder / name / "model.safetensors") for name in (f"whole{batches}", f"part{batches}"))
    assert whole.keys() == part.keys() and all(torch.equal(whole[name], part[name]) for name in whole)


def test_a_rule_trains_nothing_and_says_so(folder: Path) -> None:
    said = run(folder, "--import", "rule", "train", "rule", status=2)
    assert "rule trains nothing; use it with `opsin predict` and `opsin eval`" in said


def test_the_answer_is_drawn(folder: Path) -> None:
    run(folder, "--import", "dots", "predict", "run", "03.png", "--out", "drawn")
    (drawn,) = (folder / "drawn").iterdir()
    with Image.open(drawn) as image, Image.open(folder / "03.png") as before:
        assert image.height > before.height  # a caption stands under it


def test_two_optimizers_equal_a_loop_that_is_written_out(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(HERE / "plain_loop.py")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    ours, plain = found["losses"]
    assert len(ours) == 5 and ours == pytest.approx(plain, rel=1e-5)
    assert found["steps"] == [3, 3]  # two batches each, and the last alone
    assert set(found["clipped"]) == {True, False}  # so that neither clipping nor the scale of a gradient is lost
    assert found["weights apart"] < 1e-5 < 0.1 < found["moved"]
    assert found["average apart"] < 1e-5 < 0.01 < found["average from weights"]

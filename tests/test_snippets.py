"""Every fenced block of README and of the pages runs, as a reader would run it, or a table here says why it does not.

A page's blocks are run in order in one folder: Python in one namespace, commands by the command line in this process,
YAML as a recipe. What a page assumes (`photos/`, a run, published weights) is made up by `snippet_stand_ins`. Trainings
take one step on a few images. Where a block of Python is followed by what it prints, that is compared.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tests import snippet_stand_ins as stand_ins
from tests.fake_hub import Repository, fake_hub
from tests.snippets import DOCS, ROOT, SHORT, Block, Reader, blocks
from torch.utils.data import DataLoader

import opsin
from opsin import rooms
from opsin.backbones import timm_networks
from opsin.data import Split
from opsin.engine.batch_size import create_probe_trainer, create_train_batches
from opsin.engine.task import Task
from opsin.engine.train import Run

PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))]
LANGUAGES = {"python", "sh", "bash", "yaml"}  # that are run
OTHERS = {
    "text": "what is printed, and drawings by letters",
    "diagram": "drawn by docs/diagrams.py: tests/test_diagrams.py",
    "toml": "a line of a pyproject.toml, which tests/rooms/test_registration.py installs",
}
# Commands beside opsin and python that do nothing here.
IGNORED = {
    "pip": "the package index is not asked in tests; tests/test_installed.py installs the wheel",
    "make": "make demo is run by tests/test_installed.py; make test runs this",
    "git": "clones from another machine",
    "mv": "what git would have cloned is here under its last name",
    "docker": "no daemon; tests/test_release_files.py reads the Dockerfile and these lines",
    "torchrun": "starts processes: tests/test_docs.py",
    "export": "PYTHONPATH: the page's folder is on the path of this process",
}
# By page, and how a block or one of its commands begins.
NOT_RUN: Mapping[tuple[str, str], str] = {
    ("docs/formats.md", "python -m venv datumaro"): "installs another library, and reads data that it is given",
    ("docs/design/add_a_task.md", "opsin --import rule"): "tests/rooms/test_rooms.py",
    ("docs/design/add_a_task.md", "opsin --import dots"): "tests/rooms/test_rooms.py",
    (
        "docs/explain.md",
        "opsin explain resnet50 mobilenet_v2",
    ): "trains three large networks: tests/analyze/test_explain.py",
    ("docs/finetuning.md", "(ulimit -v 4500000"): "holds the memory of a process, which would be that of the tests",
    ("docs/gpus.md", "opsin train lenet5_digits --set train.devices=2"): "processes: tests/engine/test_distributed.py",
    ("docs/data.md", "opsin data retinanet_scenes --augmented"): "makes 7,000 scenes: tests/engine/test_augmented.py",
    ("docs/data.md", "opsin train resnet18 --data hf:"): "another package: tests/data/test_hub_data.py",
    (
        "docs/tracking.md",
        "opsin train lenet5_digits --set 'train.logger=[csv",
    ): "accounts: engine/test_loggers.py",
    ("docs/tracking.md", "WANDB_MODE=offline"): "another package: tests/engine/test_loggers.py",
    ("docs/blocks/scratch.md", "python -m opsin.scratch.lenet"): "tests/scratch/test_scratch_lenet.py",
    ("docs/blocks/scratch.md", "python -c"): "ten times the command above",
    ("docs/tutorial.md", "opsin train classify --model resnet18"): "twenty epochs: a step of it is README.md's",
    ("docs/tutorial_tracking.md", "opsin train yolov3_scenes"): "an hour; a run stands in for it",
    (
        "docs/tutorial_tracking.md",
        "opsin track moving/crowd_train --truth",
    ): "twenty trials: tests/track/test_tuning.py",
    (
        "docs/tutorial_tracking.md",
        "opsin track moving/crowd_test --truth moving/crowd_test --tracker tuned",
    ): "of those",
    ("docs/adaptation/parameters.md", "opsin adapt --source a/ --method linear"): "tests/adapt/test_methods.py",
    (
        "docs/adaptation/parameters.md",
        "opsin adapt --source a/ --bridge",
    ): "three trainings: tests/adapt/test_methods.py",
    (
        "docs/adaptation/instances.md",
        "opsin adapt --source a/ --target c/ --method trad",
    ): "tests/adapt/test_transfer_losses.py",
    ("docs/adaptation/tutorial.md", "opsin adapt --source a/ --target c/ --method cdan"): "as the line before it",
    ("docs/adaptation/generalisation.md", "opsin adapt --source a/ --source b/ --method"): "as the line below it",
    ("docs/tutorial_views.md", "opsin train render"): "a minute; a run stands in for it",
    ("docs/necks.md", "python benchmarks/necks.py"): "trains every neck, for minutes",
    ("docs/segmenters/fcn.md", "opsin train "): "thousands of masks each: tests/segment/test_fcn.py trains in stages",
    ("docs/segmenters/fcn.md", "opsin eval "): "of those trainings",
    ("docs/detectors/regions.md", "python benchmarks/regions.py"): "times four trained runs, for minutes",
    ("docs/sequences.md", "opsin train sequence --model seq2seq"): "minutes: tests/sequence/test_sequence_task.py",
    ("docs/sequences/transformer.md", "python benchmarks/sequences.py"): "times trainings, for half a minute",
    ("docs/ablations.md", "opsin ablate"): "trains for minutes: tests/engine/test_ablation.py reads each command",
    ("docs/ablations.md", "opsin race"): "trains for minutes: tests/engine/test_ablation.py",
    ("docs/ablations.md", "python benchmarks/ablations.py"): "runs all of the page's commands",
    ("docs/design_spaces.md", "opsin design"): "trains a hundred networks: tests/analyze/test_design.py",
    ("docs/sequence_ladder.md", "opsin ladder"): "trains every rung: tests/sequence/test_reach.py",
    ("docs/serving.md", "opsin serve"): "ends when it is stopped: tests/serve/test_server.py",
    ("docs/fields/nerf.md", "opsin train render"): "minutes: tests/render/test_render_task.py",
    ("docs/fields/nerf.md", "opsin predict"): "of that training",
    ("docs/fields/nerf.md", "python benchmarks/rendering.py"): "times trainings, for half a minute",
    ("docs/fields/nerf.md", "python benchmarks/nerf_faults.py"): "trains six fields, for half an hour",
    ("docs/fields/fast_nerf.md", "opsin train render"): "half a minute: tests/render/test_render_task.py",
    ("docs/fields/fast_nerf.md", "opsin predict"): "of that training",
    ("docs/views.md", "opsin eval"): "weights of another package: tests/render/test_lpips.py",
    ("docs/fields/shapes.md", "opsin train render"): "minutes: tests/render/test_render_task.py",
    ("docs/fields/shapes.md", "opsin predict"): "of that training",
}
AS_WRITTEN = ("docs/tutorial.md", "docs/own_parts.md")  # whose trainings are small, and which speak of their results
# Pages whose trainings leave no run: of each, a step on two images is tried.
ONE_STEP = (
    *("docs/networks/", "docs/detectors/", "docs/embedders/"),
    *("docs/models.md", "docs/weights.md", "docs/finetuning.md"),
)
OF_A_HUB = ("docs/data.md", "docs/models.md", "docs/weights.md")
# Keys that make the images of a page's trainings small, where its own would take minutes.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "docs/data.md": {"data.limit": 40, "data.size": 64},  # of ten classes
    "docs/detectors/ctpn.md": {"data.limit": 2, "data.size": "[192,160]"},
    "docs/detectors/rcnn.md": {"data.size": 64},
    "docs/models.md": {"data.size": 64},
    "docs/segmentation.md": {"data.size": 64},
    "docs/tutorial_bccd.md": {"data.size": 64},
    "docs/tutorial_camvid.md": {"data.size": 64},
}
LEAVE_RUNS = (
    "docs/detectors/ctpn.md",
    "docs/detectors/fast_rcnn.md",
    "docs/detectors/rcnn.md",
    "docs/segmenters/unet.md",
)
# Runs that a page assumes, by their places: see `snippet_stand_ins.RUNS`.
RUNS: Mapping[str, Mapping[str, str]] = {
    "docs/answers.md": {"runs/classifier": "photos", "runs/detector": "yolo"},
    "docs/data.md": {"runs/faster_rcnn": "faster_rcnn"},
    "docs/design/reproducibility.md": {"runs/x": "digits"},
    "docs/detection.md": {"runs/retinanet_aerial": "retinanet"},
    "docs/explain.md": {"runs/lenet5_digits": "digits"},
    "docs/export.md": {"runs/lenet5_digits": "digits", "runs/yolov3_bccd": "yolo"},
    "docs/finetuning.md": {"runs/other_photos": "other"},
    "docs/prediction.md": {"runs/digits": "digits"},
    "docs/landmark_metrics.md": {"runs/faces": "points"},
    "docs/pages.md": {"runs/ctpn": "ctpn", "runs/crnn": "words"},
    "docs/reading.md": {"runs/words": "words"},
    "docs/reading_metrics.md": {"runs/words": "words"},
    "docs/segmentation.md": {"runs/street": "streets"},
    "docs/segmentation_metrics.md": {"runs/unet": "streets", "runs/membranes": "scans"},
    "docs/tutorial_verification.md": {"runs/faces": "faces"},
    "docs/verification.md": {"runs/faces": "faces"},
    "docs/sequences.md": {"runs/dates": "dates"},
    "docs/tutorial_tracking.md": {"runs/yolov3_scenes": "yolo"},
    "docs/tutorial_views.md": {"runs/toys": "toys"},
    "docs/weights.md": {"runs/digits_net": "digits"},
    "docs/adaptation/parameters.md": {"runs/classifier": "resnet18"},
}


# First lines of Python whose figures depend on the machine: what they print is not compared.
DIFFERS: tuple[str, ...] = ()


def runnable(page: str) -> list[Block]:
    return [block for block in blocks(page) if block.language in LANGUAGES]


def test_every_block_is_run_or_of_a_kind_that_is_not() -> None:
    unknown = [str(b) for page in PAGES for b in blocks(page) if b.language not in LANGUAGES | OTHERS.keys()]
    assert not unknown, "give these blocks a language: sh for commands, text for what they print"
    hidden = [str(b) for page in PAGES for b in blocks(page) if b.language == "text" and b.first.startswith("opsin ")]
    assert not hidden, "commands are sh, so that they are run"
    stale = [key for key in NOT_RUN if not any(f"\n{key[1]}" in f"\n{block.code}" for block in runnable(key[0]))]
    assert not stale, "no page has these blocks any more"
    assert {*RUNS, *AS_WRITTEN, *LEAVE_RUNS, *SMALL} <= {*PAGES}


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what is made once: the reader's folder, runs and weights."""
    folder = tmp_path_factory.mktemp("kept")
    stand_ins.make_folder(folder / "folder")
    (folder / "runs").mkdir()
    (folder / "weights").mkdir()
    return folder


def a_run(kept: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = kept / "runs" / kind
    if not place.exists():
        with monkeypatch.context() as patch:
            patch.chdir(kept / "folder")
            patch.delenv("OPSIN_RUN_FOLDER", raising=False)
            stand_ins.RUNS[kind](place)
    return place


@pytest.fixture
def folder(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reader's folder, in which this process works; nothing of what is done in it stays in the process."""
    shutil.copytree(kept / "folder", tmp_path / "reader")
    folder = tmp_path / "reader"
    before = dict(sys.modules)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("HOME", "USERPROFILE", "XDG_CONFIG_HOME"):  # where --install-completion writes
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("SHELL", "bash")
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPSIN_OFFLINE", raising=False)
    monkeypatch.delenv("OPSIN_DATA", raising=False)
    monkeypatch.setattr(rooms, "_imported", [])
    monkeypatch.setenv("OPSIN_IMPORT", "")
    monkeypatch.setattr("opsin.data.formats.digit_scenes._COUNT", 20)
    monkeypatch.setattr("opsin.data.formats.drawn_faces._COUNT", 20)
    monkeypatch.setattr("opsin.backbones.weights.fetch", lambda url, *_, **__: weights(url))

    def weights(url: str) -> Path:
        return stand_ins.torchvision_weights(url, kept / "weights")

    with torch.random.fork_rng(devices=[]):
        yield folder
    for name in sys.modules.keys() - before.keys():
        if (file := getattr(sys.modules[name], "__file__", None)) and Path(file).is_relative_to(folder):
            del sys.modules[name]


@pytest.fixture
def hub(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Opens a hub on this machine with what the pages name of one, and CIFAR-10 as torchvision would keep it."""

    @contextmanager
    def opened() -> Iterator[None]:
        monkeypatch.setattr(timm_networks, "_fetch", lambda name, *_: stand_ins.timm_weights(name, kept / "weights"))
        monkeypatch.setattr(timm_networks, "find", cache(timm_networks.find.__wrapped__))  # others were found before
        stand_ins.cifar10(tmp_path / "home" / "data" / "torchvision")
        monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
        monkeypatch.setattr("opsin.engine.push._uploader", lambda to: mock.MagicMock())
        with fake_hub(monkeypatch, tmp_path / "cache") as running:
            shared = opsin.push(a_run(kept, "digits", monkeypatch), tmp_path / "shared").folder
            files = {one.name: one.read_bytes() for one in shared.iterdir()}
            running.repositories["ada/digits_net"] = Repository(files)
            weights = stand_ins.timm_weights("resnet50.a1_in1k", kept / "weights").read_bytes()
            running.repositories["timm/resnet50.a1_in1k"] = Repository({"model.safetensors": weights})
            yield

    return opened


def one_step(task: Task, splits: Mapping[str, Split], *_: Any, **__: Any) -> mock.Mock:
    """In place of a training, a forward and a backward pass and a step on two images, or eight: two of a person."""
    split = task.predictor.prepare_split(splits["train"])
    batch = next(iter(create_train_batches(task, split, 8 if task.recipe.task == "embed" else 2)))
    task.epoch_batches = 1
    loader = DataLoader([batch], batch_size=None, collate_fn=lambda batch: batch)  # type: ignore[arg-type]
    create_probe_trainer(task, max_epochs=1).fit(task, loader)
    return mock.Mock(is_global_zero=True)


def without_the_rest(monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    """Trainings write no report, and those of `ONE_STEP` nothing at all."""
    monkeypatch.setattr("opsin.engine.learning_rate.STEPS", 30)
    monkeypatch.setattr("opsin.engine.train.write_run_report", lambda task, folder, *_: folder.report)
    if page.startswith(ONE_STEP) and page not in LEAVE_RUNS:
        monkeypatch.setattr("opsin.engine.train._fit", one_step)
        monkeypatch.setattr("opsin.engine.train._load_kept", lambda *_: None)
        monkeypatch.setattr("opsin.engine.train._finish", lambda task, source, splits, folder, *_, **__: Run(
            folder.path, {}, "", 0
        ))  # fmt: skip


def check_tutorial(folder: Path, printed: str) -> None:
    run = folder / "runs" / "digits"
    for name in ("report.html", "model.safetensors", "last.ckpt", "recipe.yaml", "metrics.csv"):
        assert (run / name).exists(), name
    assert len(list((folder / "predicted").rglob("*.png"))) == 40
    report = (run / "report.html").read_text(encoding="utf-8").lower()
    described = re.findall(r"^\d+\. (.*)$", (DOCS / "tutorial.md").read_text(encoding="utf-8"), re.MULTILINE)
    titles = [title.lower() for line in described for title in re.findall(r"\*\*(.+?)\*\*", line)]
    assert len(titles) > 8 and not [title for title in titles if f">{title}</a></h2>" not in report]


def check_answers(folder: Path, printed: str) -> None:
    for made in ("drawn/street.png", "found.csv", "found.json", "labels/street.txt"):
        assert (folder / made).exists(), made


def check_own_parts(folder: Path, printed: str) -> None:
    assert "give them again, in Python: model=... (Net), data=... (Digits)" in printed
    assert re.search("^brier ", printed, re.MULTILINE)


CHECKS: Mapping[str, Callable[[Path, str], None]] = {
    "docs/tutorial.md": check_tutorial,
    "docs/answers.md": check_answers,
    "docs/own_parts.md": check_own_parts,
}


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)])
def test_a_page_runs(
    page: str, folder: Path, kept: Path, hub: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, kind in RUNS.get(page, {}).items():
        shutil.copytree(a_run(kept, kind, monkeypatch), folder / place)
    if page in OF_A_HUB:
        a_run(kept, "digits", monkeypatch)
    if page == "docs/answers.md":
        shutil.copy("photo.jpg", "photos/street.jpg")
    if page == "docs/tutorial.md":
        shutil.rmtree("images")  # which it writes
    if page not in AS_WRITTEN:
        without_the_rest(monkeypatch, page)
    skipped = tuple(start for name, start in NOT_RUN if name == page)
    short = {**SHORT, **SMALL.get(page, {})}
    reader = Reader(folder, monkeypatch, {} if page in AS_WRITTEN else short, tuple(IGNORED), skipped)
    said = ""
    with hub() if page in OF_A_HUB else nullcontext():
        for block in runnable(page):
            try:
                printed = reader.run(block)
            except Exception as error:
                raise AssertionError(str(block)) from error
            said += printed
            if block.language == "python" and block.shown is not None and block.first not in DIFFERS:
                assert printed == block.shown, block
    if page in CHECKS:
        CHECKS[page](folder, said)


def test_the_code_for_an_onnx_file_takes_colour(folder: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [block for block in blocks("docs/export.md") if "InferenceSession" in block.code]
    run = shutil.copytree(a_run(kept, "photos", monkeypatch), folder / "runs" / "lenet5_digits")
    opsin.export(run, "onnx")
    label, score = Reader(folder, monkeypatch, SHORT, (), ()).run(block).split()
    answer = opsin.load(run)("seven.png")
    assert label == answer.label and float(score) == pytest.approx(answer.score, abs=1e-3)

"""The documentation is true: the written parts are there, tables name what there is, links in the repository hold."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Timer
from PIL import Image

from opsin import cli, registry
from opsin.data.inputs import Inputs
from opsin.data.truth import Truth
from opsin.engine.evaluator import Evaluator
from opsin.engine.predict import Predictor
from opsin.engine.task import Task

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_files_that_the_repository_speaks_of_exist(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_page_is_in_the_navigation() -> None:
    def pages(nav: object) -> set[str]:
        if isinstance(nav, str):
            return {nav}
        entries = nav.values() if isinstance(nav, dict) else nav
        return set().union(*(pages(entry) for entry in entries))  # type: ignore[union-attr]

    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert pages(settings["nav"]) == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_every_family_of_networks_has_a_page() -> None:
    inside = {"__init__", "backbone", "weights"}
    families = {p.stem for p in (ROOT / "src" / "opsin" / "backbones").glob("*.py")} - inside
    families = {f for f in families if any(registry.find_model(n).family == f for n in registry.list_models())}
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    wrong = []
    for family in sorted(families):
        page = DOCS / "networks" / f"{family}.md"
        if not page.exists() or f"<!-- models {family} -->" not in page.read_text(encoding="utf-8"):
            wrong.append(f"docs/networks/{family}.md lacks its table of models")
        if f"networks/{family}.md\n" not in settings:
            wrong.append(f"mkdocs.yml does not list networks/{family}.md")
    assert not wrong


def test_the_written_parts_hold_everything() -> None:
    code = """
import sys
sys.path.insert(0, "docs")
import hooks
for marker in hooks.PARTS:
    print(hooks.on_page_markdown(marker))
print(hooks.on_page_markdown("<!-- models vgg -->"))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    for recipe in (ROOT / "src" / "opsin" / "recipes").rglob("*.yaml"):
        assert f"## {recipe.stem}\n" in result.stdout
    for command in ("train", "eval", "predict", "export", "models", "data"):
        assert f"## opsin {command}\n" in result.stdout
    assert "| `resnet50` | 25,557,032 |" in result.stdout
    assert "| `vgg16` | 138,357,544 | 15,470,264,320 | 3x224x224 | imagenet1k top-1 71.592 %" in result.stdout
    assert "<!--" not in result.stdout


# How to add a task


def test_the_tasks_shown_are_the_files_that_the_tests_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    page = importlib.import_module("hooks").on_page_markdown((DOCS / "design" / "add_a_task.md").read_text("utf-8"))
    assert "<!--" not in page
    shown = re.findall(r'^```python title="(.+?)"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    assert len(shown) == len(re.findall("^```python", page, re.MULTILINE)) >= 10  # no code that stands only there
    texts = {name: (ROOT / "tests" / "rooms" / name).read_text("utf-8") for name, _ in shown}
    assert not [name for name, code in shown if code not in texts[name]]
    whole = {name for name, code in shown if code == texts[name]}
    dots = {f"dots/{path.name}" for path in (ROOT / "tests" / "rooms" / "dots").glob("*.py")}
    assert whole == {"rule.py", "rule_predict.py", *dots}


@pytest.mark.parametrize("kind", [Truth, Inputs, Task, Predictor, Evaluator], ids=lambda kind: kind.__name__)
def test_every_method_of_a_contract_is_in_its_table(kind: type) -> None:
    # Those above the line in its source; what is below is what all have.
    source = textwrap.dedent(inspect.getsource(kind)).split("    # What all have")[0]
    (declared,) = ast.parse(source).body
    assert isinstance(declared, ast.ClassDef)
    methods = {node.name: node for node in declared.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"}
    page = (DOCS / "design" / "add_a_task.md").read_text("utf-8")
    table = page.split(f"\n### {kind.__name__}\n")[-1].split("\n## ")[0].split("\n### ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]*) \|", table, re.MULTILINE))
    assert rows.keys() == methods.keys()
    required = {name for name, node in methods.items() if "abstractmethod" in map(ast.unparse, node.decorator_list)}
    assert {name for name, default in rows.items() if default.strip() == "required"} == required


# Pages whose calls are run


def rows(page: str) -> list[tuple[str, list[str]]]:
    """The rows of a page's tables: the heading of the second column, and the code in it."""
    found, heading = [], ""
    for line in (DOCS / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| their") or line.startswith("| there"):
            heading = cells[1]
        elif line.startswith("| ") and len(cells) == 2:
            found.append((heading, re.findall(r"`([^`]+)`", cells[1])))
    return found


@pytest.fixture
def a_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of images, and boxes in YOLO's format."""
    random = np.random.default_rng(0)
    for folder in ("photos/dark", "photos/light", "images", "boxes/images/train", "boxes/labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(20):
        image = Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8))
        image.save(tmp_path / "photos" / ("dark", "light")[number % 2] / f"{number}.png")
        image.save(tmp_path / "boxes" / "images" / "train" / f"{number}.png")
        (tmp_path / "boxes" / "labels" / "train" / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    shutil.copy(tmp_path / "photos" / "dark" / "0.png", tmp_path / "images" / "a.png")
    (tmp_path / "boxes" / "data.yaml").write_text("train: images/train\nnames: [thing]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPSIN_RUN_FOLDER", raising=False)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """A command in this process; trainings take one step on few small images."""
    words = shlex.split(line)
    if words[1] == "train":
        words += ["--set", "train.max_steps=1", "--set", "train.tensorboard=false"]
        words += [] if "--resume" in words else ["--set", "data.size=64", "--set", "data.limit=8", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code, line


def test_every_call_of_coming_from_another_library_runs(a_users_folder: Path, monkeypatch: pytest.MonkeyPatch):
    import opsin
    from opsin.engine.recipe import load_recipe, parse_setting

    monkeypatch.setattr("opsin.engine.train.write_run_report", lambda task, folder, *_: folder.report)
    names = {"opsin": opsin, "torch": torch, "Timer": Timer}
    ran = 0
    for heading, codes in rows("coming_from.md"):
        for code in codes:
            if code.startswith("opsin ") and heading == "here":
                call(monkeypatch, code)
                ran += 1
            elif heading == "here":
                exec(code, names)
                ran += 1
            elif heading == "our key" and re.match(r"\w+\.\w+=", code):
                key, value = parse_setting(code)
                if key.startswith("detect."):
                    recipe = {"task": "detect", "model": {"name": "yolov3"}, "data": {"source": "scenes"}}
                else:
                    recipe = {"model": {"name": "resnet18"}, "data": {"source": "photos"}}
                load_recipe(recipe, {key: value})
                ran += 1
    assert ran > 50


def test_every_range_of_the_page_on_tuning_is_read():
    from opsin.engine.search_space import parse_range

    page = (DOCS / "tuning.md").read_text(encoding="utf-8")
    table = page.split("## What is searched")[1].split("\n\n")[1]
    spans = [span for span in re.findall(r"`([^`]+)`", table) if ".." in span or "choice:" in span]
    assert len(spans) >= 8
    for span in spans:
        parse_range("key", span.partition("=")[2] or span)


def test_the_tables_of_which_model_name_what_there_is():
    code = "import sys; sys.path.insert(0, 'docs'); import hooks; print(*hooks.classifiers(), sep='\\n')"
    code += "; print(*hooks.detectors(), sep='\\n')"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "| `resnet50:imagenet1k_v2` | 25.6 M | 4,089 M | 224x224 | 80.9 % |" in result.stdout
    assert "| `faster_rcnn` | `faster_rcnn_bccd` | 89.2 % | 54.6 % |" in result.stdout
    for name in re.findall(r"^\|[^|]+\| `([\w:]+)`", result.stdout, re.MULTILINE):
        model, _, weights = name.partition(":")
        assert registry.is_model(model) and (not weights or registry.find_weights(model, weights))


def run_together(commands: list[tuple[str, dict[str, str]]], folder: Path) -> list[str]:
    """Commands at the same time, each with variables of its own; what each prints on standard error."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    short = " --set data.limit=60 --set train.tensorboard=false --set train.epochs=1"
    started = [
        subprocess.Popen(
            shlex.split(command + short),
            cwd=folder,
            env={**os.environ, "PATH": path, **variables},
            stderr=subprocess.PIPE,
        )
        for command, variables in commands
    ]
    said = [process.communicate(timeout=300)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    return said


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.mark.skipif("OPSIN_SOAK" not in os.environ, reason="half a minute beside the test of Slurm: make soak")
def test_several_machines_of_the_page_on_gpus_train_together(tmp_path: Path):
    page = (DOCS / "gpus.md").read_text(encoding="utf-8").replace("\\\n", "")
    (first,) = re.findall(r"^torchrun --nnodes 2 .*$", page, re.MULTILINE)
    first = first.replace("29500", str(free_port()))
    run_together([(first, {}), (first.replace("--node-rank 0", "--node-rank 1"), {})], tmp_path)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["nodes"]


def test_two_processes_of_slurm_make_one_run_and_speak_once(tmp_path: Path):
    common = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    common |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(free_port())}
    command = "opsin train lenet5_digits --set train.devices=2 --set train.accelerator=cpu --out run"
    ranks = [{**common, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in (0, 1)]
    said = run_together([(command.replace("opsin", "python -m opsin", 1), rank) for rank in ranks], tmp_path)
    assert "report: run/report.html" in said[0] and said[1] == ""
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

"""What is shipped: a wheel with everything in it, a light import, and an environment that repeats."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import opsin

ROOT = Path(__file__).parents[1]

# Each alone costs a noticeable part of the half second that `import opsin` and `opsin --help` may take.
HEAVY = ["torch", "torchvision", "lightning", "numpy", "scipy", "sklearn", "skimage", "matplotlib", "PIL"]


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_version_is_that_of_the_package() -> None:
    assert metadata.version("opsin") == opsin.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", opsin.__version__)


def test_import_is_light() -> None:
    loaded = json.loads(run(f"import json, sys, opsin; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"))
    assert loaded == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["models", "--help"]])
def test_help_is_light(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["opsin", *{arguments}]
from opsin.cli import main
try:
    main()
except SystemExit as exit_:
    assert not exit_.code, exit_.code
loaded = [module for module in {HEAVY} if module in sys.modules]
assert not loaded, loaded
"""
    assert run(code).strip()


def test_import_is_silent_and_leaves_logging_alone() -> None:
    assert run("import logging, opsin; assert not logging.getLogger().handlers") == ""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel built from the working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    (built,) = folder.glob("*.whl")
    assert built.name == f"opsin-{opsin.__version__}-py3-none-any.whl"
    return set(zipfile.ZipFile(built).namelist())


def test_the_wheel_holds_every_file_of_the_package(wheel: set[str]) -> None:
    source = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "opsin").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert source <= wheel
    assert {"opsin/py.typed", "opsin/engine/report.html.j2", "opsin/recipes/classify/lenet5_digits.yaml"} <= wheel


def test_the_wheel_holds_nothing_else(wheel: set[str]) -> None:
    info = f"opsin-{opsin.__version__}.dist-info"
    assert {name.split("/")[0] for name in wheel} == {"opsin", info}
    assert f"{info}/licenses/LICENSE" in wheel


def requirements(extras: set[str]) -> list[Requirement]:
    """The direct requirements, without those of other extras."""
    found = [Requirement(text) for text in metadata.requires("opsin") or []]
    named = {r: re.findall(r'extra == "?\'?(\w+)', str(r.marker or "")) for r in found}
    return [r for r, of in named.items() if not of or set(of) & extras]


def test_every_development_requirement_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    here = {canonicalize_name(pin.name): pin for pin in pins if pin.marker is None or pin.marker.evaluate()}
    for needed in requirements({"dev", "docs"}):
        pin = here.get(canonicalize_name(needed.name))
        assert pin is not None, f"constraints.txt does not pin {needed.name}"
        (exact,) = pin.specifier
        assert exact.operator == "==" and needed.specifier.contains(exact.version, prereleases=True), pin


def test_torch_is_not_bounded_from_above() -> None:
    for needed in requirements(set()):
        assert not any(part.operator in ("<", "<=", "==", "~=") for part in needed.specifier), needed


def test_a_prediction_of_the_installed_command_ends_with_its_status_and_all_it_printed(tmp_path: Path) -> None:
    code = "from opsin.cli import run as command; command()"
    asked = [sys.executable, "-c", code, "predict"]
    done = subprocess.run([*asked, "runs/none", "none.png"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "opsin: no file or folder at none.png\n")
    shown = subprocess.run([*asked, "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 0 and shown.stdout.startswith("Usage: opsin predict")

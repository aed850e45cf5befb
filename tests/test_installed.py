"""The wheel where nothing else is: an environment with the packages that it requires, and none that an extra brings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import opsin

ROOT = Path(__file__).parents[1]
OPTIONAL = ("sklearn", "skimage", "tensorboard", "onnx", "onnxruntime", "openvino", "cv2", "av", "timm", "pytest")


def call(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "OPSIN_DATA"}
    kept["PYTHONPATH"] = str(ROOT / "tests" / "offline")  # not this source
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=300)


def run(command: list[str], folder: Path) -> str:
    done = call(command, folder)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel built from what that holds."""
    folder = tmp_path_factory.mktemp("built")
    run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)], ROOT)
    with tarfile.open(folder / f"opsin-{opsin.__version__}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    source = folder / f"opsin-{opsin.__version__}"
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], source)
    return folder


def wheel_of(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


def test_the_source_distribution_holds_the_repository(built: Path) -> None:
    source = built / f"opsin-{opsin.__version__}"
    inside = {path.name for path in source.iterdir()}
    assert inside >= {"src", "tests", "docs", "benchmarks", "pyproject.toml", "constraints.txt", "mkdocs.yml"}
    assert inside >= {path.name for path in ROOT.glob("*.md")} | {"LICENSE", "CITATION.cff", "Dockerfile", "Makefile"}
    assert not inside & {"runs", "shared", ".venv", ".git", "site", "dist"}
    for file in ("tests/test_installed.py", "docs/notebooks/first_steps.ipynb"):
        assert (source / file).read_bytes() == (ROOT / file).read_bytes()


def test_the_wheel_is_small_and_has_its_licences(built: Path) -> None:
    files = zipfile.ZipFile(wheel_of(built)).infolist()
    photographs = sum(file.compress_size for file in files if "/data/samples/" in file.filename)
    rest = {file.filename: file.compress_size for file in files if "/data/samples/" not in file.filename}
    record = next(name for name in rest if name.endswith("/RECORD"))  # a line for each file
    largest = max(size for name, size in rest.items() if name != record)
    assert photographs < 2.5e6 and sum(rest.values()) < 2.5e6 and largest < 4e4, "something large slipped in"
    names = [file.filename for file in files]
    licences = {Path(name).name for name in names if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE.md"} and "opsin/data/samples/digits.npz" in names


def closure(needed: list[Requirement], extras: frozenset[str] = frozenset()) -> set[str]:
    """The names of all distributions that some requirements bring, of those that are installed here."""
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = [(one, extras) for one in needed]
    while waiting:
        one, asked = waiting.pop()
        if one.marker and not any(one.marker.evaluate({"extra": extra}) for extra in (*asked, "")):
            continue
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key not in found:
            found.add(key)
            waiting += [(Requirement(text), key[1]) for text in metadata.requires(one.name) or ()]
    return {name for name, _ in found}


def link(distribution: str, target: Path) -> None:
    """Put what a distribution has installed into another environment, as links."""
    files = metadata.distribution(distribution).files
    assert files, f"{distribution} does not say what it installed"
    for top in {Path(file.parts[0]) for file in files} - {Path(".."), Path("__pycache__")}:
        link = target / top
        if not link.exists():
            link.symlink_to(Path(str(metadata.distribution(distribution).locate_file(top))).resolve())


@pytest.fixture(scope="module")
def environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a virtual environment that `pip install WHEEL` could have made."""
    folder = tmp_path_factory.mktemp("empty")
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder)
    python = folder / "bin" / "python"
    site = Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--quiet"]
    run([*pip, "install", "--no-index", "--no-deps", str(wheel_of(built))], folder)
    (described,) = metadata.distributions(name="opsin", path=[str(site)])
    for name in sorted(closure([Requirement(text) for text in described.requires or ()])):
        link(name, site)
    return python.parent


def test_it_is_the_wheel_that_is_installed_and_nothing_optional(environment: Path, tmp_path: Path) -> None:
    code = f"""
from importlib.util import find_spec
import opsin
print(opsin.__file__)
print([name for name in {OPTIONAL} if find_spec(name)])
"""
    place, optional = run([str(environment / "python"), "-c", code], tmp_path).splitlines()
    assert Path(place).is_relative_to(environment.parent) and optional == "[]"


def test_the_release_workflow_and_the_demo_run_from_it(environment: Path, tmp_path: Path) -> None:
    """The very commands that the release tries: the demo's, and a look at the scenes, which are of photographs."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8"))["jobs"]
    commands = jobs["check"]["steps"][-1]["run"].splitlines()
    demo = re.findall(r"\$\(BIN\)/opsin (\w+)", (ROOT / "Makefile").read_text("utf-8"))
    tried = [command.split()[1] for command in commands]
    assert tried[1 : 1 + len(demo)] == demo == ["train", "eval", "data", "predict"]
    printed = {}
    for command in commands:
        name, *arguments = command.split()
        assert name == "opsin"
        printed[arguments[0]] = run([str(environment / name), *arguments], tmp_path)
    assert opsin.__version__ in printed["--version"]
    assert "accuracy" in printed["eval"] and len(printed["predict"].splitlines()) == 8
    assert {"report.html", "model.safetensors", "metrics.csv"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert len(list((tmp_path / "predicted").rglob("*.png"))) == 8


def test_what_needs_an_extra_says_so_before_anything_is_made(environment: Path, tmp_path: Path) -> None:
    """Of Selective Search and SVMs, here with proposals that need no extra, so that the SVMs are what is missing."""
    settings = ("model.proposals=sliding_windows", "train.init=null", "data.source=scenes:60")
    asked = [str(environment / "opsin"), "train", "rcnn_scenes"]
    for setting in settings:
        asked += ["--set", setting]
    done = call(asked, tmp_path)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(
        "opsin: linear SVMs need scikit-learn: pip install 'opsin[svm]'"
    )
    assert not (tmp_path / "runs").exists()

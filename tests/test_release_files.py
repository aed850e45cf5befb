"""What stands around the code: citation, policies, workflows, the Dockerfile, the notebook and the list of extras."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

import opsin

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def urls() -> dict[str, str]:
    lines = metadata.metadata("opsin").get_all("Project-URL") or []
    return dict(line.split(", ", 1) for line in lines)


def test_the_citation_is_of_this_version_and_place() -> None:
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software"
    assert cited["authors"] == [{"name": "The opsin authors"}] and cited["message"]
    assert cited["version"] == opsin.__version__
    assert cited["license"] == metadata.metadata("opsin")["License-Expression"]
    assert (cited["repository-code"], cited["url"]) == (urls()["Source"], urls()["Documentation"])


def test_there_is_one_address_of_the_repository() -> None:
    assert urls().keys() >= {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    files = [ROOT / "CITATION.cff", *ROOT.glob("*.md"), ROOT / "pyproject.toml", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(path.read_text("utf-8") for path in files)
    assert set(re.findall(r"https://github\.com/[\w.-]+/opsin\b", text)) == {urls()["Source"]}


def test_the_policies_say_how_to_report() -> None:
    assert "Report a vulnerability" in read("SECURITY.md") and "SECURITY.md" in read("CODE_OF_CONDUCT.md")


def test_every_extra_is_explained() -> None:
    extras = set(metadata.metadata("opsin").get_all("Provides-Extra") or ())
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", read("docs/installation.md"), re.MULTILINE)
    assert {name for name, *_ in rows} == extras - {"dev", "docs"}
    asked = re.findall(r"pip install '?opsin\[([\w,]+)\]", "".join(path.read_text("utf-8") for path in sources()))
    assert asked and {name for names in asked for name in names.split(",")} <= extras


def sources() -> Iterator[Path]:
    yield from (ROOT / "src").rglob("*.py")
    yield from (ROOT / "docs").rglob("*.md")


# Workflows


def workflow(name: str) -> dict[Any, Any]:
    return yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))


def steps(jobs: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.stem)
def test_a_workflow_may_read_only_and_pins_its_actions(path: Path) -> None:
    described = workflow(path.name)
    assert described["permissions"] == {"contents": "read"}
    used = [step["uses"] for step in steps(described["jobs"]) if "uses" in step]
    assert used and not [one for one in used if not re.fullmatch(r"actions/[\w-]+@v\d+|pypa/[\w-]+@release/v1", one)]


def test_a_release_is_a_tag_that_was_tried_on_every_python() -> None:
    described = workflow("release.yml")
    assert described[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as a truth value
    jobs = described["jobs"]
    assert jobs["publish"]["needs"] == "check" and jobs["check"]["needs"] == "build"
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"} and jobs["publish"]["environment"] == "pypi"
    assert "secrets." not in (WORKFLOWS / "release.yml").read_text("utf-8")
    tried = jobs["check"]["strategy"]["matrix"]["python"]
    assert tried == workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(metadata.metadata("opsin").get_all("Classifier") or ()), re.M)
    assert tried == named
    assert metadata.metadata("opsin")["Requires-Python"] == f">={tried[0]}"


# Docker, whose steps run here as a plain script


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, in order: (name, the rest of the line)."""
    lines = (line.strip() for line in read("Dockerfile").splitlines())
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line and not line.startswith("#")]


_PIP = """#!{bash}
# Stands for pip in an image: what it would fetch from an index is there.
echo "pip $*" >> {log}
case "$*" in
    wheel*) exec {python} -m hatchling build -t wheel -d {wheels} ;;
    *whl/cpu) ;;
    *) asked="${{@: -1}}"; [ -f "${{asked%\\[*}}" ] ;;
esac
"""


@pytest.mark.parametrize("extras", ["", "export,video"])
def test_the_steps_of_the_image_run(tmp_path: Path, extras: str) -> None:
    bash, log, wheels = shutil.which("bash"), tmp_path / "log", tmp_path / "wheels"
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "pip").write_text(_PIP.format(bash=bash, python=sys.executable, log=log, wheels=wheels))
    for name in ("useradd", "install"):
        (tools / name).write_text(f'#!{bash}\necho "{name} $*" >> {log}\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    source = tmp_path / "source"
    source.mkdir()
    environment = {"PATH": os.pathsep.join([str(tools), os.environ["PATH"]]), "EXTRAS": extras}
    sent = read(".dockerignore").splitlines()
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            *given, target = rest.split()
            assert not [one for one in given if f"!{one}" not in sent]
            for one in given:
                path = ROOT / one
                shutil.copytree(path, source / target) if path.is_dir() else shutil.copy(path, source / target)
        elif name == "RUN":
            command = rest.replace("/wheels", str(wheels))
            script = [str(bash), "-euc", command]
            done = subprocess.run(script, cwd=source, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"
    said = log.read_text()
    assert [line.split()[:2] for line in said.splitlines()] == [
        ["pip", "wheel"],
        ["pip", "install"],
        ["pip", "install"],
        ["useradd", "--create-home"],
        ["install", "--directory"],
    ]
    wheel = f"wheels/opsin-{opsin.__version__}-py3-none-any.whl" + (f"[{extras}]" if extras else "")
    assert said.splitlines()[2].endswith(wheel)


def test_the_image_runs_the_command_as_nobody_special() -> None:
    names = [name for name, _ in instructions()]
    assert dict(instructions())["ENTRYPOINT"] == '["opsin"]' and dict(instructions())["USER"] == "opsin"
    assert names.index("USER") > max(place for place, name in enumerate(names) if name == "RUN")
    bases = {rest.split()[0] for name, rest in instructions() if name == "FROM"}
    assert len(bases) == 1 and re.fullmatch(r"python:3\.\d+-slim", bases.pop())


# The notebook


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    notebook = json.loads(read("docs/notebooks/first_steps.ipynb"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 6 and not any(cell["outputs"] or cell["execution_count"] for cell in code)
    text = "\n".join("".join(cell["source"]) for cell in code)
    command = [sys.executable, "-W", "error::DeprecationWarning:opsin", "-c", text]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "goes with the next release" not in done.stderr  # nothing in it is old
    wrong = re.search(r"^(\d+) of 100 are wrong", done.stdout, re.MULTILINE)
    assert wrong and int(wrong[1]) < 20

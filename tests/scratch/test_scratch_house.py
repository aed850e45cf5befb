"""The room itself: NumPy alone, used by nothing, and every file runs and says what it is about."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "opsin"
PAGE = Path(__file__).parents[2] / "docs" / "blocks" / "scratch.md"
ROOM = sorted((PACKAGE / "scratch").glob("*.py"))
FILES = [path for path in ROOM if path.stem != "__init__"]
ALLOWED = {"numpy", *sys.stdlib_module_names}


def imported(node: ast.AST) -> set[str]:
    """The modules that are imported anywhere below a node."""
    names: set[str] = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            names |= {alias.name for alias in child.names}
        elif isinstance(child, ast.ImportFrom):
            names.add(str(child.module))
    return names


@pytest.mark.parametrize("path", ROOM, ids=lambda path: path.stem)
def test_a_file_needs_numpy_and_its_room_only(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = imported(tree)
    assert not {n for n in names if n.split(".")[0] not in ALLOWED and not n.startswith("opsin.scratch.")}


def test_nothing_of_opsin_uses_it() -> None:
    users = [p for p in PACKAGE.rglob("*.py") if p.parent.name != "scratch" and "opsin.scratch" in p.read_text("utf-8")]
    assert not users


@pytest.mark.parametrize("path", [p for p in FILES if p.stem != "lenet"], ids=lambda path: path.stem)
def test_a_file_runs_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) >= 3
    assert "nan" not in re.split(r"\W+", printed)


def test_it_runs_as_a_module_without_torch() -> None:
    code = (
        "import runpy, sys; sys.modules['torch'] = None; runpy.run_module('opsin.scratch.im2col', run_name='__main__')"
    )
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert "largest difference" in result.stdout


def test_the_room_lists_all_its_files() -> None:
    page = PAGE.read_text(encoding="utf-8")
    story = (ast.get_docstring(ast.parse((PACKAGE / "scratch" / "__init__.py").read_text("utf-8"))) or "").split(
        "story:"
    )[1]
    for path in FILES:
        assert re.search(rf"\b{path.stem}\b", story), path.stem
        assert f"`{path.stem}`" in page, path.stem


def test_what_the_page_shows_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), {})


def test_what_the_page_prints_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """A command of one file and, below it, what it prints: word for word."""
    found = re.findall(
        r"^```sh\npython -m opsin\.scratch\.(\w+)\n```\n+```text\n(.*?)^```$",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    shown = [(name, text) for name, text in found if name != "lenet"]
    assert len(shown) >= 3
    for name, text in shown:
        runpy.run_path(str(PACKAGE / "scratch" / f"{name}.py"), run_name="__main__")
        assert capsys.readouterr().out.strip() == text.strip(), name

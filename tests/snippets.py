"""Fenced blocks of a page as a reader would run them: Python in one namespace, commands in this process, made short."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import opsin
from opsin import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

SHORT = {"train.max_steps": 1, "data.limit": 8}  # of a training: one step on eight images
SHELL = """
opsin() { printf '%s\\0' "$(($# + 1))" opsin "$@" >> "$RECORD"; }
python() { printf '%s\\0' "$(($# + 1))" python "$@" >> "$RECORD"; }
"""


@dataclass(frozen=True)
class Block:
    """A fenced block. title: of a file that it is; shown: what the page says that it prints, None where it does not."""

    page: str
    line: int
    language: str
    title: str
    code: str
    shown: str | None

    @property
    def first(self) -> str:
        """The first line, by which a table names it."""
        return self.code.partition("\n")[0]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.first}"


_FENCE = re.compile(r"^( *)```([^`\n]*)\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[Block]:
    """The blocks of a page, given by its path in the repository."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    made = []
    for place, this in enumerate(found):
        following = found[place + 1] if place + 1 < len(found) else None
        language, _, rest = this[2].strip().partition(" ")
        title = re.search(r'title="(.+?)"', rest)
        shown = None
        if following is not None and following[2].strip() == "text":
            shown = None if text[this.end() : following.start()].strip() else following[3]
        line = text.count("\n", 0, this.start()) + 1
        made.append(Block(page, line, language, title[1] if title else "", this[3], shown))
    return made


def commands(code: str, folder: Path, ignored: Sequence[str]) -> list[list[str]]:
    """The words of every call of opsin and python in some lines, which bash reads: quotes, patterns, loops.

    ignored: other commands, which do nothing. Raises AssertionError where bash meets one that is neither.
    """
    record = folder / ".record"
    record.write_text("")
    shell = SHELL + "".join(f"{name}() {{ :; }}\n" for name in ignored)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"RECORD={shlex.quote(str(record.resolve()))}\n{shell}{code}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    words = record.read_text(encoding="utf-8").split("\0")[:-1]
    record.unlink()
    calls = []
    while words:
        count = int(words[0])
        calls.append(words[1 : count + 1])
        words = words[count + 1 :]
    return calls


def shortened(words: Sequence[str], short: Mapping[str, Any]) -> list[str]:
    """A command whose trainings take one step; short: keys of the recipe that make it so."""
    verb = next((word for word in words[1:] if word in ("train", "tune", "adapt")), None)
    if verb is None or not short or (verb == "adapt" and "--source" not in words):
        return list(words)
    short = {**short, "data.size": 64} if verb == "adapt" else short
    keys = {"train.max_steps": 2} if "--resume" in words and verb == "train" else dict(short)
    if verb == "tune" and "--resume" in words:
        return [*words, "--trials", "3"]
    more = [part for key, value in keys.items() for part in ("--set", f"{key}={'null' if value is None else value}")]
    return [*words, *more, *(["--trials", "2"] if verb == "tune" else [])]


def call(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in this process: of opsin, `python -m MODULE`, `python -c CODE` or `python FILE`."""
    monkeypatch.delenv("OPSIN_RUN_FOLDER", raising=False)  # which a training leaves to the processes that it starts
    monkeypatch.delenv("OPSIN_MEASURED", raising=False)
    if words[0] == "opsin":
        monkeypatch.setattr(sys, "argv", list(words))
        errors = io.StringIO()
        with pytest.raises(SystemExit) as stop, contextlib.redirect_stderr(errors):
            cli.main()
        assert not stop.value.code, f"{shlex.join(words)}\n{errors.getvalue()}"
    elif words[1] == "-c":
        exec(compile(words[2], "-c", "exec"), {"__name__": "__main__"})
    else:
        monkeypatch.setattr(sys, "argv", list(words[2:] if words[1] == "-m" else words[1:]))
        run = runpy.run_module if words[1] == "-m" else runpy.run_path
        with contextlib.suppress(SystemExit):
            run(sys.argv[0], run_name="__main__")


class Reader:
    """Somebody who runs the blocks of a page in order, in one folder.

    short: what makes trainings short, nothing for those that are run as written. ignored: commands that do nothing.
    skipped: how blocks and calls begin that are not run.
    """

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        short: Mapping[str, Any],
        ignored: Sequence[str],
        skipped: tuple[str, ...],
    ) -> None:
        self.folder, self.monkeypatch, self.short = folder, monkeypatch, short
        self.ignored, self.skipped = ignored, skipped
        self.names: dict[str, Any] = {"__name__": "__main__", "opsin": opsin}
        if short:
            train, tune = opsin.train, opsin.tune
            monkeypatch.setattr(opsin, "train", lambda *a, **k: train(*a, **self._with(a, k)), raising=False)
            monkeypatch.setattr(opsin, "tune", lambda *a, **k: tune(*a, **self._with(a, k, place=2)), raising=False)

    def _with(self, given: Sequence[Any], keywords: dict[str, Any], place: int = 1) -> dict[str, Any]:
        """The keywords of a call in Python, whose overrides, of this place, make it short."""
        if len(given) > place:
            given[place].update(self.short)
            return keywords
        return {**keywords, "overrides": {**keywords.get("overrides", {}), **self.short}}

    def run(self, block: Block) -> str:
        """Run a block; what it prints."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            getattr(self, f"_{block.language}")(block)
        return printed.getvalue()

    def _python(self, block: Block) -> None:
        if block.title:
            (self.folder / block.title).write_text(block.code, encoding="utf-8")
            return
        before = "\n" * block.line  # so that a traceback has the page's lines
        exec(compile(before + block.code, str(ROOT / block.page), "exec"), self.names)

    def _sh(self, block: Block) -> None:
        if self.skipped and block.code.startswith(tuple(one for one in self.skipped if not one.startswith("opsin "))):
            return
        for words in commands(block.code, self.folder, self.ignored):
            if not (self.skipped and shlex.join(words).startswith(self.skipped)):
                call(shortened(words, self.short), self.monkeypatch)

    _bash = _sh

    def _yaml(self, block: Block) -> None:
        """Keys of a recipe, by which a training takes a step; of a detector where a step of it is a detector's."""
        keys = yaml.safe_load(block.code)
        detects = any(name in block.code for name in ("mosaic", "scale_jitter:", "keep:"))
        plain: dict[str, Any] = {"task": "detect" if detects else "classify"}
        plain["model"] = {"name": "yolov3_tiny" if detects else "resnet20"}
        plain["data"] = {"source": "scenes" if detects else "photos", "size": 64}
        path = self.folder / f"line{block.line}.yaml"
        path.write_text(yaml.safe_dump({**plain, **keys}), encoding="utf-8")
        call(shortened(["opsin", "train", str(path)], SHORT), self.monkeypatch)

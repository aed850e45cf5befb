"""Parts of pages that are written when the site is built, from the package itself: they cannot be out of date."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opsin.cli import app

RECIPES = Path(__file__).parents[1] / "src" / "opsin" / "recipes"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page: fills in the marked places."""
    for marker, write in PARTS.items():
        if marker in markdown:
            markdown = markdown.replace(marker, "\n".join(write()))
    return markdown


def recipes() -> Iterator[str]:
    """Every shipped recipe: what its header says, and the recipe itself."""
    for path in sorted(RECIPES.glob("*/*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
        yield f"## {path.stem}\n"
        yield from header_to_markdown(lines[:end])
        yield f'\n??? note "The recipe"\n\n    ```yaml title="{path.relative_to(RECIPES.parent)}"'
        yield from (f"    {line}" for line in lines[end:])
        yield "    ```\n"


def header_to_markdown(comments: list[str]) -> Iterator[str]:
    """Comment lines as Markdown: what is indented is shown as code."""
    code = False
    for comment in comments:
        line = comment.removeprefix("#").removeprefix(" ")
        if line.startswith("  ") != code and line:
            code = not code
            yield "\n```sh" if code else "```\n"
        yield line.strip() if code else line
    if code:
        yield "```"


def models() -> Iterator[str]:
    """A table of every registered model."""
    yield "| name | parameters | multiply-adds | input | year | paper | idea |"
    yield "|---|--:|--:|---|---|---|---|"
    for model in json.loads(opsin("models", "--json")):
        macs = f"{model['macs']:,}" if model["macs"] else ""
        paper = re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", model["paper"])
        size = "x".join(map(str, model["input"]))
        cells = [f"`{model['name']}`", f"{model['params']:,}", macs, size, str(model["year"]), paper, model["idea"]]
        yield f"| {' | '.join(cells)} |"


def commands() -> Iterator[str]:
    """The help of every command."""
    yield f"```text\n{opsin('--help')}\n```\n"
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        yield f"## opsin {name}\n\n```text\n{opsin(name, '--help')}\n```\n"


def opsin(*arguments: str) -> str:
    """What a command prints, as on a terminal of 100 columns without colours."""
    code = "import sys; sys.argv[0] = 'opsin'; from opsin.cli import main; main()"
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return "\n".join(line.rstrip() for line in result.stdout.strip("\n").splitlines())


PARTS = {"<!-- recipes -->": recipes, "<!-- models -->": models, "<!-- commands -->": commands}

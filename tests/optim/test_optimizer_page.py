"""The page on optimizers: its code prints what it shows, its recipes load, and no name is missing."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import yaml

from opsin.engine.recipe import load_recipe
from opsin.optim import create_optimizer, list_optimizers, list_schedules
from opsin.registry import create_model

PAGE = (Path(__file__).parents[2] / "docs" / "blocks" / "optimizers.md").read_text(encoding="utf-8")


def test_the_code_prints_what_the_page_shows() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == PAGE.count("```python") >= 4
    for code, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, "optimizers.md", "exec"), {})
        assert printed.getvalue() == shown


def test_every_name_is_there() -> None:
    assert not [name for name in [*list_optimizers(), *list_schedules()] if f"`{name}`" not in PAGE]


def test_its_recipes_load() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        recipe = load_recipe("lenet5_digits", yaml.safe_load(block))
        settings = recipe.optim
        create_optimizer(create_model("lenet5"), settings.name, lr=settings.lr, **settings.options)

"""The pages on losses, activations and normalisation: what they show runs, and they leave nothing out."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from opsin.losses import list_losses
from opsin.nn.activation import list_activations
from opsin.nn.norm import list_norms

pytestmark = pytest.mark.rendered

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"losses": list_losses(), "activations": list_activations(), "normalisation": list_norms()}


def text(page: str) -> str:
    return (DOCS / "blocks" / f"{page}.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    sys.path.insert(0, str(DOCS))
    import hooks  # type: ignore[import-not-found]

    return hooks


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_its_code_prints(page: str) -> None:
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)
    assert len(blocks) == text(page).count("```python")
    for code, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, page, "exec"), names)
        assert printed.getvalue() == shown


@pytest.mark.parametrize(("page", "names"), PAGES.items())
def test_a_page_has_every_name(page: str, names: list[str]) -> None:
    assert [name for name in names if f"`{name}`" not in text(page)] == []


def test_every_plot_is_shown_and_every_shown_plot_is_made(hooks: ModuleType) -> None:
    shown = {name for page in PAGES for name in re.findall(r"\]\(plots/([\w-]+)\.svg\)", text(page))}
    assert shown == set(hooks.PLOTS)


def test_plots_are_images_that_follow_the_reader(hooks: ModuleType) -> None:
    for draw in hooks.PLOTS.values():
        image = draw().decode()
        assert image.lstrip().startswith("<?xml") or image.startswith("<svg")
        assert "prefers-color-scheme:dark" in image
        assert "gradient" in image

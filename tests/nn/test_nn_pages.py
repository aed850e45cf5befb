"""The pages on layers, padding and surgery show only what runs: every block is run, every printed line compared."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

PAGES = Path(__file__).parents[2] / "docs" / "blocks"
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["layers", "padding", "surgery"])
def test_page(name: str) -> None:
    torch.manual_seed(0)
    blocks = BLOCK.findall((PAGES / f"{name}.md").read_text(encoding="utf-8"))
    assert blocks
    space: dict[str, object] = {}
    for code, expected in blocks:  # one after the other, as a reader would type them
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, space)
        if expected:
            assert printed.getvalue() == expected

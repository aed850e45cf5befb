"""The page on augmentation: its code prints what it shows, its steps are made, and ours are all named."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import yaml

from opsin.data import Preprocessing, create_augmentation, create_mixing
from opsin.data.transforms.augmentation import _BLIND, _GEOMETRY, _OURS, PRESETS

PAGE = (Path(__file__).parents[3] / "docs" / "blocks" / "augmentation.md").read_text(encoding="utf-8")


def test_the_code_prints_what_the_page_shows() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == PAGE.count("```python") >= 3
    for code, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, "augmentation.md", "exec"), {})
        assert printed.getvalue() == shown


def test_every_step_of_ours_is_there() -> None:
    ours = (*_OURS, *_GEOMETRY, *_BLIND, *PRESETS, "fused_color_jitter", "pca_lighting", "photometric_distort")
    assert not [name for name in ours if f"`{name}`" not in PAGE]


def test_its_steps_are_made() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    values = yaml.safe_load(block)
    preprocessing = Preprocessing(size=(32, 32), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert create_augmentation(values["augment"], preprocessing) is not None
    assert create_mixing(**values["mixing"], num_classes=3) is not None

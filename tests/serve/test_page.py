"""The page of a server, used as people use it, in a browser without a window."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.browser import Browser

import opsin

pytestmark = pytest.mark.rendered

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

COMPATIBILITY = Path(__file__).parents[1] / "compatibility"
PHONE = (390, 844)
ANSWERED = "document.querySelectorAll('article').length == {} && document.getElementById('state').textContent == ''"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server of the detector that the first version saved."""
    code = "from opsin.cli import run; run()"
    command = [sys.executable, "-c", code, "serve", str(COMPATIBILITY / "detect"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        yield f"{found[0]}/"
        process.terminate()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two images, and a file that is none, whose name would be markup."""
    with np.load(COMPATIBILITY / "images.npz") as held:
        for name in ("scene_0", "scene_1"):
            Image.fromarray(held[name]).save(tmp_path / f"{name}.png")
    damaged = tmp_path / "<img src=x onerror=damaged=1>.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return [tmp_path / "scene_0.png", tmp_path / "scene_1.png", damaged]


def test_files_are_answered_drawn_and_in_words(address: str, files: list[Path], tmp_path: Path) -> None:
    predictor = opsin.load(COMPATIBILITY / "detect", "cpu")
    with Browser(tmp_path / "browser") as browser:
        browser.open(address)
        browser.until("document.getElementById('about').textContent.startsWith('detect: ')")
        assert browser.value("document.getElementById('name').textContent") == "detect"
        browser.choose("#files", *files)
        browser.until(ANSWERED.format(3))
        for place, file in enumerate(files[:2]):
            card = f"document.querySelectorAll('article')[{place}]"
            assert browser.value(f"{card}.firstChild.textContent") == file.name
            assert browser.value(f"{card}.querySelector('.said').textContent") == predictor.describe(
                predictor.predict(file)
            )
            assert browser.until(f"{card}.querySelector('img').naturalWidth") == predictor.predict(file).plot().width
        assert files[2].name in browser.value("document.querySelector('article .bad').textContent")
        assert browser.value("typeof damaged") == "undefined"
        # Options count for what is asked next.
        browser.value("document.getElementById('option-threshold').value = '1'")
        browser.choose("#files", files[0])
        browser.until(ANSWERED.format(1))
        expected = predictor.describe(predictor.predict(files[0], threshold=1.0))
        assert browser.value("document.querySelector('.said').textContent") == expected
        assert [line for line in browser.errors() if "status of 400" not in line] == []  # of the damaged file
        assert [url for url in browser.requests() if not url.startswith((address, "data:", "blob:"))] == []


def test_a_phone_shows_all_of_its_width(address: str, files: list[Path], tmp_path: Path) -> None:
    with Browser(tmp_path / "browser", PHONE) as browser:
        browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
        browser.open(address)
        browser.choose("#files", files[0])
        browser.until(ANSWERED.format(1))
        browser.until("document.querySelector('article img').naturalWidth")
        browser.save(tmp_path / "phone.png")
        assert browser.value("innerWidth") == 390 and browser.value("document.documentElement.scrollWidth") <= 390

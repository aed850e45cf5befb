"""Names as disks and other people's files have them: nothing of them reaches a terminal, page or drawing as it is."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.dom import minidom

import numpy as np
import pytest
import torch
from PIL import Image

from opsin.cli import main
from opsin.data.drawing import Line, add_caption
from opsin.engine import charts
from opsin.errors import is_printable, printable

pytestmark = pytest.mark.rendered

NAMES = [
    b"plain",
    "caf\u00e9 <b>&\"'".encode(),
    b"math$x_{$",
    "woman\U0001f469\u200d\U0001f52c".encode(),  # joined by a zero-width joiner, which shows nothing by itself
    b"[bold]rich",
    b"title\x1b]0;owned\x07",
    b"csi\xc2\x9b31m",
    "txt\u202egnp".encode(),
    b"two\nlines",
    "line\u2028separator".encode(),
    b"latin\xe9",
    b"delete\x7f",
]


def test_what_is_shown_holds_nothing_that_steers() -> None:
    for number in range(sys.maxunicode + 1):
        letter = chr(number)
        kind = unicodedata.category(letter)
        steers = kind in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(letter) in (
            "LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI",
        )  # fmt: skip
        if steers:
            assert not is_printable(letter), hex(number)
            assert printable(letter).isascii()
        elif kind[0] in "LMNPS" and number not in (0x61C, 0xFFFD):
            assert printable(letter) == letter, hex(number)
    assert printable("a\nb", keep="\n") == "a\nb"
    assert printable(os.fsdecode(b"latin\xe9")) == r"latin\xe9"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image folders of these names; in each a file of a name that is no text."""
    root = tmp_path_factory.mktemp("names") / "data"
    random = np.random.RandomState(0)
    for place, name in enumerate(NAMES):
        inside = root / os.fsdecode(name)
        inside.mkdir(parents=True)
        for number, file in enumerate([b"a.png", b"b\x1b[31m\xff.png", *(f"{i}.png".encode() for i in range(8))]):
            pixels = random.randint(0, 60, (28, 28), dtype=np.uint8)
            pixels[:, 2 * place : 2 * place + 2] = 255 - number
            with (inside / os.fsdecode(file)).open("wb") as out:
                Image.fromarray(pixels).save(out, "png")
    return root


@dataclass
class Done:
    returncode: int
    stdout: bytes
    stderr: bytes


def check_printable(*streams: bytes) -> None:
    for stream in streams:
        lines = stream.decode().split("\n")  # strict: it is UTF-8
        assert all(is_printable(line.replace("\t", "")) for line in lines), [x for x in lines if not is_printable(x)]


def call_apart(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "opsin", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, env={**os.environ, **variables})
    check_printable(done.stdout, done.stderr)
    return done


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Done]:
    """Commands in this process, in a folder of their own."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Done:
        monkeypatch.delenv("OPSIN_RUN_FOLDER", raising=False)
        monkeypatch.setattr(sys, "argv", ["opsin", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        written = capfdbinary.readouterr()
        done = Done(int(stop.value.code or 0), written.out, written.err)
        check_printable(done.stdout, done.stderr)
        return done

    return run


def test_every_verb_on_such_names(folder: Path, tmp_path: Path, call: Callable[..., Done]) -> None:
    seen = call("data", str(folder))
    assert seen.returncode == 0
    assert rb"title\x1b]0;owned\x07  all 10" in seen.stdout
    assert b"note: odd name (19)" in seen.stdout  # seven classes and a file in each of twelve
    words = ["train", "classify", "--model", "lenet5", "--data", str(folder), "--epochs", "1", "--out", "run"]
    trained = call(*words)
    assert trained.returncode == 0, trained.stderr.decode()
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert is_printable(page.replace("\n", "").replace("\t", ""))
    assert r"title\x1b]0;owned\x07" in page
    drawings = re.findall(r'data:image/svg\+xml;base64,([^"]+)', page)
    assert drawings
    for drawing in drawings:
        minidom.parseString(base64.b64decode(drawing))
    shown = call("predict", "run", str(folder), "--out", "drawn", "--csv", "table.csv")
    assert shown.returncode == 0, shown.stderr.decode()
    assert len(shown.stdout.decode().splitlines()) == 10 * len(NAMES)  # a line break in a name makes no line
    answers = json.loads(call("predict", "run", str(folder), "--json").stdout)
    ascii_only = call_apart("predict", "run", str(folder), "--json", cwd=tmp_path, PYTHONIOENCODING="ascii")
    plain = json.loads(ascii_only.stdout)
    assert answers == plain
    named = {Path(one["path"]).parent.name for one in answers}
    assert named == {os.fsdecode(name) for name in NAMES}  # machines get the names themselves
    exported = call("export", "run", "--format", "torch")
    assert exported.returncode == 0, exported.stderr.decode()


@pytest.mark.parametrize(
    "words",
    [
        ["models", "{}"],
        ["data", "{}"],
        ["eval", "{}"],
        ["predict", "{}", "x.png"],
        ["train", "{}"],
        ["train", "lenet5_digits", "--set", "{}=1"],
        ["train", "lenet5_digits", "--{}"],
        ["{}"],
        ["explain", "{}"],
    ],
)
def test_errors_show_no_escape(words: list[str], call: Callable[..., Done]) -> None:
    for name in NAMES[5:7] if words[0] in ("data", "models") else NAMES[8:9]:
        done = call(*(word.format(os.fsdecode(name)) for word in words))
        assert done.returncode == 2
        assert done.stderr.startswith(b"opsin: ")
        assert done.stderr.count(b"\n") == 1


def test_a_run_folder_that_no_library_can_write_to_is_refused_before_training(
    tmp_path: Path, call: Callable[..., Done]
) -> None:
    words = ["train", "lenet5_digits", "--out", os.fsdecode(b"run\xe9")]
    done = call(*words)
    assert done.returncode == 2
    assert b"has bytes that are no UTF-8; choose another --out" in done.stderr
    assert not list(tmp_path.iterdir())


def test_drawings_and_charts_take_any_name() -> None:
    names = [os.fsdecode(name) for name in NAMES]
    image = Image.fromarray(torch.zeros(40, 40, 3, dtype=torch.uint8).numpy())
    for name in names:
        add_caption(image, [Line(name, "5 %")], narrowest=200)
    drawn = charts.lines({name: ([1.0, 2.0], [0.1, 0.2]) for name in names})
    minidom.parseString(drawn)
    assert rb"title\x1b]0;owned\x07" in drawn

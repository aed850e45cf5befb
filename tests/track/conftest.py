"""What tests of tracking share: the command line in this process, and a small scene that anybody can work out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from opsin import cli


class Printed(NamedTuple):
    status: int
    out: str
    err: str


Call = Callable[..., Printed]


@pytest.fixture
def opsin(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Calls the command line in this process."""

    def call(*arguments: object) -> Printed:
        monkeypatch.setattr(sys, "argv", ["opsin", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        return Printed(int(stop.value.code or 0), out, err)

    return call


@pytest.fixture
def walkers(tmp_path: Path) -> Path:
    """Detections of two who walk past each other in 20 frames, at heights that do not meet, by MOTChallenge."""
    lines = []
    for frame in range(20):
        lines += [f"{frame + 1},-1,{10 + 5 * frame},11,20,40,0.9,-1,-1,-1"]
        lines += [f"{frame + 1},-1,{200 - 5 * frame},101,20,40,0.8,-1,-1,-1"]
    (tmp_path / "walk.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "walk.txt"

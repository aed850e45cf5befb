"""The folder of a run: the first name that is free."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsin.engine.run import RunFolder


def test_runs_of_one_name_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [RunFolder.create(None, "net").path for _ in range(4)]
    assert made == [Path("runs") / name for name in ("net", "net-2", "net-3", "net-4")]
    made[1].rmdir()
    assert RunFolder.create(None, "net").path == made[1]

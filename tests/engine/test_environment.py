"""What a run writes down of the machine it ran on."""

from __future__ import annotations

import os

import pytest

from opsin.engine import environment


def test_cores_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {0: {1, 4, 6}}  # 0 means this process
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: own.get(process, {1}), raising=False)
    assert environment._cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert environment._cores() == 7

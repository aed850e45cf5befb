"""What long jobs say on standard error, and that short ones say nothing."""

from __future__ import annotations

import itertools
import time

import pytest

from opsin import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still unless a test moves it."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_ten_seconds(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress.follow(range(40), "reading", "images"):
        clock[0] += 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "reading: 10 of 40 images, about 30 s left",
        "reading: 20 of 40 images, about 20 s left",
        "reading: 30 of 40 images, about 10 s left",
        "reading: 40 of 40 images",
    ]


def test_without_a_known_number(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in itertools.islice(progress.follow(itertools.count(), "predicting", "frames"), 12):
        clock[0] += 1
    assert capsys.readouterr().err == "predicting: 10 frames\n"


def test_quick_and_quiet_jobs_say_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    list(progress.follow(range(1000), "reading"))
    for _ in progress.follow(range(40), "reading", quiet=True):
        clock[0] += 1
    with progress.step("converting"):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    with progress.Meter("reading", 40) as meter:
        meter(1)
        assert meter._bar is None
        clock[0] += 3
        meter(20)
        assert meter._bar is not None
        assert meter._bar.tasks[0].completed == 20
    assert capsys.readouterr().out == ""


def test_a_step_is_named_while_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "QUICK", 0.01)
    with progress.step("converting"):
        time.sleep(0.1)
        assert capsys.readouterr().err == "converting ...\n"
    assert capsys.readouterr().err.startswith("converting: 0.")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59, "59 s"), (120, "2 min"), (95, "1 min 35 s"), (720, "12 min"), (12_000, "3 h 20 min"),
     (86_399, "1 d"), (200_000, "2 d 7 h")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text

"""What pytest says of a run to the search for faults: which tests reach which places, how long they take, what failed.

The places are watched by calls that the search writes into its copy of the source. They run in whatever process a test
starts, too: pytest names the running test in the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Written into the copy as `opsin_watched.py`, beside the package.
PROBE = """
import os
_seen = set()

def reached(place):
    key = (place, os.environ.get("PYTEST_CURRENT_TEST", ""))
    if key not in _seen:
        _seen.add(key)
        with open({path!r}, "a") as file:
            file.write("%d\\t%s\\n" % key)
"""
CALL = '__import__("opsin_watched").reached({place})'


class Watch:
    """A plugin of pytest that writes a line of JSON for each test: its name, seconds, and whether it failed."""

    def __init__(self, path: Path, test_seconds: int, all_seconds: float) -> None:
        self.path, self.test_seconds, self.ends = path, test_seconds, time.monotonic() + all_seconds
        self.seconds = 0.0
        self.failed = False

    @contextlib.contextmanager
    def _limit(self) -> Iterator[None]:
        def stop(*_: object) -> None:
            raise TimeoutError(f"over {self.test_seconds} s")

        before = signal.signal(signal.SIGALRM, stop)
        signal.alarm(self.test_seconds)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Any:
        with self._limit():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Any:
        with self._limit():
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up the parts of a test."""
        self.seconds += report.duration
        self.failed |= report.failed
        if report.when == "teardown":
            row = {"test": report.nodeid, "seconds": round(self.seconds, 3), "failed": self.failed}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            self.seconds, self.failed = 0.0, False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Begin no further test once the time for all of them is over."""
        if time.monotonic() > self.ends:
            item.session.shouldstop = "the time for all tests is over"


class FirstFailure:
    """A plugin of pytest that writes the name of the first test, or file, that fails, and the last line of why."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.path.exists():
            why = report.longreprtext.strip().splitlines()[-1:]
            self.path.write_text("\n".join([report.nodeid, *why]) + "\n", encoding="utf-8")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that failed in any of its parts."""
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that could not be imported."""
        self._note(report)


def run(arguments: list[str], plugin: object, log: Path) -> None:
    """End this process with the result of pytest; what it says goes to a file."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    status = 3
    try:
        status = int(pytest.main(arguments, plugins=[plugin]))
    finally:
        os._exit(status)

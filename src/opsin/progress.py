"""How far a long job has come, on standard error alone: a bar on a terminal, else a line every ten seconds.

What takes less than two seconds says nothing. Standard output stays what was asked for.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from opsin.errors import is_first_process, on_terminal, printable

T = TypeVar("T")
QUICK = 2.0  # seconds before anything is shown
INTERVAL = 10.0  # seconds between two lines where there is no terminal


class Meter:
    """Shows how many of `total` are done, whenever it is called with their number; a context manager.

    total: None where nobody knows it. noun: what is counted, in the plural. quiet: show nothing at all. rate: show how
    many are done in a second.
    """

    def __init__(
        self, title: str, total: int | None, noun: str = "", *, quiet: bool = False, rate: bool = False
    ) -> None:
        self.title, self.total, self.noun, self.rate = title, total, noun, rate
        self._off = quiet or not is_first_process()
        self._started = time.monotonic()
        self._last, self._bar = self._started, None
        self._task: Any = None

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int | None = None) -> None:
        self.total = total or self.total
        now = time.monotonic()
        if self._off or now - self._started < QUICK:
            return
        if on_terminal():
            self._bar = self._bar or self._open()
            more = {"description": self._named(self._speed(done, now - self._started))} if self.rate else {}
            self._bar.update(self._task, completed=done, total=self.total, **more)
        elif now - self._last >= INTERVAL:
            self._last = now
            _print(self._line(done, now - self._started), sys.stderr)

    def _line(self, done: int, spent: float) -> str:
        noun = f" {self.noun}" if self.noun else ""
        speed = f", {self._speed(done, spent)}" if self.rate else ""
        if self.total is None:
            return f"{self.title}: {done:,}{noun}{speed}"
        line = f"{self.title}: {done:,} of {self.total:,}{noun}{speed}"
        left = spent * (self.total - done) / done if done else 0
        return line + (f", about {duration(left)} left" if left > 0 else "")

    def _speed(self, done: int, spent: float) -> str:
        each = done / max(spent, 1e-9)
        return f"{each:,.0f} a second" if each >= 10 else f"{each:.1f} a second"

    def _named(self, addition: str = "") -> str:
        """The title for a bar."""
        from rich.markup import escape

        return escape(printable(f"{self.title}, {addition}" if addition else self.title))

    def _open(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=Console(file=sys.stderr), transient=True)
        self._task = bar.add_task(self._named(), total=self.total)
        bar.start()
        return bar


def follow(
    items: Iterable[T], title: str, noun: str = "", *, total: int | None = None, quiet: bool = False
) -> Iterator[T]:
    """The items, one after the other, with a `Meter` of them. total: their number, for those without a length."""
    count = len(items) if total is None and isinstance(items, Sized) else total
    with Meter(title, count, noun, quiet=quiet) as meter:
        for done, item in enumerate(items, 1):
            yield item
            meter(done)


@contextmanager
def step(title: str) -> Iterator[None]:
    """One step of a job whose inside nobody can count: named once it takes long, and its seconds at its end."""
    stream, started, shown = sys.stderr, time.monotonic(), threading.Event()

    def announce() -> None:
        shown.set()
        _print(f"{title} ...", stream)

    timer = threading.Timer(QUICK, announce)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if shown.is_set():
        _print(f"{title}: {time.monotonic() - started:.1f} s", stream)


def duration(seconds: float) -> str:
    """A time for people, to about two digits: `8 s`, `12 min`, `3 h 20 min`.

    >>> duration(8.4), duration(95), duration(720), duration(12_000), duration(200_000)
    ('8 s', '1 min 35 s', '12 min', '3 h 20 min', '2 d 7 h')
    """
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 180:
        return _two(whole, 60, "min", "s")
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    return _two(minutes, 60, "h", "min") if minutes < 1440 else _two(minutes // 60, 24, "d", "h")


def _two(count: int, size: int, large: str, small: str) -> str:
    first, rest = divmod(count, size)
    return f"{first} {large}" + (f" {rest} {small}" if rest else "")


def _print(line: str, stream: TextIO) -> None:
    if is_first_process():
        print(printable(line), file=stream, flush=True)

"""What libraries say while they decode an image, kept off the terminal and known by the image's name.

libjpeg and libtiff write to file descriptor 2 for themselves, Pillow warns with a line of its source. Within
`listening`, descriptor 2 leads to a file, and who writes to `sys.stderr` still reaches the terminal. What an image made
its decoder say is a reason, of an image that is refused, or a warning, of one that is read all the same. In a loop
nothing is measured for each image: where something was said, its images are decoded once more, one by one. What no
image made a library say is written to descriptor 2 in the end.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, TypeVar

from opsin.errors import say

T = TypeVar("T")
_LONGEST = 160  # characters of what a decoder says
_LIBRARIES = re.compile(r"[/\\](PIL|torchvision)[/\\]")
_lock = threading.RLock()
_own = threading.local()  # warnings: what Pillow warned of in this thread
_said: set[str] = set()


class _Ear:
    """Descriptor 2 and Python's warnings, while somebody listens.

    depth: how many do. tracing: to one image at a time. warned, known: whether a library has warned, and the bytes that
    were written, at the last `trace`. saved: what descriptor 2 was, None where it is not led elsewhere.
    """

    def __init__(self) -> None:
        self.depth, self.tracing, self.warned = 0, False, False
        self.known = 0
        self.saved: int | None = None
        self.file: Any = None
        self.place = -1
        self.messages: dict[str, str] = {}
        self.claimed: set[str] = set()
        self.filters: Any = None
        self.stderr: TextIO | None = None
        self.terminal: TextIO | None = None

    def written(self) -> int:
        """Bytes that were written to descriptor 2 so far: the place in the file that both share."""
        return 0 if self.saved is None else os.lseek(self.place, 0, os.SEEK_CUR)

    def read(self, start: int) -> list[str]:
        """The lines that were written since."""
        if self.saved is None:
            return []
        text = os.pread(self.place, self.written() - start, start).decode("utf-8", "replace")
        return [line for line in text.splitlines() if line.strip()]

    def open(self) -> None:
        self.messages, self.claimed, self.warned, self.known = {}, set(), False, 0
        self.filters = warnings.catch_warnings()
        self.filters.__enter__()
        for module in (r"PIL\.", r"torchvision\."):
            warnings.filterwarnings("always", module=module)
        shown = warnings.showwarning
        warnings.showwarning = lambda *given, **more: None if _keep(*given[:3]) else shown(*given, **more)
        try:
            if self.file is None:
                self.file = tempfile.TemporaryFile()  # noqa: SIM115  # for as long as the process lives
            self.place = self.file.fileno()
            os.ftruncate(self.place, 0)
            os.lseek(self.place, 0, os.SEEK_SET)
            self.saved = os.dup(2)
        except OSError:  # no descriptor 2, or no place for a file
            self.saved = None
            return
        with contextlib.suppress(Exception):  # of whatever stands for it, in notebooks and tests
            if sys.stderr.fileno() == 2:
                sys.stderr.flush()
                self.stderr, sys.stderr = sys.stderr, self._terminal()
        os.dup2(self.place, 2)

    def _terminal(self) -> TextIO:
        """A stream to where descriptor 2 leads, the same for as long as it leads there."""
        if self.terminal is None or not os.path.sameopenfile(self.terminal.fileno(), 2):
            old = sys.stderr
            self.terminal = open(  # noqa: SIM115, PTH123  # who has taken it may write later
                os.dup(2), "w", buffering=1, encoding=old.encoding, errors=old.errors
            )
        return self.terminal

    def close(self) -> None:
        if self.saved is not None:
            if self.stderr is not None:
                with contextlib.suppress(Exception):
                    if sys.stderr is self.terminal:
                        sys.stderr.flush()
                        sys.stderr = self.stderr
            self.stderr = None
            os.dup2(self.saved, 2)
            os.close(self.saved)
            rest = [line for line in self.read(0) if line not in self.claimed] if self.written() else []
            self.saved = None
            if rest:
                os.write(2, "".join(f"{line}\n" for line in rest).encode("utf-8", "replace"))
        self.filters.__exit__(None, None, None)

    def note(self, name: str, start: int) -> None:
        """Keep what was said since as an image's."""
        lines = self.read(start)
        self.claimed.update(lines)
        if text := _words([*lines, *_own.warnings]):
            self.messages[name] = text


_ear = _Ear()


def _forget() -> None:
    """In a forked process: nobody listens here yet."""
    global _ear, _lock
    old, _lock = _ear, threading.RLock()
    if old.saved is not None:
        os.dup2(old.saved, 2)
        if old.stderr is not None:
            sys.stderr = old.stderr
    _ear = _Ear()


if os.name != "nt":  # Windows forks no processes
    os.register_at_fork(after_in_child=_forget)


def _keep(message: Warning | str, category: type[Warning], filename: str) -> bool:
    """Whether a warning is a library's of an image. Of sizes that we allow, and of its own plans, it counts as none."""
    if _LIBRARIES.search(filename) is None:
        return False
    if not issubclass(category, DeprecationWarning) and category.__name__ != "DecompressionBombWarning":
        _own.__dict__.setdefault("warnings", []).append(str(message))
        _ear.warned = True
    return True


def _words(lines: Iterable[str]) -> str:
    """What was said, in one line."""
    clean = (re.sub(r"\s+", " ", line.removeprefix("tempfile.tif: ")).strip(" .") for line in lines)
    text = "; ".join(dict.fromkeys(line for line in clean if line))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


@contextlib.contextmanager
def listening() -> Iterator[dict[str, str]]:
    """Within the block, libraries are not heard; after it, what is given holds what each image made its decoder say."""
    with _lock:
        if _ear.depth == 0:
            _ear.open()
        _ear.depth += 1
    found: dict[str, str] = {}
    try:
        yield found
    finally:
        with _lock:
            found.update(_ear.messages)
            _ear.depth -= 1
            if _ear.depth == 0:
                _ear.close()


def in_loop() -> bool:
    """Whether somebody listens around a loop, in which nothing is done for each image."""
    return _ear.depth > 0 and not _ear.tracing


def watch(name: str, decode: Callable[..., T], *given: Any) -> tuple[T, dict[str, str]]:
    """What `decode` gives, without what its libraries say; that, by the image's name, where nobody else listens.

    Who listens around a loop learns it by `trace`. Raises what `decode` raises, with a note of it, `heard`.
    """
    if _ear.depth:
        return (_watch(name, decode, given) if _ear.tracing else decode(*given)), {}
    heard: dict[str, str] = {}
    try:
        with listening() as heard:
            return _watch(name, decode, given), heard
    except Exception as error:
        error.heard = heard.get(name, "")  # type: ignore[attr-defined]
        raise


def _watch(name: str, decode: Callable[..., T], given: tuple[Any, ...]) -> T:
    ear, _own.warnings = _ear, []
    start = ear.written()
    try:
        return decode(*given)
    finally:
        if _own.warnings or ear.written() != start:
            ear.note(name, start)


def trace(jobs: Iterable[Callable[[], object]]) -> None:
    """Within `listening`: where a library said something since the last time, do jobs again, to learn of which image.

    One after the other, in this thread. Nothing is done, as most times, where nothing was said.
    """
    with _lock:
        if not _ear.depth or (_ear.written() == _ear.known and not _ear.warned):
            return
        _ear.tracing = True
        try:
            for job in jobs:
                with contextlib.suppress(Exception):  # which it raised the first time
                    job()
        finally:
            _ear.tracing, _ear.warned, _ear.known = False, False, _ear.written()


def mark_said(names: Iterable[str]) -> None:
    """What was said of some images is known by other ways than `say_once`."""
    _said.update(names)


def say_once(messages: dict[str, str]) -> None:
    """A line for each image whose decoder said something, unless there was one already."""
    for name, text in messages.items():
        if name not in _said:
            say(f"warning: damaged image: {name}: its decoder says: {text}")
    _said.update(messages)

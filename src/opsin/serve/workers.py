"""Threads that decode and draw. They are daemons: one that is busy does not keep a server from ending."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
Work = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Workers:
    """A few threads that do what they are given, in its order."""

    def __init__(self, count: int) -> None:
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._count = count
        for number in range(count):
            threading.Thread(target=self._run, name=f"opsin worker {number}", daemon=True).start()

    async def run(self, work: Callable[..., T], *given: Any) -> T:
        """What a function gives, called in one of the threads. Cancelled before its turn, it is never called."""
        future: Future[T] = Future()
        self._queue.put((future, work, given))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the threads end, once they have done what waits."""
        for _ in range(self._count):
            self._queue.put(None)

    def _run(self) -> None:
        while (one := self._queue.get()) is not None:
            settle(*one)
            del one  # not held while the thread waits: it may hold an image


def settle(future: Future[Any], work: Callable[..., Any], given: tuple[Any, ...] = ()) -> None:
    """Call a function and set its result, unless nobody waits for it any more."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work(*given)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)

"""What a server does for anyone who reaches it, and no more: sizes, times, and how much at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

RETRY: Mapping[str, str] = {"Retry-After": "1"}  # seconds


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    upload: bytes of a request's body. pixels: of an image, a frame or a page, by its header, before it is decoded.
    inputs: images, pages or texts of a request; frames: of a video, that are answered. queue: requests at once, beyond
    which one is sent away with 503. arrival, seconds: until a request's body is there, and until its answer is.
    batch_size: images that the model looks at together. wait: seconds that an image waits for others at most.
    """

    upload: int = 32_000_000
    pixels: int = 50_000_000
    inputs: int = 64
    frames: int = 300
    queue: int = 64
    arrival: float = 30.0
    seconds: float = 60.0
    batch_size: int = 16
    wait: float = 0.005


@dataclass(eq=False)
class Refused(Exception):  # noqa: N818  # nothing is wrong here: the request is
    """Why a request is not answered: the status, the reason for its sender, and headers."""

    status: int
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


class Room:
    """So many units of something, bytes or pixels, that requests hold at once. Within one event loop."""

    def __init__(self, total: int) -> None:
        self.total, self.held = total, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextmanager
    def at_once(self, amount: int, reason: str) -> Iterator[None]:
        """Hold an amount within the block. Raises Refused, 503, where it is not there at once."""
        if self.held + amount > self.total:
            raise Refused(503, reason, RETRY)
        self.held += amount
        try:
            yield
        finally:
            self._give_back(amount)

    @contextmanager
    def growing(self, reason: str) -> Iterator[Callable[[int], None]]:
        """What is called to hold so much more, all of it until the block ends. Raises Refused as `at_once`."""
        own = 0

        def grow(amount: int) -> None:
            nonlocal own
            if self.held + amount > self.total:
                raise Refused(503, reason, RETRY)
            self.held += amount
            own += amount

        try:
            yield grow
        finally:
            self._give_back(own)

    @asynccontextmanager
    async def when_free(self, amount: int) -> AsyncIterator[None]:
        """Hold an amount within the block, as soon as it is there. What needs less may go first."""
        amount = min(amount, self.total)
        if self.held + amount > self.total:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((amount, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # it was its turn in the same moment
                    self._give_back(amount)
                raise
        else:
            self.held += amount
        try:
            yield
        finally:
            self._give_back(amount)

    def _give_back(self, amount: int) -> None:
        self.held -= amount
        for one in list(self._waiting):
            needed, turn = one
            if turn.done():
                self._waiting.remove(one)
            elif self.held + needed <= self.total:
                self._waiting.remove(one)
                self.held += needed
                turn.set_result(None)

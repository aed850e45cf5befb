"""Sockets, signals and the patience that connections get; uvicorn does the rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from opsin.errors import InputError
from opsin.serve.app import create_app
from opsin.serve.service import Service

_HEAD = 10.0  # seconds that the head of a request may take
_CONNECTIONS = 512  # at once: most systems give a process a thousand files
_ENDING = 1  # seconds that requests have to get their 503 when the server ends
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
_FULL += b'Content-Length: 42\r\n\r\n{"error": "too many connections are open"}'


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for connections. Raises InputError for an address that is taken, or is not this machine's."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(found[0][4][:2], family=found[0][0], backlog=128)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot serve at {host} port {port}: {reason}; choose another --port or --host") from None


def address_of(listening: socket.socket) -> str:
    """Where a browser finds it: `http://127.0.0.1:8000`."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    host = str(listening.getsockname()[0])
    return host.startswith("127.") or host == "::1"


def run(
    make: Callable[[], Service],
    listening: socket.socket,
    *,
    token: str | None = None,
    ready: Callable[[Service], None] = lambda _: None,
) -> None:
    """Serve until a signal ends it, SIGINT or SIGTERM: requests under way get 503, and it returns within two seconds.

    make: the service, called in the event loop. ready: is called as soon as connections are taken.
    """
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(make, listening, token, ready))


async def _serve(
    make: Callable[[], Service], listening: socket.socket, token: str | None, ready: Callable[[Service], None]
) -> None:
    service = make()
    app = create_app(service, token=token, local=is_loopback(listening))
    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=_ENDING,
    )
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what strangers send is no news
    server = _Server(config, service)
    ready(service)
    try:
        await server.serve(sockets=[listening])
    finally:
        service.stop()
        service.close()


class _Server(uvicorn.Server):
    """Ends requests with 503 when a signal comes, and leaves the process to its caller."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signal."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
        self._loop.call_soon_threadsafe(self.service.stop)


class _Connection(H11Protocol):
    """A connection that is closed where the head of a request does not come, and refused where there are too many."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        if len(self.connections) >= _CONNECTIONS:
            transport.write(_FULL)
            transport.close()
            return
        super().connection_made(transport)
        self._timer = self.loop.call_later(_HEAD, self._expire)

    def data_received(self, data: bytes) -> None:
        if self.transport is None:  # refused
            return
        if self._timer is None and self._is_idle():
            self._timer = self.loop.call_later(_HEAD, self._expire)
        super().data_received(data)
        if not self._is_idle():
            self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        if self.transport is not None:
            super().connection_lost(exc)

    def _is_idle(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _expire(self) -> None:
        self._timer = None
        if self._is_idle():
            self.transport.close()

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

"""A client of an ASGI application in this process, without sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple


class Heard(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: Any,
    method: str,
    path: str,
    body: bytes | AsyncIterator[bytes] = b"",
    **headers: str,
) -> Heard:
    """headers: names with _ for -; a host of localhost is added."""
    path, _, query = path.partition("?")
    named = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": query.encode(), "root_path": "", "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    parts = _whole(body) if isinstance(body, bytes) else body
    told: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        try:
            return {"type": "http.request", "body": await anext(parts), "more_body": True}
        except StopAsyncIteration:
            return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    await app(scope, receive, send)
    own = {name.decode().lower(): value.decode() for name, value in told[0]["headers"]}
    return Heard(told[0]["status"], own, b"".join(one.get("body", b"") for one in told[1:]))


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 65536):
        yield body[start : start + 65536]


def form(files: Sequence[bytes]) -> tuple[bytes, str]:
    """A form with files, and its type."""
    head = b'--sep\r\nContent-Disposition: form-data; name="f"; filename="/etc/passwd"\r\n\r\n'
    return b"".join(head + one + b"\r\n" for one in files) + b"--sep--\r\n", "multipart/form-data; boundary=sep"


async def together(*asked: Any) -> list[Heard]:
    return list(await asyncio.gather(*asked))

"""Bodies of requests, read into memory while their size is counted, and what they are made of. Nothing goes to a disk.

Taken are forms with files (multipart/form-data, RFC 7578), as pages and `curl -F` send them; a file alone, as `curl
--data-binary` sends it; and JSON: {"images": [base64, ...]} or {"inputs": [...]}, its other keys being options.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from opsin.files import load_json
from opsin.serve.limits import Limits, Refused

CLOSE: Mapping[str, str] = {"Connection": "close"}  # what follows of the body is not read
_LINGER = 1.0  # seconds that a body which is too large is read on, unkept, so that its sender gets to the answer
_HEAD = 8192  # bytes of the headers of a part
_PARTS = 1000  # of a form
_FIELD = 100_000  # bytes of an option
_FILES = re.compile(r"(image|video)/[\w.+-]+|application/(octet-stream|pdf)|application/x-www-form-urlencoded")
_PARAMETER = re.compile(r';\s*(name|filename)="((?:\\.|[^"\\])*)"', re.IGNORECASE)


@dataclass(frozen=True)
class Sent:
    """What a request has sent. files: their content; values: of JSON, in their place; options: by name, as sent."""

    files: list[bytes] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    options: dict[str, list[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files) + len(self.values)


async def read_body(
    chunks: AsyncIterator[bytes],
    headers: Mapping[str, str],
    limits: Limits,
    hold: Callable[[int], None] = lambda _: None,
) -> bytes:
    """The body of a request. Raises Refused: 413 for one that is too large, 408 for one that comes too slowly.

    Its size is counted while it is read, whatever its header states. hold: is called with the bytes of each piece.
    """
    stated = headers.get("content-length", "")
    too_large = stated.isdecimal() and int(stated) > limits.upload
    large = Refused(413, f"a request may have {limits.upload:,} bytes; send fewer or smaller files", CLOSE)
    if too_large and headers.get("expect"):  # its sender waits for a word before it sends anything
        raise large
    body = bytearray()
    try:
        async with _deadline(limits.arrival):
            async for chunk in chunks:
                if too_large or len(body) + len(chunk) > limits.upload:
                    body.clear()
                    await _linger(chunks)
                    raise large
                hold(len(chunk))
                body += chunk
    except TimeoutError:
        reason = f"the request was not here whole after {limits.arrival:g} seconds"
        raise Refused(408, reason, CLOSE) from None
    return bytes(body)


async def _linger(chunks: AsyncIterator[bytes]) -> None:
    """Read on for a moment: a connection that is closed while its peer sends loses the answer."""
    end = time.monotonic() + _LINGER
    try:
        async with _deadline(_LINGER):
            async for _ in chunks:
                if time.monotonic() > end:
                    return
                await asyncio.sleep(0.01)  # so that it takes nothing from the others
    except TimeoutError:
        return


class _deadline:  # noqa: N801  # asyncio.timeout, which Python 3.10 has not
    """Cancels the block after so many seconds, which then raises TimeoutError."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.over = seconds, False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.timer = asyncio.get_running_loop().call_later(self.seconds, self._end, task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self.over = True
        task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.timer.cancel()
        if self.over and kind is asyncio.CancelledError:
            raise TimeoutError


def take_apart(body: bytes, content_type: str) -> Sent:
    """What a body holds. Raises Refused: 415 for a type that is not taken, 400 for a body that is none of its type."""
    header = Message()
    header["content-type"] = content_type
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        boundary = header.get_param("boundary")
        return _of_form(body, boundary if isinstance(boundary, str) else "")
    if kind == "application/json":
        return _of_json(body)
    if not body:
        return Sent()
    if _FILES.fullmatch(kind):  # curl --data-binary states a form where it is given no type
        return Sent([body])
    shown = repr(kind[:60]) if kind else "none"
    raise Refused(415, f"the content type is {shown}; expected multipart/form-data, image/*, video/*, "
                  "application/pdf, application/octet-stream or application/json")  # fmt: skip


def _of_json(body: bytes) -> Sent:
    try:
        value = load_json(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {error}"[:200]) from None
    if not isinstance(value, dict):
        raise Refused(400, 'the JSON is no object; expected {"images": [...]} or {"inputs": [...]}')
    images, values = value.pop("images", []), value.pop("inputs", [])
    if not isinstance(images, list) or not isinstance(values, list):
        raise Refused(400, "images and inputs are lists")
    options = {str(name): one if isinstance(one, list) else [one] for name, one in value.items()}
    return Sent([_of_base64(one, place) for place, one in enumerate(images, 1)], values, options)


def _of_base64(text: Any, place: int) -> bytes:
    try:
        if not isinstance(text, str):
            raise TypeError
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Refused(400, f"image {place} is not base64; expected the file's bytes encoded so") from None


def _of_form(body: bytes, boundary: str) -> Sent:
    if not re.fullmatch(r"[\x20-\x7e]{1,70}", boundary):
        raise Refused(400, "multipart/form-data without a boundary of 1 to 70 characters")
    sent = Sent()
    for head, content in _parts(body, b"\r\n--" + boundary.encode("ascii")):
        disposition = re.search(r"^content-disposition:\s*form-data\b(.*)$", head, re.IGNORECASE | re.MULTILINE)
        if disposition is None:
            raise Refused(400, "a part of the form has no Content-Disposition: form-data")
        named = {key.lower(): value for key, value in _PARAMETER.findall(disposition[1])}
        if "filename" in named or "filename*" in disposition[1].lower():
            sent.files.append(content)
        elif "name" in named:
            if len(content) > _FIELD:
                raise Refused(400, f"the field {named['name'][:40]!r} is no file and has {len(content):,} bytes")
            sent.options.setdefault(named["name"], []).append(content.decode("utf-8", "replace"))
    return sent


def _parts(body: bytes, delimiter: bytes) -> Iterator[tuple[str, bytes]]:
    """The parts of a form: their headers, and what follows them."""
    damaged = Refused(400, "the form is cut off or damaged")
    first = delimiter[2:]
    place = 0 if body.startswith(first) else body.find(delimiter) + 2
    if place == 1:
        raise damaged
    place += len(first)
    for _ in range(_PARTS):
        if body[place : place + 2] == b"--":
            return
        line = body.find(b"\r\n", place, place + _HEAD)
        head_end = body.find(b"\r\n\r\n", line, line + _HEAD) if line >= 0 else -1
        end = body.find(delimiter, head_end + 2) if head_end >= 0 else -1
        if end < 0 or body[place:line].strip():
            raise damaged
        yield body[line + 2 : head_end].decode("utf-8", "replace").replace("\r\n", "\n"), body[head_end + 4 : end]
        place = end + len(delimiter)
    raise Refused(400, f"the form has more than {_PARTS:,} parts")

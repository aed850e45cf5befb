"""Bodies of requests: forms against a reference parser, what is damaged, what is too large, what never ends."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator
from email.parser import BytesParser

import pytest

from opsin.serve import bodies
from opsin.serve.bodies import read_body, take_apart
from opsin.serve.limits import Limits, Refused


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def form(boundary: str, *parts: tuple[str, bytes]) -> bytes:
    body = b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary.encode(), h.encode(), c) for h, c in parts)
    return body + b"--%s--\r\n" % boundary.encode()


FILE = 'Content-Disposition: form-data; name="f"; filename="../../x.png"\r\nContent-Type: image/png'


def test_forms_are_read_as_by_pythons_own_parser() -> None:
    draw = random.Random(0)
    for _ in range(50):
        contents = [bytes(draw.choices(b"\r\n-bX\0\xff", k=draw.randrange(40))) for _ in range(draw.randrange(1, 5))]
        if any(b"\r\n--bX" in b"\r\n" + content for content in contents):
            continue
        body = form("bX", *((FILE, content) for content in contents))
        message = BytesParser().parsebytes(b"Content-Type: multipart/form-data; boundary=bX\r\n\r\n" + body)
        theirs = message.get_payload()
        sent = take_apart(b"preamble\r\n" + body, 'multipart/form-data; boundary="bX"')
        assert sent.files == contents and len(theirs) == len(contents)


def test_fields_of_a_form_are_options() -> None:
    field = 'Content-Disposition: form-data; name="threshold"'
    sent = take_apart(form("b", (field, b"0.5"), (FILE, b"x")), "multipart/form-data; boundary=b")
    assert (sent.options, sent.files) == ({"threshold": ["0.5"]}, [b"x"])


def test_json_holds_images_values_and_options() -> None:
    body = json.dumps({"images": [base64.b64encode(b"x").decode()], "inputs": ["a", [1]], "beam": 4, "scale": [1, 2]})
    sent = take_apart(body.encode(), "application/json; charset=utf-8")
    assert (sent.files, sent.values, sent.options) == ([b"x"], ["a", [1]], {"beam": [4], "scale": [1, 2]})


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (415, b"x", "text/html"),
        (415, b"x", ""),
        (400, b"x", "multipart/form-data"),
        (400, b"x", "multipart/form-data; boundary=b"),
        (400, b'--b\r\nContent-Disposition: form-data; filename="x"\r\n\r\ncut', "multipart/form-data; boundary=b"),
        (400, form("b", ("X: y", b"")), "multipart/form-data; boundary=b"),
        (400, b"--b\r\n" * 2000, "multipart/form-data; boundary=b"),
        (400, b"{", "application/json"),
        (400, b"[" * 100_000, "application/json"),
        (400, b"[]", "application/json"),
        (400, b'{"images": ["***"]}', "application/json"),
        (400, b'{"images": [7]}', "application/json"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(status: int, body: bytes, kind: str) -> None:
    with pytest.raises(Refused) as refused:
        take_apart(body, kind)
    assert refused.value.status == status and refused.value.reason


def test_the_size_is_counted_while_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_LINGER", 0.05)
    limits = Limits(upload=100)
    assert asyncio.run(read_body(chunks(b"x" * 50, b"y" * 50), {}, limits)) == b"x" * 50 + b"y" * 50
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 30
            yield b"x" * 30
            await asyncio.sleep(0.001)

    for headers in ({}, {"content-length": "10"}, {"content-length": "101"}):
        with pytest.raises(Refused) as refused:
            asyncio.run(read_body(endless(), headers, limits))
        assert (refused.value.status, refused.value.headers) == (413, {"Connection": "close"})
    taken = 0
    with pytest.raises(Refused):
        asyncio.run(read_body(endless(), {"content-length": "101", "expect": "100-continue"}, limits))
    assert taken == 0  # its sender waits for a word, which it never gets


def test_a_slow_sender_gets_408() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(60)

    with pytest.raises(Refused) as refused:
        asyncio.run(read_body(slow(), {}, Limits(arrival=0.05)))
    assert refused.value.status == 408

"""The page for people, one HTML file that asks nothing of anybody but this server."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent


@cache
def html() -> str:
    """The page; the same for every model, which it asks the server about."""
    text = _part("page.html")
    return text.replace("/* style */", _part("page.css")).replace("/* script */", _part("page.js"))


@cache
def policy() -> str:
    """The Content-Security-Policy of the page: its own script and style, images from memory, and this server."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_digest('page.js')}'",
            f"style-src '{_digest('page.css')}'",
            "img-src data: blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _part(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _digest(name: str) -> str:
    """Of what stands between the tags, line breaks too."""
    digest = hashlib.sha256(f"\n{_part(name)}\n".encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"

"""A hub on this machine: what huggingface_hub asks of the real one, for a few repositories of a few files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Repository:
    """files: by path. lfs: whether the hub states their SHA-256; card: the front matter of its README."""

    files: dict[str, bytes]
    card: dict[str, Any] = field(default_factory=dict)
    lfs: bool = True
    revisions: tuple[str, ...] = ("main", COMMIT)
    kind: str = "models"


class FakeHub(ThreadingHTTPServer):
    """repositories: by owner/name. asked: the method and path of every request. tampered: sent instead of a file."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.tampered: bytes | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def sent(self) -> list[str]:
        """The paths of the files that were sent."""
        return [one.removeprefix("GET ") for one in self.asked if one.startswith("GET ") and "/resolve/" in one]


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub  # type: ignore[assignment]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        parts = urlparse(self.path).path.strip("/").split("/")
        self.server.asked.append(f"{self.command} /{'/'.join(parts)}")
        if parts[0] == "api" and parts[1] in ("models", "datasets"):
            repository = self.server.repositories.get("/".join(parts[2:4]))
            if repository is None or repository.kind != parts[1]:
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
            revision = parts[5] if len(parts) > 5 else "main"
            if revision not in repository.revisions:
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
            return self._send(200, json.dumps(self._info("/".join(parts[2:4]), repository)).encode(), {}, body)
        parts = parts[1:] if parts[0] == "datasets" else parts
        repository = self.server.repositories.get("/".join(parts[:2]))
        content = None if repository is None else repository.files.get("/".join(parts[4:]))
        if content is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        etag = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"'}
        return self._send(200, content if self.server.tampered is None else self.server.tampered, headers, body)

    def _info(self, name: str, repository: Repository) -> dict[str, Any]:
        siblings = []
        for path, content in repository.files.items():
            found: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": "0" * 40}
            if repository.lfs:
                found["lfs"] = {
                    "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130
                }  # fmt: skip
            siblings.append(found)
        return {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "tags": [],
                "cardData": repository.card, "private": False, "downloads": 0, "likes": 0}  # fmt: skip

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def fake_hub(monkeypatch: Any, cache: Any) -> Iterator[FakeHub]:
    """A hub that huggingface_hub asks within it, with a cache of its own."""
    from huggingface_hub import constants

    with FakeHub() as hub:
        threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub
        hub.shutdown()

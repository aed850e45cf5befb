"""Downloads from a server on this machine that behaves well, badly, or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from opsin import downloading
from opsin.downloading import fetch, home, place
from opsin.errors import InputError, JobError

CONTENT = bytes(range(256)) * 20_000  # five blocks
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT under every path, and notes what it was asked for."""

    daemon_threads = True
    ranges = True  # whether it can begin in the middle
    breaks: list[int]  # how much of the body each of the first answers gives before the connection closes
    status = 200
    content = CONTENT

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.breaks = []
        self.reached, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/models/net-{DIGEST[:8]}.pth?raw=1"


class Handler(BaseHTTPRequestHandler):
    server: Server  # type: ignore[assignment]

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append(wanted)
        self.server.reached.set()
        self.server.may_answer.wait()
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        content = self.server.content
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = start + self.server.breaks.pop(0) if self.server.breaks else len(content)
        with contextlib.suppress(ConnectionError):  # a client that stopped
            self.wfile.write(content[start:end])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPSIN_OFFLINE", raising=False)
    monkeypatch.setattr(downloading, "PAUSE", 0.0)
    return tmp_path / "home" / "weights"


@pytest.fixture
def said() -> list[str]:
    return []


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_downloads_once_and_verifies(server: Server, folder: Path, said: list[str]) -> None:
    path = fetch(server.url, DIGEST[:8], say=said.append)
    assert path == folder / f"net-{DIGEST[:8]}.pth" == place(server.url)
    assert path.read_bytes() == CONTENT
    assert said == [f"downloading {server.url} (5.1 MB)"]
    assert fetch(server.url, DIGEST, say=said.append) == path
    assert server.asked == [None] and len(said) == 1
    assert names(folder) == [path.name, path.name + ".verified"]


def test_a_verified_file_is_hashed_again_only_when_it_changed(
    server: Server, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    path = fetch(server.url, DIGEST, say=said.append)
    hashed: list[Path] = []
    digest = downloading.file_digest
    monkeypatch.setattr(downloading, "file_digest", lambda p: hashed.append(p) or digest(p))
    fetch(server.url, DIGEST, offline=True)
    assert hashed == []
    os.utime(path, ns=(1, 1))
    fetch(server.url, DIGEST, offline=True)
    fetch(server.url, DIGEST, offline=True)
    assert hashed == [path]
    path.with_name(path.name + ".verified").write_text("[", encoding="utf-8")
    fetch(server.url, DIGEST, offline=True)
    assert hashed == [path, path]


def test_a_file_put_there_by_hand_is_taken(server: Server, folder: Path) -> None:
    folder.mkdir(parents=True)
    place(server.url).write_bytes(CONTENT)
    assert fetch(server.url, DIGEST).read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_transfer_goes_on(server: Server, folder: Path, said: list[str], ranges: bool) -> None:
    server.ranges = ranges
    folder.mkdir(parents=True)
    place(server.url).with_suffix(".pth.part").write_bytes(CONTENT[:3_000_000])
    assert fetch(server.url, DIGEST, say=said.append).read_bytes() == CONTENT
    assert server.asked == ["bytes=3000000-"]
    assert said[0].endswith(", from 3.0 MB on") == ranges
    assert not list(folder.glob("*.part"))


def test_a_connection_that_breaks_is_taken_up_again(server: Server, said: list[str]) -> None:
    server.breaks = [2_000_000, 1_000_000]
    assert fetch(server.url, DIGEST, say=said.append).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=2000000-", "bytes=3000000-"]
    assert "the connection broke after 2.0 MB; going on" in said


def test_a_connection_that_breaks_every_time_leaves_what_came(server: Server, folder: Path, said: list[str]) -> None:
    server.breaks = [100_000] * 4
    with pytest.raises(JobError, match=r"broke off after 0\.4 MB .*the next call goes on from there"):
        fetch(server.url, DIGEST, say=said.append)
    assert names(folder) == [f"net-{DIGEST[:8]}.pth.part"]
    assert fetch(server.url, DIGEST, say=said.append).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=400000-"


def test_a_complete_part_is_only_verified(server: Server, folder: Path, said: list[str]) -> None:
    folder.mkdir(parents=True)
    place(server.url).with_suffix(".pth.part").write_bytes(CONTENT)
    assert fetch(server.url, DIGEST, say=said.append).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_of_another_file_is_thrown_away(server: Server, folder: Path, said: list[str]) -> None:
    folder.mkdir(parents=True)
    place(server.url).with_suffix(".pth.part").write_bytes(b"?" * 1000)
    assert fetch(server.url, DIGEST, say=said.append).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-", None]
    assert any("starting over" in line for line in said)


def test_a_wrong_hash_is_named_and_the_file_deleted(server: Server, folder: Path, said: list[str]) -> None:
    server.content = b"<html>log in to the hotel's network</html>"
    got = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(JobError, match=rf"its SHA-256 is {got}, expected {DIGEST[:8]}\.\.\.; it was deleted"):
        fetch(server.url, DIGEST[:8], say=said.append)
    assert names(folder) == []


def test_a_damaged_file_is_named_and_fetched_again(server: Server, said: list[str]) -> None:
    path = fetch(server.url, DIGEST, say=said.append)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match=rf"{path} is damaged or another file: its SHA-256 is \w+, expected {DIGEST}"):
        fetch(server.url, DIGEST, offline=True)
    assert path.exists()
    assert fetch(server.url, DIGEST, say=said.append).read_bytes() == CONTENT
    assert any("downloading it again" in line for line in said)


@pytest.mark.parametrize(("status", "times"), [(404, 1), (403, 1), (503, 4)])
def test_an_answer_without_the_file(server: Server, folder: Path, said: list[str], status: int, times: int) -> None:
    server.status = status
    with pytest.raises(JobError, match=rf"answered {status} .*put it at {place(server.url)}"):
        fetch(server.url, DIGEST, say=said.append)
    assert names(folder) == [] and len(server.asked) == times


def test_nobody_answers(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/net-{DIGEST[:8]}.pth"
    with pytest.raises(JobError, match=rf"cannot reach 127\.0\.0\.1:\d+ \(.*refused.*HTTPS_PROXY.*{place(url)}"):
        fetch(url, DIGEST)
    assert names(folder) == []


@pytest.mark.parametrize("value", ["1", "true"])
def test_offline_says_where_to_put_the_file(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    message = rf"^offline, and net-{DIGEST[:8]}.pth is not there: download http://.*models/net.* and put it at {folder}"
    with pytest.raises(InputError, match=message):
        fetch(server.url, DIGEST, offline=True)
    monkeypatch.setenv("OPSIN_OFFLINE", value)
    with pytest.raises(InputError, match=message):
        fetch(server.url, DIGEST)
    assert server.asked == [] and not folder.exists()
    monkeypatch.setenv("OPSIN_OFFLINE", "0")
    fetch(server.url, DIGEST, say=lambda line: None)


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot write to .*file/weights: Not a directory; set OPSIN_HOME"):
        fetch(server.url, DIGEST)
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "home"))
    mkdir = Path.mkdir

    def refuse(path: Path, *args: Any, **options: Any) -> None:
        if path.name == "weights":
            raise PermissionError(errno.EACCES, "Permission denied")
        mkdir(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"cannot write to .*Permission denied; set OPSIN_HOME"):
        fetch(server.url, DIGEST)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may write anywhere")
def test_a_read_only_folder_serves_what_is_in_it(server: Server, folder: Path, said: list[str]) -> None:
    path = fetch(server.url, DIGEST, say=said.append)
    path.with_name(path.name + ".verified").unlink()
    folder.chmod(0o555)
    try:
        assert fetch(server.url, DIGEST) == path
    finally:
        folder.chmod(0o755)


def test_a_disk_without_room_is_seen_before(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder.parents[1])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(JobError, match=r"the disk of .* is full: it needs 5.1 MB and 1.0 MB are free; .*OPSIN_HOME"):
        fetch(server.url, DIGEST, say=lambda line: None)
    assert names(folder) == []


def test_a_disk_that_fills_up_is_not_kept_full(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = opened(path, mode, *args, **options)
        if path.suffix != ".part":
            return file

        class Full:
            name = str(path)

            def write(self, block: bytes) -> None:
                if file.tell() > 1_500_000:
                    raise OSError(errno.ENOSPC, "No space left on device")
                file.write(block)

            def flush(self) -> None:
                file.flush()

            def __enter__(self) -> Full:
                return self

            def __exit__(self, *error: object) -> None:
                file.close()

        return Full()

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(JobError, match=r"the disk of .* is full: No space left on device"):
        fetch(server.url, DIGEST, say=lambda line: None)
    assert names(folder) == [] and len(server.asked) == 1


def test_ctrl_c_keeps_what_came(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    write = downloading._write

    def stop(file: Any, block: bytes) -> None:
        write(file, block)
        raise KeyboardInterrupt

    monkeypatch.setattr(downloading, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, DIGEST, say=said.append)
    assert names(folder) == [f"net-{DIGEST[:8]}.pth.part"]
    assert said[-1] == f"stopped after 1.0 MB of net-{DIGEST[:8]}.pth; the next call goes on from there"
    monkeypatch.undo()
    monkeypatch.setenv("OPSIN_HOME", str(folder.parent))
    assert fetch(server.url, DIGEST, say=said.append).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={1 << 20}-"


def test_several_processes_download_once(server: Server, folder: Path) -> None:
    code = f"from opsin.downloading import fetch; print(fetch({server.url!r}, {DIGEST!r}))"

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    server.may_answer.clear()
    first = start()
    assert server.reached.wait(60)
    others = [start(), start()]
    for other in others:
        assert other.stderr is not None
        assert other.stderr.readline().startswith("waiting for another process that downloads net-")
    server.may_answer.set()
    assert [call.communicate(timeout=60)[0].strip() for call in (first, *others)] == [str(place(server.url))] * 3
    assert server.asked == [None]
    assert names(folder) == [place(server.url).name, place(server.url).name + ".verified"]


def test_the_lock_of_a_killed_process_holds_nobody_up(server: Server, folder: Path, said: list[str]) -> None:
    folder.mkdir(parents=True)
    place(server.url).with_suffix(".pth.lock").touch()
    assert fetch(server.url, DIGEST, say=said.append).exists()
    assert not any("waiting" in line for line in said)


def test_what_is_no_address_or_hash_is_the_programmers_error() -> None:
    with pytest.raises(ValueError, match="8 to 64 hexadecimal digits"):
        fetch("https://opsin.invalid/net.pth", "1234")
    with pytest.raises(ValueError, match="no http or https"):
        fetch("file:///etc/passwd", "12345678")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"OPSIN_HOME": "~/elsewhere"}, "~/elsewhere"),
        ("linux", {"XDG_CACHE_HOME": "/cache"}, "/cache/opsin"),
        ("linux", {}, "~/.cache/opsin"),
        ("darwin", {}, "~/Library/Caches/opsin"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/opsin"),
    ],
)
def test_home(platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPSIN_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert home() == Path(expected).expanduser()


def test_a_bar_on_a_terminal(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    terminal: Callable[[], bool] = lambda: True  # noqa: E731
    monkeypatch.setattr(sys.stderr, "isatty", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    fetch(server.url, DIGEST)
    shown = capsys.readouterr().err
    assert f"net-{DIGEST[:8]}.pth" in shown and "5.1/5.1 MB" in shown


def test_the_note_is_plain(server: Server, said: list[str]) -> None:
    path = fetch(server.url, DIGEST, say=said.append)
    note = json.loads(path.with_name(path.name + ".verified").read_text(encoding="utf-8"))
    assert note == {"size": len(CONTENT), "mtime_ns": path.stat().st_mtime_ns, "sha256": DIGEST}

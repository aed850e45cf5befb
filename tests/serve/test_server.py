"""The command as a process: it answers over a socket, and Ctrl-C ends it with what is under way."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

RUN = Path(__file__).parents[1] / "compatibility" / "classify"


def test_ctrl_c_ends_the_server_and_what_is_under_way() -> None:
    command = [
        sys.executable,
        "-c",
        "from opsin.cli import run; run()",
        "serve",
        str(RUN),
        "--port",
        "0",
    ]  # as installed
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        port = int((re.search(r"serving classify at http://127\.0\.0\.1:(\d+); Ctrl-C ends it", line) or [line, 0])[1])
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        client.request("GET", "/healthz")
        assert client.getresponse().read() == b'{"status": "ok"}'
        half = socket.create_connection(("127.0.0.1", port), timeout=30)
        half.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nx"
        )
        client.request("GET", "/healthz")  # by its answer the half has come, too
        client.getresponse().read()
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        status = half.recv(4096).split(b"\r\n")[0]
        assert process.wait(30) == 0
        assert time.monotonic() - begun < 2.0
        assert status == b"HTTP/1.1 503 Service Unavailable"
        assert process.stderr.read() == ""

"""The guard that keeps the tests off the network works, here and in the processes that tests start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.processes import run_python

# 192.0.2.0/24 is reserved for documentation: nothing answers there.
ATTEMPT = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=0.1)"


@pytest.mark.parametrize("attempt", [ATTEMPT, "import socket; socket.getaddrinfo('opsin.invalid', 80)"])
def test_the_network_is_out_of_reach(attempt: str) -> None:
    with pytest.raises(RuntimeError, match="tests run offline"):
        exec(attempt)
    result = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True)
    assert result.returncode == 1 and "tests run offline" in result.stderr


def test_this_machine_is_within_reach() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(("localhost", server.getsockname()[1])),
    ):
        pass


def test_runtimes_of_exported_files_keep_no_record_of_their_use(tmp_path: Path) -> None:
    """ONNX Runtime opens a database of events in the home folder, OpenVINO writes its count of uses there."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    code = (
        "from opsin.engine.runtimes import import_onnxruntime, import_openvino\n"
        "assert import_onnxruntime().InferenceSession and import_openvino().Core\n"
    )
    kept = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    result = run_python(["-c", code], tmp_path, kept | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})
    assert (result.returncode, result.stderr) == (0, "")
    assert list(tmp_path.rglob("*")) == []

"""The guard that keeps the tests off the network works, here and in the processes that tests start."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

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

"""A served model beside the same model alone: what a request costs, what batches gain, what memory and strangers do.

    python benchmarks/serving.py                       # all of it, some 15 minutes
    python benchmarks/serving.py --part overhead --part batches

The client is Python's own http.client in threads of another process than the server. Ratios are what counts: of
requests a second in batches and one by one, by the same server on the same machine at the same time, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import os
import random
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PARTS = ("overhead", "batches", "memory", "hostile")


def main() -> None:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="One of the four alone; may be given again.")
    parser.add_argument("--requests", type=int, default=10_000, help="Of the part about memory.")
    parser.add_argument("--hostile", type=int, default=500, help="Hostile uploads.")
    parser.add_argument("--rounds", type=int, default=3, help="Turns of batches and one by one.")
    parser.add_argument("--seconds", type=float, default=8.0, help="Of each turn.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for part in given.part or PARTS:
            if part == "overhead":
                measure_overhead(save_model(Path(folder), "shufflenet_v2_x1_0"))
            elif part == "batches":
                for name in ("shufflenet_v2_x1_0", "resnet18"):
                    measure_batches(save_model(Path(folder), name), name, given.rounds, given.seconds)
            elif part == "memory":
                measure_memory(save_model(Path(folder), "lenet5"), given.requests)
            else:
                measure_hostile(save_model(Path(folder), "lenet5"), given.hostile)


def save_model(folder: Path, name: str) -> Path:
    """A run with weights at random: how fast it is does not depend on them."""
    import torch

    import opsin
    from opsin.data import Preprocessing
    from opsin.engine.checkpoint import Facts, save_model
    from opsin.engine.recipe import load_recipe

    file = folder / f"{name}.safetensors"
    if not file.exists():
        torch.manual_seed(0)
        channels, size = (1, 32) if name == "lenet5" else (3, 224)
        prepared = Preprocessing(channels=channels, size=(size, size), mean=(0.5,) * channels, std=(0.25,) * channels)
        options: dict[str, Any] = {"num_classes": 10, "in_channels": channels}
        model = opsin.create_model(name, **options)
        recipe = load_recipe({"task": "classify", "model": {"name": name}, "data": {"source": ""}})
        save_model(file, model, Facts(recipe, prepared, {"classes": list("0123456789")}, options), {})
    return file


@contextlib.contextmanager
def served(run: Path, *options: str) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its port and its process id."""
    command = [sys.executable, "-m", "opsin", "serve", str(run), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r":(\d+);", line)
            if found is None:
                raise SystemExit(f"the server does not start: {line}")
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield int(found[1]), process.pid
        finally:
            process.terminate()


def photo(seed: int, size: tuple[int, int] = (375, 500)) -> bytes:
    """A JPEG, smooth as photographs are."""
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 255, (size[0] // 25, size[1] // 25, 3), np.uint8))
    file = io.BytesIO()
    small.resize((size[1], size[0]), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


class Client:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def post(self, body: bytes, kind: str = "image/jpeg") -> int:
        """The status of the reply."""
        self.connection.request("POST", "/predict", body, {"Content-Type": kind})
        reply = self.connection.getresponse()
        reply.read()
        return reply.status


def measure_overhead(run: Path, count: int = 60) -> None:
    """Milliseconds of a request beyond those of plain `predict`, the median, measured in turns."""
    import torch

    import opsin

    model, data = opsin.load(run, "cpu"), photo(0)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with served(run) as (port, _):
        client = Client(port)
        plain, asked = list[float](), list[float]()
        for _ in range(count):
            plain.append(timed(lambda: model.predict(data)))
            asked.append(timed(lambda: client.post(data)))
    ms = [1000 * statistics.median(times[count // 6 :]) for times in (plain, asked)]
    print(
        f"overhead: predict {ms[0]:.1f} ms, a request {ms[1]:.1f} ms, {ms[1] - ms[0]:+.1f} ms (at most 8)", flush=True
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure_batches(run: Path, name: str, rounds: int, seconds: float, clients: int = 16) -> None:
    """Requests a second of 16 clients, in batches and one by one, in turns."""
    data = [photo(seed) for seed in range(8)]
    with served(run) as (batched, _), served(run, "--batch-size", "1") as (single, _):
        rates: dict[int, list[float]] = {batched: [], single: []}
        for turn in range(rounds + 1):
            for port in (batched, single) if turn % 2 else (single, batched):
                rate = rate_of(port, data, clients, seconds if turn else 1.0)
                if turn:  # the first warms up
                    rates[port].append(rate)
    ratios = [one / other for one, other in zip(rates[batched], rates[single], strict=True)]
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(
        f"batches: {name}: {statistics.median(rates[batched]):.1f} requests a second in batches, "
        f"{statistics.median(rates[single]):.1f} one by one: {statistics.median(ratios):.2f} times ({shown})",
        flush=True,
    )


def rate_of(port: int, data: Sequence[bytes], clients: int, seconds: float) -> float:
    """Requests a second."""
    end, counts = time.monotonic() + seconds, Counter[int]()

    def ask(number: int) -> None:
        client = Client(port)
        while time.monotonic() < end:
            counts[client.post(data[number % len(data)])] += 1

    begun = time.monotonic()
    in_threads(ask, clients)
    assert set(counts) <= {200}, counts
    return counts[200] / (time.monotonic() - begun)


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Call with each number, at once."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def resident(process: int) -> float:
    """Megabytes of memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure_memory(run: Path, count: int) -> None:
    """Resident memory over many requests of several clients, of images of many sizes."""
    draw = random.Random(0)
    data = [photo(seed, (draw.randrange(50, 700), draw.randrange(50, 700))) for seed in range(40)]
    with served(run) as (port, process):
        seen: list[tuple[int, float]] = []
        for start in range(0, count, 250):
            clients = [Client(port) for _ in range(4)]

            def ask(number: int, start: int = start, clients: Sequence[Client] = clients) -> None:
                for i in range(start + number, min(start + 250, count), 4):
                    assert clients[number].post(data[i % len(data)]) == 200

            in_threads(ask, 4)
            seen.append((min(start + 250, count), resident(process)))
    later = [memory for done, memory in seen if done >= 500]
    first = later[0]
    print(
        f"memory: {count:,} requests: {first:.0f} MB after 500, {later[-1]:.0f} MB at the end, at most "
        f"{max(later) - first:+.1f} MB (20 allowed)",
        flush=True,
    )


# Strangers


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few bytes that states gigabytes."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 9999))]
    chunks = [
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in [*parts, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def damaged(draw: random.Random) -> bytes:
    """A JPEG cut off, or with bytes changed."""
    data = bytearray(photo(draw.randrange(20)))
    if draw.random() < 0.5:
        return bytes(data[: draw.randrange(1, len(data))])
    for _ in range(30):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


def measure_hostile(run: Path, count: int) -> None:
    """Hostile uploads of sixteen strangers, while an honest client asks: its times, and whether the server lives."""
    draw, statuses, waits = random.Random(0), Counter[str](), list[float]()
    with served(run) as (port, process):
        honest, data, done = Client(port), photo(0), threading.Event()
        alone = statistics.median(timed(lambda: honest.post(data)) for _ in range(50))
        attacks = [(draw.choice(list(ATTACKS)), draw.randrange(1 << 30)) for _ in range(count)]

        def attack(number: int) -> None:
            for kind, seed in attacks[number::16]:
                statuses[f"{kind} {ATTACKS[kind](port, random.Random(seed))}"] += 1

        def ask() -> None:
            while not done.is_set():
                waits.append(timed(lambda: honest.post(data)))
                time.sleep(0.02)

        asking = threading.Thread(target=ask)
        asking.start()
        in_threads(attack, 16)
        done.set()
        asking.join()
        assert Client(port).post(data) == 200 and resident(process) < 2000
    failed = sum(number for name, number in statuses.items() if name.endswith(" 500"))
    for name, number in sorted(statuses.items()):
        print(f"  {name}: {number}")
    print(
        f"hostile: {count} uploads, {failed} of them 500; meanwhile {len(waits)} honest requests, median "
        f"{1000 * statistics.median(waits):.0f} ms, longest {1000 * max(waits):.0f} ms (alone {1000 * alone:.0f} ms)",
        flush=True,
    )


def sent(port: int, body: bytes, kind: str) -> str:
    """The status of a reply, or that the connection was closed."""
    try:
        return str(Client(port).post(body, kind))
    except (OSError, http.client.HTTPException):
        return "closed"


def endless(port: int, draw: random.Random) -> str:
    """A body without an end, or one of two gigabytes that is announced."""
    head = b"Transfer-Encoding: chunked" if draw.random() < 0.5 else b"Content-Length: 2000000000"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n" + head + b"\r\n\r\n")
        piece = b"x" * 65536
        piece = b"10000\r\n" + piece + b"\r\n" if b"chunked" in head else piece
        try:
            for _ in range(100_000):
                one.sendall(piece)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            return one.recv(64)[9:12].decode() or "closed"
    return "closed"


def slow(port: int, draw: random.Random) -> str:
    """A sender of a byte now and then, in the head or in the body, that stays for three seconds."""
    text = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9000\r\n\r\n"
    text = text if draw.random() < 0.5 else text[: draw.randrange(1, len(text) - 2)]
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(text)
        for _ in range(10):
            time.sleep(0.3)
            one.sendall(b"x")
    return "left"


def nonsense(port: int, draw: random.Random) -> str:
    """What is no HTTP."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(draw.randbytes(draw.randrange(1, 5000)) + b"\r\n\r\n")
        one.settimeout(15)
        return one.recv(64)[9:12].decode("ascii", "replace") or "closed"
    return "closed"


ATTACKS: dict[str, Callable[[int, random.Random], str]] = {
    "damaged": lambda port, draw: sent(port, damaged(draw), "image/jpeg"),
    "bomb": lambda port, _: sent(port, bomb(), "image/png"),
    "wrong type": lambda port, draw: sent(port, draw.randbytes(500), draw.choice(["text/html", "image/png", "a/b"])),
    "broken form": lambda port, draw: sent(port, draw.randbytes(5000), "multipart/form-data; boundary=b"),
    "deep JSON": lambda port, _: sent(port, b"[" * 500_000, "application/json"),
    "endless": endless,
    "slow": slow,
    "nonsense": nonsense,
}

if __name__ == "__main__":
    main()

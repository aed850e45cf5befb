"""How long `import opsin`, `opsin --help` and `opsin predict` take in fresh processes, and which imports are heavy.

    python benchmarks/startup.py [--repeats 15] [--json]
    python benchmarks/startup.py --tasks 8

On a warm disk. Target: under 0.5 s for the first two, without torch; under 2.5 s for the answer of a small classifier
on one image. The interpreter's own start and `import torch` are measured beside them, in turn. The time of the
processor, user and system, is given too: on a machine that others use it is the steadier one. With --tasks, the calls
with so many tasks of other packages installed, by entry points, beside those without, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

CALLS = {
    "python -c pass": ["-c", "pass"],
    "import opsin": ["-c", "import opsin"],
    "opsin --help": ["-m", "opsin.cli", "--help"],
    "import torch": ["-c", "import torch"],
    "opsin predict": ["-c", "from opsin.cli import run; run()", "predict", "RUN", "IMAGE"],  # what is installed
}
HEAVY_MILLISECONDS = 20


def measure(repeats: int) -> dict[str, tuple[float, float]]:
    """Median wall and processor seconds of each call; they take turns, so that a busy moment hits all alike."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in CALLS}
    for turn in range(repeats + 1):
        for name, arguments in CALLS.items():
            start, before = time.perf_counter(), processor_time()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if turn > 0:  # the first turn warms the disk
                times[name].append((time.perf_counter() - start, processor_time() - before))
    return {
        name: (statistics.median(wall for wall, _ in values), statistics.median(cpu for _, cpu in values))
        for name, values in times.items()
    }


def processor_time() -> float:
    """Seconds of user and system time of all processes that this one has waited for."""
    used = os.times()
    return used.children_user + used.children_system


def prepare(folder: Path) -> None:
    """Train a small classifier for two steps, write an image, and put both into the call of `opsin predict`."""
    image = folder / "image.jpg"
    Image.new("RGB", (640, 480), "grey").save(image)
    settings = ["--set", "train.max_steps=2", "--set", "data.limit=60", "--out", str(folder / "run")]
    command = [sys.executable, "-m", "opsin.cli", "train", "lenet5_digits", *settings]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    CALLS["opsin predict"][-2:] = [str(folder / "run"), str(image)]


def install_tasks(folder: Path, number: int) -> None:
    """Make packages of a task each, and what tells Python that they are installed. None may be imported: it raises."""
    for i in range(number):
        (folder / f"task_{i}.py").write_text("raise ImportError('read when nobody asked for it')")
        described = folder / f"task_{i}-1.0.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: task_{i}\nVersion: 1.0\n")
        (described / "entry_points.txt").write_text(f"[opsin.rooms]\ntask_{i} = task_{i}:ROOM\n")


def measure_tasks(number: int, repeats: int) -> dict[str, dict[str, float]]:
    """Of each call the median seconds with none and with `number` tasks of other packages; all calls take turns."""
    calls = {name: CALLS[name] for name in ("python -c pass", "import opsin", "opsin --help")}
    times: dict[str, dict[str, list[float]]] = {name: {"without": [], "with": []} for name in calls}
    with tempfile.TemporaryDirectory() as folder:
        install_tasks(Path(folder), number)
        path = os.environ.get("PYTHONPATH", "")
        found = {"without": path, "with": os.pathsep.join(filter(None, [path, folder]))}
        count = [sys.executable, "-c", "import opsin; print(len(opsin.list_tasks()))"]
        for key, expected in found.items():
            listed = subprocess.run(count, env={**os.environ, "PYTHONPATH": expected}, capture_output=True, text=True)
            print(f"{key}: {listed.stdout.strip()} tasks are known", file=sys.stderr)
        for turn in range(repeats + 1):
            for name, arguments in calls.items():
                for key in ("without", "with") if turn % 2 else ("with", "without"):
                    environment = {**os.environ, "PYTHONPATH": found[key]}
                    start = time.perf_counter()
                    command = [sys.executable, *arguments]
                    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
                    if turn > 0:  # the first turn warms the disk
                        times[name][key].append(time.perf_counter() - start)
    return {name: {key: statistics.median(v) for key, v in both.items()} for name, both in times.items()}


def print_tasks(number: int, repeats: int, as_json: bool) -> None:
    """Measure with and without tasks of other packages, and print both and their ratio."""
    medians = measure_tasks(number, repeats)
    if as_json:
        print(json.dumps({"tasks": number, "seconds": medians}, indent=1))
        return
    for name, seconds in medians.items():
        ratio = seconds["with"] / seconds["without"]
        print(f"{name:16} {seconds['without']:.3f} s   with {number} more tasks {seconds['with']:.3f} s   {ratio:.2f}")


def heavy_imports(arguments: list[str]) -> dict[str, float]:
    """Top-level packages whose import takes long, with its milliseconds, all that they import included."""
    command = [sys.executable, "-X", "importtime", *arguments]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    found = {}
    for line in result.stderr.splitlines():
        match = re.match(r"import time:\s*\d+ \|\s*(\d+) \|\s*([\w.]+)$", line)
        if match and "." not in match[2] and int(match[1]) / 1000 >= HEAVY_MILLISECONDS:
            found[match[2]] = int(match[1]) / 1000
    return found


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tasks", type=int, default=0, help="compare with so many tasks of other packages installed")
    options = parser.parse_args()
    if options.tasks:
        print_tasks(options.tasks, options.repeats, options.json)
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        medians = measure(options.repeats)
        heavy = {name: heavy_imports(arguments) for name, arguments in CALLS.items()}
    if options.json:
        seconds = {name: wall for name, (wall, _) in medians.items()}
        processor = {name: used for name, (_, used) in medians.items()}
        print(json.dumps({"seconds": seconds, "processor_seconds": processor, "heavy_milliseconds": heavy}, indent=1))
        return
    for name, (seconds, used) in medians.items():
        slow = ", ".join(f"{module} {milliseconds:.0f} ms" for module, milliseconds in heavy[name].items())
        times = f"{seconds:.3f} s, processor {used:.3f} s"
        print(f"{name:16} {times}   imports of {HEAVY_MILLISECONDS} ms and more: {slow or 'none'}")


if __name__ == "__main__":
    main()

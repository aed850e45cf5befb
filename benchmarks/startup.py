"""How long `import opsin` and `opsin --help` take in fresh processes on a warm disk, and which imports are heavy.

    python benchmarks/startup.py [--repeats 15] [--json]
    python benchmarks/startup.py --tasks 8

Target: under 0.5 s each, without torch. The interpreter's own start is measured beside them, in turn. With --tasks, the
same calls with so many tasks of other packages installed, by entry points, beside those without, in turn.
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

CALLS = {
    "python -c pass": ["-c", "pass"],
    "import opsin": ["-c", "import opsin"],
    "opsin --help": ["-m", "opsin.cli", "--help"],
}
HEAVY_MILLISECONDS = 20


def measure(repeats: int) -> dict[str, float]:
    """Median wall time of each call in seconds; the calls take turns, so that a busy moment hits them alike."""
    times: dict[str, list[float]] = {name: [] for name in CALLS}
    for turn in range(repeats + 1):
        for name, arguments in CALLS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if turn > 0:  # the first turn warms the disk
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


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
    times: dict[str, dict[str, list[float]]] = {name: {"without": [], "with": []} for name in CALLS}
    with tempfile.TemporaryDirectory() as folder:
        install_tasks(Path(folder), number)
        path = os.environ.get("PYTHONPATH", "")
        found = {"without": path, "with": os.pathsep.join(filter(None, [path, folder]))}
        count = [sys.executable, "-c", "import opsin; print(len(opsin.list_tasks()))"]
        for key, expected in found.items():
            listed = subprocess.run(count, env={**os.environ, "PYTHONPATH": expected}, capture_output=True, text=True)
            print(f"{key}: {listed.stdout.strip()} tasks are known", file=sys.stderr)
        for turn in range(repeats + 1):
            for name, arguments in CALLS.items():
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
    medians = measure(options.repeats)
    heavy = {name: heavy_imports(arguments) for name, arguments in CALLS.items()}
    if options.json:
        print(json.dumps({"seconds": medians, "heavy_milliseconds": heavy}, indent=1))
        return
    for name, seconds in medians.items():
        slow = ", ".join(f"{module} {milliseconds:.0f} ms" for module, milliseconds in heavy[name].items())
        print(f"{name:16} {seconds:.3f} s   imports of {HEAVY_MILLISECONDS} ms and more: {slow or 'none'}")


if __name__ == "__main__":
    main()

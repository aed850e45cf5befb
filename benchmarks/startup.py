"""How long `import opsin` and `opsin --help` take in fresh processes on a warm disk, and which imports are heavy.

    python benchmarks/startup.py [--repeats 15] [--json]

Target: under 0.5 s each, without torch. The interpreter's own start is measured beside them, in turn.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time

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
    options = parser.parse_args()
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

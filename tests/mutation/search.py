"""Search the tests for those that could not fail: put one fault at a time into a copy of the source, and run them.

    python tests/mutation/search.py --out DIR                 the mutants of the published list; goes on where it was
    python tests/mutation/search.py --out DIR --only losses/  those whose name has this in it, anew
    python tests/mutation/search.py --out DIR --list          only their names

Mutants are drawn by `--seed`, `--each` from every package. First all of their places are watched while the tests of
these packages run once, a test at most `--test-seconds`: then it is known which tests reach which place, and how long
they take. A mutant meets the tests that reach it, those of its own file first, the quickest first, then whole files;
one process at a time, until the first test fails. One that hangs counts as caught, and is noted. Results are lines of
DIR/results.jsonl; `survivors.md` beside this file says what was done about each survivor. Linux and macOS: torch is
imported once, and each run is a fork. Real data sets are used where OPSIN_DATA names them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import watching
from mutants import Mutant, sample, watched

ROOT = Path(__file__).parents[2]
PACKAGES = ["losses", "ops", "detect", "data", "engine"]
TESTS = [*PACKAGES, "rooms"]  # whose folders are run; what trains with several optimizers is tested in that of rooms
# Each takes minutes by its nature: kills, soaks, several processes.
SLOW = [f"tests/engine/test_{name}.py" for name in ("soak", "interruptions", "distributed")]
WAITING = 10  # seconds by the clock for each second of the processor that a run may take
OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line"]


@dataclass
class Reached:
    """What the watched run found: the tests of each place, and the seconds of each test that passes."""

    tests: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    files: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # of fixtures that tests share
    seconds: dict[str, float] = field(default_factory=dict)


class Copy:
    """A copy of the repository whose source may be wrong."""

    def __init__(self, out: Path) -> None:
        self.out, self.root = out, out / "tree"
        self.package = self.root / "src" / "opsin"
        if self.root.exists():
            shutil.rmtree(self.root)
        leave = shutil.ignore_patterns(".git", ".venv", "site", "runs", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, self.root, ignore=leave)
        self._time = time.time()

    def write(self, file: str, source: bytes) -> None:
        """Put this into a file of the package; its time is new, so that no compiled file of before is taken for it."""
        self._time += 10
        path = self.package / file
        path.write_bytes(source)
        os.utime(path, (self._time, self._time))

    def original(self, file: str) -> bytes:
        """The file as it is in the repository."""
        return (ROOT / "src" / "opsin" / file).read_bytes()

    def pytest(self, arguments: list[str], plugin: object, seconds: float, log: Path) -> int | None:
        """The status of pytest in a fork, which may work for so many seconds; None if it had to be ended."""
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            os.chdir(self.root)
            sys.path[:0] = [str(self.root / "src")]
            os.environ["PYTHONPATH"] = str(self.root / "src")
            # Of the processor: another's work does not make a test hang. A wait without work has longer.
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
            watching.run(arguments, plugin, log)
        ends = time.monotonic() + WAITING * seconds
        while time.monotonic() < ends:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                self._kill_rest(child)
                code = os.waitstatus_to_exitcode(status)
                return None if code in (-signal.SIGXCPU, -signal.SIGKILL) else code
            time.sleep(0.05)
        self._kill_rest(child)
        os.waitpid(child, 0)
        return None

    @staticmethod
    def _kill_rest(group: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def watch(copy: Copy, mutants: list[Mutant], test_seconds: int, all_seconds: float) -> Reached:
    """Run the packages' tests once over a source whose mutants' places are watched; read again if it was done."""
    places, tests, names = (copy.out / name for name in ("places.tsv", "tests.jsonl", "watched.json"))
    known = json.loads(names.read_text(encoding="utf-8")) if names.exists() else []
    if not {mutant.name for mutant in mutants} <= set(known):
        known = [mutant.name for mutant in mutants]
        for path in (places, tests):
            path.unlink(missing_ok=True)
        (copy.root / "src" / "opsin_watched.py").write_text(watching.PROBE.format(path=str(places)), encoding="utf-8")
        calls = defaultdict(list)
        for number, mutant in enumerate(mutants):
            calls[mutant.file].append((mutant, watching.CALL.format(place=number)))
        for file, own in calls.items():
            copy.write(file, watched(copy.original(file), own))
        ignored = [f"--ignore={file}" for file in SLOW]
        arguments = [*OPTIONS[1:], *ignored, *(f"tests/{folder}" for folder in TESTS)]
        plugin = watching.Watch(tests, test_seconds, all_seconds)
        copy.pytest(arguments, plugin, all_seconds, copy.out / "watched.log")
        for file in calls:
            copy.write(file, copy.original(file))
        names.write_text(json.dumps(known), encoding="utf-8")
    return read(places, tests, known)


def read(places: Path, tests: Path, names: Sequence[str]) -> Reached:
    """What the watched run wrote; tests that fail without a fault are left out. names: of the places, in order."""
    reached = Reached()
    for line in tests.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if not row["failed"]:
            reached.seconds[row["test"]] = row["seconds"]
    for line in places.read_text(encoding="utf-8").splitlines():
        number, _, running = line.partition("\t")
        place, (test, _, phase) = names[int(number)], running.rpartition(" ")
        if test in reached.seconds:
            reached.tests[place].add(test)
            if phase != "(call)":
                reached.files[place].add(test.split("::")[0])
    return reached


def named_tests(mutant: Mutant) -> list[str]:
    """The test files whose names or imports say that they test a mutant's file; the named ones first."""
    module = Path(mutant.file).with_suffix("")
    folder = ROOT / "tests" / module.parts[0]
    own = [path for path in sorted(folder.rglob("test_*.py")) if module.name in path.name]
    parent, dotted = ".".join(module.parts[:-1]), ".".join(module.parts)
    pattern = re.compile(rf"from opsin\.{parent} import .*\b{module.name}\b|opsin\.{dotted}\b")
    for path in [*sorted(folder.rglob("test_*.py")), *sorted((ROOT / "tests").glob("test_*.py"))]:
        if path not in own and pattern.search(path.read_text(encoding="utf-8")):
            own.append(path)
    return [path.relative_to(ROOT).as_posix() for path in own]


def plan(mutant: Mutant, reached: Reached, budget: float) -> list[tuple[list[str], float]]:
    """The runs that a mutant meets: tests and seconds after which it hangs."""
    named, seconds = named_tests(mutant), reached.seconds
    reaching: Iterable[str] = reached.tests[mutant.name] if mutant.called else []
    files = [file for file in sorted(reached.files[mutant.name]) if file not in SLOW]
    if not reaching:
        # What runs while a module is imported, as defaults do, any test of the package may reach.
        seconds = defaultdict(float)
        for test, taken in reached.seconds.items():
            seconds[test.split("::")[0]] += taken
        folder = f"tests/{mutant.file.split('/')[0]}/"
        reaching = (file for file in seconds if file.startswith(folder) or file in named)
        files, budget = [file for file in named if file not in seconds and file not in SLOW], 2 * budget
    tests, total = [], 0.0
    for name in sorted(reaching, key=lambda test: (test.split("::")[0] not in named, seconds[test])):
        total += seconds[name]
        if tests and total > budget:
            break
        tests.append(name)
    runs = [(tests[:500], max(budget, 4 * total) + 10)] if tests else []
    return [*runs, (files[:8], budget)] if files else runs


def meet(copy: Copy, mutant: Mutant, reached: Reached, budget: float) -> dict[str, object]:
    """Put one fault into the copy, run its tests, take it out again."""
    began, result, by, why = time.monotonic(), "survived", "", ""
    log, first = copy.out / "last.log", copy.out / "first_failure"
    copy.write(mutant.file, mutant.apply(copy.original(mutant.file)))
    try:
        for place, (tests, seconds) in enumerate(plan(mutant, reached, budget)):
            first.unlink(missing_ok=True)
            status = copy.pytest([*OPTIONS, *tests], watching.FirstFailure(first), seconds, log)
            if status == 4:  # a test of before is not there: the fault is in what tests are made of, or a name changes
                files = list(dict.fromkeys(test.split("::")[0] for test in tests))
                status = copy.pytest([*OPTIONS, *files], watching.FirstFailure(first), seconds, log)
            by, why = first.read_text(encoding="utf-8").split("\n", 1) if first.exists() else ("", "")
            if status is None and not by:
                if place == 0:  # the seconds of these tests are known; those of the others may be many
                    result = "hung"
                    break
            elif status != 0 and status != 5:
                result = "caught"
                break
    finally:
        copy.write(mutant.file, copy.original(mutant.file))
    seconds = round(time.monotonic() - began, 1)
    reaching = len(reached.tests[mutant.name])
    row = {"mutant": mutant.name, "result": result, "by": by, "why": why}
    return {**row, "reaching": reaching, "seconds": seconds}


def in_turn(mutants: Sequence[Mutant]) -> list[Mutant]:
    """One of each package after the other, so that a search that was ended has met as many of each."""
    waiting = {package: [one for one in mutants if one.file.startswith(f"{package}/")] for package in PACKAGES}
    return [one for turn in zip_longest(*waiting.values()) for one in turn if one is not None]


def summary(rows: dict[str, dict[str, object]], mutants: list[Mutant]) -> str:
    """How many of each package were caught, and who was not."""
    lines, caught_of_all = [], 0
    done = [mutant for mutant in mutants if mutant.name in rows]
    for package in PACKAGES:
        own = [mutant for mutant in done if mutant.file.startswith(f"{package}/")]
        caught = sum(rows[mutant.name]["result"] != "survived" for mutant in own)
        caught_of_all += caught
        lines.append(f"{package:8} {caught:4} of {len(own):4} caught")
    lines.append(
        f"{'all':8} {caught_of_all:4} of {len(done):4} caught: {100 * caught_of_all / max(len(done), 1):.1f} %"
    )
    lines += [f"survived  {mutant.name}" for mutant in done if rows[mutant.name]["result"] == "survived"]
    return "\n".join(lines)


def load_results(path: Path) -> dict[str, dict[str, object]]:
    """The last result of each mutant."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row["mutant"]: row for row in map(json.loads, lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the copy and the results")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--each", type=int, default=44, help="mutants of each package")
    parser.add_argument("--only", action="append", help="meet those with this in their names, again; repeatable")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument("--budget", type=float, default=30, help="seconds of tests that a mutant meets")
    parser.add_argument("--test-seconds", type=int, default=20, help="a slower test is left out")
    parser.add_argument("--watch-seconds", type=float, default=3600, help="for the run that watches")
    options = parser.parse_args()
    mutants = sample(ROOT / "src" / "opsin", PACKAGES, options.each, options.seed)
    if options.list:
        print("\n".join(mutant.name for mutant in mutants))
        return
    os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg", HF_HUB_OFFLINE="1")
    os.nice(max(0, 10 - os.nice(0)))
    for name in ("lightning", "timm", "torchmetrics", "torchvision.transforms.v2"):
        importlib.import_module(name)  # once, for all forks

    options.out.mkdir(parents=True, exist_ok=True)
    copy, results = Copy(options.out.resolve()), options.out / "results.jsonl"
    reached = watch(copy, mutants, options.test_seconds, options.watch_seconds)
    rows = load_results(results)
    for mutant in in_turn(mutants):
        if any(part in mutant.name for part in options.only) if options.only else mutant.name not in rows:
            row = meet(copy, mutant, reached, options.budget)
            rows[mutant.name] = row
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{row['result']:8} {row['seconds']:6} s  {mutant.name}  [{row['by']}]", flush=True)
    print(summary(rows, mutants))


if __name__ == "__main__":
    main()

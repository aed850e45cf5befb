"""Images of words a second, ours and trdg's, on the same words, fonts and photographs.

    python benchmarks/text_engine.py [--processes 2] [--seconds 10] [--rounds 3] [--trdg PYTHON] [--json]

trdg (TextRecognitionDataGenerator 1.8) needs Pillow below 10, so it lives in an environment of its own, whose Python is
given with --trdg; without, only ours is measured:

    python -m venv trdg && trdg/bin/pip install trdg "pillow<10"

Both draw words 32 pixels high in so many processes of one thread each: ours with everything that `synthetic:words`
does by default, and the box and the quad of every character; trdg with skew, blur, waves, photographs as backgrounds,
and the mask that it has the boxes from. They take turns, so that a busy moment hits both alike. A second of a
busy machine is not a second of work, so images a second of processor time stand beside. Target: over 500 a second with
two processes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from opsin.data.sample_files import PHOTOGRAPHS, read_photograph
from opsin.data.text_engine.fonts import choose_fonts
from opsin.data.text_engine.wording import Wording, alphabet

_OURS = """
import json, sys, time
import torch
torch.set_num_threads(1)
from opsin.data.text_engine.engine import TextEngine
from opsin.data.text_engine.fonts import choose_fonts
from opsin.data.text_engine.wording import alphabet
job = json.load(open(sys.argv[1]))
engine = TextEngine(choose_fonts("+".join(job["fonts"]), alphabet("ascii")), height=32)
words, number = job["words"], 0
def draw():
    global number
    drawn = engine.draw(words[number % len(words)], job["seed"] + number)
    assert len(drawn.boxes) == len(words[number % len(words)])
    number += 1
"""
_TRDG = """
import json, sys, time
from trdg.generators import GeneratorFromStrings
job = json.load(open(sys.argv[1]))
made = GeneratorFromStrings(
    job["words"], fonts=job["fonts"], size=32, skewing_angle=5, random_skew=True, blur=1, random_blur=True,
    background_type=3, distorsion_type=1, distorsion_orientation=2, image_dir=job["photographs"], output_mask=True,
)
number = 0
def draw():
    global number
    number += next(made)[0] is not None  # it gives none where the text is too like its background
"""
_CLOCK = """
for _ in range(50):
    draw()
before, start, worked = number, time.perf_counter(), time.process_time()
while time.perf_counter() - start < job["seconds"]:
    draw()
print(json.dumps([number - before, time.perf_counter() - start, time.process_time() - worked]))
"""


def run(python: str, script: str, job: dict[str, Any], processes: int) -> dict[str, float]:
    """Images a second of all processes together, and of a second of processor time."""
    running = []
    for k in range(processes):
        file = Path(job["folder"]) / f"job{k}.json"
        file.write_text(json.dumps({**job, "seed": 10**6 * k}))
        running.append(subprocess.Popen([python, "-c", script + _CLOCK, str(file)], stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"{python} failed; see above")
    found = [json.loads(output.strip().splitlines()[-1]) for output in outputs]
    return {"a_second": sum(n / wall for n, wall, _ in found), "a_cpu_second": median(n / cpu for n, _, cpu in found)}


def measure(processes: int, seconds: float, rounds: int, trdg: str | None) -> dict[str, Any]:
    """Both in turns: medians over the rounds."""
    faces = [face for face in choose_fonts("built-in", alphabet("ascii")).faces if face.path]
    words = list(islice(Wording(alphabet("ascii")).words(0), 2000))
    with tempfile.TemporaryDirectory() as folder:
        backgrounds = Path(folder) / "photographs"
        backgrounds.mkdir()
        for name in PHOTOGRAPHS:
            Image.fromarray(read_photograph(name)).convert("RGB").save(backgrounds / f"{name}.png")
        job: dict[str, Any] = {"fonts": [face.path for face in faces], "words": words, "seconds": seconds}
        job |= {"folder": folder, "photographs": str(backgrounds)}
        turns: dict[str, list[dict[str, float]]] = {"ours": []} | ({"trdg": []} if trdg else {})
        for _ in range(rounds):
            turns["ours"].append(run(sys.executable, _OURS, job, processes))
            if trdg:
                turns["trdg"].append(run(trdg, _TRDG, job, processes))
    found: dict[str, Any] = {"processes": processes}
    for name, results in turns.items():
        for key in ("a_second", "a_cpu_second"):
            found[f"{name}_{key}"] = median(result[key] for result in results)
    if trdg:
        found["ratio"] = found["ours_a_cpu_second"] / found["trdg_a_cpu_second"]
    return found


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description="Images of words a second, ours and trdg's")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trdg", metavar="PYTHON", help="the Python of an environment with trdg")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given.processes, given.seconds, given.rounds, given.trdg)
    if given.json:
        print(json.dumps(found))
        return
    for name in ("ours", "trdg") if given.trdg else ("ours",):
        speed, work = found[f"{name}_a_second"], found[f"{name}_a_cpu_second"]
        print(f"{name}: {speed:.0f} images a second in {given.processes} processes, {work:.0f} a second of one core")
    if given.trdg:
        print(f"ours is {found['ratio']:.2f} times as fast")


if __name__ == "__main__":
    main()

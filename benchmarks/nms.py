"""Exact non-maximum suppression on the CPU: ours against torchvision's, at the same boxes, with the same indices.

    python benchmarks/nms.py [--threshold 0.5] [--seconds 1] [--json]

Spread: boxes of 10 to 60 pixels anywhere in 1000x1000. Clustered: as a detector gives them before suppression, so many
jittered boxes on each of N / so many objects of 20 to 100 pixels. The two take turns in one process, so that a busy
moment hits both alike; ratio is the median of theirs / ours. Both use one thread.
Targets: never slower; at least 3 times as fast at 10,000 spread boxes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
import torchvision
from torch import Tensor

from opsin.ops import nms

SIZES = (100, 1_000, 10_000)
SCENES = {"spread": 0, "clustered by 5": 5, "clustered by 20": 20, "clustered by 100": 100, "clustered by 1000": 1000}


def make_scene(count: int, on_each: int) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) and scores (N,); on_each = 0 spreads them."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    if on_each == 0:
        centres, sides = random(count, 2) * 1000, random(count, 2) * 50 + 10
    else:
        objects = max(1, count // on_each)
        which = torch.randint(0, objects, (count,), generator=generator)
        sides = (random(objects, 2) * 80 + 20)[which]
        centres = (random(objects, 2) * 1000)[which] + 0.1 * sides * torch.randn(count, 2, generator=generator)
        sides = sides * torch.exp(0.1 * torch.randn(count, 2, generator=generator))
    return torch.cat([centres - sides / 2, centres + sides / 2], dim=1), random(count)


def measure(count: int, scene: str, threshold: float, seconds: float) -> dict[str, Any]:
    """Both in turns for a while; the first turn warms up and compares the indices."""
    boxes, scores = make_scene(count, SCENES[scene])
    ways = {"ours": nms, "torchvision": torchvision.ops.nms}
    kept = {name: way(boxes, scores, threshold) for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["ours"]) < 5:
        for name, way in ways.items():
            start = time.perf_counter()
            way(boxes, scores, threshold)
            times[name].append(time.perf_counter() - start)
    return {
        "boxes": count,
        "scene": scene,
        "kept": len(kept["ours"]),
        "same_indices": torch.equal(kept["ours"], kept["torchvision"]),
        "ours_milliseconds": 1000 * statistics.median(times["ours"]),
        "torchvision_milliseconds": 1000 * statistics.median(times["torchvision"]),
        "ratio": statistics.median(b / a for a, b in zip(times["ours"], times["torchvision"], strict=True)),
        "turns": len(times["ours"]),
    }


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each scene")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(count, scene, options.threshold, options.seconds) for count in SIZES for scene in SCENES]
    if options.json:
        versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
        print(json.dumps({"threshold": options.threshold, "rows": rows, **versions}, indent=1))
        return
    print(f"{'boxes':>6} {'scene':18} {'kept':>5} {'torchvision':>14} {'ours':>12} {'ratio':>7}  indices")
    for row in rows:
        times = f"{row['torchvision_milliseconds']:11.3f} ms {row['ours_milliseconds']:9.3f} ms {row['ratio']:7.2f}"
        same = "the same" if row["same_indices"] else "DIFFERENT"
        print(f"{row['boxes']:6} {row['scene']:18} {row['kept']:5} {times}  {same}")


if __name__ == "__main__":
    main()

"""Latency and peak memory of our networks against torchvision's eager ones, as they are and after `opsin.optimize`.

    python benchmarks/inference.py [NAME ...] [--batches 1 8] [--threads 2] [--seconds 4] [--no-memory] [--json]

Both have the same random weights, and outputs are compared. The three take turns in one process, so that a busy moment
hits all alike; a ratio is the median of torchvision's time over ours, turn by turn. Peak memory is measured apart, in a
fresh process for each: the most that was resident while it ran, over what it held before the first call (weights were
loaded then), in MB.
Targets: as they are at most 1.03 times torchvision's time; optimized at least 1.5 times its speed, as a geometric mean.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

from opsin import create_model, optimize
from opsin.backbones import copy_in_order

# Ours and torchvision's names.
NETWORKS = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "mobilenet_v2": "mobilenet_v2",
    "shufflenet_v2_x1_0": "shufflenet_v2_x1_0",
    "densenet121": "densenet121",
    "regnety_400mf": "regnet_y_400mf",
    "vgg16": "vgg16",
}
SIZE = (3, 224, 224)
PROCESS = Path("/proc/self")  # of Linux


def build(name: str, way: str, batch: int) -> tuple[Callable[[Tensor], Tensor], str]:
    """torchvision's network, or ours with its weights, and what was done to it."""
    torch.manual_seed(0)
    reference = getattr(torchvision.models, NETWORKS[name])().eval()
    if way == "torchvision":
        return reference, ""
    model = create_model(name).eval()
    copy_in_order(model, reference.state_dict())
    if way == "ours":
        return model, ""
    torch._dynamo.reset()  # so that no size of another network counts
    fast = optimize(model, SIZE, batch_size=batch)
    return fast, ", ".join(fast.steps)


def make_images(batch: int) -> Tensor:
    return torch.randn(batch, *SIZE, generator=torch.Generator().manual_seed(1))


def measure(name: str, batch: int, seconds: float) -> dict[str, Any]:
    """The three in turns for a while; the first turns warm up and compare outputs."""
    built = {way: build(name, way, batch) for way in ("torchvision", "ours", "optimized")}
    images = make_images(batch)
    expected = built["torchvision"][0](images)
    differences = {
        w: float((run(images) - expected).abs().max() / expected.abs().max()) for w, (run, _) in built.items()
    }
    times: dict[str, list[float]] = {way: [] for way in built}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["ours"]) < 5:
        for way, (run, _) in built.items():
            start = time.perf_counter()
            run(images)
            times[way].append(time.perf_counter() - start)

    def ratio(above: str, below: str) -> float:
        return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))

    return {
        "network": name,
        "batch": batch,
        "milliseconds": {way: 1000 * statistics.median(found) for way, found in times.items()},
        "ours_over_torchvision": ratio("ours", "torchvision"),
        "optimized_speed_up": ratio("torchvision", "optimized"),
        "differences": differences,
        "steps": built["optimized"][1],
    }


def peak_memory(name: str, way: str, batch: int) -> float:
    """MB that inference adds to what was resident, in a process of its own."""
    command = [sys.executable, __file__, "--peak-of", name, way, str(batch)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def print_peak(name: str, way: str, batch: int) -> None:
    run, _ = build(name, way, batch)
    images = make_images(batch)
    before = resident()
    reset_peak()
    for _ in range(3):
        run(images)
    print((peak() - before) / 1e6)


def resident() -> float:
    return int(PROCESS.joinpath("statm").read_text().split()[1]) * resource.getpagesize()


def reset_peak() -> None:
    PROCESS.joinpath("clear_refs").write_text("5")  # see proc(5): the peak becomes what is resident now


def peak() -> float:
    lines = PROCESS.joinpath("status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(NETWORKS), metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each network and batch")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.no_grad():
        if options.peak_of:
            print_peak(options.peak_of[0], options.peak_of[1], int(options.peak_of[2]))
            return
        rows = [measure(name, batch, options.seconds) for name in options.names for batch in options.batches]
    for row in rows:
        if not options.no_memory:
            row["peak_megabytes"] = {w: peak_memory(row["network"], w, row["batch"]) for w in row["milliseconds"]}
    overall = {
        "ours_over_torchvision": geometric_mean([row["ours_over_torchvision"] for row in rows]),
        "optimized_speed_up": geometric_mean([row["optimized_speed_up"] for row in rows]),
    }
    if options.json:
        print(json.dumps({"threads": options.threads, "torch": torch.__version__, "rows": rows, **overall}, indent=1))
        return
    show(rows, overall)


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def show(rows: list[dict[str, Any]], overall: dict[str, float]) -> None:
    print(f"{'network':20} batch  torchvision       ours  optimized  ours/tv  speed-up  peak MB of each")
    for row in rows:
        times = "".join(f"{value:8.1f} ms" for value in row["milliseconds"].values())
        ratios = f"{row['ours_over_torchvision']:9.3f}{row['optimized_speed_up']:10.2f}"
        peaks = " ".join(f"{value:.0f}" for value in row.get("peak_megabytes", {}).values())
        print(f"{row['network']:20} {row['batch']:5}{times}{ratios}  {peaks}")
    print(f"largest difference {max(d for row in rows for d in row['differences'].values()):.1e} of the largest output")
    print(f"geometric means: ours / torchvision {overall['ours_over_torchvision']:.3f} (target 1.03), ", end="")
    print(f"optimized {overall['optimized_speed_up']:.2f} times as fast (target 1.5)")


if __name__ == "__main__":
    main()

"""Convolution by five algorithms: error against float64, multiplications, bytes moved, and time, side by side.

    python benchmarks/convolution.py [--seconds 0.5] [--threads 1] [--json]

Error: of outputs of normal inputs and weights, root mean square over that of the float64 outputs. Multiplications and
bytes: `opsin.ops.convolution_cost` in float32, transforms of weights included, as they are in the time; a server that
keeps its weights would transform them once. Time: the median of turns taken in one process, without gradients.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from opsin.ops import conv2d, convolution_cost
from opsin.ops.convolution import Algorithm

ALGORITHMS = get_args(Algorithm)
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


class Layer(NamedTuple):
    name: str
    images: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    stride: int = 1
    padding: int = 1
    dilation: int = 1
    groups: int = 1


LAYERS = (
    Layer("ResNet conv2, 3x3", (1, 64, 56, 56), (64, 64, 3, 3)),
    Layer("ResNet conv4, 3x3", (1, 256, 14, 14), (256, 256, 3, 3)),
    Layer("ResNet conv5, 3x3", (1, 512, 7, 7), (512, 512, 3, 3)),
    Layer("ResNet conv1, 7x7 stride 2", (1, 3, 224, 224), (64, 3, 7, 7), 2, 3),
    Layer("AlexNet conv2, 5x5, 2 groups", (1, 96, 27, 27), (256, 48, 5, 5), 1, 2, 1, 2),
    Layer("SSD fc6, 3x3 dilation 6", (1, 128, 19, 19), (256, 128, 3, 3), 1, 6, 6),
    Layer("RepLKNet, 31x31 depthwise", (1, 64, 28, 28), (64, 1, 31, 31), 1, 15, 1, 64),
)


def algorithms(layer: Layer) -> list[Algorithm]:
    plain = (*layer.weight[2:], layer.stride, layer.dilation) == (3, 3, 1, 1)
    return [algorithm for algorithm in ALGORITHMS if plain or not algorithm.startswith("winograd")]


def run(layer: Layer, images: Tensor, weight: Tensor, algorithm: Algorithm) -> Tensor:
    return conv2d(images, weight, None, *layer[3:], algorithm=algorithm)


def measure(layer: Layer, seconds: float) -> list[dict[str, Any]]:
    """A row for each algorithm; they take turns."""
    generator = torch.Generator().manual_seed(0)
    images, weight = (torch.randn(s, generator=generator, dtype=torch.float64) for s in (layer.images, layer.weight))
    truth = run(layer, images, weight, "torch")
    rows = []
    for algorithm in algorithms(layer):
        cost = convolution_cost(layer.images, layer.weight, *layer[3:], algorithm=algorithm)
        errors = {}
        for precision in PRECISIONS:
            result = run(layer, images.to(precision), weight.to(precision), algorithm).double()
            errors[str(precision).removeprefix("torch.")] = float((result - truth).norm() / truth.norm())
        rows.append({"layer": layer.name, "algorithm": algorithm, "errors": errors, **cost._asdict()})
    single = images.float(), weight.float()
    times: dict[str, list[float]] = {row["algorithm"]: [] for row in rows}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["torch"]) < 5:
        for algorithm, found in times.items():
            start = time.perf_counter()
            run(layer, *single, algorithm)  # type: ignore[arg-type]
            found.append(time.perf_counter() - start)
    for row in rows:
        row["milliseconds"] = 1000 * statistics.median(times[row["algorithm"]])
        row["times_torch"] = row["milliseconds"] / (1000 * statistics.median(times["torch"]))
    return rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each layer")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.no_grad():
        rows = [row for layer in LAYERS for row in measure(layer, options.seconds)]
    if options.json:
        print(json.dumps({"threads": options.threads, "torch": torch.__version__, "rows": rows}, indent=1))
        return
    names = "".join(f"{str(precision).removeprefix('torch.'):>10}" for precision in PRECISIONS)
    print(f"{'':11}{'error':>8}{names[8:]}{'products':>10}{'transforms':>12}{'moved':>10}{'time':>13}{'x torch':>9}")
    for name, group in itertools.groupby(rows, key=lambda row: row["layer"]):
        print(name)
        for row in group:
            errors = "".join(f"{error:10.1e}" for error in row["errors"].values())
            cost = f"{row['multiplications'] / 1e6:8.1f} M{row['transform_operations'] / 1e6:10.1f} M"
            moved = f"{row['bytes_moved'] / 1e6:7.1f} MB"
            print(f"  {row['algorithm']:9}{errors}{cost}{moved}{row['milliseconds']:10.2f} ms{row['times_torch']:9.2f}")


if __name__ == "__main__":
    main()

"""mIoU of 1,000 maps against torchmetrics' MulticlassJaccardIndex with its defaults: the same value, and how fast.

    python benchmarks/segmentation_metrics.py [--images 1000] [--size 240 320] [--classes 11] [--json]

Both are given the maps one by one, as an evaluation has them: ours as arrays of uint8, torchmetrics' as the int64 that
it asks for. The maps are patches of classes with errors at their borders and among them. The two take turns in one
process, so that a busy moment hits both alike; both use one thread. Target: at least 3 times as fast, equal.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from opsin.segment.metrics import Counts, confusion_matrix

_TURN = 20  # maps


def draw(count: int, size: tuple[int, int], classes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """True maps and found ones, uint8."""
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        coarse = random.integers(0, classes, (size[0] // 16 + 1, size[1] // 16 + 1))
        truth = np.kron(coarse, np.ones((16, 16), np.uint8))[: size[0], : size[1]].astype(np.uint8)
        found = np.roll(truth, random.integers(-2, 3, 2), axis=(0, 1))
        noise = random.random(size) < 0.02
        pairs.append((truth, np.where(noise, random.integers(0, classes, size), found).astype(np.uint8)))
    return pairs


def measure(count: int, size: tuple[int, int], classes: int) -> dict[str, Any]:
    """Both in turns over the same maps."""
    pairs = draw(count, size, classes)
    metric, total = MulticlassJaccardIndex(num_classes=classes), np.zeros((classes, classes + 1), np.int64)
    seconds = {"ours": 0.0, "torchmetrics": 0.0}
    for first in range(0, count, _TURN):
        turn = pairs[first : first + _TURN]
        tensors = [[torch.from_numpy(values.astype(np.int64)) for values in pair] for pair in turn]
        start = time.perf_counter()
        for truth, found in turn:
            matrix = confusion_matrix(truth, found, classes)
            Counts.of(matrix)  # of the image, as an evaluation has it
            total += matrix
        between = time.perf_counter()
        for truth, found in tensors:
            metric.update(found, truth)
        seconds["ours"] += between - start
        seconds["torchmetrics"] += time.perf_counter() - between
    own, other = Counts.of(total).miou, float(metric.compute())
    return {
        "images": count,
        "size": list(size),
        "classes": classes,
        "miou": own,
        "difference": abs(own - other),
        "ours_seconds": seconds["ours"],
        "torchmetrics_seconds": seconds["torchmetrics"],
        "ratio": seconds["torchmetrics"] / seconds["ours"],
    }


def main() -> None:
    """Measure, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, nargs=2, default=[240, 320], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.images, tuple(options.size), options.classes)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['images']:,} maps of {options.size[0]}x{options.size[1]}, {found['classes']} classes")
    print(f"mIoU {found['miou']:.6f}, difference {found['difference']:.1e}")
    print(f"opsin {found['ours_seconds']:.2f} s, torchmetrics {found['torchmetrics_seconds']:.2f} s")
    print(f"ratio {found['ratio']:.1f}")


if __name__ == "__main__":
    main()

"""Images a second through a usual augmentation: ours against torchvision's v2, side by side in one process.

Random resized crop, flip, and jitter of brightness, contrast, saturation and hue; from 500x375 to 224x224, uint8, on
the CPU. Both sides get the same photographs and, before each image, the same seed: they cut out the same places and
draw the same factors in the same order. They take turns of 25 images, so that a busy machine hurts both alike and
neither works in caches that the other has just filled; the ratio of the rates is the median over the turns.
Target: at least 4.

    python benchmarks/augmentation.py [--turns 40] [--threads 1] [--json]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import skimage.data
import torch
import torchvision
from torch import Tensor
from torchvision.transforms import v2

from opsin.data import Preprocessing, create_augmentation

SIZE, HEIGHT, WIDTH, TURN = 224, 375, 500, 25
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
Side = Callable[[Tensor], Tensor]


def ours(jitter: dict[str, float]) -> Side:
    """A recipe's steps, as `opsin train` runs them."""
    preprocessing = Preprocessing(size=(SIZE, SIZE), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    steps = ["random_resized_crop", "random_horizontal_flip", {"fused_color_jitter": jitter}]
    augmentation = create_augmentation(steps, preprocessing)
    assert augmentation is not None
    return augmentation


def theirs(jitter: dict[str, float]) -> Side:
    """The same steps of torchvision."""
    return v2.Compose([v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip(), v2.ColorJitter(**jitter)])


def photographs() -> list[Tensor]:
    """Images of the size that an ImageNet file has, channels side by side as decoders give them."""
    images = []
    for name in PHOTOGRAPHS:
        whole = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1)
        small = v2.functional.resize(whole, [HEIGHT, WIDTH], antialias=True)
        images.append(small.permute(1, 2, 0).contiguous().permute(2, 0, 1))
    return images


def race(sides: dict[str, Side], images: list[Tensor], turns: int) -> dict[str, list[float]]:
    """Seconds that each side took for an image in each of its turns: the median over its images."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-1, turns):  # the first is to warm up
        for name, side in sides.items():
            took = []
            for number in range(TURN):
                torch.manual_seed(turn * TURN + number + TURN)
                start = time.perf_counter()
                side(images[number % len(images)])
                took.append(time.perf_counter() - start)
            if turn >= 0:
                times[name].append(statistics.median(took))
    return times


def compare(images: list[Tensor], turns: int) -> dict[str, Any]:
    """Rates and their ratio, and how much of each side's time is the jitter: what is saved without it."""
    cropping = v2.Compose([v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip()])
    times = race({"ours": ours(JITTER), "torchvision": theirs(JITTER), "without jitter": cropping}, images, turns)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = sorted(b / a for a, b in zip(times["ours"], times["torchvision"], strict=True))
    shares = {name: round(1 - medians["without jitter"] / medians[name], 3) for name in ("ours", "torchvision")}
    return {
        "images_per_second": {name: round(1 / value, 1) for name, value in medians.items()},
        "milliseconds": {name: round(1000 * value, 3) for name, value in medians.items()},
        "ratio": round(statistics.median(ratios), 2),
        "ratio_range": [round(ratios[0], 2), round(ratios[-1], 2)],
        "jitter_share": shares,
        "difference": difference(images),
    }


def difference(images: list[Tensor]) -> dict[str, float]:
    """Mean absolute difference from torchvision in grey levels: without hue, with it, and of hue alone."""
    found = {}
    cases = {"without hue": JITTER | {"hue": 0.0}, "with hue": JITTER, "hue alone": {"hue": JITTER["hue"]}}
    for name, jitter in cases.items():
        levels = []
        for seed in range(20):
            changed = []
            for side in (ours(jitter), theirs(jitter)):
                torch.manual_seed(seed)
                changed.append(side(images[seed % len(images)]).float())
            levels.append(float((changed[0] - changed[1]).abs().mean()))
        found[name] = round(statistics.mean(levels), 2)
    return found


def main() -> None:
    """Measure, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=40, help=f"turns of {TURN} images of each side (default 40)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = compare(photographs(), options.turns)
    result["settings"] = {
        "turns": options.turns,
        "threads": options.threads,
        "jitter": JITTER,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "processor": platform.machine(),
    }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for name, rate in result["images_per_second"].items():
        share = result["jitter_share"].get(name)
        jitter = "" if share is None else f", {100 * share:.0f} % of it the jitter"
        print(f"{name:14} {rate:7.0f} images/s, {result['milliseconds'][name]:.2f} ms{jitter}")
    low, high = result["ratio_range"]
    print(f"ratio {result['ratio']:.1f} (median of {options.turns} turns, {low:.1f} to {high:.1f}; target 4)")
    print("mean difference in grey levels: " + ", ".join(f"{k} {v:g}" for k, v in result["difference"].items()))


if __name__ == "__main__":
    main()

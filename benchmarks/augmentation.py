"""Images a second through a usual augmentation: ours against torchvision's v2, side by side in one process.

Random resized crop, flip, and jitter of brightness, contrast, saturation and hue; from 500x375 to 224x224, uint8, on
the CPU. Both sides get the same photographs and, before each image, the same seed: they cut out the same places and
draw the same factors in the same order. They take turns of 25 images, so that a busy machine hurts both alike and
neither works in caches that the other has just filled; the ratio of the rates is the median over the turns.
Target: at least 4.

Then the same with boxes, 10 in each image, from images and boxes as they were read to 300x300: SSD's list, and a turn
and a flip. torchvision's v2 transforms of the same names do it on tv_tensors. Target: at least 0.97.

    python benchmarks/augmentation.py [--turns 40] [--threads 1] [--json]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from opsin.data import Preprocessing, create_augmentation
from opsin.data.sample_files import read_photograph
from opsin.structures import Instances

SIZE, HEIGHT, WIDTH, TURN = 224, 375, 500, 25
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
Side = Callable[[Any], Any]


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
        whole = torch.from_numpy(read_photograph(name)).permute(2, 0, 1)
        small = v2.functional.resize(whole, [HEIGHT, WIDTH], antialias=True)
        images.append(small.permute(1, 2, 0).contiguous().permute(2, 0, 1))
    return images


def with_boxes(images: list[Tensor]) -> list[dict[str, Any]]:
    """Samples as a loader reads them: ten boxes in each image, from an eighth to a half of its sides."""
    samples = []
    for number, image in enumerate(images):
        draws = torch.rand(10, 4, generator=torch.Generator().manual_seed(number))
        sides = torch.tensor([WIDTH, HEIGHT]) * (0.125 + 0.375 * draws[:, :2])
        corners = (torch.tensor([WIDTH, HEIGHT]) - sides) * draws[:, 2:]
        boxes = torch.cat([corners, corners + sides], dim=1)
        samples.append({"image": image, "instances": Instances(boxes, torch.arange(10))})
    return samples


def our_boxes(steps: list[Any]) -> Side:
    augmentation = create_augmentation(
        steps, Preprocessing(size=(300, 300), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    )
    assert augmentation is not None
    return augmentation


def their_boxes(*steps: v2.Transform) -> Side:
    whole = v2.Compose([*steps, v2.SanitizeBoundingBoxes()])

    def run(sample: dict[str, Any]) -> dict[str, Any]:
        image, instances = tv_tensors.Image(sample["image"]), sample["instances"]
        make: Any = tv_tensors.BoundingBoxes
        boxes = make(instances.boxes, format="XYXY", canvas_size=image.shape[-2:])
        return whole({"image": image, "boxes": boxes, "labels": instances.labels})

    return run


def compare_boxes(images: list[Tensor], turns: int) -> dict[str, Any]:
    """Rates with boxes, and their ratios, of lists that both sides have."""
    grey: Any = {tv_tensors.Image: (128, 128, 128), "others": 0}
    turned: Any = {"degrees": 10, "interpolation": "bilinear"}
    lists = {
        "ssd": (
            our_boxes(["photometric_distort", "expand", "random_iou_crop", "random_horizontal_flip"]),
            their_boxes(
                v2.RandomPhotometricDistort(),
                v2.RandomZoomOut(fill=grey),
                v2.RandomIoUCrop(),
                v2.Resize((300, 300)),
                v2.RandomHorizontalFlip(),
            ),
        ),
        "turn and flip": (
            our_boxes([{"random_affine": turned}, "random_horizontal_flip"]),
            their_boxes(
                v2.Resize((300, 300)),
                v2.RandomAffine([-10, 10], interpolation=InterpolationMode.BILINEAR),
                v2.RandomHorizontalFlip(),
            ),
        ),
        "flip": (
            our_boxes(["random_horizontal_flip"]),
            their_boxes(v2.Resize((300, 300)), v2.RandomHorizontalFlip()),
        ),
    }
    found = {}
    for name, (one, other) in lists.items():
        times = race({"ours": one, "torchvision": other}, with_boxes(images), turns)
        ratios = sorted(b / a for a, b in zip(times["ours"], times["torchvision"], strict=True))
        found[name] = {
            "milliseconds": {side: round(1000 * statistics.median(values), 3) for side, values in times.items()},
            "ratio": round(statistics.median(ratios), 2),
            "ratio_range": [round(ratios[0], 2), round(ratios[-1], 2)],
        }
    return found


def race(sides: dict[str, Side], images: Sequence[Any], turns: int) -> dict[str, list[float]]:
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
    images = photographs()
    result = compare(images, options.turns)
    result["boxes"] = compare_boxes(images, options.turns)
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
    for name, found in result["boxes"].items():
        ms = ", ".join(f"{side} {value:.2f} ms" for side, value in found["milliseconds"].items())
        low, high = found["ratio_range"]
        print(f"boxes, {name}: {ms}; ratio {found['ratio']:.2f} ({low:.2f} to {high:.2f}; target 0.97)")
    print("mean difference in grey levels: " + ", ".join(f"{k} {v:g}" for k, v in result["difference"].items()))


if __name__ == "__main__":
    main()

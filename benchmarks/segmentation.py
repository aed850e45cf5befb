"""Segmenters against an independent implementation of each with the same weights, side by side.

    python benchmarks/segmentation.py [NAME ...] [--only PART ...] [--turns 5] [--size 256] [--batch 2] [--threads 1]
        [--json]

DeepLabV3 on ResNet-50, with its auxiliary head in training, against torchvision's; the U-Net decoder on ResNet-34
against segmentation-models-pytorch's, which is left out unless it is there: pip install segmentation-models-pytorch.

forward: of one image in evaluation, to logits as large as it is. train: a step of SGD on a batch, the loss of both
torch's cross-entropy. optimized: our forward pass after `opsin.optimize`, as a share of the one before. Weights are
random and the same in both. The two take turns in one process; a ratio is that of the shortest times, which are the
processor's where there is one thread, so that other work counts little. difference: of the logits, and of the losses,
relative. Targets: at most 1.02 times their time; optimized at least 1.5 times as fast.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50

import opsin
from detection import clock, in_turns
from opsin.backbones import copy_in_order
from opsin.segment.segmenter import Segmenter

CLASSES = 21
PARTS = ("forward", "train", "optimized")


class Pair(NamedTuple):
    """A network twice, with the same weights. logits: of what it gives, with those of auxiliary heads and weights."""

    ours: nn.Module
    theirs: nn.Module
    our_logits: Callable[[Any], list[tuple[float, Tensor]]]
    their_logits: Callable[[Any], list[tuple[float, Tensor]]]


def deeplabv3() -> Pair:
    ours = opsin.create_model("deeplabv3", num_classes=CLASSES, aux_heads=True)
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True)
    copy_in_order(ours, theirs.state_dict())
    return Pair(
        ours,
        theirs,
        lambda found: [(1.0, found["logits"]), (0.5, found["aux"])] if "aux" in found else [(1.0, found["logits"])],
        lambda found: [(1.0, found["out"]), (0.5, found["aux"])] if "aux" in found else [(1.0, found["out"])],
    )


def unet_resnet34() -> Pair | None:
    if find_spec("segmentation_models_pytorch") is None:
        return None
    smp: Any = importlib.import_module("segmentation_models_pytorch")
    ours = opsin.create_model("unet_resnet34", num_classes=CLASSES)
    theirs = smp.Unet("resnet34", encoder_weights=None, classes=CLASSES)
    copy_in_order(ours, theirs.state_dict())
    return Pair(ours, theirs, lambda found: [(1.0, found["logits"])], lambda found: [(1.0, found)])


NETWORKS: dict[str, Callable[[], Pair | None]] = {"deeplabv3": deeplabv3, "unet_resnet34": unet_resnet34}


def shortest(first: Callable[[], object], second: Callable[[], object], turns: int) -> tuple[float, float]:
    times = in_turns({"first": first, "second": second}, turns)
    return min(times["first"]), min(times["second"])


def without_aux(model: Any) -> None:
    """Both answer without the auxiliary head."""
    if getattr(model, "aux_classifier", None) is not None:
        model.aux_classifier = None
    if isinstance(model, Segmenter):
        model.drop_aux_heads()


def train(pair: Pair, images: Tensor, labels: Tensor, turns: int) -> dict[str, float]:
    sides = []
    for model, read in ((pair.ours, pair.our_logits), (pair.theirs, pair.their_logits)):
        model.train()
        for layer in model.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0  # drawn at random, and so not the same in both
        optimizer = torch.optim.SGD(model.parameters(), 1e-4)

        def step(model: nn.Module = model, read: Any = read, optimizer: Any = optimizer) -> float:
            optimizer.zero_grad(set_to_none=True)
            loss = torch.stack([w * F.cross_entropy(x, labels) for w, x in read(model(images))]).sum()
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        sides.append(step)
    first, second = (step() for step in sides)
    ours, theirs = shortest(sides[0], sides[1], turns)
    return {"ours": ours, "theirs": theirs, "ratio": ours / theirs, "difference": abs(first - second) / abs(second)}


def forward(pair: Pair, image: Tensor, turns: int) -> dict[str, float]:
    for model in (pair.ours, pair.theirs):
        model.eval()
        without_aux(model)
    with torch.inference_mode():
        one, other = pair.our_logits(pair.ours(image))[0][1], pair.their_logits(pair.theirs(image))[0][1]
        ours, theirs = shortest(lambda: pair.ours(image), lambda: pair.theirs(image), turns)
    difference = float((one - other).abs().max() / other.abs().max())
    return {"ours": ours, "theirs": theirs, "ratio": ours / theirs, "difference": difference}


def optimized(pair: Pair, image: Tensor, turns: int) -> dict[str, Any]:
    pair.ours.eval()
    without_aux(pair.ours)
    fast = opsin.optimize(pair.ours, (image.shape[1], image.shape[2], image.shape[3]))
    with torch.inference_mode():
        after, before = shortest(lambda: fast(image), lambda: pair.ours(image), turns)
    return {"ours": after, "before": before, "times as fast": before / after, "steps": ", ".join(fast.steps)}


def measure(names: Sequence[str], parts: Sequence[str], size: int, batch: int, turns: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    images = torch.randn(batch, 3, size, size)
    labels = torch.randint(0, CLASSES, (batch, size, size))
    ways: dict[str, Callable[[Pair], dict[str, Any]]] = {
        "forward": lambda pair: forward(pair, images[:1], turns),
        "train": lambda pair: train(pair, images, labels, turns),
        "optimized": lambda pair: optimized(pair, images[:1], turns),
    }
    for name in names:
        for part in (part for part in ways if part in parts):
            torch.manual_seed(0)
            pair = NETWORKS[name]()
            if pair is None:
                print(f"{name}: left out, nothing to compare with is installed", file=sys.stderr)
                break
            rows.append({"network": name, "part": part, **ways[part](pair)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}; all unless given")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = clock()
    rows = measure(options.names or list(NETWORKS), options.only, options.size, options.batch, options.turns)
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        shown = [f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()]
        print("   ".join(shown))
    print(f"{clock() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()

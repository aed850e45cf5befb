"""Every neck between the same backbone and the same head, trained for the same steps on the built-in scenes.

    python benchmarks/necks.py [NAME ...] [--steps 400] [--backbone shufflenet_v2_x0_5] [--channels 64] [--threads 1]
        [--json]

The head is EfficientDet's, shared by all levels, so that only the neck differs. Each starts from the same seed and sees
the same images in the same order. AP and AP50 are COCO's on the validation scenes, which share neither digits nor
photographs with the training ones. Parameters and multiply-adds: of the neck, then of the whole. Latency: the shortest
of an image's forward pass in evaluation, all networks in turns. With one thread all times are the processor's.
Few steps say which neck learns faster, not which one ends higher.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from detection import clock, in_turns
from opsin import create_model, data
from opsin.data import Preprocessing
from opsin.detect.detector import Detector
from opsin.detect.metrics import evaluate
from opsin.necks import list_necks
from opsin.nn.counting import count_macs, count_parameters
from opsin.structures import Batch, Instances

SIDE, BATCH = 160, 8  # of the scenes
# As wide as the others: by default MLFPN is made for VGG-16, and BiFPN is as deep as in D0.
OPTIONS: dict[str, dict[str, Any]] = {"sfam": {"levels": 4, "base_channels": (32, 64)}, "bifpn": {"repeats": 2}}


def build(neck: str, backbone: str, channels: int, classes: int) -> Detector:
    """The detector with a neck, from the seed that all have."""
    torch.manual_seed(0)
    options = {**OPTIONS.get(neck, {}), "out_channels": channels}
    model = create_model(
        "efficientdet",
        num_classes=classes,
        backbone=backbone,
        neck=neck,
        neck_options=options,
        channels=channels,
        extra_levels=0,
        head_repeats=2,
        anchor_scale=3.0,
    )
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1  # EfficientDet's 0.01 needs a thousand steps to forget where it began
    return model  # type: ignore[return-value]


def endless(loader: data.ImageLoader) -> Iterator[Batch]:
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1


def train(
    model: Detector, source: data.Source, preprocessing: Preprocessing, steps: int, rate: float, device: str
) -> float:
    """Seconds that it took. AdamW, one rise to `rate` and fall."""
    loader = data.create_loader(source.splits["train"], preprocessing, batch_size=BATCH, training=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    start = clock()
    for _, batch in zip(range(steps), endless(loader), strict=False):
        images = preprocessing.normalize(batch["image"].to(device))
        losses = model.loss(model(images), [one.to(device) for one in batch["instances"]])
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    return clock() - start


@torch.inference_mode()
def score(model: Detector, source: data.Source, preprocessing: Preprocessing, device: str) -> dict[str, float]:
    """COCO's AP and AP50 on the validation scenes."""
    loader = data.create_loader(source.splits["val"], preprocessing, batch_size=32)
    truth: list[Instances] = []
    found: list[Instances] = []
    model.eval()
    for batch in loader:
        outputs = model(preprocessing.normalize(batch["image"].to(device)))
        truth += batch["instances"]
        found += [one.to("cpu") for one in model.decode(outputs, score_threshold=0.01)]
    metrics = evaluate(truth, found, source.classes).metrics
    return {"ap": metrics["map"], "ap50": metrics["map_50"]}


@torch.inference_mode()
def latencies(models: dict[str, Detector], turns: int, device: str) -> dict[str, float]:
    """Milliseconds of one image's forward pass, the shortest."""
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to(device)
    times = in_turns({name: partial(look, model, image) for name, model in models.items()}, turns)
    return {name: 1000 * min(values) for name, values in times.items()}


def look(model: Detector, image: Tensor) -> None:
    if model(image)["logits"].is_cuda:
        torch.cuda.synchronize()


def costs(model: Detector) -> dict[str, int]:
    """Parameters and multiply-adds: of the neck, and of the whole."""
    neck, backbone = model.get_submodule("neck"), model.get_submodule("backbone")
    image = (3, SIDE, SIDE)
    return {
        "neck_params": count_parameters(neck),
        "params": count_parameters(model),
        "neck_macs": count_macs(nn.Sequential(backbone, neck), image) - count_macs(backbone, image),
        "macs": count_macs(model, image),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("necks", nargs="*", default=list_necks(), metavar="NAME", help="necks; all without any")
    parser.add_argument("--steps", type=int, default=400, help=f"of {BATCH} images")
    parser.add_argument("--lr", type=float, default=6e-3, help="the highest")
    parser.add_argument("--backbone", default="shufflenet_v2_x0_5")
    parser.add_argument("--channels", type=int, default=64, help="of every map")
    parser.add_argument("--scenes", default="scenes", help="scenes:N for N training scenes")
    parser.add_argument("--turns", type=int, default=30, help="of the latency")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    source = data.open(args.scenes, "detect")
    preprocessing = Preprocessing(size=(SIDE, SIDE), channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    rows: list[dict[str, Any]] = []
    models: dict[str, Detector] = {}
    for name in args.necks:
        models[name] = model = build(name, args.backbone, args.channels, len(source.classes)).to(args.device)
        row: dict[str, Any] = {"neck": name, **costs(model)}
        row["seconds"] = train(model, source, preprocessing, args.steps, args.lr, args.device)
        rows.append(row | score(model, source, preprocessing, args.device))
        if sys.stderr.isatty():
            print(f"{name}: AP {rows[-1]['ap']:.3f} after {row['seconds']:.0f} s", file=sys.stderr)
    for name, value in latencies(models, args.turns, args.device).items():
        next(row for row in rows if row["neck"] == name)["latency_ms"] = value
    if args.json:
        print(json.dumps({**vars(args), "results": rows}, indent=1))
        return
    print(f"{args.backbone}, {args.channels} channels, {args.steps} steps of {BATCH} scenes, {args.threads} threads")
    print("neck           AP   AP50  neck params      params  neck MMACs   MMACs      ms  training s")
    for row in rows:
        print(
            f"{row['neck']:12} {row['ap']:.3f}  {row['ap50']:.3f}  {row['neck_params']:11,} {row['params']:11,}  "
            f"{row['neck_macs'] / 1e6:10.1f} {row['macs'] / 1e6:7.1f}  {row['latency_ms']:6.1f}  {row['seconds']:10.0f}"
        )


if __name__ == "__main__":
    main()

"""The ablations of docs/ablations.md, one after the other: trains what is not there yet, and prints a table.

    python benchmarks/ablations.py [NAME ...] [--seeds 3] [--budget 3m] [--out ablate] [--list]

Each is a call of `opsin ablate`, with --budget: no training takes longer. Trainings are kept in one cache, so that a
second call goes on where the first was stopped, and a recipe that several ablations begin with is trained once. The
table has a row a switch: the mean of the recipe, the difference with its interval of 95 %, and what that means. Every
row is written to OUT/ablations.md as soon as its ablation has ended.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCENES = "--set data.source=scenes:1000 --set train.init=null --set train.save_every_steps=null"
# What is asked, and what comes behind `opsin ablate`.
ABLATIONS: dict[str, tuple[str, str]] = {
    "mixup": (
        "MixUp by labels, by losses, or not at all",
        "resnet20_digits --set mixing.mixup=0.2 --switch mixing.by=losses --switch mixing.mixup=0",
    ),
    "smoothing": ("Label smoothing", "resnet20_digits --switch loss.smoothing=0.1"),
    "residual": ("Plain against residual", "resnet20_digits --switch model.residual=false"),
    "se": ("Squeeze-excitation on and off", "regnety_200mf_digits --switch model.se=false"),
    "preactivation": ("Pre-activation", "resnet20_digits --switch model.name=preact_resnet20"),
    "norm": (
        "Batch against group norm at batch 2",
        "resnet20_digits --set train.batch_size=2 --set optim.lr=0.0005 --switch model.norm=gn "
        "--switch model.norm=null",
    ),
    "head": (
        "Global pooling against a fixed grid and a spatial pyramid",
        "resnet20_digits --switch model.pooling=grid --switch model.pooling=pyramid",
    ),
    "stride": ("Max pooling against strides", "vgg11_bn_digits --switch model.downsampling=stride"),
    "focal": ("Focal loss against cross-entropy", f"retinanet_scenes {SCENES} --switch model.gamma=0"),
    "boxes": (
        "Offsets against IoU losses of boxes",
        f"yolov3_scenes {SCENES} --switch model.box_loss=iou --switch model.box_loss=giou --switch model.box_loss=diou "
        "--switch model.box_loss=ciou",
    ),
    "anchors": (
        "Anchors of k-means against hand-made ones",
        f"yolov3_scenes {SCENES} --switch 'model.anchors=[[16,16],[32,32],[32,64],[64,32],[64,64],[96,96]]'",
    ),
    "necks": (
        "Necks",
        f"retinanet_scenes {SCENES} --switch model.neck=none --switch model.neck=panet --switch model.neck=bifpn",
    ),
    "fusion": (
        "Fast normalised fusion against a softmax and a sum",
        f"efficientdet_scenes {SCENES} --switch model.fusion=softmax --switch model.fusion=sum",
    ),
    "relu6": (
        "ReLU6 against ReLU in 8 bits",
        "resnet20_digits --set 'model={name: mobilenet_v1, width: 0.25, small_images: true}' --bits 8 "
        "--switch model.activation=relu6",
    ),
    "weight_map": (
        "U-Net's weight map",
        "unet_weights_isbi --set data.val_fraction=0.2 --set 'data.size=[316, 316]' "
        "--switch segment.border_weights=null",
    ),
    "learned": (
        "Learned augmentation",
        "read --set model.name=crnn --data synthetic:words --epochs 3 --switch read.learn_to_augment=true",
    ),
}


def run(name: str, seeds: int, budget: str, out: Path) -> dict[str, Any]:
    """An ablation, begun or gone on with; what its comparison.json holds."""
    folder = out / name
    if (folder / "comparison.yaml").exists():
        words = ["--resume", str(folder), "--seeds", str(seeds)]
    else:
        words = [*shlex.split(ABLATIONS[name][1]), "--seeds", str(seeds), "--budget", budget]
        words += ["--out", str(folder), "--cache", str(out / "trainings")]
    subprocess.run([sys.executable, "-m", "opsin", "ablate", *words], check=True)
    return json.loads((folder / "comparison.json").read_text(encoding="utf-8"))


def rows(name: str, found: dict[str, Any]) -> Iterator[str]:
    """Lines of the table: one a switch."""
    sides = found["sides"]
    percent = found["metric"] not in ("loss", "nll")
    scale, digits, unit = (100, 2, " %") if percent else (1, 4, "")
    mean = f"{scale * sides[0]['mean']['value']:.{digits}f}{unit}" if sides[0]["mean"] else "-"
    for side in sides[1:]:
        shown, difference = "-", side["difference"]
        if difference is not None:
            shown = f"{scale * difference['value']:+.{digits}f}"
            if difference["low"] is not None:
                shown += f" ± {scale * (difference['high'] - difference['low']) / 2:.{digits}f}"
        yield f"| {ABLATIONS[name][0]} | `{side['name']}` | {found['metric']} {mean} | {shown} | {side['verdict']} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all if not given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", default="3m", help="of a training")
    parser.add_argument("--out", type=Path, default=Path("ablate"))
    parser.add_argument("--list", action="store_true", help="print the commands alone")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in ABLATIONS]:
        parser.error(f"unknown {', '.join(unknown)}; there are {', '.join(ABLATIONS)}")
    table = ["| what | switch | without it | difference | |", "|---|---|---|---|---|"]
    for name in given.names or ABLATIONS:
        if given.list:
            print(f"opsin ablate {ABLATIONS[name][1]} --budget {given.budget}")
            continue
        table += rows(name, run(name, given.seeds, given.budget, given.out))
        (given.out / "ablations.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    if not given.list:
        print("\n".join(table))


if __name__ == "__main__":
    main()

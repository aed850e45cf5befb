"""What is wrong with a radiance field, measured: seconds an image, few views, another scene, an object that moves.

    python benchmarks/nerf_faults.py [--model nerf] [--steps 2000] [--side 32] [--width 64] [--depth 4] [--json]

On the built-in scenes: `spheres_views` is learned from 3, 10, 30 and 60 views and evaluated on its 20 test views; the
field of all views is evaluated on `boxes_views`, and on `spheres_views` after its first 200 steps on `boxes_views`; at
last on images of which every second one is of the other scene, as if its objects had been exchanged between two
photographs. PSNR is the mean over views, in dB; seconds are of processor time.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin import data
from opsin.data import Split
from opsin.ops.cameras import image_rays
from opsin.registry import create_model
from opsin.render.image_metrics import psnr
from opsin.render.radiance_field import RadianceField
from opsin.render.ray_batches import RayBatches, ray_batches

_VIEWS = (3, 10, 30, 60)
_RAYS = 512


def spread(split: Split, count: int) -> Split:
    return split.subset(np.unique(np.linspace(0, len(split) - 1, count).round().astype(int)))


def learn(model: RadianceField, batches: RayBatches, steps: int, seed: int = 0) -> RadianceField:
    """Train a field on rays, and give it back."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    torch.manual_seed(seed)
    for step in range(steps):
        rays = batches.read(step)
        model.prepare_step(step)
        outputs = model(rays[:, :8], model.draw(len(rays)))
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(model.loss(outputs, {"color": rays[:, 8:]}).values())).sum().backward()
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def score(model: RadianceField, split: Split) -> tuple[float, float]:
    """The mean PSNR over the views of a split, and seconds an image."""
    truth: Any = split.kind
    values, started = [], time.process_time()
    for i in range(len(split)):
        image: Tensor = split.read(i).float() / 255
        size = (int(image.shape[-2]), int(image.shape[-1]))
        pose, intrinsics = (torch.from_numpy(np.asarray(one[i], np.float32)) for one in (truth.poses, truth.intrinsics))
        origins, along = image_rays(size, pose, intrinsics)
        depths = torch.tensor([truth.near, truth.far]).float().expand(size[0] * size[1], 2)
        found = model(torch.cat([origins.reshape(-1, 3), along.reshape(-1, 3), depths], dim=1))["color"]
        values.append(psnr(found.clamp(0, 1).t().reshape(3, *size), image))
    return float(np.mean(values)), (time.process_time() - started) / len(split)


def exchanged(one: RayBatches, other: RayBatches) -> RayBatches:
    """Rays of which every second view is of another scene, from the same cameras."""
    colours = one.colours.clone()
    for k in range(1, len(one.widths), 2):
        piece = slice(int(one.begins[k]), int(one.begins[k + 1]))
        colours[piece] = other.colours[piece]
    return RayBatches(**{**vars(one), "colours": colours})


def measure(given: argparse.Namespace) -> dict[str, float]:
    sources = {name: data.open(f"{name}_views:{given.side}", "render") for name in ("spheres", "boxes")}
    test = {name: source.splits["test"] for name, source in sources.items()}
    options = {} if given.model == "fast_nerf" else {"width": given.width, "depth": given.depth}

    def fresh() -> Any:
        torch.manual_seed(0)
        return create_model(given.model, **options)

    train = {name: source.splits["train"] for name, source in sources.items()}
    rays = {name: ray_batches(split, _RAYS, given.steps) for name, split in train.items()}
    found: dict[str, float] = {}
    model = fresh()
    for count in _VIEWS:
        few = ray_batches(spread(train["spheres"], count), _RAYS, given.steps)
        started = time.process_time()
        model = learn(fresh(), few, given.steps)
        seconds = time.process_time() - started
        found[f"psnr_of_{count}_views"], found["seconds_an_image"] = score(model, test["spheres"])
        found["seconds_a_training"] = seconds
    found["psnr_on_another_scene"] = score(model, test["boxes"])[0]
    learn(model, rays["boxes"], min(200, given.steps))
    found["psnr_on_another_scene_after_200_steps"] = score(model, test["boxes"])[0]
    found["psnr_on_the_first_scene_then"] = score(model, test["spheres"])[0]
    moved = learn(fresh(), exchanged(rays["spheres"], rays["boxes"]), given.steps)
    found["psnr_where_objects_moved"] = score(moved, test["spheres"])[0]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nerf", choices=("nerf", "fast_nerf"))
    for name, default in (("steps", 2000), ("side", 32), ("width", 64), ("depth", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f"{name:42} {value:10.3f}")


if __name__ == "__main__":
    main()

"""NeRF's training step and rendering: ours against a plain port of the published code, at equal settings.

    python benchmarks/rendering.py [--depth 8] [--width 256] [--coarse 64] [--fine 128] [--rays 128] [--warm 30]
                                   [--repeats 3] [--threads N] [--json]

Both have the same weights, the same rays and the same random numbers, in float32; times are medians of turns, of
processor time. First the model is trained on a ball for `--warm` steps, since what can be skipped depends on how much
of the scene is empty, as most of any scene is. Differences of losses, gradients and images are printed beside.

The plain port is as the published code works: all points of all rays through the network in pieces of 65,536, coarse
and fine, colours and densities of all, and the gradient through all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from opsin.ops.compositing import composite, density_weights, interval_lengths
from opsin.ops.rays import hierarchical_samples, stratified_samples
from opsin.render.nerf import NeRF
from opsin.render.radiance_field import Outputs
from opsin.render.radiance_mlp import RadianceMLP

_PIECE = 65_536  # points, as published


def plain_pass(model: NeRF, network: RadianceMLP, rays: Tensor, t: Tensor) -> tuple[Outputs, Tensor]:
    """One pass of the plain port."""
    points = rays[:, None, :3] + rays[:, None, 3:6] * t[..., None]
    unit = torch.nn.functional.normalize(rays[:, 3:6], dim=-1)
    flat, along = points.reshape(-1, 3), unit[:, None].expand_as(points).reshape(-1, 3)
    parts = [network(flat[k : k + _PIECE], along[k : k + _PIECE]) for k in range(0, len(flat), _PIECE)]
    density = torch.cat([one for one, _ in parts]).view(t.shape)
    color = torch.cat([one for _, one in parts]).view(*t.shape, 3)
    weights = density_weights(density, interval_lengths(t, rays[:, 3:6]))
    found = composite(weights, color, t, model.background_color(rays))
    return {"color": found.values, "opacity": found.opacity, "depth": found.depth}, weights


def plain(model: NeRF, rays: Tensor, draws: dict[str, Tensor] | None) -> Outputs:
    """What the published code computes of a model's rays."""
    given = draws or {}
    assert model.fine is not None
    t = stratified_samples(rays[:, 6], rays[:, 7], model.coarse_samples, given.get("coarse"))
    coarse, weights = plain_pass(model, model.coarse, rays, t)
    t = hierarchical_samples(t, weights, model.fine_samples, given.get("fine"))
    fine, _ = plain_pass(model, model.fine, rays, t)
    return {**fine, "coarse": coarse["color"]}


def ball_rays(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rays about a coloured ball of radius 0.8 before white, and their colours."""
    generator = torch.Generator().manual_seed(seed)
    eyes = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 4
    along = (1.5 * (2 * torch.rand(count, 3, generator=generator) - 1) - eyes) / 4
    unit = torch.nn.functional.normalize(along, dim=-1)
    middle = -(eyes * unit).sum(-1)
    miss = (eyes + middle[:, None] * unit).norm(dim=-1)
    reach = (0.64 - miss.square()).clamp(min=0).sqrt()
    surface = eyes + (middle - reach)[:, None] * unit
    color = torch.where((miss < 0.8)[:, None], 0.5 + 0.5 * surface / 0.8, torch.ones(3))
    depths = torch.tensor([2.0, 6.0]).expand(count, 2)
    return torch.cat([eyes, along, depths], dim=1), color


def step(forward: Callable[..., Outputs], model: NeRF, rays: Tensor, color: Tensor, draws: Any) -> float:
    """A training step without the optimizer: the loss, with gradients in the model."""
    model.zero_grad(set_to_none=True)
    total = torch.stack(list(model.loss(forward(rays, draws), {"color": color}).values())).sum()
    total.backward()
    return float(total.detach())


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    found = function()
    return time.process_time() - start, found


def measure(model: NeRF, rays: Tensor, color: Tensor, repeats: int) -> dict[str, float]:
    """Rays a second of both, in turns, and how far their results are apart."""
    draws = model.draw(len(rays))
    ways: dict[str, Callable[..., Outputs]] = {"plain": lambda r, d: plain(model, r, d), "ours": model}
    times: dict[str, list[float]] = {f"{way}_{what}": [] for way in ways for what in ("train", "render")}
    losses, gradients, images = {}, {}, {}
    for _ in range(repeats):
        for way, forward in ways.items():
            seconds, losses[way] = timed(lambda f=forward: step(f, model, rays, color, draws))
            gradients[way] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            times[f"{way}_train"].append(seconds)
            with torch.no_grad():
                seconds, images[way] = timed(lambda f=forward: f(rays, None)["color"])
            times[f"{way}_render"].append(seconds)
    rate = {name: len(rays) / statistics.median(values) for name, values in times.items()}
    distance = (gradients["ours"] - gradients["plain"]).norm() / gradients["plain"].norm()
    return {
        **{f"{name}_rays_per_second": value for name, value in rate.items()},
        "train_speed_up": rate["ours_train"] / rate["plain_train"],
        "render_speed_up": rate["ours_render"] / rate["plain_render"],
        "loss_difference": abs(losses["ours"] - losses["plain"]),
        "gradient_difference": float(distance),
        "image_difference": float((images["ours"] - images["plain"]).abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("depth", 8), ("width", 256), ("coarse", 64), ("fine", 128), ("rays", 128), ("warm", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model = NeRF(depth=given.depth, width=given.width, coarse_samples=given.coarse, fine_samples=given.fine)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    for k in range(given.warm):
        rays, color = ball_rays(given.rays, k + 1)
        step(model, model, rays, color, model.draw(given.rays))
        optimizer.step()
    found = measure(model, *ball_rays(given.rays, 0), given.repeats)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f"{name:34} {value:12.4g}")


if __name__ == "__main__":
    main()

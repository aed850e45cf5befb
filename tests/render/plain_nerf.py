"""NeRF written out from its paper, arXiv:2003.08934, and the code published with it: slow, ray by ray where it can
be."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def encode(x: Tensor, frequencies: int) -> Tensor:
    """The numbers, then for each frequency 2^k all sines and all cosines."""
    parts = [x]
    for k in range(frequencies):
        parts += [torch.sin(x * 2.0**k), torch.cos(x * 2.0**k)]
    return torch.cat(parts, dim=-1)


def network(
    weights: dict[str, Tensor], point: Tensor, direction: Tensor, depth: int, skip: int
) -> tuple[Tensor, Tensor]:
    """Density and colour of rows of points and unit directions, by a state dict of `RadianceMLP`."""
    x = given = encode(point, 10)
    for k in range(depth):
        x = torch.relu(x @ weights[f"trunk.{k}.weight"].T + weights[f"trunk.{k}.bias"])
        if k == skip:
            x = torch.cat([given, x], dim=-1)
    density = torch.relu(x @ weights["density.weight"].T + weights["density.bias"])[..., 0]
    feature = x @ weights["feature.weight"].T + weights["feature.bias"]
    x = torch.cat([feature, encode(direction, 4)], dim=-1)
    x = torch.relu(x @ weights["view.weight"].T + weights["view.bias"])
    return density, torch.sigmoid(x @ weights["color.weight"].T + weights["color.bias"])


def stratified(near: float, far: float, draws: Tensor) -> Tensor:
    count = len(draws)
    even = [near + (far - near) * k / (count - 1) for k in range(count)]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(even)]
    low, high = [even[0], *middles], [*middles, even[-1]]
    return torch.stack([a + (b - a) * u for a, b, u in zip(low, high, draws, strict=True)])


def integrate(density: Tensor, color: Tensor, t: Tensor, length: float, background: float) -> tuple[Tensor, Tensor]:
    """One ray's colour (3,) and weights (N,), as the sum of eq. 3."""
    through, seen, weights = torch.ones((), dtype=t.dtype), torch.zeros(3, dtype=t.dtype), []
    for k in range(len(t)):
        distance = (t[k + 1] - t[k] if k + 1 < len(t) else torch.tensor(1e10, dtype=t.dtype)) * length
        alpha = 1 - torch.exp(-density[k] * distance)
        weights.append(through * alpha)
        seen = seen + weights[-1] * color[k]
        through = through * (1 - alpha)
    stacked = torch.stack(weights)
    return seen + (1 - stacked.sum()) * background, stacked


def invert(t: Tensor, weights: Tensor, draws: Tensor) -> Tensor:
    """Places by the inverse of the distribution of a ray's inner weights, between the middles of its places."""
    middles = [(float(a) + float(b)) / 2 for a, b in itertools.pairwise(t)]
    inner = [float(w) + 1e-5 for w in weights[1:-1]]
    total, steps = sum(inner), [0.0]
    for one in inner:
        steps.append(steps[-1] + one / total)
    found = []
    for u in draws.tolist():
        above = next((k for k, step in enumerate(steps) if step > u), len(steps))
        low, high = max(above - 1, 0), min(above, len(steps) - 1)
        span = steps[high] - steps[low]
        share = (u - steps[low]) / (span if span >= 1e-5 else 1.0)
        found.append(middles[low] + share * (middles[high] - middles[low]))
    return torch.tensor(found, dtype=t.dtype)


def render(model: dict[str, dict[str, Tensor]], ray: Tensor, draws: dict[str, Tensor], depth: int, skip: int) -> dict:
    """One ray (8,) by a coarse and a fine network. draws: {"coarse": (Nc,), "fine": (Nf,)}."""
    origin, along, (near, far) = ray[:3], ray[3:6], ray[6:].tolist()
    length = math.sqrt(float((along * along).sum()))

    def see(weights: dict[str, Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
        points = origin + t[:, None] * along
        density, color = network(weights, points, (along / length).expand(len(t), 3), depth, skip)
        return integrate(density, color, t, length, 1.0)

    t = stratified(near, far, draws["coarse"])
    coarse, weights = see(model["coarse"], t)
    t = torch.sort(torch.cat([t, invert(t, weights.detach(), draws["fine"])])).values
    fine, _ = see(model["fine"], t)
    return {"coarse": coarse, "color": fine}

"""A radiance field's network with gradients through those places alone that have any.

A density goes through a ReLU. Where it is negative before, the place adds exactly nothing to its ray, whatever its
colour, and the gradient that comes back is exactly zero. In a trained scene four places of five are such. Forward asks
them for their density only; what backward needs is kept of the others alone. So two thirds of a step, its backward,
cost as much as there are places with something in them.

Rows of which a gradient comes back below a ten-millionth of the largest are left out too: places behind a wall, to
which light of e^-16 comes. Done in pieces whose activations stay in the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from opsin.ops.positional_encoding import encode_positions

if TYPE_CHECKING:
    from opsin.render.radiance_mlp import RadianceMLP

_ROWS = 4096  # places at once: 4 MB a layer of 256
_LEAST = 1e-7  # of the largest gradient


def ask(network: RadianceMLP, points: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor]:
    """Densities (R, N) and colours (R, N, 3) at points (R, N, 3), seen along unit directions (R, 3) of the rays.

    As `RadianceMLP.forward`, but colours where there is no density are 0. No gradient goes to points and directions.
    directions: None for densities alone, and no colours.
    """
    rays, count = points.shape[:2]
    encoded = None if directions is None else encode_positions(directions, network.direction_frequencies)
    found: Any = _Ask.apply(network, points.reshape(-1, 3), encoded, count, *network.parameters())
    density, color = found
    return density.view(rays, count), color.view(rays, -1, 3)


class _Ask(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, network: RadianceMLP, points: Tensor, directions: Tensor | None, count: int, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        keep = any(ctx.needs_input_grad)
        density = points.new_empty(len(points))
        color = points.new_zeros(0 if directions is None else len(points), 3)
        kept = []
        for start in range(0, len(points), _ROWS):
            piece = slice(start, min(start + _ROWS, len(points)))
            layers = _trunk(network, points[piece])
            raw = network.density(layers[-1])[:, 0]
            density[piece] = raw.clamp(min=0)
            if directions is None:
                continue
            active = torch.nonzero(raw > 0)[:, 0]
            layers = [layer[active] for layer in (layers if keep else layers[-1:])]
            rows = active + start
            across = directions[torch.div(rows, count, rounding_mode="floor")]
            joined = torch.cat([network.feature(layers[-1]), across], dim=1)
            seen = torch.relu(network.view(joined))
            color[rows] = shown = torch.sigmoid(network.color(seen))
            if keep:
                kept.append((rows, layers, joined, seen, shown))
        ctx.network, ctx.kept = network, kept
        return density, color

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        network, (of_density, of_color) = ctx.network, grads
        names = {id(p): k for k, p in enumerate(network.parameters())}
        sums = [torch.zeros_like(p) for p in network.parameters()]
        size = of_density.abs() + of_color.abs().sum(1)
        # Of the active rows alone: where a density is 0, the last, endless interval of a ray has a gradient of 1e10.
        least = max((float(size[rows].max()) for rows, *_ in ctx.kept if len(rows)), default=0.0) * _LEAST

        def add(layer: Any, grad: Tensor, given: Tensor) -> Tensor:
            """Add to a layer's gradients, and give that of what the layer was given."""
            sums[names[id(layer.weight)]].addmm_(grad.t(), given)
            sums[names[id(layer.bias)]].add_(grad.sum(0))
            return grad @ layer.weight

        for rows, *saved in ctx.kept:
            chosen = torch.nonzero(size[rows] > least)[:, 0]
            if len(chosen):
                _backward(network, saved, rows, chosen, of_density, of_color, add)
        return None, None, None, None, *sums


def _trunk(network: RadianceMLP, points: Tensor) -> list[Tensor]:
    """What each layer of the trunk gives, what it is given first. The skip's is joined by the input."""
    layers = [encode_positions(points, network.frequencies)]
    for k, layer in enumerate(network.trunk):
        x = layer(layers[-1]).relu_()
        layers.append(torch.cat([layers[0], x], dim=1) if k == network.skip else x)
    return layers


def _backward(
    network: RadianceMLP, saved: Any, rows: Tensor, chosen: Tensor, of_density: Tensor, of_color: Tensor, add: Any
) -> None:
    """The gradients of a piece, of its chosen rows."""
    layers, joined, seen, shown = saved
    rows, joined, seen, shown = rows[chosen], joined[chosen], seen[chosen], shown[chosen]
    layers = [layer[chosen] for layer in layers]
    grad = add(network.color, of_color[rows] * shown * (1 - shown), seen)
    grad = add(network.view, grad * (seen > 0), joined)
    grad = add(network.feature, grad[:, : network.feature.out_features], layers[-1])
    grad += add(network.density, of_density[rows, None], layers[-1])
    for k in reversed(range(len(network.trunk))):
        out = layers[k + 1]
        if k == network.skip:
            grad, out = grad[:, layers[0].shape[1] :], out[:, layers[0].shape[1] :]
        grad = add(network.trunk[k], grad * (out > 0), layers[k])

"""What the layers of a network give for images: any layer of any model, by name, recorded without changing it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from opsin.errors import InputError, unknown


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval while the block runs; every module is then as it was, frozen ones too."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def recorded(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of layers that run while the block runs, by name; of repeated calls the last one's.

    They lie in the graph, so gradients can be taken of them and at them. What the network does to them in place later
    happens to a copy. Raises InputError for an unknown layer, with the nearest names, and for one that gives no tensor.
    """
    outputs: dict[str, Tensor] = {}
    known = dict(model.named_modules())

    def keep(name: str, output: object) -> Tensor:
        if not isinstance(output, Tensor):
            raise InputError(f"layer {name} gives a {type(output).__name__}, not a feature map; choose one inside it")
        outputs[name] = output
        return output.clone()

    for name in layers:
        if not name or name not in known:
            raise unknown("layer", name, [n for n in known if n])
    handles = [known[name].register_forward_hook(lambda _m, _i, out, name=name: keep(name, out)) for name in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def feature_maps(model: nn.Module, images: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Feature maps (B, C, h, w) of normalised images (B, C, H, W), by layer; in eval. layers: None for every stage.

    Vectors (B, K) are maps of 1x1, sequences (B, N, C) columns of N. Raises InputError for an unknown layer.
    """
    layers = stage_names(model) if layers is None else layers
    with evaluating(model), recorded(model, layers) as outputs:
        model(images)
    return {name: as_maps(find_output(outputs, name)) for name in layers}


def find_output(outputs: dict[str, Tensor], layer: str) -> Tensor:
    """What `recorded` kept of a layer. Raises InputError where the layer did not run."""
    if layer not in outputs:
        raise InputError(f"layer {layer} did not run in eval mode; choose another one")
    return outputs[layer]


def stage_names(model: nn.Module) -> list[str]:
    """The names of a backbone's stages, `stages.0` and on. Raises InputError for a model without stages."""
    stages = getattr(model, "stages", None)
    if not isinstance(stages, nn.ModuleList):
        raise InputError(f"{type(model).__name__} has no stages; name the layers to look at")
    return [f"stages.{place}" for place in range(len(stages))]


def as_maps(output: Tensor) -> Tensor:
    """The output of any layer as (B, C, h, w): (B, K) as maps of 1x1, (B, N, C) as columns of N."""
    if output.ndim == 4:
        return output
    if output.ndim == 3:
        return output.transpose(1, 2)[..., None]
    if output.ndim == 2:
        return output[..., None, None]
    raise InputError(f"an output of shape {tuple(output.shape)} is no feature map; expected (B, C, H, W)")


def most_active(maps: Tensor, count: int) -> list[int]:
    """The units of (C, h, w) maps with the largest mean magnitude, strongest first, without those that are all zero."""
    strength = maps.abs().mean(dim=(1, 2))
    ranked = strength.argsort(descending=True, stable=True)[:count]
    return [unit for unit in ranked.tolist() if strength[unit] > 0]


def as_grey(signal: Tensor) -> Tensor:
    """A map (h, w) as uint8 (1, h, w) over its own range: from 0, or from its minimum where that is below."""
    low = signal.amin().clamp(max=0)
    span = signal.amax() - low
    scaled = (signal - low) / span if span > 0 else torch.zeros_like(signal)
    return (255 * scaled).round().to(torch.uint8)[None].cpu()


def grid(maps: Tensor, columns: int = 8, gap: int = 1) -> Tensor:
    """Maps (C, h, w) in rows of an image, uint8 (1, H, W), each over its own range; white between them."""
    count, height, width = maps.shape
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    sheet = torch.full((1, rows * (height + gap) - gap, columns * (width + gap) - gap), 255, dtype=torch.uint8)
    for place, signal in enumerate(maps):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = as_grey(signal)
    return sheet

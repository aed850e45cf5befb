"""How a network would answer with few bits: weights and maps rounded as integer arithmetic rounds them.

Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
arXiv:1712.05877: each tensor is an affine grid of 2^bits numbers, over the range that it was seen to have. Nothing is
faster here: the rounding is carried out in floats, to see what it costs in accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


def round_to_grid(x: Tensor, low: float, high: float, bits: int = 8) -> Tensor:
    """The nearest numbers of a grid of 2^bits from low to high that has 0 on it. Section 2.3, equations 12 and 13.

    The range is widened to hold 0; what is outside of it is clamped. low, high: finite, low at most high.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if not high > low:
        return x
    steps = 2**bits - 1
    scale = (high - low) / steps
    zero = min(max(round(-low / scale), 0), steps)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, steps)


@contextmanager
def quantized(model: nn.Module, calibrate: Callable[[], Any], bits: int = 8) -> Iterator[nn.Module]:
    """The model, in place and while this lasts, with weights and outputs of layers on grids of 2^bits numbers.

    calibrate: runs the model on some examples, by which the range of each output is found, its least and largest
    number. A weight has the range of all of its tensor. Rounded are the weights of convolutions and linear layers, and
    the outputs of every module without children that gives floats; biases stay, as the paper's have 32 bits. Raises
    InputError for bits outside of 2 to 16.
    """
    if not 2 <= check_count("bits", bits) <= 16:
        raise InputError(f"bits is {bits}; take from 2 to 16")
    leaves = [module for module in model.modules() if not any(module.children())]
    ranges: dict[nn.Module, tuple[float, float]] = {}

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
            low, high = (float(end) for end in output.detach().aminmax())
            known = ranges.get(module, (low, high))
            ranges[module] = (min(low, known[0]), max(high, known[1]))

    def narrow(module: nn.Module, inputs: Any, output: Any) -> Any:
        if module in ranges and isinstance(output, Tensor):
            return round_to_grid(output, *ranges[module], bits)
        return output

    layers = [module for module in leaves if isinstance(module, _LAYERS)]
    weights = [layer.weight.detach().clone() for layer in layers]
    with torch.no_grad():
        watching = [leaf.register_forward_hook(watch) for leaf in leaves]
        try:
            calibrate()
        finally:
            for hook in watching:
                hook.remove()
        hooks = [leaf.register_forward_hook(narrow) for leaf in leaves]
        try:
            for layer, weight in zip(layers, weights, strict=True):
                low, high = (float(end) for end in weight.aminmax())
                layer.weight.copy_(round_to_grid(weight, low, high, bits))
            yield model
        finally:
            for hook in hooks:
                hook.remove()
            for layer, weight in zip(layers, weights, strict=True):
                layer.weight.copy_(weight)

"""Receptive field: the pixels of the input that one number of a feature map can depend on.

Walk through the chain and keep three numbers, for outputs i = 0, 1, 2, ... along one side:

    jump     how many input pixels apart two neighbouring outputs look        jump *= stride
    size     how many pixels each one sees                                    size += (kernel - 1) dilation jump
    start    where the first one begins to see                                start -= padding jump

(size and start with the jump from before the layer.) Output i sees the `size` pixels from
start + i jump on. Two 3x3 see what one 5x5 sees, with 18 instead of 25 weights: that is VGG's argument. What
lies in the middle of the field is seen along many more paths than its border, so the field that matters is
smaller (Luo et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Layer(NamedTuple):
    """A convolution or a pooling, as far as it matters here."""

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1


class Field(NamedTuple):
    """What the outputs of a chain see: output i the pixels from start + i * jump on, `size` of them."""

    size: int = 1
    jump: int = 1
    start: int = 0


def receptive_field(layers: Sequence[Layer]) -> Field:
    """The field of the last layer's outputs, in pixels of the first one's input."""
    field = Field()
    for layer in layers:
        size = field.size + (layer.kernel - 1) * layer.dilation * field.jump
        start = field.start - layer.padding * field.jump
        field = Field(size, field.jump * layer.stride, start)
    return field


if __name__ == "__main__":
    pool = Layer(2, 2)
    chains = {
        "one 3x3": [Layer(3)],
        "two 3x3": [Layer(3), Layer(3)],
        "LeNet up to C5": [Layer(5), pool, Layer(5), pool, Layer(5)],
        "VGG-16 up to its last pool": [*[Layer(3, padding=1)] * 2, pool, *[Layer(3, padding=1)] * 2, pool]
        + 3 * [*[Layer(3, padding=1)] * 3, pool],
        "3x3 with dilation 1, 2, 4, 8": [Layer(3, dilation=dilation) for dilation in (1, 2, 4, 8)],
    }
    for name, layers in chains.items():
        field = receptive_field(layers)
        print(f"{name:30} size {field.size:4}   jump {field.jump:3}   start {field.start:4}")

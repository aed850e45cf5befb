"""A segmenter as a program for other runtimes, and such a program as a segmenter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from opsin.data import Preprocessing
from opsin.engine.predict import describe_input
from opsin.errors import InputError
from opsin.segment.mirroring import Size, find_sides

_LEAST = 32  # pixels


class SegmenterProgram(nn.Module):
    """An exported segmenter as a network: images, uint8 (B, channels, H, W) -> {"logits": probabilities (B, K, H, W)}.

    sides: what the file says of the sizes that it takes, see `sides_of`.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Mapping[str, Tensor]],
        sides: Mapping[str, int],
        num_classes: int,
        in_channels: int,
        overlapping: bool,
    ) -> None:
        super().__init__()
        self.program, self.num_classes, self.in_channels, self.overlapping = run, num_classes, in_channels, overlapping
        least, step, margin = (int(sides[name]) for name in ("least", "step", "margin"))
        if least < 1 or step < 1 or not 0 <= 2 * margin < least:
            raise ValueError(f"sides {dict(sides)}")
        self.least, self.step, self.margin = least, step, margin
        self.divisor, self.min_size = 1, least

    def output_size(self, size: Size) -> Size:
        """As a `Segmenter` has it."""
        for side in size:
            if side < self.least or (side - self.least) % self.step:
                raise InputError(
                    f"the file takes sides of {self.least} + {self.step} k pixels, got {size[0]}x{size[1]}"
                )
        return size[0] - 2 * self.margin, size[1] - 2 * self.margin

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.program(images if images.dtype == torch.uint8 else images.round().to(torch.uint8))
        return {"logits": found["probabilities"]}

    def decode(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """The probabilities as they are: the program has made them."""
        return outputs["logits"]

    def drop_aux_heads(self) -> None:
        """There are none."""


def sides_of(model: Any, own: int) -> dict[str, int]:
    """The sides of images that a `Segmenter` takes, least + step k; margin: pixels at a border it says nothing of.

    own: the least side that the file is made for. Smaller ones than 32 are left out, where it has none: no map of them
    has more than a row.
    """
    least, step, margin = find_sides(model)
    return {"least": least if step > 1 else max(least, min(own, _LEAST)), "step": step, "margin": margin}


def describe_use(preprocessing: Preprocessing, sides: Mapping[str, int]) -> str:
    """How a file is used by those who do not have opsin."""
    steps = "" if sides["step"] == 1 else f", sides of {sides['least']} + {sides['step']} k pixels alone"
    middle = (
        "of every pixel"
        if not sides["margin"]
        else f"of the middle, {sides['margin']} pixels in from each side; mirror the image's borders by as much"
    )
    return (
        f"{describe_input(preprocessing)}Images of other heights and widths are taken too{steps}: give large ones at "
        f"the scale that those of the training were made to. probabilities: (batch, classes, height, width), 0 to 1, "
        f"{middle}; the class of a pixel is the largest, or where classes overlap each of at least 0.5."
    )

"""What goes wrong in the training of a radiance field without an error: nothing is seen anywhere, or all rays miss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from opsin.render.radiance_field import Outputs

_FIRST, _AGAIN = 200, 200  # steps before the first look, and between looks
_NOTHING = 1e-3  # opacity below which a ray saw nothing


class RayWatch:
    """Says once, in words with a remedy, that a field stays empty though the images are not.

    NeRF starts like this now and then: a ReLU makes densities, and where it is negative everywhere no gradient comes
    back, ever. Or rays miss the scene: near, far or the box are wrong.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self._said = say, False

    @torch.no_grad()
    def look(self, outputs: Outputs, colors: Tensor, step: int) -> None:
        """After a step's forward. colors: (R, 3), the true ones."""
        if self._said or step < _FIRST or step % _AGAIN:
            return
        seen = outputs["opacity"] > _NOTHING
        varied = float(colors.std(dim=0).max()) > 0.02  # an image with something on it
        if seen.any() or not varied:
            return
        self._said = True
        if "coarse" in outputs:
            remedy = (
                "its density is zero everywhere, so that no gradient comes back (a dead start): begin again with "
                "another train.seed, or a lower optim.lr"
            )
        else:
            remedy = "its rays find nothing: check near and far (`opsin data`), or begin again with a lower optim.lr"
        self.say(f"step {step}: the field is empty, all rays see the background alone; {remedy}")

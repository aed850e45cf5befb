"""Transfer functions: which colour, and how dense, each value of a volume is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from opsin.errors import InputError, unknown
from opsin.files import load_json, read_regular


@dataclass(frozen=True, eq=False)
class Transfer:
    """Straight lines between points. values: (K,) rising. colours: (K, 3) in [0, 1]. densities: (K,) >= 0, per unit of
    length. Beyond the ends it is as at the ends. Gradients go to colours and densities.
    """

    values: Tensor
    colours: Tensor
    densities: Tensor

    def __call__(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Colours (..., 3) and densities (...) of values (...)."""
        place = torch.bucketize(values.detach(), self.values[1:-1])
        first, last = self.values[place], self.values[place + 1]
        share = ((values - first) / (last - first)).clamp(0, 1)
        colours = torch.lerp(self.colours[place], self.colours[place + 1], share[..., None])
        return colours, torch.lerp(self.densities[place], self.densities[place + 1], share)

    def least(self) -> float:
        """The value below which everything is empty; -inf where nothing is."""
        if float(self.densities[0]) > 0:
            return -float("inf")
        dense = torch.nonzero(self.densities > 0)
        return float(self.values[int(dense[0]) - 1]) if len(dense) else float("inf")


def transfer_of(points: Sequence[tuple[float, tuple[float, float, float], float]]) -> Transfer:
    """A transfer function of points: value, colour, density. Raises InputError for what is none."""
    values = torch.tensor([point[0] for point in points], dtype=torch.float32)
    colours = torch.tensor([point[1] for point in points], dtype=torch.float32)
    densities = torch.tensor([point[2] for point in points], dtype=torch.float32)
    bad = len(points) < 2 or not bool((values.diff() > 0).all()) or bool((densities < 0).any())
    if bad or not bool(((colours >= 0) & (colours <= 1)).all()) or not bool(densities.isfinite().all()):
        raise InputError(
            "a transfer function is two points or more with rising values, colours in [0, 1], densities >= 0"
        )
    return Transfer(values, colours, densities)


# Values are the files' own: of a CT in this unit air is 0 and water about 0 to 100; a scan from -1024 is to be shifted.
NAMED: Mapping[str, tuple[tuple[float, tuple[float, float, float], float], ...]] = {
    "mri": (
        (30.0, (0.75, 0.55, 0.5), 0.0),
        (90.0, (0.85, 0.62, 0.55), 0.08),
        (170.0, (0.95, 0.85, 0.8), 0.25),
        (255.0, (1.0, 1.0, 0.98), 0.5),
    ),
    "bone_and_stent": (
        (130.0, (0.75, 0.2, 0.15), 0.0),
        (190.0, (0.8, 0.25, 0.18), 0.015),
        (280.0, (0.93, 0.83, 0.65), 0.06),
        (600.0, (0.98, 0.94, 0.85), 0.5),
        (1100.0, (0.55, 0.7, 0.95), 1.2),
        (1800.0, (0.85, 0.92, 1.0), 2.5),
    ),
    "bone": ((250.0, (0.9, 0.8, 0.65), 0.0), (500.0, (0.95, 0.9, 0.8), 0.3), (1500.0, (1.0, 1.0, 0.95), 1.0)),
}  # fmt: skip


def automatic(values: Tensor, length: float) -> Transfer:
    """Grey from the middle of the values to their 99.9th percentile. length: of the volume, in its units."""
    some = values.flatten()[:: max(1, values.numel() // 1_000_000)].numpy()
    low, high = np.quantile(some, [0.5, 0.999]).tolist()
    middle = float(low) + 0.25 * (float(high) - float(low))
    top = float(high) if high > middle else float(values.max())
    full = 40.0 / length
    return transfer_of([(middle, (0.5, 0.5, 0.5), 0.0), (max(top, middle + 1e-6), (1.0, 1.0, 1.0), full)])


def load_transfer(name: str) -> Transfer:
    """A transfer function by its name, of `NAMED`, or from a JSON file: [[value, [r, g, b], density], ...].

    Raises InputError.
    """
    if name in NAMED:
        return transfer_of(NAMED[name])
    path = Path(name)
    if path.suffix.lower() != ".json":
        raise unknown("transfer function", name, [*NAMED, "auto"])
    try:
        content = load_json(read_regular(path))
        points = [(float(value), (float(r), float(g), float(b)), float(d)) for value, (r, g, b), d in content]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{name}: expected a list of [value, [red, green, blue], density]: {' '.join(str(error).split())}"
        ) from None
    return transfer_of(points)

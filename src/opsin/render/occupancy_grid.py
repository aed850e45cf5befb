"""Which cells of a box hold anything, so that rays are asked there alone.

Müller et al. 2022, arXiv:2201.05989, appendix C: each cell keeps the largest density that was lately seen in it, which
fades, and a cell below a threshold is empty. Rays go through a box in equal steps; steps in empty cells cost a look-up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.ops.rays import intersect_box

_FADE = 0.6  # of a cell's density at each look
_NEW = 2.0  # stands for the opacity of cells that were never looked at: nothing is skipped before it is known


class Steps(NamedTuple):
    """Places to ask: ray (M,) of each, in rising order, and t (M,), how far along it."""

    ray: Tensor
    t: Tensor


class OccupancyGrid(nn.Module):
    """Cells of a box from `low` to `high` (3,). resolution: cells of a side. threshold: opacity of a step.

    highest: (resolution^3,), of each cell the largest opacity of a step through it, lately; part of the state, so that
    a resumed training skips what it skipped.
    """

    low: Tensor
    high: Tensor
    highest: Tensor

    def __init__(
        self, low: Tensor, high: Tensor, resolution: int = 64, steps: int = 128, threshold: float = 1e-3
    ) -> None:
        super().__init__()
        self.resolution, self.threshold, self.steps = resolution, threshold, steps
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)
        self.register_buffer("highest", torch.full((resolution**3,), _NEW))
        self._filled: Tensor | None = None

    @property
    def step(self) -> float:
        """The length of a step: the longest side of the box over `steps`."""
        return float((self.high - self.low).max()) / self.steps

    @property
    def filled(self) -> Tensor:
        """Which cells are to be asked, bool (resolution^3,): those above the threshold, and their neighbours."""
        if self._filled is None or self._filled.device != self.highest.device:
            n = self.resolution
            # A field that is dense nowhere is asked in the denser half of its cells, or it would never be asked again.
            limit = self.highest.mean().clamp(max=self.threshold)
            cells = (self.highest > limit).view(1, 1, n, n, n).float()
            self._filled = F.max_pool3d(cells, 3, 1, 1).view(-1) > 0
        return self._filled

    @property
    def share(self) -> float:
        """The share of the cells that are asked."""
        return float(self.filled.float().mean())

    def _load_from_state_dict(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super()._load_from_state_dict(*args, **kwargs)
        self._filled = None

    def points(self, cells: Tensor, draws: Tensor) -> Tensor:
        """A place (M, 3) of the box in each of some cells (M,). draws: (M, 3) in [0, 1)."""
        n = self.resolution
        places = torch.stack([cells // (n * n), cells // n % n, cells % n], dim=-1)
        return self.low + (places + draws) / n * (self.high - self.low)

    @torch.no_grad()
    def look(self, density: Callable[[Tensor], Tensor], cells: Tensor, draws: Tensor) -> None:
        """Ask a field in some cells (M,). density: of points (M, 3), (M,). draws: as of `points`."""
        opacity = -torch.expm1(-density(self.points(cells, draws)) * self.step)
        before = self.highest[cells]
        faded = torch.where(before < _NEW, before * _FADE, 0.0)
        self.highest.index_put_((cells,), torch.maximum(faded, opacity))
        self._filled = None

    @torch.no_grad()
    def march(self, origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, jitter: Tensor | float) -> Steps:
        """The steps of rays (R, 3) within filled cells. directions: of length 1. jitter: (R,) or one, in [0, 1)."""
        low, high = self._filled_box()
        enter, leave, met = intersect_box(origins, directions, low, high)
        enter, leave = torch.maximum(enter, near), torch.minimum(leave, far)
        step, rays = self.step, torch.nonzero(met & (leave > enter))[:, 0]
        enter, leave = enter[rays], leave[rays]
        offset = jitter[rays] if isinstance(jitter, Tensor) else jitter
        most = int(((leave - enter).max() / step).ceil()) + 1 if len(rays) else 0
        shifted = torch.arange(most, device=origins.device) + torch.as_tensor(offset)[..., None]
        t = enter[:, None] + shifted * step
        scale = self.resolution / (self.high - self.low)
        start, along = (origins[rays] - self.low) * scale, directions[rays] * scale
        cell = torch.zeros(t.shape, dtype=torch.int32, device=t.device)
        for axis in range(3):
            place = torch.addcmul(start[:, axis : axis + 1], t, along[:, axis : axis + 1])
            cell = cell * self.resolution + place.to(torch.int32).clamp_(0, self.resolution - 1)
        inside = self.filled[cell.view(-1).long()].view(t.shape) & (t < leave[:, None])
        row, column = torch.nonzero(inside, as_tuple=True)
        return Steps(rays[row], t[row, column])

    def _filled_box(self) -> tuple[Tensor, Tensor]:
        """The smallest box around all filled cells."""
        n = self.resolution
        cells = self.filled.view(n, n, n)
        ends = []
        for others in ((1, 2), (0, 2), (0, 1)):
            there = torch.nonzero(cells.any(dim=others[1]).any(dim=others[0]))[:, 0]
            ends.append((int(there[0]), int(there[-1]) + 1) if len(there) else (0, 1))
        side = (self.high - self.low) / n
        first, last = (self.low.new_tensor([end[k] for end in ends]) for k in (0, 1))
        return self.low + first * side, self.low + last * side

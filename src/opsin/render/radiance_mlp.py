"""The multilayer perceptron of NeRF: Mildenhall et al. 2020, arXiv:2003.08934, section 3 and figure 7."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.ops.positional_encoding import encode_positions, encoded_size


class RadianceMLP(nn.Module):
    """One network of a radiance field: places and directions to densities and colours.

    depth: layers of the trunk, of `width`. skip: the layer, from 0, whose output is joined by the encoded place, as the
    paper's fifth; none where the trunk is shorter. frequencies: of places and of directions.
    """

    def __init__(
        self,
        depth: int = 8,
        width: int = 256,
        *,
        skip: int = 4,
        frequencies: int = 10,
        direction_frequencies: int = 4,
    ) -> None:
        super().__init__()
        check_count("depth", depth)
        check_count("width", width, 2)
        self.frequencies, self.direction_frequencies = frequencies, direction_frequencies
        self.skip = skip if skip < depth - 1 else None
        inner, across = encoded_size(3, frequencies), encoded_size(3, direction_frequencies)
        joined = (0 if self.skip is None else self.skip + 1, inner)
        sizes = [inner] + [width + (joined[1] if k == joined[0] else 0) for k in range(1, depth)]
        self.trunk = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.density = nn.Linear(width, 1)
        self.feature = nn.Linear(width, width)
        self.view = nn.Linear(width + across, width // 2)
        self.color = nn.Linear(width // 2, 3)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Densities (...) and colours (..., 3) at points (..., 3), seen along unit directions (..., 3), plainly.

        As written in the paper; `opsin.render.active_gradient.ask` gives the same, and is what trainings use.
        """
        given = encode_positions(points, self.frequencies)
        x = given
        for k, layer in enumerate(self.trunk):
            x = torch.relu(layer(x))
            x = torch.cat([given, x], dim=-1) if k == self.skip else x
        density = torch.relu(self.density(x))[..., 0]
        across = encode_positions(directions, self.direction_frequencies)
        x = torch.relu(self.view(torch.cat([self.feature(x), across], dim=-1)))
        return density, torch.sigmoid(self.color(x))

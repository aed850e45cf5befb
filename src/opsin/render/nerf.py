"""NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis. Mildenhall et al. 2020, arXiv:2003.08934.

The idea: a scene is a function of place and direction, learned by a multilayer perceptron, which says how dense the
place is and which colour it sends that way; an image is its integral along rays, and the error of the image's colours
is all that it is taught by. A second, fine network is asked where the first, coarse one found something.

Sizes and details are those of the code published with the paper: positions and directions are encoded with the numbers
themselves and without the paper's factor pi (63 and 27 inputs), the fifth layer's output is joined by the input,
weights are drawn as Glorot and Bengio 2010 have it, biases start at zero.

What is skipped here, and changes nothing: a place of which the density is negative before its ReLU adds nothing to a
ray, and no gradient comes back from it. Its colour is not computed, and no gradient is carried through the network for
it: `opsin.render.active_gradient`. When an image is rendered, two more things are skipped: places from which less than
`stop` of the light reaches the eye, which changes a colour by less than that; and the fine pass of rays of which the
coarse one saw less than that, which trusts the coarse network where it found nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from opsin.checks import check_count
from opsin.ops.compositing import composite, density_weights, interval_lengths
from opsin.ops.rays import hierarchical_samples, stratified_samples
from opsin.registry import NO_IMAGES, Published, register
from opsin.render.active_gradient import ask
from opsin.render.radiance_field import Outputs, RadianceField
from opsin.render.radiance_mlp import RadianceMLP

_SLAB = 32  # samples of a ray that are asked before it is seen whether light comes from behind
_CHUNK = 1024  # rays that are rendered at once


class NeRF(RadianceField):
    """rays (R, 8) -> what they see, see `RadianceField`.

    depth, width: of both networks. coarse_samples: of a ray, for the coarse network; fine_samples: as many more for the
    fine one; 0 is without it. in_disparity: coarse samples evenly spaced in 1 / t. stop: see this file's first lines; 0
    renders all there is.
    """

    def __init__(
        self,
        *,
        depth: int = 8,
        width: int = 256,
        frequencies: int = 10,
        direction_frequencies: int = 4,
        coarse_samples: int = 64,
        fine_samples: int = 128,
        in_disparity: bool = False,
        background: str = "white",
        stop: float = 1e-4,
    ) -> None:
        super().__init__(background)
        check_count("coarse_samples", coarse_samples, 3)
        check_count("fine_samples", fine_samples, 0)
        sizes = {"frequencies": frequencies, "direction_frequencies": direction_frequencies}
        self.coarse = RadianceMLP(depth, width, **sizes)
        self.fine = RadianceMLP(depth, width, **sizes) if fine_samples else None
        self.coarse_samples, self.fine_samples = coarse_samples, fine_samples
        self.in_disparity, self.stop = in_disparity, stop

    def draw(self, count: int, device: torch.device | None = None) -> dict[str, Tensor]:
        sizes = {"coarse": self.coarse_samples, "fine": self.fine_samples}
        return {name: torch.rand(count, size, device=device) for name, size in sizes.items() if size}

    def forward(self, rays: Tensor, draws: Mapping[str, Tensor] | None = None) -> Outputs:
        if draws is None and not torch.is_grad_enabled():
            return self.in_chunks(rays, _CHUNK) if len(rays) > _CHUNK else self._render(rays)
        given: Mapping[str, Tensor] = {} if draws is None else draws
        near, far = rays[:, 6], rays[:, 7]
        places = stratified_samples(near, far, self.coarse_samples, given.get("coarse"), in_disparity=self.in_disparity)
        outputs, weights = self._pass(self.coarse, rays, places)
        if self.fine is None:
            return outputs
        places = hierarchical_samples(places, weights, self.fine_samples, given.get("fine"))
        fine, _ = self._pass(self.fine, rays, places)
        return {**fine, "coarse": outputs["color"]}

    def _pass(self, network: RadianceMLP, rays: Tensor, places: Tensor) -> tuple[Outputs, Tensor]:
        origins, along = rays[:, None, :3], rays[:, None, 3:6]
        points = origins + along * places[..., None]
        densities, colors = ask(network, points, _unit(rays[:, 3:6]))
        weights = density_weights(densities, interval_lengths(places, rays[:, 3:6]))
        found = composite(weights, colors, places, self.background_color(rays))
        return {"color": found.values, "opacity": found.opacity, "depth": found.depth}, weights

    # Rendering, without a gradient

    def _render(self, rays: Tensor) -> Outputs:
        """The same, but for what adds less than `stop`."""
        places = stratified_samples(rays[:, 6], rays[:, 7], self.coarse_samples, in_disparity=self.in_disparity)
        network, lit = self.coarse, torch.arange(len(rays), device=rays.device)
        if self.fine is not None:
            weights = self._coarse_weights(rays, places)
            lit = torch.nonzero(weights.sum(-1) >= self.stop)[:, 0] if self.stop else lit
            places = hierarchical_samples(places[lit], weights[lit], self.fine_samples)
            network = self.fine
        found = self._through(network, rays[lit], places)
        outputs = {
            "color": self.background_color(rays).repeat(len(rays), 1),
            "opacity": rays.new_zeros(len(rays)),
            "depth": rays.new_zeros(len(rays)),
        }
        for key, value in found.items():
            outputs[key][lit] = value
        return outputs

    def _coarse_weights(self, rays: Tensor, places: Tensor) -> Tensor:
        points = rays[:, None, :3] + rays[:, None, 3:6] * places[..., None]
        densities, _ = ask(self.coarse, points, None)
        return density_weights(densities, interval_lengths(places, rays[:, 3:6]))

    def _through(self, network: RadianceMLP, rays: Tensor, places: Tensor) -> Outputs:
        """Slab by slab from the eye, as long as more than `stop` of the light comes from behind."""
        lengths, directions = interval_lengths(places, rays[:, 3:6]), _unit(rays[:, 3:6])
        color, depth = rays.new_zeros(len(rays), 3), rays.new_zeros(len(rays))
        through, alive = rays.new_ones(len(rays)), torch.arange(len(rays), device=rays.device)
        for start in range(0, places.shape[1], _SLAB):
            slab = slice(start, start + _SLAB)
            t = places[alive, slab]
            points = rays[alive, None, :3] + rays[alive, None, 3:6] * t[..., None]
            densities, colors = ask(network, points, directions[alive])
            piece = lengths[alive, slab]
            weights = through[alive, None] * density_weights(densities, piece)
            color[alive] += (weights[..., None] * colors).sum(1)
            depth[alive] += (weights * t).sum(1)
            through[alive] *= torch.exp(-(densities * piece).sum(1))
            alive = alive[through[alive] > self.stop] if self.stop else alive
        opacity = 1 - through
        color = color + through[:, None] * self.background_color(rays)
        return {"color": color, "opacity": opacity, "depth": depth / opacity.clamp(min=torch.finfo(depth.dtype).eps)}

    def densities(self, points: Tensor) -> Tensor:
        """(N,), at points (N, 3), of the network that images are made by."""
        return ask(self.coarse if self.fine is None else self.fine, points[:, None], None)[0][:, 0]


def _unit(directions: Tensor) -> Tensor:
    return directions / torch.linalg.vector_norm(directions, dim=-1, keepdim=True)


@register(
    "nerf",
    task="render",
    network=NeRF,
    published=Published(
        paper="arXiv:2003.08934",
        year=2020,
        input=NO_IMAGES,
        params=1_191_688,
        metrics={},
        idea="a scene as a function of place and direction, taught by the colours of rays through it",
        source="the published code: two networks of 595,844",
    ),
)
def nerf(**options: object) -> NeRF:
    """The coarse and the fine network of the paper."""
    return NeRF(**options)  # type: ignore[arg-type]

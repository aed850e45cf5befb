"""GIRAFFE: Compositional Generative Neural Feature Fields. Niemeyer and Geiger 2021, arXiv:2011.12100.

The idea: a scene is several objects, each a field of its own in its own coordinates, which a placement (where it
stands, how large it is, how it is turned) puts into the scene. What rays integrate are not colours but features, at a
low resolution; a small convolutional network, the neural renderer, makes the image of them. To move an object is to
change its placement, and nothing else.

Here it is taught by images whose placements are known, not by an adversary. Fields and their composition are the
paper's, section 3.1 and 3.2: densities add up, features are weighed by density. So is the renderer, section 3.3:
nearest upsampling and a convolution a scale, with a colour image at each scale that is upsampled bilinearly and added
to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError
from opsin.ops.compositing import density_weights, interval_lengths
from opsin.ops.positional_encoding import encode_positions, encoded_size
from opsin.ops.rays import stratified_samples

PLACEMENT = 5  # numbers: x, y, z of the middle, half of the side, and the turn about z in radians


class ObjectField(nn.Module):
    """One object in its own cube from -1 to 1: points (..., 3) -> densities (...) and features (..., features).

    Nothing is outside of the cube, so that an object has no say beyond its place.
    """

    def __init__(self, features: int, hidden: int = 64, depth: int = 3, frequencies: int = 4) -> None:
        super().__init__()
        self.frequencies = frequencies
        sizes = [encoded_size(3, frequencies), *[hidden] * depth]
        layers: list[nn.Module] = []
        for inner, outer in pairwise(sizes):
            layers += [nn.Linear(inner, outer), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.density, self.feature = nn.Linear(hidden, 1), nn.Linear(hidden, features)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(encode_positions(points, self.frequencies))
        inside = (points.abs() <= 1).all(-1)
        return F.softplus(self.density(x)[..., 0]) * inside, self.feature(x)


class NeuralRenderer(nn.Module):
    """Features (B, features, h, w) -> colours (B, 3, h 2^scales, w 2^scales) in [0, 1].

    Kernels are 1x1 at the first scale and 3x3 behind, so that a colour depends on few pixels around it: the paper keeps
    them small, lest moving one object repaints another.
    """

    def __init__(self, features: int, scales: int = 1) -> None:
        super().__init__()
        channels = [max(8, features // 2**k) for k in range(scales + 1)]
        self.first = nn.Conv2d(features, channels[0], 1)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(channels))
        self.colors = nn.ModuleList(
            nn.Conv2d(c, 3, 1 if k == 0 else 3, padding=0 if k == 0 else 1) for k, c in enumerate(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(x), 0.2)
        color = self.colors[0](x)
        for conv, to_color in zip(self.convs, list(self.colors)[1:], strict=True):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
            color = F.interpolate(color, scale_factor=2, mode="bilinear", align_corners=False) + to_color(x)
        return torch.sigmoid(color)


def compose(densities: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Several objects at the same places as one: the sum of densities (K, ...), features (K, ..., M) by density.

    arXiv:2011.12100, eq. 8. Features are 0 where there is no density at all.
    """
    total = densities.sum(0)
    share = densities / total.clamp(min=1e-10)
    return total, (share[..., None] * features).sum(0)


def into_object(points: Tensor, placement: Tensor) -> Tensor:
    """Points (B, ..., 3) of the scene in an object's own cube. placement: (B, 5), see `PLACEMENT`."""
    shape = (len(placement), *[1] * (points.ndim - 2))
    moved = points - placement[:, :3].view(*shape, 3)
    cosine, sine = (f(placement[:, 4]).view(shape) for f in (torch.cos, torch.sin))
    x, y, z = moved.unbind(-1)
    turned = torch.stack([cosine * x + sine * y, cosine * y - sine * x, z], dim=-1)
    return turned / placement[:, 3].view(*shape, 1)


class FeatureField(nn.Module):
    """Rays (B, h, w, 8) of low-resolution images and placements (B, objects, 5) -> colours (B, 3, 2h, 2w).

    rays: see `opsin.render.radiance_field.RadianceField`; the middle of each of them is the middle of 2^scales x
    2^scales pixels. samples: of a ray. What no object stops is a learned feature, the background.
    """

    def __init__(
        self, objects: int = 2, *, features: int = 32, hidden: int = 64, samples: int = 32, scales: int = 1
    ) -> None:
        super().__init__()
        for name, value in (("objects", objects), ("features", features), ("samples", samples), ("scales", scales)):
            check_count(name, value)
        self.objects = nn.ModuleList(ObjectField(features, hidden) for _ in range(objects))
        self.background = nn.Parameter(torch.zeros(features))
        self.renderer, self.samples = NeuralRenderer(features, scales), samples

    def features_of(self, rays: Tensor, placements: Tensor, draws: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What rays integrate: features (B, M, h, w) and, of each object, its part of the light (B, K, h, w).

        draws: (B, h, w, samples) in [0, 1), for a training.
        """
        if placements.shape[1:] != (len(self.objects), PLACEMENT):
            raise InputError(
                f"placements are {tuple(placements.shape)}; expected (batch, {len(self.objects)}, {PLACEMENT}): x, y, "
                "z, half of the side, and the turn in radians"
            )
        t = stratified_samples(rays[..., 6], rays[..., 7], self.samples, draws)
        points = rays[..., None, :3] + t[..., None] * rays[..., None, 3:6]
        parts = [field(into_object(points, placements[:, k])) for k, field in enumerate(self.objects)]
        # A density is of the object's own cube, whose unit is `size` of the scene's.
        sizes = placements[:, :, 3].view(len(placements), -1, 1, 1, 1)
        densities = torch.stack([density for density, _ in parts]) / sizes.transpose(0, 1)
        total, features = compose(densities, torch.stack([feature for _, feature in parts]))
        end = (rays[..., 7] - t[..., -1]).clamp(min=1e-6)
        weights = density_weights(total, interval_lengths(t, rays[..., 3:6], end))
        seen = (weights[..., None] * features).sum(-2) + (1 - weights.sum(-1))[..., None] * self.background
        share = (weights * densities / total.clamp(min=1e-10)).sum(-1).transpose(0, 1)
        return seen.permute(0, 3, 1, 2), share

    def forward(self, rays: Tensor, placements: Tensor, draws: Tensor | None = None) -> dict[str, Tensor]:
        """{"color": (B, 3, H, W), "objects": (B, K, h, w), how much of each ray's light comes from each object}."""
        features, share = self.features_of(rays, placements, draws)
        return {"color": self.renderer(features), "objects": share}

    def loss(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean squared error of the colours. targets: {"color": (B, 3, H, W)}."""
        return {"color": (outputs["color"] - targets["color"]).square().mean()}


class TwoBalls:
    """Built-in scenes: a red ball and a blue cube-sided ball that stand anywhere on a plane, seen from one camera.

    Images of side x side pixels before white, shaded by a light from above, exact. `draw` gives placements, `render`
    the image of some.
    """

    colors = ((0.85, 0.2, 0.15), (0.15, 0.3, 0.85))

    def __init__(self, side: int = 32) -> None:
        self.side = side

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Placements (count, 2, 5): balls of half sides 0.3 to 0.4 in x, y from -0.9 to 0.9 that do not touch."""
        found: list[Tensor] = []
        while len(found) < count:
            place = torch.zeros(2, PLACEMENT)
            place[:, :2] = 1.8 * torch.rand(2, 2, generator=generator) - 0.9
            place[:, 3] = 0.3 + 0.1 * torch.rand(2, generator=generator)
            if (place[0, :2] - place[1, :2]).norm() > place[:, 3].sum() * 1.1:
                found.append(place)
        return torch.stack(found)

    def rays(self, side: int | None = None) -> Tensor:
        """(side, side, 8) from a camera above and before the plane."""
        from opsin.ops.cameras import focal_length, image_rays, look_at

        n = side or self.side
        pose = look_at(torch.tensor([0.0, -3.0, 2.6]), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
        focal = focal_length(math.radians(42), n)
        origins, directions = image_rays((n, n), pose, torch.tensor([focal, focal, n / 2, n / 2]))
        return torch.cat([origins, directions, torch.tensor([2.0, 6.0]).expand(n, n, 2)], dim=-1)

    def render(self, placements: Tensor) -> Tensor:
        """Colours (B, 3, side, side) in [0, 1] of placements (B, 2, 5)."""
        from opsin.ops.rays import intersect_sphere

        rays, images = self.rays(), []
        light = torch.tensor([0.3, -0.5, 0.81])
        for place in placements:
            image, nearest = torch.ones(self.side, self.side, 3), torch.full((self.side, self.side), math.inf)
            for ball, color in zip(place, self.colors, strict=True):
                near, _, met = intersect_sphere(rays[..., :3], rays[..., 3:6], ball[:3], float(ball[3]))
                normal = (rays[..., :3] + near[..., None] * rays[..., 3:6] - ball[:3]) / ball[3]
                shade = 0.35 + 0.65 * (normal @ light).clamp(min=0)
                first = met & (near < nearest)
                nearest = torch.where(first, near, nearest)
                image = torch.where(first[..., None], shade[..., None] * torch.tensor(color), image)
            images.append(image.permute(2, 0, 1))
        return torch.stack(images)

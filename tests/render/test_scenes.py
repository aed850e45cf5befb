"""Built-in scenes: what their closed forms say is held equal to marching along the rays in small steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from opsin import data
from opsin.errors import InputError
from opsin.ops.cameras import image_rays
from opsin.render import scenes


def rays(name: str, side: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    views = data.open(f"{name}_views:16", "render").splits["train"].kind
    pose, intrinsics = torch.tensor(views.poses[3]), torch.tensor(views.intrinsics[3]) * side / 16
    origins, directions = image_rays((side, side), pose, intrinsics)
    return origins.reshape(-1, 3), directions.reshape(-1, 3)


@pytest.mark.parametrize("name", list(scenes.SHAPES))
def test_depths_and_normals_are_those_of_the_distance(name: str) -> None:
    """The distance is 0 where a ray ends, positive before it, and its slope there is the normal."""
    origins, directions = rays(name)
    colours, opacity, depth, normals = scenes.trace(name, origins, directions)
    distance, met = scenes.scene_distance(name), opacity > 0
    assert 10 < int(met.sum()) < len(met) and torch.equal(met, depth.isfinite())
    points = origins[met] + depth[met, None] * directions[met]
    np.testing.assert_allclose(distance(points).numpy(), 0, atol=1e-9)
    shares = torch.linspace(0, 0.999, 400, dtype=torch.float64)
    before = origins[met] + (shares[:, None] * depth[met])[..., None] * directions[met]
    assert float(distance(before).min()) > 0
    just = (points - 1e-5 * directions[met]).requires_grad_()
    (slope,) = torch.autograd.grad(distance(just).sum(), just)
    smooth = (slope * normals[met]).sum(-1) > 0.99  # not on an edge, where two surfaces meet
    assert float(smooth.double().mean()) > 0.9
    missed = origins[~met] + torch.linspace(0, 8, 800, dtype=torch.float64)[:, None, None] * directions[~met]
    assert float(distance(missed).min()) > 0
    assert not colours[~met].any() and float(colours.max()) <= 1


def test_the_cloud_is_the_integral_of_its_density() -> None:
    origins, directions = rays("cloud", 6)
    colours, opacity, depth, _ = scenes.trace("cloud", origins, directions)
    t = torch.linspace(0, 8, 4001, dtype=torch.float64)
    density = scenes.CLOUD.density(origins[:, None] + t[:, None] * directions[:, None])
    step = (t[1] - t[0]) * directions.norm(dim=-1)
    taus = torch.cumulative_trapezoid(density, dx=1.0, dim=-1) * step[:, None]
    torch.testing.assert_close(opacity, 1 - torch.exp(-taus[:, -1]), atol=1e-8, rtol=0)
    torch.testing.assert_close(colours, opacity[:, None] * opacity.new_tensor(scenes.CLOUD.colour), atol=1e-12, rtol=0)
    seen = depth.isfinite()
    half = torch.searchsorted(taus[seen].contiguous(), torch.full((int(seen.sum()), 1), float(np.log(2))).double())
    assert seen.any() and float((t[half[:, 0] + 1] - depth[seen]).abs().max()) < 0.004


def test_views_are_built_in_and_know_their_depths() -> None:
    source = data.open("csg_views:24", "render")
    assert {key: len(split) for key, split in source.splits.items()} == {"train": 60, "val": 10, "test": 20}
    split = source.splits["test"]
    views = split.kind
    image, depth = split.read(2), views.depth(2)
    assert image.shape == (3, 24, 24) and depth.shape == (24, 24) and views.normals(2).shape == (24, 24, 3)
    assert bool((image[:, depth.isnan()] == 255).all())
    shown = depth[depth.isfinite()]
    assert views.near < float(shown.min()) and float(shown.max()) < views.far
    assert source.meaning["background"] == "white" and source.meaning["box"] == [[-2.0] * 3, [2.0] * 3]
    with pytest.raises(InputError, match="images of 4000 pixels; expected 8 to 1024"):
        data.open("csg_views:4000", "render")
    with pytest.raises(InputError, match="unknown scene with a surface 'cloud'"):
        scenes.scene_distance("cloud")

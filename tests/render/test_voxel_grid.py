"""The dense grid: its rays are the closed form of a constant grid, and it learns a scene."""

from __future__ import annotations

import math

import pytest
import torch

from opsin import data
from opsin.ops.cameras import image_rays
from opsin.render.voxel_grid import VoxelGrid, total_variation


def test_a_constant_grid_is_a_slab() -> None:
    model = VoxelGrid(box=(-1, -1, -1, 1, 1, 1), resolution=4, samples=16)
    with torch.no_grad():
        model.density.fill_(-model.shift)  # softplus(0) = log 2 a cell of 0.5
        model.colour[0, 0].fill_(100.0)  # red
        model.colour[0, 1:].fill_(-100.0)
    rays = torch.tensor([[0.0, -4, 0, 0, 2, 0, 0, 10], [0, -4, 0, 0, 2, 0, 2.0, 10], [5, -4, 0, 0, 2, 0, 0, 10]])
    with torch.no_grad():
        found = model(rays)
    whole, half = 1 - 2.0**-4, 1 - 2.0**-2  # the box is four cells long, from its middle two
    assert found["opacity"].tolist() == pytest.approx([whole, half, 0])
    assert found["color"].tolist() == [pytest.approx([1, 1 - one, 1 - one]) for one in (whole, half, 0)]
    assert float(found["depth"][2]) == 0 and 1.5 < float(found["depth"][0]) < 2
    start = VoxelGrid(box=(-1, -1, -1, 1, 1, 1), resolution=4)
    assert float(start(rays[:1])["opacity"].detach()) == pytest.approx(1 - (1 - 1e-4) ** 4, rel=1e-3)


def test_total_variation_by_hand() -> None:
    grid = torch.zeros(1, 1, 2, 2, 2)
    grid[0, 0, 1] = 3.0  # rises by 3 along the first axis alone
    assert float(total_variation(grid)) == 9
    model = VoxelGrid(resolution=2, tv=0.5)
    with torch.no_grad():
        model.density.copy_(grid)
    outputs = {"color": torch.zeros(1, 3)}
    assert {key: float(one) for key, one in model.loss(outputs, {"color": torch.ones(1, 3)}).items()} == {
        "color": 1.0,
        "tv": 4.5,
    }


def test_it_learns_a_scene_better_than_its_mean() -> None:
    torch.manual_seed(0)
    source = data.open("spheres_views:12", "render")
    rays, colours = {}, {}
    for key, count in (("train", 24), ("test", 6)):
        split = source.splits[key]
        views = split.kind
        parts = [image_rays((12, 12), *(torch.tensor(one[i]).float() for one in (views.poses, views.intrinsics)))
                 for i in range(count)]  # fmt: skip
        bounds = torch.tensor([views.near, views.far]).expand(12, 12, 2)
        rays[key] = torch.stack([torch.cat([*part, bounds], -1) for part in parts]).flatten(0, 2)
        colours[key] = torch.stack([split.read(i).permute(1, 2, 0).float() / 255 for i in range(count)]).flatten(0, 2)
    model = VoxelGrid(box=(-1, -1, -1, 1, 1, 1), resolution=16, samples=20, tv=1e-4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.3)
    for _ in range(80):
        chosen = torch.randint(len(rays["train"]), (256,))
        outputs = model(rays["train"][chosen], model.draw(256))
        optimizer.zero_grad()
        sum(model.loss(outputs, {"color": colours["train"][chosen]}).values(), torch.zeros(())).backward()
        optimizer.step()
    with torch.no_grad():
        error = (model(rays["test"])["color"] - colours["test"]).square().mean()
    floor = (colours["test"] - colours["train"].mean(0)).square().mean()
    assert -10 * math.log10(float(error)) > 4 - 10 * math.log10(float(floor))

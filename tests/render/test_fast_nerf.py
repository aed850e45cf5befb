"""The fast field: factored grids, packed rays and skipped space, each against a plain version."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from opsin.ops.compositing import density_weights
from opsin.ops.positional_encoding import encode_positions
from opsin.render.factored_field import FactoredGrid, Places, add_rows
from opsin.render.fast_nerf import FastNeRF
from opsin.render.occupancy_grid import OccupancyGrid
from opsin.render.ragged import ragged_weights, segment_sums


def small(**options: object) -> FastNeRF:
    torch.manual_seed(0)
    sizes = {"resolution": 12, "density_components": 3, "color_components": 2, "hidden": 8, "steps": 24, "cells": 8}
    return FastNeRF(box=(-1, -1, -1, 1, 1, 1), **{**sizes, **options})  # type: ignore[arg-type]


def rays_at(count: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    eyes = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 3
    along = 0.3 * torch.randn(count, 3, generator=generator) - eyes
    return torch.cat([eyes, along / 1.7, torch.tensor([0.1, 9.0]).expand(count, 2)], dim=1)


def test_a_factored_grid_is_planes_times_lines() -> None:
    grid, points = FactoredGrid(5, 2, gain=3.0), torch.rand(40, 3)
    planes, lines = grid.planes.detach().view(3, 5, 5, 2) * 3, grid.lines.detach().view(3, 5, 2) * 3
    whole = torch.stack([
        torch.einsum("xyc,zc->xyzc", planes[0], lines[0]),
        torch.einsum("xzc,yc->xyzc", planes[1], lines[1]),
        torch.einsum("yzc,xc->xyzc", planes[2], lines[2]),
    ])  # fmt: skip
    # A product of interpolations is the trilinear interpolation of the products.
    at = (2 * points - 1).flip(1).view(1, 1, 1, -1, 3)
    volume = whole.permute(0, 4, 1, 2, 3).reshape(1, 6, 5, 5, 5)
    expected = torch.nn.functional.grid_sample(volume, at, align_corners=True).view(3, 2, -1).transpose(1, 2)
    torch.testing.assert_close(grid.products(Places(points, 5)), expected, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_rows_is_that_of_indexing() -> None:
    table = torch.randn(7, 3, requires_grad=True)
    index, weight = torch.randint(7, (9, 4), dtype=torch.int32), torch.rand(9, 4)
    pull = torch.randn(9, 3)
    ((table[index.long()] * weight[..., None]).sum(1) * pull).sum().backward()
    torch.testing.assert_close(add_rows(pull, index, weight, 7), table.grad)
    wide = add_rows(pull.double(), index, weight.double(), 7)  # as on other devices
    torch.testing.assert_close(wide.float(), table.grad)


def test_packed_rays_are_padded_rays() -> None:
    counts, generator = [3, 0, 5, 1], torch.Generator().manual_seed(2)
    ray = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    optical = torch.rand(len(ray), generator=generator).double().requires_grad_()
    weight, _ = ragged_weights(optical, ray)
    sums = segment_sums(weight[:, None] * torch.arange(1.0, 3).double(), ray, 4)
    padded, start = torch.zeros(4, 5, dtype=torch.float64), 0
    for row, count in enumerate(counts):
        padded = padded.clone()
        padded[row, :count] = optical[start : start + count]
        start += count
    parts = density_weights(padded, torch.ones(4, 5, dtype=torch.float64))
    expected = parts.sum(1, keepdim=True) * torch.arange(1.0, 3).double()
    torch.testing.assert_close(sums, expected)
    pull = torch.rand(4, 2, generator=generator).double()
    (one,) = torch.autograd.grad((sums * pull).sum(), optical, retain_graph=True)
    (other,) = torch.autograd.grad((expected * pull).sum(), optical)
    torch.testing.assert_close(one, other)


def test_rays_march_through_filled_cells_only() -> None:
    grid = OccupancyGrid(torch.tensor([0.0, 0, 0]), torch.tensor([8.0, 8, 8]), resolution=8, steps=16)
    assert grid.step == 0.5 and grid.share == 1.0
    grid.highest.zero_()
    grid.highest[0] = grid.highest[7 * 64 + 7 * 8 + 7] = 1.0
    grid._filled = None
    assert int(grid.filled.sum()) == 16  # two corners, each with its neighbours
    origins = torch.tensor([[-1.0, 0.5, 0.5], [-1.0, 4.0, 4.0], [-1.0, 7.5, 7.5]])
    along = torch.tensor([[1.0, 0, 0]]).expand(3, 3)
    found = grid.march(origins, along, torch.zeros(3), torch.full((3,), 100.0), 0.5)
    assert found.ray.tolist() == [0] * 4 + [2] * 4
    assert found.t.tolist() == [1.25, 1.75, 2.25, 2.75, 7.25, 7.75, 8.25, 8.75]
    near = grid.march(origins, along, torch.full((3,), 8.0), torch.full((3,), 8.6), 0.5)
    assert near.ray.tolist() == [2] and near.t.tolist() == [8.25]


def test_a_look_keeps_the_densest_and_fades_the_rest() -> None:
    grid = OccupancyGrid(torch.zeros(3), torch.ones(3), resolution=4, steps=10)
    cells = torch.arange(64)
    grid.look(lambda points: (points[:, 0] > 0.5) * 50.0, cells, torch.full((64, 3), 0.5))
    first = grid.highest.clone()
    assert first[0] == 0 and float(first[-1]) == pytest.approx(1 - 2.718281828459045**-5)
    grid.highest[0] = 0.5
    for _ in range(30):
        grid.look(lambda points: (points[:, 0] > 0.5) * 50.0, cells, torch.full((64, 3), 0.5))
    solid = grid.highest.view(4, 4, 4)
    torch.testing.assert_close(solid[2:], torch.full_like(solid[2:], 1 - 2.718281828459045**-5))
    assert 0 < float(solid[0].max()) < grid.threshold and not grid.filled.view(4, 4, 4)[0].any()


@pytest.mark.parametrize("training", [True, False])
def test_what_rays_see_is_the_sum_along_them(training: bool) -> None:
    """Against a loop over rays and steps that skips nothing."""
    model, rays = small(reach=0.0, visible=0.0, start=0.2), rays_at(5)
    draws = model.draw(len(rays)) if training else None
    with torch.set_grad_enabled(training):
        found = model(rays, draws)
    step = model.grid.step
    for k in range(len(rays)):
        origin, along = rays[k, :3], rays[k, 3:6]
        unit = along / along.norm()
        first, second = (-1 - origin) / unit, (1 - origin) / unit
        near = max(float(torch.minimum(first, second).max()), 0.1 * float(along.norm()))
        far = float(torch.maximum(first, second).min())
        offset = 0.5 if draws is None else float(draws["jitter"][k])
        through, color, depth = 1.0, torch.zeros(3), 0.0
        t = near + offset * step
        while far > near and t < far:
            at = Places(((origin + t * unit + 1) / 2)[None], 12)
            alpha = 1 - float(torch.exp(-model.optical(at)).detach())
            color = color + through * alpha * model.colors(at, encode_positions(unit[None], 2))[0].detach()
            depth, through = depth + through * alpha * t, through * (1 - alpha)
            t += step
        torch.testing.assert_close(found["color"][k].detach(), color + through, rtol=1e-3, atol=1e-4)
        assert float(found["opacity"][k].detach()) == pytest.approx(1 - through, abs=1e-4)
        if through < 0.99:
            expected = depth / (1 - through) / float(along.norm())
            assert float(found["depth"][k].detach()) == pytest.approx(expected, rel=1e-3)


def test_it_learns_and_empties_its_space() -> None:
    """A dark ball before white: in 150 steps its rays are dark, those beside it white, and most cells are skipped."""
    torch.manual_seed(0)
    model = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    losses, rays = dict[str, torch.Tensor](), rays_at(200)
    for step in range(150):
        rays = rays_at(200)
        generator = torch.Generator().manual_seed(step)
        rays[:, 3:6] += 0.2 * torch.randn(200, 3, generator=generator)
        unit = torch.nn.functional.normalize(rays[:, 3:6], dim=-1)
        miss = torch.linalg.cross(rays[:, :3], unit, dim=-1).norm(dim=-1)
        truth = (miss > 0.5).float()[:, None].expand(-1, 3)
        model.prepare_step(step)
        losses = model.loss(model(rays, model.draw(200)), {"color": truth})
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    assert losses["color"].item() < 0.02
    assert model.grid.share < 0.85  # 8 cells a side, of which the ball and its neighbours are 6
    twin = small()
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(twin(rays)["color"], model(rays)["color"])

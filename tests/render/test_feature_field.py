"""Feature fields: the paper's composition, placements that move an object and nothing else, the built-in scenes."""

from __future__ import annotations

import pytest
import torch

from opsin.errors import InputError
from opsin.ops.cameras import project
from opsin.render.feature_field import FeatureField, NeuralRenderer, TwoBalls, compose, into_object


def test_densities_add_and_features_are_weighed() -> None:
    densities = torch.tensor([[1.0, 0.0, 0.0], [3.0, 2.0, 0.0]])
    features = torch.tensor([[[4.0], [9.0], [9.0]], [[8.0], [5.0], [9.0]]])
    total, feature = compose(densities, features)
    assert total.tolist() == [4.0, 2.0, 0.0] and feature.tolist() == [[7.0], [5.0], [0.0]]


def test_a_placement_moves_scales_and_turns() -> None:
    place = torch.tensor([[1.0, 2.0, 3.0, 0.5, torch.pi / 2]])
    points = torch.tensor([[[1.0, 2.0, 3.0], [1.5, 2.0, 3.0], [1.0, 2.5, 3.0], [1.0, 2.0, 2.5]]])
    expected = torch.tensor([[[0.0, 0, 0], [0, -1, 0], [1, 0, 0], [0, 0, -1]]])
    torch.testing.assert_close(into_object(points, place), expected, rtol=0, atol=1e-6)


def test_moving_one_object_leaves_rays_that_miss_it() -> None:
    torch.manual_seed(0)
    scene, model = TwoBalls(), FeatureField(2, features=8, hidden=16, samples=24)
    rays = scene.rays(16)[None]
    place = torch.tensor([[[-0.6, 0.0, 0.0, 0.3, 0.0], [0.6, 0.0, 0.0, 0.3, 0.0]]])
    moved = place.clone()
    moved[0, 1, :2] = torch.tensor([0.5, 0.5])
    with torch.no_grad():
        (before, first), (after, second) = model.features_of(rays, place), model.features_of(rays, moved)
    assert first.shape == (1, 2, 16, 16) and float(first[0, 0].max()) > 0.1 < float(first[0, 1].max())
    away = (first[0, 1] == 0) & (second[0, 1] == 0)
    assert 50 < int(away.sum()) < 256
    torch.testing.assert_close(before[0][:, away], after[0][:, away])
    assert not torch.allclose(before[0][:, ~away], after[0][:, ~away])


def test_the_loss_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    scene, model = TwoBalls(16), FeatureField(2, features=8, hidden=16, samples=12)
    places = scene.draw(2, torch.Generator().manual_seed(1))
    outputs = model(scene.rays(8).expand(2, 8, 8, 8), places, torch.rand(2, 8, 8, 12))
    assert outputs["color"].shape == (2, 3, 16, 16)
    model.loss(outputs, {"color": scene.render(places)})["color"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    with pytest.raises(InputError, match=r"expected \(batch, 2, 5\)"):
        model(scene.rays(8)[None], places[:1, :1])


def test_the_renderer_looks_at_few_pixels() -> None:
    renderer, x = NeuralRenderer(8, 1), torch.randn(1, 8, 8, 8)
    changed = x.clone()
    changed[0, :, 1, 1] += 1
    difference = (renderer(x) - renderer(changed))[0].abs().sum(0)
    rows, columns = torch.nonzero(difference, as_tuple=True)
    assert int(rows.max()) <= 6 and int(columns.max()) <= 6  # of pixels 2 and 3, with three around


def test_balls_are_drawn_where_they_are_projected() -> None:
    scene = TwoBalls(64)
    place = scene.draw(1, torch.Generator().manual_seed(2))
    image = scene.render(place)[0]
    from opsin.ops.cameras import focal_length, look_at

    pose = look_at(torch.tensor([0.0, -3.0, 2.6]), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    focal = focal_length(42 * torch.pi / 180, 64)
    for k, channel in ((0, 0), (1, 2)):
        pixel, _ = project(place[0, k, :3], pose, torch.tensor([focal, focal, 32.0, 32.0]))
        x, y = int(pixel[0]), int(pixel[1])
        assert int(image[:, y, x].argmax()) == channel
        strong = (image[channel] > 1.5 * image[2 - channel]).nonzero().float().mean(0) + 0.5
        assert (strong.flip(0) - pixel).norm() < 2.5

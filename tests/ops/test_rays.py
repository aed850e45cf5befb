"""Rays: boxes and spheres by hand, samples held equal to plain loops, the volume integral to its closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from opsin.errors import InputError
from opsin.ops import compositing, rays
from opsin.ops.positional_encoding import encode_positions, encoded_size

D = torch.float64


def test_a_box_from_outside_inside_behind_beside_and_along_its_faces() -> None:
    low, high = torch.tensor([-1.0, -1, -1]), torch.tensor([1.0, 1, 1])
    origins = torch.tensor([[-3.0, 0, 0], [0, 0, 0], [3, 0, 0], [-3, 2, 0], [-3, 0.5, 0.5], [0, 0, 5]])
    directions = torch.tensor([[2.0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, -0.0, -2]])
    near, far, met = rays.intersect_box(origins, directions, low, high)
    assert met.tolist() == [True, True, False, False, True, True]
    assert near.tolist() == [1, 0, 0, 0, 2, 2] and far.tolist() == [2, 1, 0, 0, 4, 3]


def test_a_sphere_from_outside_inside_behind_and_beside() -> None:
    origins = torch.tensor([[-3.0, 0, 0], [0, 0, 0], [3, 0, 0], [-3, 2, 0], [1e4, 0, 0]])
    directions = torch.tensor([[2.0, 0, 0], [0, 0, 4], [1, 0, 0], [1, 0, 0], [-1, 0, 0]])
    near, far, met = rays.intersect_sphere(origins, directions, torch.zeros(3), 1.0)
    assert met.tolist() == [True, True, False, False, True]
    torch.testing.assert_close(near, torch.tensor([1.0, 0, 0, 0, 9999]))
    torch.testing.assert_close(far, torch.tensor([2.0, 0.25, 0, 0, 10001]))


def test_stratified_samples_lie_one_in_each_interval() -> None:
    near, far = torch.tensor([2.0, 1.0], dtype=D), torch.tensor([6.0, 3.0], dtype=D)
    plain = rays.stratified_samples(near, far, 5)
    assert plain[0].tolist() == [2, 3, 4, 5, 6]
    draws = torch.rand(2, 5, generator=torch.Generator().manual_seed(0), dtype=D)
    found = rays.stratified_samples(near, far, 5, draws)
    edges = [2, 2.5, 3.5, 4.5, 5.5, 6]
    expected = [a + (b - a) * float(draw) for a, b, draw in zip(edges, edges[1:], draws[0], strict=False)]
    assert found[0].tolist() == pytest.approx(expected)
    inverse = rays.stratified_samples(near, far, 3, in_disparity=True)
    assert inverse[0].tolist() == pytest.approx([2, 3, 6])  # 1/3 lies between 1/2 and 1/6


def test_importance_samples_invert_the_distribution() -> None:
    generator = torch.Generator().manual_seed(4)
    edges = torch.sort(torch.rand(3, 9, generator=generator, dtype=D), dim=-1).values
    weights = torch.rand(3, 8, generator=generator, dtype=D) ** 3
    weights[1, 2:7] = 0
    draws = torch.rand(3, 50, generator=generator, dtype=D)
    found = rays.importance_samples(edges, weights, 50, draws)
    for row in range(3):
        share = (weights[row] + 1e-5) / (weights[row] + 1e-5).sum()
        steps = np.concatenate([[0], np.cumsum(share.numpy())])
        expected = np.interp(draws[row].numpy(), steps, edges[row].numpy())
        np.testing.assert_allclose(found[row].numpy(), expected, atol=2e-4)  # steps under 1e-5 are taken as points
        np.testing.assert_allclose(np.median(abs(found[row].numpy() - expected)), 0, atol=1e-12)
    ends = rays.importance_samples(edges, weights, 4)
    torch.testing.assert_close(ends[:, [0, -1]], edges[:, [0, -1]])


def test_hierarchical_samples_are_in_order_and_without_gradient() -> None:
    places = torch.linspace(2, 6, 17, dtype=D, requires_grad=True)
    weights = torch.zeros(17, dtype=D).index_fill(0, torch.tensor([8]), 1.0).requires_grad_()
    found = rays.hierarchical_samples(places, weights, 32)
    assert found.shape == (49,) and not found.requires_grad
    assert (found.diff() >= 0).all()
    # all but the ends of the new ones are between the middles about the one place that weighs: 4 +- 1/8
    assert int(((found > 3.875 - 1e-3) & (found < 4.125 + 1e-3)).sum()) == 31  # 30 of the new, 1 of the old


def test_a_constant_slab_lets_exp_of_minus_sigma_l_through() -> None:
    for sigma, length in ((0.7, 3.0), (1e-7, 1.0), (40.0, 2.0)):
        for pieces in (1, 7, 100):
            places = torch.linspace(0, length, pieces + 1, dtype=D)[:-1]
            lengths = compositing.interval_lengths(places, end=length / pieces)
            densities = torch.full((pieces,), sigma, dtype=D)
            weights = compositing.density_weights(densities, lengths)
            assert float(weights.sum()) == pytest.approx(-math.expm1(-sigma * length), rel=1e-12)
            assert float(compositing.transmittances(densities, lengths)[-1]) == pytest.approx(
                math.exp(-sigma * length * (pieces - 1) / pieces), rel=1e-12
            )


def plain_composite(densities: list[float], colours: list[list[float]], lengths: list[float]) -> list[float]:
    """Eq. 3 of the paper as it stands: C = sum T_i (1 - exp(-sigma_i d_i)) c_i, T_i = exp(-sum_(j<i) sigma_j d_j)."""
    seen = [0.0, 0.0, 0.0]
    for i in range(len(densities)):
        through = math.exp(-sum(densities[j] * lengths[j] for j in range(i)))
        for channel in range(3):
            seen[channel] += through * (1 - math.exp(-densities[i] * lengths[i])) * colours[i][channel]
    return seen


def test_compositing_is_the_papers_sum_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(5)
    densities = torch.rand(4, 12, generator=generator, dtype=D) * 3
    colours = torch.rand(4, 12, 3, generator=generator, dtype=D)
    places = torch.sort(torch.rand(4, 12, generator=generator, dtype=D) * 4 + 2, dim=-1).values
    directions = torch.randn(4, 3, generator=generator, dtype=D)
    lengths = compositing.interval_lengths(places, directions, end=0.5)
    weights = compositing.density_weights(densities, lengths)
    seen = compositing.composite(weights, colours, places, background=1.0)
    for row in range(4):
        length = float(directions[row].norm())
        gaps = [*(b - a for a, b in zip(places[row].tolist(), places[row].tolist()[1:], strict=False)), 0.5]
        expected = plain_composite(densities[row].tolist(), colours[row].tolist(), [gap * length for gap in gaps])
        rest = 1 - float(seen.opacity[row])
        assert seen.values[row].tolist() == pytest.approx([value + rest for value in expected], abs=1e-12)
    torch.testing.assert_close(compositing.alpha_weights(compositing.opacities(densities, lengths)), weights)

    def colour(*given: torch.Tensor) -> torch.Tensor:
        return compositing.composite(compositing.density_weights(given[0], lengths), given[1], places).values

    assert torch.autograd.gradcheck(colour, (densities.requires_grad_(), colours.requires_grad_()))


def test_what_is_in_front_hides_what_is_behind() -> None:
    red_first = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    lengths, places = torch.tensor([1.0, 1.0]), torch.tensor([2.0, 3.0])
    solid = compositing.density_weights(torch.tensor([1e4, 1e4]), lengths)
    seen = compositing.composite(solid, red_first, places, background=torch.tensor([0.0, 0, 1]))
    assert seen.values.tolist() == [1, 0, 0] and float(seen.depth) == 2
    clear = compositing.density_weights(torch.tensor([0.0, 1e4]), lengths)
    seen = compositing.composite(clear, red_first, places)
    assert seen.values.tolist() == [0, 1, 0] and float(seen.depth) == 3
    nothing = compositing.composite(torch.zeros(2), red_first, places, background=torch.tensor([0.0, 0, 1]))
    assert nothing.values.tolist() == [0, 0, 1] and float(nothing.opacity) == 0 and float(nothing.depth) == 0


def test_gradient_of_a_slab_is_its_derivative() -> None:
    """d/d sigma of 1 - exp(-sigma L) is L exp(-sigma L): not 0 for a density of 0, and finite for the last interval."""
    sigma = torch.tensor([0.0], dtype=D, requires_grad=True)
    compositing.density_weights(sigma, torch.tensor([2.5], dtype=D)).sum().backward()
    assert sigma.grad is not None and float(sigma.grad) == pytest.approx(2.5)
    places = torch.tensor([2.0, 3.0])
    last = torch.tensor([0.5, 1.0], requires_grad=True)
    compositing.density_weights(last, compositing.interval_lengths(places)).sum().backward()
    assert last.grad is not None and torch.isfinite(last.grad).all()


def test_positions_are_encoded_as_published() -> None:
    points = torch.tensor([[0.1, -0.7, 0.4]], dtype=D)
    plain = list(points[0].tolist())
    for level in range(4):
        for wave in (math.sin, math.cos):
            plain += [wave(2**level * value) for value in points[0].tolist()]
    assert encode_positions(points, 4)[0].tolist() == pytest.approx(plain)
    bare = [wave(math.pi * 2**level * value) for level in range(2) for wave in (math.sin, math.cos)
            for value in points[0].tolist()]  # fmt: skip
    assert encode_positions(points, 2, identity=False, pi=True)[0].tolist() == pytest.approx(bare)
    assert (encoded_size(3, 10), encoded_size(3, 4), encoded_size(3, 10, identity=False)) == (63, 27, 60)
    assert encode_positions(points, 0).tolist() == points.tolist() and encode_positions(points, 10).shape == (1, 63)
    with pytest.raises(InputError, match="frequencies must be a whole number of at least 1, got 0"):
        encode_positions(points, 0, identity=False)

"""Heat maps: drawn by the formula, read back to where they were drawn, and their divergence by torch's own."""

from __future__ import annotations

import math

import pytest
import torch

from opsin.ops.heatmaps import (
    draw_gaussians,
    expected_places,
    local_argmax,
    map_divergence,
    normalize_maps,
    soft_argmax,
)


def test_a_gaussian_by_its_formula() -> None:
    (drawn,) = draw_gaussians(torch.tensor([[2.5, 1.0]]), (4, 6), 1.5)
    for row in range(4):
        for column in range(6):
            squared = (column + 0.5 - 2.5) ** 2 + (row + 0.5 - 1.0) ** 2
            assert drawn[row, column].item() == pytest.approx(math.exp(-squared / 4.5), abs=1e-6)
    assert not draw_gaussians(torch.tensor([[math.nan, 1.0]]), (4, 6)).any()


@pytest.mark.parametrize("place", [(9.5, 7.5), (9.13, 7.81), (5.02, 11.4)])
def test_what_was_drawn_is_read_at_its_place(place: tuple[float, float]) -> None:
    wanted = torch.tensor([place], dtype=torch.float64)
    drawn = draw_gaussians(wanted, (24, 20), 1.5)
    for found, spread in (expected_places(normalize_maps(drawn)), soft_argmax((drawn + 1e-30).log())):
        assert torch.allclose(found, wanted, atol=0.01) and spread.item() == pytest.approx(1.5 * 2**0.5, abs=0.05)
    assert torch.allclose(local_argmax(drawn, 3.0)[0], wanted, atol=0.12)


def test_a_second_peak_moves_the_mean_and_not_the_largest() -> None:
    one, other = draw_gaussians(torch.tensor([[4.5, 4.5], [15.5, 15.5]], dtype=torch.float64), (20, 20), 1.0)
    both = (one + 0.6 * other)[None]
    assert torch.allclose(local_argmax(both)[0], torch.tensor([[4.5, 4.5]], dtype=torch.float64), atol=1e-6)
    assert expected_places(normalize_maps(both))[0][0, 0] > 7


def test_maps_without_anything_give_finite_places() -> None:
    for found, spread in (local_argmax(torch.zeros(1, 5, 7)), local_argmax(torch.full((1, 5, 7), -3.0))):
        assert torch.isfinite(found).all() and torch.isfinite(spread).all()
    assert torch.allclose(soft_argmax(torch.zeros(1, 5, 7))[0], torch.tensor([[3.5, 2.5]]))


def test_the_divergence_is_torchs_and_its_slope_is_the_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    wanted = normalize_maps(draw_gaussians(torch.rand(2, 3, 2, generator=generator).double() * 4, (5, 4), 1.0))
    found = map_divergence(logits, wanted)
    log_shares = logits.flatten(-2).log_softmax(-1)
    plain = torch.nn.functional.kl_div(log_shares, wanted.flatten(-2), reduction="none").sum(-1)
    assert torch.allclose(found, plain)
    found.sum().backward()
    assert torch.allclose(logits.grad, log_shares.exp().unflatten(-1, (5, 4)) - wanted)  # type: ignore[arg-type]

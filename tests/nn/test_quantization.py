"""Rounding to few bits, against a plain version and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from opsin.errors import InputError
from opsin.nn.quantization import quantized, round_to_grid


def plainly(x: np.ndarray, low: float, high: float, bits: int) -> np.ndarray:
    """Equations 1 and 13 of the paper, number by number: q = round(x / S) + Z, clamped; r = S (q - Z)."""
    low, high = min(low, 0), max(high, 0)
    scale = (high - low) / (2**bits - 1)
    zero = round(-low / scale)
    return np.array([scale * (min(max(round(float(v) / scale) + zero, 0), 2**bits - 1) - zero) for v in x])


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 6.0), (-2.0, -0.5)])
def test_the_grid(low: float, high: float) -> None:
    x = np.random.default_rng(0).uniform(-4, 7, 200).astype(np.float32)
    for bits in (2, 8):
        found = round_to_grid(torch.from_numpy(x), low, high, bits).numpy()
        assert found == pytest.approx(plainly(x, low, high, bits), abs=1e-5)
        assert len(np.unique(found)) <= 2**bits
    assert round_to_grid(torch.zeros(1), low, high).item() == 0  # padding stays exact


def test_by_hand() -> None:
    # Two bits from 0 to 6: 0, 2, 4, 6.
    assert round_to_grid(torch.tensor([0.9, 1.1, 2.9, 5.5, 9.0]), 0, 6, 2).tolist() == [0, 2, 2, 6, 6]
    assert round_to_grid(torch.zeros(2), 0, 0).tolist() == [0, 0]


def test_a_network_within_and_after() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    x, before = torch.randn(3, 1, 8, 8), [p.clone() for p in model.parameters()]
    plain = model(x)
    with quantized(model, lambda: model(x), bits=4):
        coarse = model(x)
        assert len(model[0].weight.unique()) <= 16 and len(model[1](model[0](x)).unique()) <= 16
        assert torch.equal(model[0].bias, before[1])
        # the same, written out
        weights = [round_to_grid(w, float(w.min()), float(w.max()), 4) for w in (before[0], before[2])]
        first = nn.functional.conv2d(x, before[0], before[1])
        ranges = [(float(m.min()), float(m.max())) for m in (first, first.relu(), plain)]
        y = round_to_grid(nn.functional.conv2d(x, weights[0], before[1]), *ranges[0], 4)
        y = round_to_grid(round_to_grid(y.relu(), *ranges[1], 4), *ranges[1], 4).flatten(1)
        assert torch.allclose(coarse, round_to_grid(y @ weights[1].T + before[3], *ranges[2], 4), atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert torch.equal(model(x), plain) and not torch.allclose(coarse, plain, atol=1e-3)
    with quantized(model, lambda: model(x), bits=16):
        assert torch.allclose(model(x), plain, atol=1e-3)


def test_bits_are_checked() -> None:
    for bits in (1, 32):
        with (
            pytest.raises(InputError, match=f"bits is {bits}; take from 2 to 16"),
            quantized(nn.ReLU(), lambda: 0, bits),
        ):
            pass

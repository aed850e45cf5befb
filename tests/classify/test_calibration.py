"""Temperature scaling: it finds a known temperature, never makes validation worse, and survives degenerate data."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.classify.calibration import fit_temperature
from opsin.classify.metrics import calibration_of, expected_calibration_error
from opsin.losses import binary_cross_entropy


def calibrated(rows: int = 20_000, classes: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits whose softmax is the distribution that the labels are drawn from."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial(torch.softmax(logits, dim=1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("true", [0.25, 1.0, 1.7, 6.0])
class TestKnownTemperature:
    def test_is_found(self, true: float) -> None:
        logits, labels = calibrated()
        assert fit_temperature(logits * true, labels) == pytest.approx(true, rel=0.02)

    def test_is_found_for_multi_label(self, true: float) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = 2 * torch.randn(5_000, 4, generator=generator)
        labels = (torch.rand(logits.shape, generator=generator) < torch.sigmoid(logits)).float()
        assert fit_temperature(logits * true, labels, multi_label=True) == pytest.approx(true, rel=0.05)

    def test_is_the_minimum_on_a_grid(self, true: float) -> None:
        logits, labels = calibrated(500)
        logits = logits * true
        found = fit_temperature(logits, labels)
        best = F.cross_entropy(logits / found, labels)
        for other in torch.logspace(math.log10(0.05), math.log10(20), 200).tolist():
            assert best <= F.cross_entropy(logits / other, labels) + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_validation_nll_never_rises(seed: int) -> None:
    """Few examples, random truth, logits of any scale."""
    generator = torch.Generator().manual_seed(seed)
    rows, classes = 2 + seed, 2 + seed % 4
    scale = 10 ** (2 * torch.rand(1, generator=generator) * 2 - 2)
    logits = torch.randn(rows, classes, generator=generator) * scale
    labels = torch.randint(0, classes, (rows,), generator=generator)
    temperature = fit_temperature(logits, labels)
    before, after = F.cross_entropy(logits, labels), F.cross_entropy(logits / temperature, labels)
    assert after <= before * (1 + 1e-6)
    hot = F.one_hot(labels, classes).float()
    temperature = fit_temperature(logits, hot, multi_label=True)
    assert binary_cross_entropy(logits / temperature, hot) <= binary_cross_entropy(logits, hot) * (1 + 1e-6)


def test_calibration_improves_ece() -> None:
    logits, labels = calibrated(4_000)
    over_confident = logits * 3
    temperature = fit_temperature(over_confident, labels)
    before = expected_calibration_error(calibration_of(torch.softmax(over_confident, 1), labels))
    after = expected_calibration_error(calibration_of(torch.softmax(over_confident / temperature, 1), labels))
    assert after < 0.03 < 0.1 < before


HUGE = torch.tensor([[1e30, -1e30], [-1e30, 1e30]])


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 1.0),
        (torch.randn(4, 3), torch.full((4,), -1), 1.0),
        (torch.tensor([[5.0, 1.0], [1.0, 5.0]]), torch.tensor([0, 1]), 1.0),
        (HUGE, torch.tensor([0, 1]), 1.0),
        (HUGE, torch.tensor([1, 0]), 20.0),
        (torch.tensor([[math.inf, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), 1.0),
        (torch.tensor([[math.nan, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), 1.0),
        (torch.tensor([[2.0, 1.0]]), torch.tensor([0]), 1.0),
        (torch.tensor([[2.0, 1.0]]), torch.tensor([1]), 20.0),
        (torch.zeros(5, 3), torch.tensor([0, 1, 2, 0, 1]), 1.0),
        (torch.randn(3, 1), torch.zeros(3, dtype=torch.long), 1.0),
        (1e-4 * torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1, 1]), 0.05),
    ],
    ids=[
        "no examples",
        "no labels",
        "all right",
        "all right and certain",
        "all wrong and certain",
        "infinite",
        "nan",
        "one right",
        "one wrong",
        "constant",
        "one class",
        "tiny logits",
    ],
)
def test_degenerate_data(logits: Tensor, labels: Tensor, expected: float) -> None:
    assert fit_temperature(logits, labels) == expected


def test_degenerate_multi_label() -> None:
    right = torch.tensor([[3.0, -2.0], [0.0, -1.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert fit_temperature(right, labels, multi_label=True) == 1.0
    assert fit_temperature(right[:1], 1 - labels[:1], multi_label=True) == 20.0
    assert fit_temperature(right, torch.full((2, 2), -1.0), multi_label=True) == 1.0


def test_unlabelled_examples_are_left_out() -> None:
    logits, labels = calibrated(200)
    padded = torch.cat([logits * 2, 100 * torch.ones(3, 10)])
    expected = fit_temperature(logits * 2, labels)
    assert fit_temperature(padded, torch.cat([labels, torch.full((3,), -1)])) == pytest.approx(expected)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = calibrated(1_000)
    whole = fit_temperature(logits * 2, labels)
    monkeypatch.setattr("opsin.classify.calibration._ROWS", 37)
    assert fit_temperature(logits * 2, labels) == pytest.approx(whole, rel=1e-6)

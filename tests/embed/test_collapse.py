"""How embeddings lie, by hand, and that a training whose embeddings have collapsed is stopped in words."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from opsin.embed.collapse import CollapsedError, EmbeddingHistory, measure_spread, within_between
from opsin.engine.report import Figure

LABELS = torch.tensor([0, 0, 1, 1])


def test_spread_by_hand() -> None:
    """A square of side 2: identities left and right."""
    x = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    found = measure_spread(x, LABELS)
    assert found.deviation == pytest.approx(1)  # their mean is the origin
    assert found.effective_rank == pytest.approx(2)  # two directions alike
    assert found.same == pytest.approx(2)
    assert found.different == pytest.approx((2 + 2 + 8**0.5 * 2) / 4)
    assert found.active == 0  # 2 - 2: no anchor has another strictly nearer than its own
    assert measure_spread(x, LABELS, margin=0.1).active == 1
    assert found.within_between == pytest.approx(1 / 2)


def test_effective_rank_of_a_line_is_one() -> None:
    x = torch.arange(4.0)[:, None] * torch.tensor([3.0, 1, 2]) + 5
    assert measure_spread(x, LABELS).effective_rank == pytest.approx(1, abs=1e-4)


def test_within_between_has_no_say_of_single_images() -> None:
    assert within_between(torch.rand(3, 2), torch.tensor([0, 0, 1])) is None


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_two_collapsed_epochs_end_a_training(tmp_path: Path, scale: float) -> None:
    """At one place far from the origin, or at the origin itself."""
    history, noise = EmbeddingHistory(tmp_path), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    history.add(1, torch.randn(4, 3), LABELS, 0.2)
    history.add(2, scale * (1 + 1e-5 * noise), LABELS, 0.2)
    resumed = EmbeddingHistory(tmp_path)
    with pytest.raises(CollapsedError, match=r"collapsed: after epoch 3 .* Lower optim.lr .*semi_hard"):
        resumed.add(3, scale * (1 + 1e-5 * noise), LABELS, 0.2)


def test_small_embeddings_that_tell_apart_have_not_collapsed(tmp_path: Path) -> None:
    history, x = EmbeddingHistory(tmp_path), torch.tensor([[0.0, 0.01], [0, 0.012], [0.01, 0], [0.012, 0]])
    for epoch in (1, 2, 3):
        history.add(epoch, x, LABELS, 0.2)


def test_embeddings_of_two_numbers_are_animated(tmp_path: Path) -> None:
    history = EmbeddingHistory(tmp_path)
    for epoch in (1, 2, 3):
        history.add(epoch, torch.randn(60, 2), torch.arange(60) % 10, 0.0)
    figure = EmbeddingHistory(tmp_path)
    figure.load(4)
    *_, last = figure.sections()
    assert isinstance(last, Figure)
    with Image.open(io.BytesIO(last.image)) as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]

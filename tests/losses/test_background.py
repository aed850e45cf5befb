"""The focal loss of a dense detector against the plain one, in number and gradient."""

from __future__ import annotations

import pytest
import torch

from opsin.errors import InputError
from opsin.losses import background, focal_loss
from opsin.losses.background import detection_focal_loss


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.9, 1.5), (0.0, 1.0)])
@pytest.mark.parametrize("chunk", [7, 1 << 16])
def test_it_is_the_focal_loss(alpha: float, gamma: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    hits = torch.tensor([0, 0, 1]), torch.tensor([1, 4, 5]), torch.tensor([2, 0, 1])
    weight = torch.rand(2, 6, generator=generator, dtype=torch.float64)
    weight[0, 3] = 0
    targets = torch.zeros_like(logits)
    targets[hits] = 1
    expected = (focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction="none").sum(-1) * weight).sum()
    found = detection_focal_loss(logits, hits, weight, alpha=alpha, gamma=gamma)
    assert torch.allclose(found, expected)
    one, other = (torch.autograd.grad(2 * loss, logits)[0] for loss in (found, expected))
    assert torch.allclose(one, other)


def test_certain_logits_stay_finite() -> None:
    logits = torch.tensor([[[-1e4, 1e4, 0.0]]], requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    loss = detection_focal_loss(logits, (none, none, none), torch.ones(1, 1))
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()
    assert float(loss.detach()) == pytest.approx(0.75e4, rel=1e-4)


def test_half_precision_and_no_places() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    loss = detection_focal_loss(torch.zeros(1, 2, 3, dtype=torch.bfloat16), (none, none, none), torch.ones(1, 2))
    assert loss.dtype == torch.float32
    assert float(detection_focal_loss(torch.zeros(2, 0, 3), (none, none, none), torch.ones(2, 0))) == 0


def test_errors() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(InputError, match="alpha"):
        detection_focal_loss(torch.zeros(1, 2, 3), (none, none, none), torch.ones(1, 2), alpha=1.5)

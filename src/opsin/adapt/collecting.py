"""Features and answers of a network over a whole split, in the order of the split, without gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from opsin.adapt.features import look
from opsin.backbones.backbone import logits_of
from opsin.data import Split
from opsin.data.loading import create_loader

if TYPE_CHECKING:
    from opsin.engine.predict import Predictor


@torch.no_grad()
def collect(predictor: Predictor, split: Split, batch_size: int = 64, workers: int = 0) -> tuple[Tensor, Tensor]:
    """Of each example its features (N, D) and logits (N, K), float32 on the CPU; the network is in eval mode for it."""
    model: Any = predictor.model
    training = model.training
    model.eval()
    features, logits = [], []
    for batch in create_loader(split, predictor.preprocessing, batch_size=batch_size, workers=workers):
        seen, outputs = look(model, *predictor.inputs(batch))
        features.append(seen.float().cpu())
        logits.append(logits_of(outputs).float().cpu())
    model.train(training)
    return torch.cat(features), torch.cat(logits)

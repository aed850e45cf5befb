"""Evaluation of embedders: how well distances tell the same identity from another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from opsin.engine.evaluator import Evaluator, Result
from opsin.structures import Batch


class EmbedEvaluator(Evaluator):
    """Collects decoded embeddings and identities, on the CPU in float32."""

    def update(self, outputs: Any, batch: Batch) -> None:
        embeddings = self.predictor.model.decode(outputs).float().cpu()
        logits = outputs["logits"].float().cpu() if "logits" in outputs else [None] * len(embeddings)
        places = batch["index"].tolist()
        self.collect(places, list(zip(embeddings, batch["identity"].tolist(), logits, strict=True)))

    def gathered(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Embeddings (N, D), identities (N,), and logits (N, K) where the network classifies; in the split's order."""
        embeddings, identities, logits = zip(*self.collected(), strict=True)
        found = None if logits[0] is None else torch.stack(list(logits))
        return torch.stack(list(embeddings)), torch.tensor(identities), found

    def brief(self) -> dict[str, float]:
        return self.result().metrics

    def result(self) -> Result:
        embeddings, identities, logits = self.gathered()
        metrics: dict[str, float] = {}
        first, second = torch.triu_indices(len(identities), len(identities), 1)
        distances = self.predictor.model.distances(embeddings, embeddings)[first, second]
        same = identities[first] == identities[second]
        if same.any() and not same.all():
            order = distances.argsort()
            ranks = torch.empty_like(distances).scatter_(0, order, torch.arange(len(order), dtype=distances.dtype))
            positive, negative = int(same.sum()), int((~same).sum())
            above = ranks[~same].double().sum() - negative * (negative - 1) / 2
            metrics["auc"] = float(above / (positive * negative))
        if logits is not None and self.predictor.classes:
            metrics["accuracy"] = float((logits.argmax(dim=1) == identities).double().mean())
        return Result(metrics, {"images": len(identities)})

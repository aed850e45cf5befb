"""Evaluation of networks that count."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from opsin.data import Split
from opsin.engine.evaluator import Evaluator, Result
from opsin.engine.report import Gallery, GalleryItem, Section


class DotsEvaluator(Evaluator):
    """Collects counts and their truth."""

    def update(self, outputs: Tensor, batch: Any) -> None:
        self.collect(batch["index"].tolist(), list(zip(outputs.tolist(), batch["count"].tolist(), strict=True)))

    def brief(self) -> dict[str, float]:
        counts, truth = torch.tensor(self.collected()).T
        return {"loss": float(F.smooth_l1_loss(counts, truth)), "mae": float((counts - truth).abs().mean())}

    def result(self) -> Result:
        return Result(self.brief(), {"counts": [count for count, _ in self.collected()]}, self.collected())

    def sections(self, result: Result, split: Split) -> list[Section]:
        worst = sorted(range(len(split)), key=lambda i: -abs(result.evidence[i][0] - result.evidence[i][1]))[:8]
        captions = [f"{result.evidence[i][0]:.1f}\nof {result.evidence[i][1]:g}" for i in worst]
        items = [GalleryItem(split.read(i), caption) for i, caption in zip(worst, captions, strict=True)]
        return [Gallery("Furthest off", items)]

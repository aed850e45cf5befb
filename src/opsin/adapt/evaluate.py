"""Evaluation of adapted classifiers: as any classifier's where labels are, by what needs none where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from opsin import rooms
from opsin.adapt import selection
from opsin.adapt.domains import TARGET
from opsin.engine.predict import Predictor
from opsin.structures import Batch

_CLASSIFIED: Any = rooms.load(rooms.find_room("classify").evaluates or "")


class AdaptEvaluator(_CLASSIFIED):
    """Of the labelled images a classifier's evaluation; of the target's what `opsin.adapt.selection` makes of them.

    train: features (N, D) of the sources' training images, by which dev weighs those of validation, or None.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        self.rows: list[tuple[Tensor, ...]] = []  # of all: logits, labels, domains, places, and features if there
        self.train: Tensor | None = None

    def update(self, outputs: Any, batch: Batch) -> None:
        fields: Any = batch
        if "domain" not in fields:
            super().update(outputs, batch)
            return
        found: dict[str, Tensor] = {"logits": outputs} if isinstance(outputs, Tensor) else outputs
        features, logits = found.get("features"), found["logits"]
        row = [logits.float(), fields["label"], fields["domain"], fields["index"]]
        row += [] if features is None else [features.float()]
        self.rows.append(tuple(one.detach().cpu() for one in row))
        known = fields["label"].cpu() >= 0
        if bool(known.any()):
            kept = {key: fields[key].cpu()[known] for key in ("label", "index")}
            super().update(logits.cpu()[known], kept)

    def state(self) -> Any:
        return super().state(), self.rows

    def merge(self, states: Sequence[Any]) -> None:
        super().merge([state for state, _ in states])
        self.rows = [row for _, rows in states for row in rows]

    def unsupervised(self) -> dict[str, float]:
        """entropy, snd and, where features were kept, dev; those that the target's images allow."""
        if not self.rows:
            return {}
        columns = [torch.cat(column) for column in zip(*self.rows, strict=True)]
        order = columns[3].argsort()
        logits, labels, domains, _, *rest = (column[order] for column in columns)
        target = domains == TARGET
        if not bool(target.any()):
            return {}
        answers = logits[target].softmax(dim=1)
        found = {"entropy": selection.mean_entropy(answers)}
        if len(answers) > 1:
            found["snd"] = selection.neighbourhood_density(answers)
        known = ~target & (labels >= 0)
        if rest and self.train is not None and bool(known.any()):
            losses = torch.nn.functional.cross_entropy(logits[known], labels[known], reduction="none")
            found["dev"] = selection.deep_embedded_validation(self.train, rest[0][target], rest[0][known], losses)
        return found

    def brief(self) -> dict[str, float]:
        return {**super().brief(), **self.unsupervised()}

"""Training, use and evaluation of what takes rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.engine.evaluator import Evaluator, Result
from opsin.engine.predict import Predictor
from opsin.engine.task import Task
from opsin.errors import InputError


class RowsTask(Task):
    """Trains without images."""

    def targets(self, batch: Any) -> Tensor:
        return batch["value"]


class RowsPredictor(Predictor):
    """Answers for a row: an array, or a text file of one."""

    key = "row"

    def find(self, inputs: Sequence[str | Path]) -> list[Path]:
        return [Path(given) for given in inputs]

    def read(self, given: Any) -> Tensor:
        try:
            row = np.loadtxt(given, np.float32, delimiter=",") if isinstance(given, str | Path) else given
        except (OSError, ValueError) as error:
            raise InputError(f"{given} is no row of numbers: {error}") from None
        return torch.as_tensor(row, dtype=torch.float32)

    def answers(
        self, outputs: Tensor, sizes: Sequence[tuple[int, int]], originals: Sequence[Any], **options: Any
    ) -> list[dict[str, Any]]:
        return [{"value": value} for value in outputs.tolist()]


class RowsEvaluator(Evaluator):
    """The root of the mean squared error."""

    def update(self, outputs: Tensor, batch: Any) -> None:
        self.collect(batch["index"].tolist(), ((outputs.cpu() - batch["value"].cpu()) ** 2).tolist())

    def brief(self) -> dict[str, float]:
        mean = float(np.mean(self.collected()))
        return {"loss": mean, "rmse": mean**0.5}

    def result(self) -> Result:
        return Result(self.brief())

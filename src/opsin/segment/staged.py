"""The staged training of an FCN: at stride 32 first, then with each finer skip, from what the stage before has learned.

Shelhamer et al. 2016, arXiv:1605.06211, section 4.3: new score layers start at zero, so that a stage begins with the
answers of the one before. The release lowers the rate a hundredfold from stage to stage; here each has the recipe's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from opsin.engine.task import Stage, average_state
from opsin.segment.fcn import FCN


def staged(model: FCN) -> Sequence[Stage]:
    """A stage for each level of the network, the coarsest first: "32s", "16s", "8s"."""
    levels = sorted(map(int, model.scores), reverse=True)
    return [Stage(f"{level}s", _training_at(level)) for level in levels]


def _training_at(level: int) -> Any:
    def run(place: Any) -> Mapping[str, Tensor]:
        model: FCN = place.task.model
        model.hold_at(level)
        try:
            place.train(place.splits)
        finally:
            model.hold_at(None)
        return average_state(model)

    return run

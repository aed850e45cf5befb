"""Maximum classifier discrepancy: two classifiers look for images that they disagree on, features bring them together.

Saito et al. 2018, "Maximum classifier discrepancy for unsupervised domain adaptation" (MCD), arXiv:1712.02560.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.adapt.method import Method
from opsin.errors import InputError
from opsin.structures import Batch

if TYPE_CHECKING:
    from opsin.engine.task import Update


def classifier_discrepancy(one: Tensor, other: Tensor) -> Tensor:
    """d(p1, p2) = (1 / K) sum_k |p1_k - p2_k|, averaged over examples. MCD, eq. 2. one, other: (B, K) probabilities."""
    return (one - other).abs().mean()


class MCD(Method):
    """Two classifiers are driven apart on the target's images, then the features change until they agree.

    Of each batch: (A) features and both classifiers lower the classification loss of the sources; (B) the classifiers
    alone lower that less the discrepancy on the target; (C) the features alone lower the discrepancy, `steps` times.
    The features are stem and stages of the network, the classifiers its head and one more of the same form, which is
    not kept. Each of the three has an optimizer of its own, where the authors' code has one for the features and one
    for the classifiers. steps: the paper's 4 for digits.
    """

    second: nn.Module

    def __init__(self, features: int, num_classes: int, num_sources: int, *, steps: int = 4) -> None:
        super().__init__(features, num_classes, num_sources)
        if type(steps) is not int or not 1 <= steps <= 20:
            raise InputError(f"steps is {steps!r}; expected a whole number from 1 to 20")
        self.steps = steps

    def prepare(self, model: nn.Module) -> None:
        network: Any = model
        if network.aux_taps:
            raise InputError(f"mcd takes a network without auxiliary heads; {network.label} has some, turn them off")
        self.second = copy.deepcopy(network.head)
        for module in self.second.modules():
            reset: Any = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()

    def updates(self, task: Any) -> Sequence[Update]:
        from opsin.engine.task import Update

        network = task.model
        body = nn.ModuleList([network.stem, network.stages])
        heads = nn.ModuleList([network.head, self.second])

        def answers(batch: Batch, *, detached: bool) -> tuple[Tensor, Tensor]:
            last = network.features(*task.inputs(batch))[-1]
            last = last.detach() if detached else last
            return network.head(last), self.second(last)

        def sources(batch: Batch, *, detached: bool = False) -> tuple[Mapping[str, Tensor], Tensor]:
            fields: Any = batch
            one, other = answers(batch, detached=detached)
            known, target = fields["label"] >= 0, fields["domain"] < 0
            labels = fields["label"][known]
            terms = {"one": F.cross_entropy(one[known], labels), "other": F.cross_entropy(other[known], labels)}
            return terms, classifier_discrepancy(one[target].softmax(dim=1), other[target].softmax(dim=1))

        def apart(batch: Batch) -> Mapping[str, Tensor]:
            terms, discrepancy = sources(batch, detached=True)
            return {**terms, "discrepancy": -task.weight * discrepancy}

        def together(batch: Batch) -> Mapping[str, Tensor]:
            fields: Any = batch
            one, other = answers(batch, detached=False)
            target = fields["domain"] < 0
            found = classifier_discrepancy(one[target].softmax(dim=1), other[target].softmax(dim=1))
            return {"discrepancy": task.weight * found}

        everything = nn.ModuleList([body, heads])
        return [
            Update("sources", everything, lambda batch: sources(batch)[0]),
            Update("classifiers", heads, apart),
            *(Update(f"features{number}", body, together) for number in range(1, self.steps + 1)),
        ]

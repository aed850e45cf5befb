"""Transfer by parameters: how much of a network may change, and how far from the weights it begins with.

Which layers transfer: Yosinski et al. 2014, arXiv:1411.1792. Gradual unfreezing: Howard and Ruder 2018,
arXiv:1801.06146, section 3.3. L2-SP: Li, Grandvalet and Davoine 2018, arXiv:1802.01483.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from opsin.adapt.features import Seen, last_layer
from opsin.adapt.method import Method
from opsin.errors import InputError


def starting_point_penalty(
    weights: Mapping[str, Tensor], start: Mapping[str, Tensor], fresh: Mapping[str, Tensor], alpha: float, beta: float
) -> Tensor:
    """Omega = (alpha / 2) |w - w_0|^2 + (beta / 2) |v|^2. L2-SP, eq. 2.

    weights: w, of the layers that begin with weights that know something; start: the same before training. fresh: v, of
    those that do not.
    """
    terms = [alpha / 2 * (weights[name] - start[name]).square().sum() for name in weights]
    terms += [beta / 2 * tensor.square().sum() for tensor in fresh.values()]
    return torch.stack(terms).sum()


def ladder(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of a network in groups, the last layer first, then head, stages from the last on, and the stem."""
    network: Any = model
    last = last_layer(model)
    modules = [last, network.head, *reversed(list(network.stages)), network.stem]
    groups, taken = [], set[int]()
    for module in modules:
        own = [p for p in module.parameters() if id(p) not in taken]
        taken |= {id(p) for p in own}
        groups.append(own)
    return [group for group in groups if group]


class _Tuned(Method):
    """Fine-tuning on the labelled images: sources, and those of the target whose labels may be used."""

    family = "parameters"
    adapts = False


class LinearProbe(_Tuned):
    """The last layer alone is trained, everything before it stays as it was."""

    def unfrozen(self, groups: int, progress: float) -> int:
        """How many of the network's groups of parameters, from the last layer on, are trained."""
        return 1

    @contextmanager
    def acting(self, model: nn.Module) -> Iterator[None]:
        groups = ladder(model)
        count = self.unfrozen(len(groups), self.progress)
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
        frozen = {id(p) for group in groups[count:] for p in group}
        still = [n for n in norms if any(id(p) in frozen for p in n.parameters())]
        for norm in still:  # their statistics stay too
            norm.eval()
        try:
            yield
        finally:
            for norm in still:
                norm.train()

    progress: float = 0.0

    def losses(self, seen: Seen) -> Mapping[str, Tensor]:
        self.progress = seen.progress
        return {}

    def hold(self, model: nn.Module) -> None:
        """Take the gradients of what is frozen away, before the optimizer steps."""
        groups = ladder(model)
        for group in groups[self.unfrozen(len(groups), self.progress) :]:
            for parameter in group:
                parameter.grad = None


class LastBlock(LinearProbe):
    """The head and the last stage are trained, everything before them stays as it was."""

    def unfrozen(self, groups: int, progress: float) -> int:
        return min(3, groups)


class GradualUnfreezing(LinearProbe):
    """First the last layer is trained, then one group of layers more at a time, until all are.

    whole: the share of the training after which all are trained.
    """

    def __init__(self, features: int, num_classes: int, num_sources: int, *, whole: float = 0.5) -> None:
        super().__init__(features, num_classes, num_sources)
        if not 0 < whole <= 1:
            raise InputError(f"whole is {whole}; expected a share of the training, above 0 and at most 1")
        self.whole = whole

    def unfrozen(self, groups: int, progress: float) -> int:
        return min(groups, 1 + int(progress / self.whole * groups))


class L2SP(_Tuned):
    """Weights are drawn to those that the training began with, and not to zero; see `starting_point_penalty`.

    alpha: of the layers that begin with weights; beta: of the last one.
    """

    def __init__(
        self, features: int, num_classes: int, num_sources: int, *, alpha: float = 0.1, beta: float = 0.01
    ) -> None:
        super().__init__(features, num_classes, num_sources)
        self.alpha, self.beta = alpha, beta
        self.start: dict[str, Tensor] = {}
        self.network: list[nn.Module] = []

    def begin(self, model: nn.Module) -> None:
        self.network[:] = [model]
        last = {id(p) for p in last_layer(model).parameters()}
        self.start = {n: p.detach().clone() for n, p in model.named_parameters() if id(p) not in last}

    def losses(self, seen: Seen) -> Mapping[str, Tensor]:
        named = dict(self.network[0].named_parameters())
        weights = {name: named[name] for name in self.start}
        fresh = {name: p for name, p in named.items() if name not in self.start and not name.startswith("criterion.")}
        start = {name: tensor.to(weights[name].device) for name, tensor in self.start.items()}
        return {"penalty": starting_point_penalty(weights, start, fresh, self.alpha, self.beta)}

"""MixStyle: in training, maps get means and variances between those of two images, of two domains.

Zhou et al. 2021, "Domain generalization with MixStyle", arXiv:2104.02008.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from opsin.adapt.invariant_risk import ERM
from opsin.errors import InputError


def mix_style(maps: Tensor, partners: Tensor, shares: Tensor) -> Tensor:
    """gamma (x - mu) / sigma + beta, gamma = s sigma + (1 - s) sigma', beta = s mu + (1 - s) mu'. MixStyle, eq. 3 to 6.

    maps: (B, C, H, W); mu and sigma over the places of each channel of each image, without gradient. partners: (B,)
    places of the images that mu' and sigma' are of. shares: (B,), the s.
    """
    mean = maps.mean(dim=(2, 3), keepdim=True).detach()
    deviation = (maps.var(dim=(2, 3), keepdim=True) + 1e-6).sqrt().detach()
    s = shares[:, None, None, None]
    scale, shift = s * deviation + (1 - s) * deviation[partners], s * mean + (1 - s) * mean[partners]
    return (maps - mean) / deviation * scale + shift


class MixStyle(ERM):
    """Empirical risk with mixed styles: the maps behind the first stages lend each other their means and variances.

    probability: that a batch is mixed. alpha: of the Beta distribution of the shares, the paper's 0.1. stages: behind
    how many of the first stages. Partners are any images of the batch, which holds all sources alike.
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        num_sources: int,
        *,
        probability: float = 0.5,
        alpha: float = 0.1,
        stages: int = 2,
    ) -> None:
        super().__init__(features, num_classes, num_sources)
        if not 0 <= probability <= 1 or alpha <= 0 or stages < 1:
            raise InputError("mixstyle takes a probability from 0 to 1, an alpha above 0 and 1 or more stages")
        self.probability, self.alpha, self.stages = probability, alpha, stages

    @contextmanager
    def acting(self, model: nn.Module) -> Iterator[None]:
        network: Any = model

        def mix(module: nn.Module, given: Any, maps: Tensor) -> Tensor:
            if maps.ndim != 4 or maps.shape[2] * maps.shape[3] < 2 or float(torch.rand(())) >= self.probability:
                return maps
            shares = torch.distributions.Beta(self.alpha, self.alpha).sample((len(maps),)).to(maps)
            return mix_style(maps, torch.randperm(len(maps)).to(maps.device), shares)

        handles = [stage.register_forward_hook(mix) for stage in list(network.stages)[: self.stages]]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

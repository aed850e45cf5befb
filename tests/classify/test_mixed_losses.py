"""MixUp by the losses of both labels: equal to that by labels for cross-entropy, and as it is written out otherwise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from opsin.data.transforms.batch_mixing import draw_share, mix_images, mix_losses
from opsin.engine.recipe import load_recipe
from opsin.engine.train import prepare
from opsin.errors import InputError


def task(**keys: Any) -> Any:
    overrides = {"data.limit": 20, **{f"mixing.{key}": value for key, value in keys.items()}}
    torch.manual_seed(0)
    made = prepare(load_recipe("lenet5_digits", overrides), lambda line: None)[0].eval()
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter *= 3  # or it says the same of every image
    return made


def loss(one: Any, seed: int) -> torch.Tensor:
    batch = {"image": torch.rand(6, 1, *one.preprocessing.size, generator=torch.Generator().manual_seed(1)),
             "label": torch.tensor([0, 1, 2, 3, 4, 5])}  # fmt: skip
    torch.manual_seed(seed)
    return one.losses(batch)["loss"]


def test_by_losses_and_by_labels() -> None:
    by_labels, by_losses = task(mixup=0.4), task(mixup=0.4, by="losses")
    for seed in range(3):  # the same share is drawn
        assert loss(by_labels, seed).item() == pytest.approx(loss(by_losses, seed).item(), abs=1e-5)

    ordered = task(mixup=0.4, partners="permutation"), task(mixup=0.4, partners="permutation", by="losses")
    for seed in range(3):
        assert loss(ordered[0], seed).item() == pytest.approx(loss(ordered[1], seed).item(), abs=1e-5)

    assert max(abs(loss(ordered[0], seed).item() - loss(by_labels, seed).item()) for seed in range(3)) > 1e-3

    class Squared(nn.Module):  # is not linear in its targets
        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return (logits.softmax(1) - F.one_hot(labels, 10)).square().mean()

    squared = by_losses.model.criterion = Squared()
    torch.manual_seed(2)
    share = draw_share(0.4)
    images = torch.rand(6, 1, *by_losses.preprocessing.size, generator=torch.Generator().manual_seed(1))
    outputs = by_losses.model(mix_images(by_losses.preprocessing.normalize(images), share))
    assert loss(by_losses, 2).item() == pytest.approx(
        mix_losses(squared, outputs, torch.arange(6), share).item(), abs=1e-6
    )


def test_it_is_of_mixup_alone() -> None:
    with pytest.raises(InputError, match=r"mixing.partners=permutation is of MixUp; set mixing.mixup"):
        task(cutmix=1.0, partners="permutation")
    for keys in ({"by": "losses"}, {"by": "losses", "mixup": 0.2, "cutmix": 1.0}):
        with pytest.raises(InputError, match=r"mixing.by=losses is of MixUp alone; set mixing.mixup"):
            task(**keys)

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn

import opsin
from opsin import registry
from opsin.backbones import inception_v3
from opsin.backbones.backbone import Backbone
from opsin.errors import InputError
from opsin.losses import create_loss
from opsin.nn.counting import count_macs, count_parameters


def torchvision_inception(**options: Any) -> nn.Module:
    return torchvision.models.inception_v3(init_weights=False, **options)


def test_outputs_equal_torchvision(assert_equal: Callable[..., None]) -> None:
    reference = partial(torchvision_inception, aux_logits=False)
    assert_equal(partial(inception_v3.inception_v3, aux_heads=False), reference, [(96, 96), (107, 129)])


class AllLogits(nn.Module):
    """The auxiliary logits and the main ones of a network, ours or torchvision's, in our order of tensors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        if isinstance(self.network, Backbone):
            outputs = self.network(images)
            return torch.cat([outputs["aux1"], outputs["logits"]])
        self.network.training = True  # its own flag alone, which shows the head; its layers stay in evaluation
        outputs = self.network(images)
        return torch.cat([outputs.aux_logits, outputs.logits])

    def state_dict(self, *_: Any, **__: Any) -> Any:
        arrange = registry.find_model("inception_v3").weights["imagenet1k"].arrange
        assert arrange is not None
        state = self.network.state_dict()
        return state if isinstance(self.network, Backbone) else arrange(state)


def test_auxiliary_outputs_equal_torchvision(assert_equal: Callable[..., None]) -> None:
    # the smallest that torchvision's head takes, and one that leaves its last pooling something to do
    sizes = [(299, 299), (299, 415)]
    assert_equal(
        lambda: AllLogits(inception_v3.inception_v3(aux_heads=True)), lambda: AllLogits(torchvision_inception()), sizes
    )


def test_counts_with_and_without_the_auxiliary_head() -> None:
    with torch.device("meta"):
        model, plain = inception_v3.inception_v3(aux_heads=True), inception_v3.inception_v3()
    assert (count_parameters(model), count_parameters(plain)) == (27_161_264, 23_834_568)
    added = count_macs(model, (3, 299, 299)) - count_macs(plain, (3, 299, 299))
    assert added == 768 * 128 * 25 + 128 * 768 * 25 + 768 * 1000


def test_factorization_saves_what_the_paper_says() -> None:
    with torch.device("meta"):
        cut, whole = inception_v3.inception_v3(), inception_v3.inception_v3(factorized=False)
        maps = torch.empty(1, 768, 9, 9)
        shapes = [model.stages[1][1](maps).shape for model in (cut, whole)]  # type: ignore[index]
    assert shapes[0] == shapes[1] and cut.channels == whole.channels

    def weights(model: nn.Module) -> int:
        return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d))

    width = 192  # where all of them are: 7x7 to 1x7 and 7x1 leaves 2/7 (section 3.2)
    last_cut, last_whole = cut.stages[1][4], whole.stages[1][4]  # type: ignore[index]
    assert weights(last_whole) - weights(last_cut) == 3 * width * width * (49 - 14)
    assert sum(isinstance(m, nn.Conv2d) for m in last_whole.modules()) == 7


def test_the_auxiliary_loss_is_weighted_and_smoothed_like_the_main_one() -> None:
    model = inception_v3.inception_v3(num_classes=3, aux_heads=True).eval()
    model.criterion = create_loss("cross_entropy", smoothing=0.1)
    targets = torch.tensor([0, 2])
    outputs = {"logits": torch.randn(2, 3), "aux1": torch.randn(2, 3)}
    losses = model.loss(outputs, targets)
    torch.testing.assert_close(losses["main"], F.cross_entropy(outputs["logits"], targets, label_smoothing=0.1))
    torch.testing.assert_close(losses["aux1"], 0.4 * F.cross_entropy(outputs["aux1"], targets, label_smoothing=0.1))


def test_small_images_reach_the_auxiliary_head() -> None:
    with torch.device("meta"):
        model = inception_v3.inception_v3(num_classes=3, aux_heads=True)
        outputs = model(torch.empty(2, 3, 75, 90))
    assert outputs["aux1"].shape == (2, 3)


def test_the_recipe_starts(tmp_path: Path) -> None:
    settings = {"data.source": "digits", "data.channels": 3, "data.size": 75, "data.limit": 8}
    settings |= {
        "train.tensorboard": False,
        "train.batch_size": 4,
        "train.max_steps": 2,
        "train.workers": 0,
        "train.keep": "last",
    }
    run = opsin.train("inception_v3_imagenet", settings, out=tmp_path / "run", say=lambda line: None)
    assert {"train_main", "train_aux1"} <= set((run.path / "metrics.csv").read_text().splitlines()[0].split(","))


def test_wrong_norm() -> None:
    with pytest.raises(InputError, match="unknown norm 'batch'"):
        inception_v3.inception_v3(norm="batch")

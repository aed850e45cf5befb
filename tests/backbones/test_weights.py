from __future__ import annotations

import pytest
import torch
from torch import nn

from opsin.backbones import copy_in_order
from opsin.errors import InputError


def network(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, 2))


def test_names_may_differ_and_counters_may_lack() -> None:
    model, reference = network(), network()
    reference[1].running_mean.fill_(3.0)  # type: ignore[union-attr]
    state = {f"tensor_{i}": v for i, (k, v) in enumerate(reference.state_dict().items()) if "batches" not in k}
    copy_in_order(model, state)
    for ours, theirs in zip(model.state_dict().values(), reference.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_first_tensor_that_does_not_fit_is_named_and_nothing_is_copied() -> None:
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(
        InputError, match=r"tensor 0 is 0.weight \(5, 1, 3, 3\) in the file, 0.weight \(4, 1, 3, 3\) in"
    ):
        copy_in_order(model, network(5).state_dict())
    shorter = dict(list(network().state_dict().items())[:-1])
    with pytest.raises(InputError, match=r"tensor 7 is missing in the file, 3.bias \(2,\) in the model"):
        copy_in_order(model, shorter)
    with pytest.raises(InputError, match=r"tensor 8 is more .* in the file, missing in the model"):
        copy_in_order(model, network().state_dict() | {"more": torch.zeros(1)})
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_criterion_keeps_its_tensors() -> None:
    model = network()
    model.criterion = nn.CrossEntropyLoss(weight=torch.ones(2))
    copy_in_order(model, network().state_dict())
    assert model.criterion.weight.tolist() == [1, 1]  # type: ignore[operator, union-attr]

"""Optimizers: every parameter once, decay where it belongs, torch's own steps, and errors that name the fix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from opsin.errors import InputError
from opsin.optim import create_optimizer

NAMES = ["sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "nadam", "radam"]


class Net(nn.Module):
    """A bit of everything: convolution, norms, PReLU, a tied layer, a frozen one and a criterion that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.batch_norm = nn.BatchNorm2d(4)
        self.layer_norm = nn.LayerNorm([4, 2, 2])
        self.prelu = nn.PReLU(4)
        self.linear = nn.Linear(16, 16)
        self.tied = nn.Linear(16, 16, bias=False)
        self.tied.weight = self.linear.weight
        self.frozen = nn.Linear(16, 16).requires_grad_(False)
        self.criterion = nn.Module()
        self.criterion.centres = nn.Parameter(torch.zeros(10, 16))


def names(model: nn.Module, group: dict) -> set[str]:
    found = {id(parameter): name for name, parameter in model.named_parameters()}
    return {found[id(parameter)] for parameter in group["params"]}


def test_every_trainable_parameter_is_in_exactly_one_group() -> None:
    model = Net()
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for decay_norm_and_bias in (True, False):
        groups = create_optimizer(model, lr=0.1, decay_norm_and_bias=decay_norm_and_bias).param_groups
        assert sum(len(group["params"]) for group in groups) == len(wanted)
        assert set().union(*(names(model, group) for group in groups)) == wanted


def test_decay_spares_norm_and_bias_only_when_asked() -> None:
    model = Net()
    (group,) = create_optimizer(model, lr=0.1, weight_decay=0.5).param_groups
    assert group["weight_decay"] == 0.5
    decayed, spared = create_optimizer(model, lr=0.1, weight_decay=0.5, decay_norm_and_bias=False).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.5, 0.0)
    assert names(model, decayed) == {"conv.weight", "linear.weight", "criterion.centres"}
    assert names(model, spared) == {
        "conv.bias", "batch_norm.weight", "batch_norm.bias", "layer_norm.weight", "layer_norm.bias", "prelu.weight",
        "linear.bias",
    }  # fmt: skip


def test_a_model_of_biases_alone_has_no_empty_group() -> None:
    (group,) = create_optimizer(nn.BatchNorm1d(3), lr=0.1, weight_decay=0.5, decay_norm_and_bias=False).param_groups
    assert group["weight_decay"] == 0.0


def test_sgd_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    optimizer = create_optimizer(model, "sgd", lr=0.1, weight_decay=0.5)
    # v1 = 2 + 0.5 * 1 = 2.5; v2 = 0.9 * 2.5 + 2 + 0.5 * 0.75 = 4.625
    for expected in (1 - 0.1 * 2.5, 0.75 - 0.1 * 4.625):
        model.weight.grad = torch.full((1, 1), 2.0)
        optimizer.step()
        assert model.weight.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_steps_equal_the_torch_class(name: str) -> None:
    def descend(make) -> Tensor:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = make(model)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
        return model.weight.detach()

    kind = {"sgd": "SGD", "rmsprop": "RMSprop", "nadam": "NAdam", "radam": "RAdam", "adamw": "AdamW"}
    reference = getattr(torch.optim, kind.get(name, name.capitalize()))
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    ours = descend(lambda m: create_optimizer(m, name, lr=0.05, weight_decay=0.01))
    theirs = descend(lambda m: reference(m.parameters(), lr=0.05, weight_decay=0.01, **momentum))
    assert torch.equal(ours, theirs)


def test_options_reach_the_optimizer() -> None:
    model = nn.Linear(2, 2)
    assert create_optimizer(model, "sgd", lr=0.1, nesterov=True, momentum=0.8).defaults["nesterov"] is True
    assert create_optimizer(model, "adam", lr=0.1, betas=[0.8, 0.9]).defaults["betas"] == (0.8, 0.9)  # from YAML


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"name": "sgdd", "lr": 0.1}, "unknown optimizer 'sgdd'; did you mean sgd"),
        ({"name": "sgd", "lr": 0.1, "momentun": 0.9}, "unknown option of sgd 'momentun'; did you mean momentum"),
        ({"name": "adamw", "lr": 0.1, "beta": 0.9}, "did you mean betas"),
        ({"name": "sgd", "lr": -1.0}, "lr must be a number of at least 0, got -1.0"),
        ({"name": "sgd", "lr": "0.1x"}, "lr must be a number of at least 0, got '0.1x'"),
        ({"name": "sgd", "lr": float("nan")}, "lr must be a number"),
        ({"name": "sgd", "lr": 0.1, "weight_decay": -1e-4}, "weight_decay must be a number of at least 0"),
        ({"name": "sgd", "lr": 0.1, "momentum": 0, "nesterov": True}, "sgd cannot work with .*momentum"),
    ],
)
def test_wrong_calls_are_named(call: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_optimizer(nn.Linear(2, 2), **call)


def test_a_frozen_model_is_refused() -> None:
    with pytest.raises(InputError, match="no parameter of Linear requires a gradient; unfreeze"):
        create_optimizer(nn.Linear(2, 2).requires_grad_(False), lr=0.1)

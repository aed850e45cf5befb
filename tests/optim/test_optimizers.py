"""Optimizers: every parameter once, decay where it belongs, torch's own steps, and errors that name the fix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from opsin.errors import InputError
from opsin.optim import create_optimizer, list_optimizers, parameter_groups

# Every name that is one class of torch: the class, and the paper's values where torch has others.
TORCH = {
    "sgd": ("SGD", {"momentum": 0.9}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {}),
    "rmsprop": ("RMSprop", {"alpha": 0.9}),
    "adadelta": ("Adadelta", {"rho": 0.95}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
    "nadam": ("NAdam", {}),
    "radam": ("RAdam", {}),
}


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


def descend(make) -> Tensor:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = make(model)
    for _ in range(8):  # RAdam's rectification begins with the sixth
        optimizer.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
    return model.weight.detach()


@pytest.mark.parametrize("name", TORCH)
def test_steps_equal_the_torch_class(name: str) -> None:
    kind, options = TORCH[name]
    ours = descend(lambda m: create_optimizer(m, name, lr=0.05, weight_decay=0.01))
    theirs = descend(lambda m: getattr(torch.optim, kind)(m.parameters(), lr=0.05, weight_decay=0.01, **options))
    assert torch.equal(ours, theirs)


def test_every_name_is_tested() -> None:
    assert list_optimizers() == sorted([*TORCH, "heavy_ball", "lookahead", "ranger"])


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
        ({"name": "sgd", "lr": 0.1, "look_ahead": True}, "unknown option of sgd 'look_ahead'; did you mean lookahead"),
        ({"name": "adam", "lr": 0.1, "lookahead": {"q": 5}}, "unknown option of lookahead 'q'; known: alpha, k"),
        ({"name": "adam", "lr": 0.1, "lookahead": {"k": 0}}, "k of Lookahead must be a whole number of at least 1"),
        ({"name": "adam", "lr": 0.1, "lookahead": {"alpha": 2}}, "alpha of Lookahead must be a number above 0 and"),
        ({"name": "adam", "lr": 0.1, "lookahead": 5}, r"lookahead must be true, false or \{k: 5, alpha: 0.5\}, got 5"),
        ({"name": "adam", "lr": 0.1, "gradient_centralization": "yes"}, "must be true or false, got 'yes'"),
        ({"name": "sgd", "lr": 0.1, "layer_decay": 1.5}, "layer_decay must be a number above 0 and at most 1, got 1.5"),
        ({"name": "sgd", "lr": 0.1, "layer_decay": 0.5}, "needs a network of stem, stages and head; Linear has none"),
    ],
)
def test_wrong_calls_are_named(call: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_optimizer(nn.Linear(2, 2), **call)


def test_a_frozen_model_is_refused() -> None:
    with pytest.raises(InputError, match="no parameter of Linear requires a gradient; unfreeze"):
        create_optimizer(nn.Linear(2, 2).requires_grad_(False), lr=0.1)


class Staged(nn.Module):
    """What a backbone is to the optimizer, beside a criterion that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3)
        self.stages = nn.ModuleList([nn.Sequential(nn.Conv2d(2, 2, 3, bias=False), nn.BatchNorm2d(2)), nn.Linear(2, 2)])
        self.head = nn.Linear(2, 3)
        self.criterion = nn.Linear(3, 3, bias=False)


def rates(model: nn.Module, **options) -> dict[str, tuple[float, float]]:
    """Rate and weight decay of each parameter."""
    optimizer = create_optimizer(model, "sgd", lr=0.8, weight_decay=0.1, layer_decay=0.5, **options)
    groups = optimizer.param_groups
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in names(model, group)}


def test_layer_decay_by_hand() -> None:
    model = Staged()
    depth = {"head": 0.8, "criterion": 0.8, "stages.1": 0.4, "stages.0": 0.2, "stem": 0.1}
    expected = {n: (next(r for k, r in depth.items() if n.startswith(k)), 0.1) for n, _ in model.named_parameters()}
    assert rates(model) == expected
    spared = {
        n: (rate, 0.1 if dict(model.named_parameters())[n].ndim > 1 else 0.0) for n, (rate, _) in expected.items()
    }
    assert rates(model, decay_norm_and_bias=False) == spared
    # Inside a larger model, what stands beside the backbone is as new as its head.
    outer = nn.Sequential(model, nn.Linear(3, 1))
    assert rates(outer) == {f"0.{n}": v for n, v in expected.items()} | {"1.weight": (0.8, 0.1), "1.bias": (0.8, 0.1)}
    # The first group, whose rate is shown in the records of a run, has the rate that was asked for.
    groups = parameter_groups(model, 0.0, True, 0.8, 0.5)
    assert [group["lr"] for group in groups] == [0.8, 0.4, 0.2, 0.1]


def test_layer_decay_of_a_backbone() -> None:
    from opsin.registry import create_model

    model = create_model("resnet20")
    found = rates(model)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert {value for value, _ in found.values()} == {0.8, 0.4, 0.2, 0.1, 0.05}
    assert found["stem.0.weight"][0] == 0.05 and found["head.2.weight"][0] == 0.8

"""Rates of parts of a model by their names."""

from __future__ import annotations

import pytest
from torch import nn

from opsin.errors import InputError
from opsin.optim import create_optimizer


def model() -> nn.Module:
    made = nn.Module()
    made.model = nn.ModuleDict({"convs": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "head": nn.Linear(2, 1)})
    return made


def test_the_longest_name_decides_and_the_rest_has_the_rate_itself() -> None:
    made = model()
    optimizer = create_optimizer(made, "sgd", lr=0.5, layer_rates={"convs": 0.1, "convs.1": 0.02})
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: rates[id(p)] for name, p in made.named_parameters()}
    assert {name: round(rate, 9) for name, rate in found.items()} == {
        **{f"model.convs.0.{key}": 0.05 for key in ("weight", "bias")},
        **{f"model.convs.1.{key}": 0.01 for key in ("weight", "bias")},
        **{f"model.head.{key}": 0.5 for key in ("weight", "bias")},
    }


def test_a_name_of_no_part_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'convz'.*convs"):
        create_optimizer(model(), "sgd", lr=0.5, layer_rates={"convz": 0.1})
    with pytest.raises(InputError, match="at least 0"):
        create_optimizer(model(), "sgd", lr=0.5, layer_rates={"convs": -1})

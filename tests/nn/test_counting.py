from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from opsin import registry
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters, layer_table


@pytest.mark.parametrize(("name", "macs"), [("resnet50", 4_089_184_256), ("vgg16", 15_470_264_320)])
def test_macs_of_known_networks(name: str, macs: int) -> None:
    with torch.device("meta"):
        assert count_macs(registry.create_model(name), (3, 224, 224)) == macs


def test_counts_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),  # 2 of 4 inputs, 8 outputs, 5 x 6 places
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 3, 2, stride=2, bias=False),  # every input place reaches 2 x 2
        nn.Flatten(),
        nn.Linear(3 * 10 * 12, 7),
    )
    rows = layer_table(model, (4, 9, 11))
    assert [row.macs for row in rows] == [9 * 2 * 8 * 30, 0, 0, 4 * 8 * 3 * 30, 0, 360 * 7]
    assert [row.params for row in rows] == [9 * 2 * 8 + 8, 16, 0, 4 * 8 * 3, 0, 360 * 7 + 7]
    assert [row.output_shape for row in rows] == [(8, 5, 6), (8, 5, 6), (8, 5, 6), (3, 10, 12), (360,), (7,)]
    assert [(row.name, row.type) for row in rows[:2]] == [("0", "Conv2d"), ("1", "BatchNorm2d")]
    assert count_macs(model, (4, 9, 11)) == sum(row.macs for row in rows)
    assert count_parameters(model) == sum(row.params for row in rows)


class Recursive(nn.Module):
    """A layer that runs three times, a parameter of its own, a product of its own, and a dictionary for an output."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(6, 6, bias=False)
        self.also_shared = nn.Linear(6, 6, bias=False)
        self.also_shared.weight = self.shared.weight
        self.own = nn.Parameter(torch.zeros(6, 5))

    def forward(self, x: Tensor) -> dict[str, tuple[Tensor, int]]:
        x = self.also_shared(self.shared(self.shared(x.flatten(1))))
        return {"first": (x @ self.own, 3)}


def test_shared_layers_count_their_parameters_once_and_their_work_each_time() -> None:
    model = Recursive()
    rows = layer_table(model, (6, 1, 1))
    assert [(row.name, row.params, row.macs) for row in rows] == [
        ("shared", 36, 36),
        ("shared", 0, 36),
        ("also_shared", 0, 36),
        ("", 30, 30),
    ]
    assert rows[-1].output_shape == (5,)
    assert count_parameters(model) == 66 and count_macs(model, (6, 1, 1)) == 138


@pytest.mark.parametrize("name", ["lenet5_1998", "alexnet_2012", "vgg11_lrn", "resnet50_v1", "resnet20"])
def test_rows_add_up(name: str) -> None:
    with torch.device("meta"):
        model = registry.create_model(name)
    published = registry.find_model(name).published
    rows = layer_table(model, published.input)
    assert sum(row.params for row in rows) == published.params
    assert sum(row.macs for row in rows) == count_macs(model, published.input)
    assert rows[-1].output_shape == (model.num_classes,)


def test_model_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout()).train()
    model[1].eval()
    before = {k: (v, v.clone()) for k, v in model.state_dict(keep_vars=True).items()}
    count_macs(model, (1, 8, 8))
    layer_table(model, (1, 8, 8))
    assert [m.training for m in model] == [True, False, True]
    assert all(v is before[k][0] and torch.equal(v, before[k][1]) for k, v in model.state_dict(keep_vars=True).items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_half_precision_and_frozen_parameters() -> None:
    model = nn.Linear(3, 2).half().requires_grad_(False)
    assert count_parameters(model) == 8
    assert count_macs(nn.Sequential(nn.Flatten(), model), (3, 1, 1)) == 6


def test_an_input_that_the_model_refuses() -> None:
    with pytest.raises(InputError, match="32x32 only"):
        count_macs(registry.create_model("lenet5"), (1, 28, 28))

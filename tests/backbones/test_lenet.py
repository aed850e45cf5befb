from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin import registry
from opsin.backbones import lenet
from opsin.backbones.lenet import (
    CodeDistance,
    PartialConv2d,
    RejectingLoss,
    ScaledTanh,
    Subsampling,
    create_codes,
)
from opsin.errors import InputError
from opsin.nn.counting import layer_table

# Table I of the paper, row by row: which maps of C3 see each map of S2.
TABLE_1 = [
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
]


def test_1998_net_layer_by_layer() -> None:
    rows = [row for row in layer_table(lenet.lenet5_1998(), (1, 32, 32)) if row.params]
    assert [row.params for row in rows] == [156, 12, 1_516, 32, 48_120, 10_164]
    assert [row.output_shape for row in rows] == [
        (6, 28, 28),
        (6, 14, 14),
        (16, 10, 10),
        (16, 5, 5),
        (120, 1, 1),
        (84,),
    ]


def test_1998_net_has_the_connections_that_the_paper_counts() -> None:
    c1, c3, c5 = 156 * 28 * 28, 1_516 * 10 * 10, 48_120
    s2, s4 = (5 * maps * side * side for maps, side in ((6, 14), (16, 5)))  # four inputs and a bias each
    assert c1 + s2 + c3 + s4 + c5 + 10_164 + 84 * 10 == 340_908


def test_squashing_keeps_one() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0])
    torch.testing.assert_close(ScaledTanh()(x), x, rtol=1e-4, atol=0)


def test_subsampling_is_a_learned_multiple_of_the_sum() -> None:
    layer = Subsampling(3)
    nn.init.uniform_(layer.weight)
    nn.init.uniform_(layer.bias)
    x = torch.randn(2, 3, 4, 6)
    expected = torch.empty(2, 3, 2, 3)
    for b, c, i, j in itertools.product(range(2), range(3), range(2), range(3)):
        square = x[b, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        expected[b, c, i, j] = square.sum() * layer.weight[c] + layer.bias[c]
    torch.testing.assert_close(layer(x), expected)


def test_c3_sees_what_table_1_says() -> None:
    c3 = next(m for m in lenet.lenet5_1998().modules() if isinstance(m, PartialConv2d))
    x = torch.randn(2, 6, 7, 8)
    kernels, expected = iter(c3.weight), []
    for output in range(16):
        seen = [row for row in range(6) if TABLE_1[row][output] == "X"]
        maps = [F.conv2d(x[:, i : i + 1], next(kernels)[None, None]) for i in seen]
        expected.append(torch.stack(maps).sum(dim=0) + c3.bias[output])
    torch.testing.assert_close(c3(x), torch.cat(expected, dim=1))
    assert next(kernels, None) is None


def test_codes_are_ten_drawings_of_84_pixels() -> None:
    codes = create_codes(10)
    assert codes.shape == (10, 84) and set(codes.flatten().tolist()) == {-1.0, 1.0}
    rows = ["".join(".#"[int(pixel > 0)] for pixel in row) for row in codes[7].view(12, 7)]
    assert rows[1] == "#######" and rows[2] == "......#"
    differences = [(codes[i] != codes[j]).sum().item() for i, j in itertools.combinations(range(10), 2)]
    assert min(differences) >= 6


def test_codes_of_other_class_counts_are_random_and_the_same_everywhere() -> None:
    many, few = create_codes(300), create_codes(3)
    assert many.shape == (300, 84)
    assert torch.equal(many[:3], few)
    assert len(many.unique(dim=0)) == 300
    assert abs(many.mean()) < 0.02


def test_outputs_are_minus_the_squared_distances() -> None:
    layer, x = CodeDistance(10), torch.randn(3, 84)
    expected = [
        [-sum((a - b) ** 2 for a, b in zip(row, code, strict=True)) for code in layer.codes.tolist()]
        for row in x.tolist()
    ]
    torch.testing.assert_close(layer(x), torch.tensor(expected))
    assert layer(layer.codes).argmax(dim=1).tolist() == list(range(10))


def test_loss_by_hand() -> None:
    distances = torch.tensor([[1.0, 2.0], [0.5, 3.0]])
    first = 1.0 + math.log(math.exp(-0.1) + math.exp(-1) + math.exp(-2))
    second = 3.0 + math.log(math.exp(-0.1) + math.exp(-0.5) + math.exp(-3))
    criterion = RejectingLoss(j=0.1)
    assert float(criterion(-distances, torch.tensor([0, 1]))) == pytest.approx((first + second) / 2)
    assert float(criterion(-distances, torch.tensor([0, -1]))) == pytest.approx(first)
    assert float(criterion(-distances, torch.tensor([-1, -1]))) == 0
    assert float(criterion(-distances, F.one_hot(torch.tensor([0, 1])).float())) == pytest.approx((first + second) / 2)


def test_loss_tends_to_cross_entropy() -> None:
    logits, targets = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(RejectingLoss(j=1e4)(logits, targets), F.cross_entropy(logits, targets))


def test_loss_gradient() -> None:
    targets = torch.tensor([0, 2, -1])
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: RejectingLoss()(x, targets), logits)


def test_initial_weights_of_1998_are_spread_by_fan_in() -> None:
    model = lenet.lenet5_1998()

    def check(parameter: Tensor, fan_in: int) -> None:
        bound = 2.4 / fan_in
        assert float(parameter.detach().abs().max()) <= bound
        if parameter.numel() > 100:
            assert float(parameter.detach().abs().max()) > 0.9 * bound

    c1, c5 = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    check(c1.weight, 25)
    check(c5.weight, 400)
    c3 = next(m for m in model.modules() if isinstance(m, PartialConv2d))
    check(c3.weight[:18], 75)
    check(c3.weight[18:54], 100)
    check(c3.weight[54:], 150)
    for s in (m for m in model.modules() if isinstance(m, Subsampling)):
        check(s.weight, 4)


def test_reset_head_of_1998_takes_other_codes() -> None:
    model = lenet.lenet5_1998()
    model.reset_head(4)
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 4)
    assert torch.equal(model.state_dict()["head.3.codes"], create_codes(4))


def test_1998_net_refuses_many_labels() -> None:
    model = lenet.lenet5_1998()
    model.multi_label = True
    with pytest.raises(InputError, match="use lenet5"):
        model.loss(torch.zeros(1, 10), torch.zeros(1, 10))


def test_modern_options() -> None:
    model = lenet.lenet5(activation="tanh", pool="avg")
    kinds = {type(m) for m in model.modules()}
    assert {nn.Tanh, nn.AvgPool2d} < kinds and not {nn.ReLU, nn.MaxPool2d} & kinds
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"activation": "rely"}, "did you mean relu"),
        ({"pool": "min"}, "unknown pool 'min'"),
    ]
    for options, message in wrong:
        with pytest.raises(InputError, match=message):
            registry.create_model("lenet5", **options)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998"])
def test_learns_four_images(name: str) -> None:
    torch.manual_seed(0)
    model = registry.create_model(name)
    images, labels = torch.rand(4, 1, 32, 32), torch.tensor([3, 1, 4, 5])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(model(images), labels)["loss"].backward()  # type: ignore[operator]
        optimizer.step()
    assert model.decode(model(images))["labels"].tolist() == labels.tolist()  # type: ignore[operator]

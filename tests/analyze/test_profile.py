from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from opsin import registry
from opsin.analyze.profile import Profile, profile
from opsin.backbones import Backbone
from opsin.errors import InputError


class Calls(nn.Module):
    """A function as a network, with modules that it may use."""

    def __init__(self, function, *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.inner = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.inner)


def of(function, size: tuple[int, int, int], *modules: nn.Module) -> Profile:
    return profile(Calls(function, *modules), size)


def flop_counter_macs(model: nn.Module, *inputs: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(*inputs)
    return counter.get_total_flops() // 2


def test_every_count_of_a_convolution_by_hand() -> None:
    found = profile(nn.Conv2d(4, 8, 3, 2, 1, groups=2), (4, 9, 11))
    places, weights = 5 * 6, 8 * 2 * 9
    layer = found.layers[0]
    assert (layer.params, layer.macs) == (weights + 8, places * weights)
    assert layer.flops == 2 * places * weights + 8 * places  # and the bias of every output
    assert layer.connections == places * weights + 8 * places
    assert layer.activations == layer.elements == 8 * places
    assert layer.bytes_read == 4 * (4 * 9 * 11 + weights + 8) and layer.bytes_written == 4 * 8 * places
    assert layer.intensity == layer.flops / (layer.bytes_read + layer.bytes_written)
    assert layer.share == dict.fromkeys(("params", "macs", "flops", "activations", "bytes"), 1.0)
    assert (layer.kernel_size, layer.stride, layer.dilation, layer.groups) == ((3, 3), (2, 2), (1, 1), 2)
    assert (layer.in_channels, layer.out_channels, layer.input_shape) == (4, 8, (4, 9, 11))
    assert layer.inputs == (-1,) and layer.name == ""


@pytest.mark.parametrize(
    ("module", "macs", "flops", "connections"),
    [
        (nn.ConvTranspose2d(4, 6, 3, 2, groups=2), 30 * 4 * 3 * 9, None, None),
        (nn.ConvTranspose2d(4, 3, 2, 2, bias=False), 30 * 4 * 3 * 4, 2 * 30 * 48, 30 * 48),
        (nn.ReLU(), 0, 120, 0),
        (nn.BatchNorm2d(4), 0, 240, 0),
        (nn.GroupNorm(2, 4), 0, 7 * 120, 0),
        (nn.LayerNorm(6), 0, 7 * 120, 0),
        (nn.MaxPool2d(2), 0, 4 * 4 * 6, 4 * 4 * 6),
        (nn.AvgPool2d((5, 2)), 0, 10 * 4 * 3, 10 * 4 * 3),
        (nn.AdaptiveAvgPool2d(1), 0, 120, 0),
        (nn.AdaptiveAvgPool2d((2, 3)), 0, 4 * (3 + 3) * 6, 4 * (3 + 3) * 6),
        (nn.Softmax(dim=1), 0, 600, 0),
        (nn.GELU(), 0, 600, 0),
        (nn.Hardswish(), 0, 600, 0),
        (nn.Upsample(scale_factor=2, mode="bilinear"), 0, 7 * 480, 0),
        (nn.Upsample(scale_factor=2), 0, 0, 0),
        (nn.Flatten(), 0, 0, 0),
        (nn.Dropout(), 0, 0, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_layers_by_hand(module: nn.Module, macs: int, flops: int | None, connections: int | None) -> None:
    totals = profile(module, (4, 5, 6)).totals
    assert totals.macs == macs and totals.coverage == 100
    assert flops is None or totals.flops == flops
    assert connections is None or totals.connections == connections


def test_a_view_moves_nothing_and_an_operation_in_place_reads_and_writes() -> None:
    assert of(lambda x: x.flatten(1).unflatten(1, (8, 3))[:, 1:].transpose(1, 2), (2, 4, 3)).totals.bytes == 0
    assert of(lambda x: x.flatten(1).relu_(), (2, 4, 3)).totals.bytes == 2 * 4 * 24
    assert of(lambda x: x.mean(3, keepdim=True).expand(-1, -1, -1, 3) + 1, (2, 4, 3)).totals.bytes == 4 * (
        (24 + 8) + (8 + 24)
    )


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers(kind, directions: int) -> None:
    gates = {nn.RNN: 1, nn.GRU: 3, nn.LSTM: 4}[kind]
    layer = kind(5, 7, batch_first=True, bidirectional=directions == 2)
    found = of(lambda x, inner: inner(x[:, 0])[0], (1, 6, 5), layer)
    steps, weights = 6, gates * 7 * (5 + 7) * directions
    assert found.totals.macs == steps * weights
    assert found.totals.params == weights + 2 * gates * 7 * directions
    # With data, torch runs an LSTM as one kernel, which its counter does not know; without, step by step.
    measured = flop_counter_macs(layer, torch.zeros(1, 6, 5))
    assert measured == (0 if kind is nn.LSTM and torch.backends.mkldnn.is_available() else steps * weights)


def test_attention() -> None:
    def attend(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)

    found = of(attend, (2, 6, 4))
    assert found.totals.macs == 2 * (6 * 6 * 4 + 6 * 6 * 4) == flop_counter_macs(Calls(attend), torch.zeros(1, 2, 6, 4))
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    found = of(lambda x, inner: inner(x[:, 0], x[:, 0], x[:, 0])[0], (1, 6, 8), layer)
    assert found.totals.macs == 6 * 8 * 24 + 2 * 6 * 6 * 8 + 6 * 8 * 8  # projections, both products, the output
    assert found.totals.params == sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize(
    ("function", "macs", "counter"),
    [
        (lambda x: x[0, 0] @ x[0, 0, 0], 16, 0),  # mv, which torch's counter leaves out
        (lambda x: torch.einsum("bchw,bcwk->bchk", x, x), 3 * 64, 3 * 64),
        (lambda x: F.conv1d(x[:, 0], x.new_zeros(6, 2, 3), groups=2), 6 * 2 * 3 * 2, 6 * 2 * 3 * 2),
    ],
)
def test_products_beside_the_counter_of_torch(function, macs: int, counter: int) -> None:
    found = of(function, (3, 4, 4))
    assert (found.totals.macs, found.totals.macs_by_flop_counter) == (macs, counter)


def test_deformable_convolution_is_counted_with_its_sampling() -> None:
    from torchvision.ops import deform_conv2d

    def deformed(x: Tensor) -> Tensor:
        return deform_conv2d(x, x.new_zeros(1, 18, 5, 6), x.new_zeros(8, 4, 3, 3), x.new_zeros(8), padding=(1, 1))

    totals = of(deformed, (4, 5, 6)).totals
    assert totals.macs == 30 * 8 * 4 * 9 and totals.macs_by_flop_counter == 0
    assert totals.flops == 2 * totals.macs + 8 * 30 + 7 * 30 * 4 * 9


def test_what_cannot_be_counted_is_listed() -> None:
    found = profile(Calls(lambda x: torch.fft.rfft2(x.relu()).abs()), (1, 8, 8))
    assert [gap.operator for gap in found.uncounted] == ["aten._fft_r2c"]
    assert found.uncounted[0].calls == 1 and found.uncounted[0].layers == ("",)
    assert found.totals.coverage == pytest.approx(100 * (1 - 1 / found.totals.operators))
    assert found.totals.flops >= 64  # the others are


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998", "alexnet_2012", "resnet18", "densenet121", "googlenet",
                                  "mobilenet_v3_small", "shufflenet_v2_x0_5", "se_resnet50"])  # fmt: skip
def test_networks_add_up_and_agree_with_the_counter_of_torch(name: str) -> None:
    with torch.device("meta"):
        model = registry.create_model(name)
    assert isinstance(model, Backbone)
    found = profile(model, registry.find_model(name).published.input)
    assert found.totals.params == sum(p.numel() for p in model.parameters())
    assert found.totals.macs == found.totals.macs_by_flop_counter
    assert found.totals.coverage == 100 and not found.uncounted
    for key in ("params", "macs", "flops", "activations", "connections"):
        assert sum(getattr(layer, key) for layer in found.layers) == getattr(found.totals, key)
    for key in ("params", "macs", "flops", "activations", "bytes"):
        assert sum(layer.share[key] for layer in found.layers) == pytest.approx(1)
    assert [s.name for s in found.stages] == ["stem", *(f"stages.{i}" for i in range(len(model.stages))), "head"]
    for stage, channels, stride in zip(found.stages[1:-1], model.channels, model.strides, strict=True):
        assert stage.channels == channels and stage.stride == stride
        assert stage.field is not None and stage.field.jump == (stride, stride)
    rows = found.layers  # a module that computes beside its children is completed after them
    assert all(s < row.index or row.name.startswith(rows[s].name) for row in rows for s in row.inputs)
    assert all(row.inputs for row in rows if row.macs)


def test_connections_of_the_paper_of_lenet() -> None:
    """LeCun et al. 1998, section II.B: 122,304, 5,880, 2,000, 48,120; 10,164 follow for F6."""
    with torch.device("meta"):
        layers = {
            layer.name: layer.connections for layer in profile(registry.create_model("lenet5_1998"), (1, 32, 32)).layers
        }
    assert layers["stem.0"] == 122_304
    assert layers["stages.0.0.mean"] + layers["stages.0.0"] == 5_880
    assert layers["stages.1.0.mean"] + layers["stages.1.0"] == 2_000
    assert layers["stages.1.2"] == 48_120 and layers["head.1"] == 10_164


def test_activations_of_the_tables_of_regnet() -> None:
    with torch.device("meta"):
        found = profile(registry.create_model("resnet50"), (3, 224, 224))
    assert found.totals.activations - 1000 == pytest.approx(11.1e6, rel=0.005)  # pycls: 11.1 M, convolutions only


def test_layers_that_do_not_run_have_their_parameters() -> None:
    found = of(lambda x, used, idle: used(x), (2, 3, 4), nn.Linear(4, 4), nn.Linear(4, 7))
    used, idle = found.layers
    assert (used.params, idle.params, found.totals.params) == (20, 35, 55)
    assert (idle.name, idle.output_shape, idle.macs, idle.flops, idle.field) == ("inner.1", (), 0, 0, None)


def test_shared_layers_have_their_parameters_once() -> None:
    linear = nn.Linear(4, 4)
    found = of(lambda x, one: one(one(x)), (2, 3, 4), linear)
    assert [(row.name, row.params, row.macs) for row in found.layers] == [("inner.0", 20, 96), ("inner.0", 0, 96)]
    assert found.layers[1].inputs == (0,)


def test_the_model_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    profile(model, (1, 8, 8))
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_an_input_that_the_model_refuses() -> None:
    with pytest.raises(InputError, match="32x32 only"):
        profile(registry.create_model("lenet5"), (1, 28, 28))

"""The deconvolution view equals an explicit deconvnet, and its relatives their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin import create_model
from opsin.analyze.deconvolution import Rule, as_image, project, strongest
from opsin.errors import InputError


def chain(inplace: bool = False) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=2, padding=1),
        nn.ReLU(inplace),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(inplace),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 5, 3, padding=1),
        nn.ReLU(inplace),
    ).double()


def deconvnet(model: nn.Sequential, images: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    """Zeiler and Fergus, written out: forward with switches, one activation kept, then layer by layer back."""
    switches, sizes, x = [], [], images
    for layer in model:
        sizes.append(x.shape)
        if isinstance(layer, nn.MaxPool2d):
            x, switch = F.max_pool2d(x, 2, return_indices=True)
            switches.append(switch)
        else:
            x = layer(x.clone())
    peak = x[:, unit].flatten(1).max(dim=1)
    signal = torch.zeros_like(x)
    signal[:, unit].flatten(1).scatter_(1, peak.indices[:, None], peak.values[:, None])
    for layer, size in zip(reversed(model), reversed(sizes), strict=True):
        if isinstance(layer, nn.MaxPool2d):
            signal = F.max_unpool2d(signal, switches.pop(), [2, 2], output_size=size)
        elif isinstance(layer, nn.Conv2d):
            assert isinstance(layer.padding, tuple)
            stride = layer.stride[0]
            left = (size[2] + 2 * layer.padding[0] - layer.kernel_size[0]) % stride
            signal = F.conv_transpose2d(signal, layer.weight, None, stride, layer.padding, left)
        else:
            signal = signal.relu()
    return signal, peak.values


@pytest.mark.parametrize("inplace", [False, True])
def test_equals_an_explicit_deconvnet(inplace: bool) -> None:
    model, images = chain(inplace), torch.randn(4, 3, 31, 33, dtype=torch.double)
    for unit in range(5):
        expected, activation = deconvnet(model, images, unit)
        found = project(model, images, "7", unit)
        torch.testing.assert_close(found.activation, activation)
        torch.testing.assert_close(found.signal, expected)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("gradient", [0, -6.0, 3.0]), ("deconvnet", [3.0, 0, 3.0]), ("guided", [0, 0, 3.0])],
)
@pytest.mark.parametrize("relu", ["module", "inplace", "function", "method", "six"])
def test_rules_of_a_rectifier(rule: Rule, expected: list[float], relu: str) -> None:
    """relu(x) of -1, 2, 3 goes with weights 1, -2, 1 into a unit whose activation is 3 once a bias of 4 is added."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.six = nn.ReLU6()
            self.module = nn.ReLU()
            self.inplace = nn.ReLU(inplace=True)
            self.sum = nn.Conv2d(3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = x * 1.0
            match relu:
                case "function":
                    x = F.relu(x)
                case "method":
                    x.relu_()
                case _:
                    x = getattr(self, relu)(x)
            return self.sum(x)

    model = Net()
    with torch.no_grad():
        model.sum.weight.copy_(torch.tensor([1.0, -2.0, 1.0])[None, :, None, None])
        model.sum.bias.fill_(4)  # type: ignore[union-attr]
    found = project(model, torch.tensor([-1.0, 2, 3])[None, :, None, None], "sum", 0, rule=rule)
    assert found.activation.tolist() == [3.0]
    assert found.signal.flatten().tolist() == expected


def test_without_rectifiers_all_rules_are_the_gradient() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 2, 3), nn.SiLU())
    images = torch.randn(2, 1, 8, 8)
    signals = [project(model, images, "3", 1, rule=rule).signal for rule in ("deconvnet", "guided", "gradient")]
    torch.testing.assert_close(signals[0], signals[1], rtol=0, atol=0)
    torch.testing.assert_close(signals[0], signals[2], rtol=0, atol=0)


def test_the_gradient_is_autograds_times_the_activation() -> None:
    model, images = create_model("resnet20").eval(), torch.randn(1, 3, 32, 32)
    places = torch.tensor([[3, 4]])
    found = project(model, images, "stages.1", 7, rule="gradient", places=places)
    images.requires_grad_()
    value = model.features(images)[1][0, 7, 3, 4]  # type: ignore[operator]
    (gradient,) = torch.autograd.grad(value, images)
    torch.testing.assert_close(found.signal, gradient * value.clamp(min=0).detach())
    assert found.activation.item() == pytest.approx(value.item(), rel=1e-4)


def test_what_is_not_positive_sends_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        model[0].weight.fill_(-1.0)  # type: ignore[union-attr]
        model[0].bias.fill_(0.0)  # type: ignore[union-attr]
    found = project(model, torch.ones(1, 1, 2, 2), "0", 0)
    assert found.activation.item() == -1 and not found.signal.any()


def test_strongest_equals_sorting_everything() -> None:
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()), torch.randn(11, 1, 7, 9)
    found = strongest(model, images.split(4), ["1", "0"], count=5)
    maps = model(images).detach()
    for unit, best in enumerate(found["1"]):
        peaks = maps[:, unit].flatten(1).max(dim=1).values
        order = peaks.argsort(descending=True)[:5].tolist()
        assert [e.index for e in best] == order
        for e in best:
            assert maps[e.index, unit, e.row, e.column] == e.activation == peaks[e.index]
    assert len(strongest(model, [images[:2]], ["0"])["0"][0]) == 2
    with pytest.raises(InputError, match="no images"):
        strongest(model, [], ["0"])


def test_images_of_signals() -> None:
    signal = torch.tensor([[[0.0, 2.0, -1.0]]])
    assert as_image(signal).tolist() == [[[128, 255, 64]]]
    assert as_image(torch.zeros(3, 2, 2)).unique().tolist() == [128]
    assert as_image(torch.randn(5, 2, 2)).shape == (1, 2, 2)


def test_wrong_names() -> None:
    model, images = chain(), torch.randn(1, 3, 32, 32, dtype=torch.double)
    with pytest.raises(InputError, match="layer 7 has no unit 5; it has 5, 0 to 4"):
        project(model, images, "7", 5)
    with pytest.raises(InputError, match="unknown rule 'deconv'; did you mean deconvnet"):
        project(model, images, "7", 0, rule="deconv")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown layer '9'"):
        project(model, images, "9", 0)

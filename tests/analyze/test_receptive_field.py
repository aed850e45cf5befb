from __future__ import annotations

import functools
import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin import registry
from opsin.analyze.explain_schema import Field
from opsin.analyze.field_arithmetic import PIXELS, Slide
from opsin.analyze.profile import receptive_fields
from opsin.scratch.receptive_field import Layer, receptive_field


def field(model: nn.Module, size: tuple[int, int, int]) -> Field:
    """Of the output."""
    return receptive_fields(model, size)[""]


def seen_by_gradient(model: nn.Module, size: tuple[int, int, int], unit: tuple[int, int]) -> list[tuple[int, int]]:
    """The first and last row and column that a unit of the output depends on, with all weights positive."""
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    image = torch.ones(1, *size, dtype=torch.float64, requires_grad=True)
    model(image)[0, :, unit[0], unit[1]].sum().backward()
    assert image.grad is not None
    rows, columns = (image.grad[0].abs().sum(dim=(0, d)) for d in (2, 1))
    return [(int(n.nonzero().min()), int(n.nonzero().max())) for n in (rows, columns)]


def expected(found: Field, unit: tuple[int, int], size: tuple[int, int, int]) -> list[tuple[int, int]]:
    """The same by the field, cut at the border of the image."""
    assert found.jump is not None and found.exact
    spans = []
    for i in range(2):
        low = found.start[i] + unit[i] * found.jump[i]
        assert low == int(low)
        spans.append((max(int(low), 0), min(int(low) + found.size[i] - 1, size[i + 1] - 1)))
    return spans


class Branches(nn.Module):
    """Paths over the same map, added or concatenated; what they give is cut to the smallest."""

    def __init__(self, paths: list[nn.Module], add: bool) -> None:
        super().__init__()
        self.paths, self.add = nn.ModuleList(paths), add

    def forward(self, x: Tensor) -> Tensor:
        found = [path(x) for path in self.paths]
        return functools.reduce(torch.add, found) if self.add else torch.cat(found, dim=1)


def random_net(seed: int) -> nn.Module:
    """Convolutions with dilation and other strides per side, poolings, shortcuts and branches."""
    pick = random.Random(seed)
    layers: list[nn.Module] = []
    channels = 2
    for _ in range(pick.randint(2, 4)):
        kind = pick.choice(["conv", "pool", "residual", "branches", "factored"])
        if kind == "conv":
            k, d = pick.choice([1, 3, 5]), pick.choice([1, 2, 3])
            layers.append(nn.Conv2d(channels, channels, k, pick.choice([1, 2]), pick.randint(0, k // 2 * d), d))
        elif kind == "pool":
            layers.append(nn.AvgPool2d(pick.choice([2, 3]), pick.choice([1, 2]), pick.choice([0, 1])))
        elif kind == "factored":
            layers.append(nn.Conv2d(channels, channels, (1, 7), 1, (0, 3)))
            layers.append(nn.Conv2d(channels, channels, (5, 1), (pick.choice([1, 2]), 1), (2, 0)))
        elif kind == "residual":
            d = pick.choice([1, 2])
            layers.append(Branches([nn.Identity(), nn.Conv2d(channels, channels, 3, 1, d, d)], add=True))
        else:
            stride = pick.choice([1, 2])
            paths = [nn.Conv2d(channels, channels, k, stride, k // 2) for k in (1, 3, 5)]
            layers.append(Branches([*paths, nn.AvgPool2d(3, stride, 1)], add=False))
            channels *= 4
    return nn.Sequential(*layers)


@pytest.mark.parametrize("seed", range(25))
def test_random_nets_see_what_their_gradient_says(seed: int) -> None:
    model, size = random_net(seed), (2, 61, 72)
    found = field(model, size)
    with torch.no_grad():
        height, width = model.float()(torch.ones(1, *size)).shape[2:]
    middle = (height // 2, width // 2)
    assert seen_by_gradient(model, size, middle) == expected(found, middle, size)
    for unit in ((0, 0), (height - 1, width - 1)):  # at the border a gap between the taps may lie on the last pixel
        sides = zip(seen_by_gradient(model, size, unit), expected(found, unit, size), strict=True)
        assert all(low <= first and last <= high for (first, last), (low, high) in sides)


@pytest.mark.parametrize(
    "model",
    [
        nn.Conv2d(1, 1, 3, groups=1),
        nn.Sequential(nn.ZeroPad2d((2, 0, 1, 3)), nn.Conv2d(1, 1, 3)),
        nn.Sequential(nn.Upsample(scale_factor=2), nn.AvgPool2d(4, 2)),
        nn.Sequential(nn.AvgPool2d(2), nn.ConvTranspose2d(1, 1, 2, 2), nn.AvgPool2d(2)),
        nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.PixelShuffle(2), nn.AvgPool2d(2)),
        nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(16, 1, 3)),
    ],
    ids=["conv", "padding", "nearest", "transposed", "shuffle", "unshuffle"],
)
def test_layers_that_take_turns_see_what_their_gradient_says(model: nn.Module) -> None:
    size = (1, 24, 32)
    found = field(model, size)
    assert seen_by_gradient(model, size, (3, 2)) == expected(found, (3, 2), size)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (4, 2, 1), (2, 2, 0), (5, 3, 2), (1, 2, 0)])
def test_units_of_a_transposed_convolution_take_turns(kernel: int, stride: int, padding: int) -> None:
    low_high = []
    weight = torch.ones(1, 1, kernel, kernel, dtype=torch.float64)
    for unit in range(stride, 3 * stride):
        image = torch.zeros(1, 1, 12, 12, dtype=torch.float64, requires_grad=True)
        F.conv_transpose2d(image, weight, None, stride, padding)[0, 0, unit, stride].backward()
        assert image.grad is not None
        rows = image.grad[0, 0].sum(dim=1).nonzero()
        low_high.append((int(rows.min()), int(rows.max())) if len(rows) else (0, -1))
    taps = [[o + padding - k for k in range(kernel)] for o in range(stride)]
    slide = PIXELS.through([[t // stride for t in row if t % stride == 0] for row in taps], 1)
    found = [slide.at(unit) for unit in range(stride, 3 * stride)]
    assert [span for span in found if span[0] <= span[1]] == [span for span in low_high if span[0] <= span[1]]


def test_a_chain_is_the_recurrence() -> None:
    layers = [Layer(11, 4, 2), Layer(3, 2), Layer(5, 1, 2), Layer(3, 2), Layer(3, 1, 2, 2)]
    model = nn.Sequential(*(nn.Conv2d(1, 1, one.kernel, one.stride, one.padding, one.dilation) for one in layers))
    found, known = field(model, (1, 200, 200)), receptive_field(layers)
    assert (found.size, found.jump, found.start) == ((known.size,) * 2, (known.jump,) * 2, (known.start,) * 2)
    assert found.centre == (known.start + known.size / 2,) * 2


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    # the table of google-research/receptive_field, the code of Araujo, Norris and Sim 2019
    [
        ("vgg16", "head.0", 212),
        ("alexnet", "head.0", 195),
        ("resnet50_v1", "stages.3", 483),
        ("resnet101_v1", "stages.3", 1027),
        ("resnet152_v1", "stages.3", 1507),
        ("bn_inception", "", 699),
        ("inception_v3", "", 1311),
        ("inception_v4", "", 2071),
        ("inception_resnet_v2", "", 3039),
        ("mobilenet_v1", "", 315),
    ],
)
def test_published_fields(name: str, layer: str, size: int) -> None:
    with torch.device("meta"):
        model = registry.create_model(name)
    found = receptive_fields(model, registry.find_model(name).published.input)
    stages = [key for key in found if key.startswith("stages.")]
    seen = found[layer] if layer else max((found[key] for key in stages), key=lambda f: f.size)
    assert seen.size == (size, size) and seen.jump == (32, 32) and not seen.whole


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.gate(x.mean(dim=(2, 3), keepdim=True)))


@pytest.mark.parametrize(
    ("model", "size", "whole"),
    [
        (Gate(), (3, 3), True),
        (nn.Sequential(nn.Conv2d(2, 2, 3), nn.GroupNorm(1, 2)), (3, 3), True),
        (nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.ReLU()), (3, 3), False),
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.ChannelShuffle(2), nn.PixelShuffle(2)), (3, 3), False),
        (nn.Sequential(nn.Conv2d(2, 2, 3), nn.LocalResponseNorm(3)), (3, 3), False),
    ],
    ids=["gate", "group norm", "batch norm", "shuffles", "local response norm"],
)
def test_what_has_seen_all_says_so(model: nn.Module, size: tuple[int, int], whole: bool) -> None:
    found = field(model, (2, 16, 20))
    assert (found.size, found.whole, found.exact) == (size, whole, True)


@pytest.mark.parametrize(
    "tail",
    [
        [nn.AdaptiveAvgPool2d(1)],
        [nn.AdaptiveMaxPool2d(1), nn.Flatten()],
        [nn.Flatten(), nn.Linear(2 * 18 * 18, 5)],
    ],
    ids=["pooled", "pooled and flat", "dense"],
)
def test_global_pooling_and_dense_layers_see_the_whole_image(tail: list[nn.Module]) -> None:
    found = field(nn.Sequential(nn.Conv2d(3, 2, 3), *tail), (3, 20, 20))
    assert found == Field((20, 20), None, (0, 0), (10.0, 10.0), whole=True)


class Tokens(nn.Module):
    """Rows and columns merged into one dimension, a dense layer for each place, with or without attention, and back."""

    def __init__(self, attend: bool) -> None:
        super().__init__()
        self.patches, self.dense, self.attend = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), attend

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        tokens = self.dense(x.flatten(2).transpose(1, 2))
        if self.attend:
            tokens = tokens + F.scaled_dot_product_attention(tokens, tokens, tokens)
        return tokens.transpose(1, 2).reshape(x.shape)


def test_places_are_followed_through_tokens() -> None:
    found = field(Tokens(attend=False), (3, 16, 24))
    assert (found.size, found.jump, found.whole, found.exact) == ((4, 4), (4, 4), False, True)
    found = field(Tokens(attend=True), (3, 16, 24))
    assert (found.size, found.jump, found.whole, found.exact) == ((4, 4), (4, 4), True, True)


class Blocks(nn.Module):
    """Rows cut into blocks: not followed."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.reshape(b, c, h // 4, 4, w).amax(dim=3)


def test_what_is_not_followed_is_a_bound() -> None:
    found = field(Blocks(), (3, 16, 24))
    assert not found.exact and found.whole


def test_adaptive_pooling_takes_turns() -> None:
    found = field(nn.AdaptiveAvgPool2d((4, 6)), (1, 10, 6))  # windows of 3, 3, 3, 3 over 10, each 2.5 on
    assert (found.size, found.jump) == ((3, 1), (2.5, 1))


def test_max_pooling_is_as_average_pooling() -> None:
    pools: list[Callable[..., nn.Module]] = [nn.MaxPool2d, nn.AvgPool2d]
    one, other = (field(nn.Sequential(nn.Conv2d(1, 1, 3), pool(3, 2, 1)), (1, 30, 30)) for pool in pools)
    assert one == other
    assert field(nn.MaxPool2d(3, 1, 1, dilation=2), (1, 30, 30)).size == (5, 5)


def test_a_slide_is_the_shortest() -> None:
    assert Slide((0,), (0,), 1).through([[0, 1]], 2) == Slide((0,), (1,), 2)
    assert PIXELS.through([[0], [0]], 1) == Slide((0, 0), (0, 0), 1)
    assert PIXELS.through([[0], [0]], 1).through([[0, 1]], 2) == Slide((0,), (0,), 1)


def test_slices_and_concatenations() -> None:
    class Sliced(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x[:, :, 1::2, 3:-1:2], F.avg_pool2d(x, 2, 2)[:, :, :, 1:-1]], dim=1)

    found = field(Sliced(), (1, 16, 16))
    assert (found.size, found.jump, found.start) == ((2, 2), (2, 2), (0, 2))

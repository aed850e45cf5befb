"""Darknet's files, read by us and by a plain interpreter of cfg layers that knows nothing of our modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin import create_model
from opsin.backbones.cspnet import CSPNet, Plan, Stage
from opsin.detect.darknet_weights import load_darknet
from opsin.detect.yolov1 import LocalConv2d
from opsin.errors import InputError

# (filters, size, stride) with batch norm, (filters,) a linear 1x1 with a bias, "max2", "max1", "up", or routes.
Layer = tuple[Any, ...] | str
_BLOCK = ("half", (0, 3, 1), (0, 3, 1), ("route", -1, -2), (1, 1, 1), ("route", -6, -1), "max2")


def _csp(width: int) -> list[Layer]:
    widths = {0: width // 2, 1: width}
    return [(width, 3, 1)] + [(widths[s[0]], *s[1:]) if len(s) == 3 and s[0] in widths else s for s in _BLOCK]  # type: ignore[index]


V4_TINY: list[Layer] = [
    *((32, 3, 2), (64, 3, 2), *_csp(64), *_csp(128), *_csp(256), (512, 3, 1)),
    *((256, 1, 1), (512, 3, 1), (21,), "yolo", ("route", -4), (128, 1, 1), "up", ("route", -1, 23), (256, 3, 1), (21,)),
]
V3_TINY: list[Layer] = [
    *((16, 3, 1), "max2", (32, 3, 1), "max2", (64, 3, 1), "max2", (128, 3, 1), "max2", (256, 3, 1), "max2"),
    *((512, 3, 1), "max1", (1024, 3, 1), (256, 1, 1), (512, 3, 1), (21,), "yolo"),
    *(("route", -4), (128, 1, 1), "up", ("route", -1, 8), (256, 3, 1), (21,)),
]


class Plain:
    """Runs cfg layers, making the numbers of each on the way, in the order of a file."""

    def __init__(self, layers: list[Layer], image: Tensor) -> None:
        self.random = np.random.default_rng(0)
        self.numbers: list[np.ndarray] = []
        self.results: list[Tensor] = []
        x = image
        for layer in layers:
            x = self._run(layer, x)
            self.results.append(x)

    def draw(self, *shape: int, positive: bool = False) -> Tensor:
        values = self.random.normal(size=shape).astype(np.float32)
        values = np.abs(values) + 0.5 if positive else values * 0.3
        self.numbers.append(values.ravel().astype(np.float32))
        return torch.from_numpy(values.astype(np.float32))

    def conv(self, x: Tensor, filters: int, size: int, stride: int) -> Tensor:
        shift, scale = self.draw(filters), self.draw(filters, positive=True)
        mean, variance = self.draw(filters), self.draw(filters, positive=True)
        weight = self.draw(filters, x.shape[1], size, size) / size
        self.numbers[-1] /= size
        x = F.batch_norm(F.conv2d(x, weight, None, stride, size // 2), mean, variance, scale, shift)
        return F.leaky_relu(x, 0.1)

    def _run(self, layer: Any, x: Tensor) -> Tensor:
        if layer == "half":
            return x[:, x.shape[1] // 2 :]
        if layer == "max2":
            return F.max_pool2d(x, 2)
        if layer == "max1":
            return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 2, 1)
        if layer == "up":
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        if layer == "yolo":
            return x
        if layer[0] == "route":
            return torch.cat([self.results[i] for i in layer[1:]], dim=1)
        if len(layer) == 1:
            bias = self.draw(layer[0])
            return F.conv2d(x, self.draw(layer[0], x.shape[1], 1, 1), bias)
        return self.conv(x, *layer)


def write(path: Path, numbers: list[np.ndarray] | np.ndarray, version: tuple[int, int, int] = (0, 2, 5)) -> Path:
    """seen has 8 bytes from 0.2 on, 4 before, and 4 in transposed files."""
    major, minor, _ = version
    wide = major * 10 + minor >= 2 and major < 1000 and minor < 1000
    header = np.array(version, "<i4").tobytes() + np.array([32013312], "<u8" if wide else "<u4").tobytes()
    body = np.concatenate(numbers) if isinstance(numbers, list) else numbers
    path.write_bytes(header + body.astype("<f4").tobytes())
    return path


@pytest.mark.parametrize(("name", "layers"), [("yolov3_tiny", V3_TINY), ("yolov4_tiny", V4_TINY)])
@pytest.mark.parametrize("version", [(0, 2, 5), (0, 1, 0)])
def test_a_file_gives_what_a_plain_interpreter_gives(
    name: str, layers: list[Layer], version: tuple[int, int, int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64)
    plain = Plain(layers, image)
    model = create_model(name, num_classes=2).eval()
    assert load_darknet(model, write(tmp_path / "x.weights", plain.numbers, version)) == []
    with torch.no_grad():
        outputs = model(image)
    coarse = plain.results[layers.index("yolo") - 1]
    assert torch.allclose(outputs["stride32"], coarse, rtol=1e-3, atol=1e-3 * coarse.abs().max().item())
    fine = plain.results[-1]
    assert torch.allclose(outputs["stride16"], fine, rtol=1e-3, atol=1e-3 * fine.abs().max().item())


def test_a_cross_stage_is_put_together_from_the_files_parts(tmp_path: Path) -> None:
    plan = Plan((Stage(1, 4, 8, 16),), "dark")
    image = torch.randn(1, 3, 16, 16)
    plain = Plain([], image)
    x = plain.conv(plain.conv(image, 32, 3, 1), 16, 3, 2)
    passing = plain.conv(x, 8, 1, 1)
    through = plain.conv(x, 8, 1, 1)
    through = through + plain.conv(plain.conv(through, 4, 1, 1), 8, 3, 1)
    through = plain.conv(through, 8, 1, 1)
    joined = plain.conv(torch.cat([through, passing], dim=1), 16, 1, 1)
    bias = plain.draw(5)
    expected = joined.mean(dim=(2, 3)) @ plain.draw(5, 16).T + bias
    model = CSPNet(plan, num_classes=5).eval()
    assert load_darknet(model, write(tmp_path / "x.weights", plain.numbers)) == []
    assert torch.allclose(model(image), expected, atol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [(0, 2, 5), (0, 1001, 0)])
def test_local_and_connected_layers(version: tuple[int, int, int], tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(LocalConv2d(2, 3, 4), nn.Flatten(), nn.Linear(48, 5))

    random = np.random.default_rng(0)
    bias, weight = random.normal(size=(3, 4, 4)), random.normal(size=(16, 3, 2, 3, 3))
    shift, matrix = random.normal(size=5), random.normal(size=(5, 48))
    image = random.normal(size=(2, 4, 4))
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    local = np.zeros((3, 4, 4))
    for y in range(4):
        for x in range(4):
            window = padded[:, y : y + 3, x : x + 3]
            local[:, y, x] = (weight[4 * y + x] * window).sum(axis=(1, 2, 3)) + bias[:, y, x]
    stored = matrix.T if version[1] > 1000 else matrix
    path = write(tmp_path / "x.weights", [v.ravel() for v in (bias, weight, shift, stored)], version)
    net = Net()
    assert load_darknet(net, path) == []
    found = net.layers(torch.from_numpy(image[None].astype(np.float32)))
    assert torch.allclose(found[0], torch.from_numpy(matrix @ local.ravel() + shift).float(), atol=1e-3)


# filters, size and input channels of the cfg files' convolutions behind the backbone
def _sets(entering: int, width: int) -> list[tuple[int, int, int]]:
    return [
        (width, entering, 1),
        (2 * width, width, 3),
        (width, 2 * width, 1),
        (2 * width, width, 3),
        (width, 2 * width, 1),
    ]


_V3 = [
    *_sets(1024, 512), (1024, 512, 3), (255, 1024, 1), (256, 512, 1),
    *_sets(768, 256), (512, 256, 3), (255, 512, 1), (128, 256, 1),
    *_sets(384, 128), (256, 128, 3), (255, 256, 1),
]  # fmt: skip
_V4 = [
    *_sets(1024, 512)[:3], (512, 2048, 1), (1024, 512, 3), (512, 1024, 1),
    (256, 512, 1), (256, 512, 1), *_sets(512, 256), (128, 256, 1), (128, 256, 1), *_sets(256, 128),
    (256, 128, 3), (255, 256, 1),
    (256, 128, 3), *_sets(512, 256), (512, 256, 3), (255, 512, 1),
    (512, 256, 3), *_sets(1024, 512), (1024, 512, 3), (255, 1024, 1),
]  # fmt: skip
_V2 = [(1024, 1024, 3), (1024, 1024, 3), (64, 512, 1), (1024, 1280, 3), (425, 1024, 1)]


@pytest.mark.parametrize(
    ("name", "tail", "convolutions"), [("yolov3", _V3, 75), ("yolov4", _V4, 110), ("yolov2", _V2, 23)]
)
def test_the_order_of_the_large_networks_is_the_cfg_files(
    name: str, tail: list[tuple[int, int, int]], convolutions: int
) -> None:
    with torch.device("meta"):
        model = create_model(name)
    layers = [m for part in model.darknet_order() for m in part.modules() if isinstance(m, nn.Conv2d)]  # type: ignore[operator]
    merged = 5 if name == "yolov4" else 0  # one convolution of ours for the two that split a cross stage
    assert len(layers) + merged == convolutions
    shapes = [(m.out_channels, m.in_channels, m.kernel_size[0]) for m in layers]
    assert shapes[-len(tail) :] == tail


@pytest.fixture
def whole(tmp_path: Path) -> tuple[nn.Module, Path, np.ndarray]:
    model = CSPNet(Plan((Stage(1, 4, 8, 16),), "dark"), num_classes=5)
    count = sum(v.numel() for k, v in model.state_dict().items() if not k.endswith("tracked"))
    numbers = np.abs(np.random.default_rng(0).normal(size=count))
    return model, write(tmp_path / "x.weights", numbers), numbers


def test_a_start_fills_the_first_layers(whole: tuple[nn.Module, Path, np.ndarray]) -> None:
    model, path, numbers = whole
    write(path, numbers[: -5 * 17])
    with pytest.raises(InputError, match="or a start"):
        load_darknet(model, path)
    assert load_darknet(model, path, partial=True) == ["head.2.weight", "head.2.bias"]
    write(path, numbers[:-40])
    with pytest.raises(InputError, match=r"ends in the middle of layer head\.2"):
        load_darknet(model, path, partial=True)


def test_errors(whole: tuple[nn.Module, Path, np.ndarray], tmp_path: Path) -> None:
    model, path, numbers = whole
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for wrong, message in [
        (numbers[:-1], "holds .* numbers, this CSPNet has"),
        (np.append(numbers, 1), "num_classes"),
        (np.where(np.arange(len(numbers)) == 7, np.nan, numbers), "not finite in layer stem"),
        (-numbers, "variances below 0 in layer stem"),
    ]:
        with pytest.raises(InputError, match=message):
            load_darknet(model, write(path, wrong))
    for content, message in [
        (b"short", "5 bytes"),
        (b"<html>" * 20, "no Darknet file"),
        (path.read_bytes()[:-2], "middle of a number"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            load_darknet(model, path)
    with pytest.raises(InputError, match="cannot be read"):
        load_darknet(model, tmp_path / "none.weights")
    with pytest.raises(InputError, match="no Darknet file has the layers"):
        load_darknet(create_model("yolov3", backbone="mobilenet_v3_small", width=0.25), path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("file", "found"),
    [("cfg/yolov3.cfg", "it has yolov3 by name"), ("yolov3-tiny.cfg", "yolov3_tiny"), ("x.cfg", "v4")],
)
def test_a_cfg_says_what_there_is(file: str, found: str) -> None:
    with pytest.raises(InputError, match=r"builds no network from a Darknet \.cfg") as caught:
        create_model(file)
    assert found in str(caught.value) and "\n" not in str(caught.value) and "load_darknet" in str(caught.value)

"""Files of ports whose shapes are ours: the right variant answers as the port does, the wrong one takes them and errs.

docs/weights.md has the table that these hold. The ports are torchvision, timm, pytorchcv and, of CIFAR's ResNets, one
written here with padding on both sides, as akamaster's pytorch_resnet_cifar10 has it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

import opsin
from opsin.errors import InputError


class CifarBlock(nn.Module):
    """A basic block that pads its shortcut with zeros on both sides of the channels."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
        self.stride, self.side = stride, (outer - inner) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        z = x[:, :, :: self.stride, :: self.stride]
        zeros = z.new_zeros(len(z), self.side, *z.shape[2:])
        return F.relu(y + torch.cat([zeros, z, zeros], dim=1))


class CifarResNet(nn.Module):
    """ResNet-20 for CIFAR with such blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        layers = [nn.Sequential(CifarBlock(*w), CifarBlock(w[1], w[1], 1), CifarBlock(w[1], w[1], 1)) for w in widths]
        self.layer1, self.layer2, self.layer3 = layers
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def of_timm(name: str) -> Callable[[], nn.Module]:
    return lambda: pytest.importorskip("timm").create_model(name)


def of_pytorchcv(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        net = pytest.importorskip("pytorchcv.model_provider").get_model(name)
        net.features.final_pool = nn.AdaptiveAvgPool2d(1)
        return net

    return build


def randomized(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        model = build()
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif name.endswith(("running_var", "weight")):
                tensor.uniform_(0.5, 1.0, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.1, generator=generator)
            else:
                tensor.zero_()
    return model


def filled(name: str, file: Path, num_classes: int, **options: Any) -> nn.Module:
    with torch.device("meta"):
        model = opsin.create_model(name, num_classes=num_classes, **options)
    model = model.to_empty(device="cpu").eval()
    fitted = opsin.load_weights(model, file, say=lambda line: None)
    assert not fitted.fresh and not fitted.left
    return model


RELU6 = {"activation": "relu6"}
TENSORFLOW = {"padding": "tf"}
# (port, side of the image, the right variant, wrong ones that take the file all the same)
PORTS: dict[str, tuple[Callable[[], nn.Module], int, tuple[str, dict[str, Any]], list[tuple[str, dict[str, Any]]]]] = {
    "zeros on both sides": (
        CifarResNet,
        32,
        ("resnet20", {"shortcut": "A_centred"}),
        [("resnet20", {})],
    ),
    "v1": (of_pytorchcv("resnet50"), 33, ("resnet50_v1", {}), [("resnet50", {})]),
    "v1.5": (models.resnet50, 33, ("resnet50", {}), [("resnet50_v1", {})]),
    "no shuffle": (
        models.shufflenet_v2_x0_5,
        32,
        ("shufflenet_v2_x0_5", {}),
        [("shufflenet_v2_x0_5", {"shuffle": False})],
    ),
    "groups": (
        of_pytorchcv("shufflenet_g3_wd4"),
        32,
        ("shufflenet_v1_g3_x0_25", {}),
        [("shufflenet_v1_g3_x0_25", {"shuffle": False})],
    ),
    "ReLU6": (
        of_timm("mobilenetv1_100"),
        32,
        ("mobilenet_v1", RELU6),
        [("mobilenet_v1", {}), ("mobilenet_v1", {**RELU6, **TENSORFLOW})],
    ),
    "ReLU": (of_pytorchcv("mobilenet_w1"), 32, ("mobilenet_v1", {}), [("mobilenet_v1", RELU6)]),
    "eps and TensorFlow's padding": (
        of_timm("tf_efficientnet_b0"),
        64,
        ("tf_efficientnet_b0", {}),
        [("efficientnet_b0", {}), ("tf_efficientnet_b0", {"norm_eps": 1e-5})],
    ),
    "torch's eps": (
        models.efficientnet_b0,
        32,
        ("efficientnet_b0", {}),
        [("efficientnet_b0", {"norm_eps": 1e-3}), ("tf_efficientnet_b0", {})],
    ),
    "hard swish": (
        models.mobilenet_v3_small,
        32,
        ("mobilenet_v3_small", {}),
        [("mobilenet_v3_small", {"hard_swish": False}), ("tf_mobilenet_v3_small", {})],
    ),
    "leaky slope": (
        of_timm("darknet53"),
        32,
        ("darknet53_timm", {}),
        [("darknet53", {})],
    ),
    "squeezes": (
        of_timm("legacy_seresnet18"),
        64,
        ("legacy_seresnet18", {}),
        [("se_resnet18", {})],
    ),
}


@pytest.mark.parametrize("kind", PORTS)
def test_the_right_variant_equals_the_port_and_the_wrong_one_differs(kind: str, tmp_path: Path) -> None:
    build, side, right, wrong = PORTS[kind]
    port = randomized(build)
    torch.save(port.state_dict(), tmp_path / "net.pth")
    images = 3 * torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = port(images)
        scale = expected.abs().max()
        model = filled(right[0], tmp_path / "net.pth", expected.shape[1], **right[1])
        assert (model(images) - expected).abs().max() <= 1e-5 * scale
        for name, options in wrong:
            model = filled(name, tmp_path / "net.pth", expected.shape[1], **options)
            assert (model(images) - expected).abs().max() > 1e-4 * scale


AGREE = [("densenet121", "densenet121", 32), ("inception_v3", "inceptionv3", 75), ("bn_inception", "bninception", 32)]


@pytest.mark.parametrize(("name", "port", "side"), AGREE)
def test_places_where_ports_could_differ_and_do_not(name: str, port: str, side: int, tmp_path: Path) -> None:
    """DenseNet's norm and ReLU before each convolution; the order of Inception's branches and of their factors."""
    theirs = randomized(of_pytorchcv(port))
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(images)
        model = filled(name, tmp_path / "net.pth", 1000)
        assert (model(images) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_auxiliary_heads_of_googlenet_are_left_in_the_file(tmp_path: Path) -> None:
    """torchvision has them before the last layer, and the network is built without."""
    theirs = randomized(lambda: models.googlenet(aux_logits=True, transform_input=False, init_weights=False))
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    model = opsin.create_model("googlenet_bn").eval()
    fitted = opsin.load_weights(model, tmp_path / "net.pth", say=lambda line: None)
    assert not fitted.fresh and fitted.left and all(key.startswith(("aux1.", "aux2.")) for key in fitted.left)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(images)
        assert (model(images) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_branches_in_another_order_are_refused(tmp_path: Path) -> None:
    """pytorchcv registers the second branch of ShuffleNet v2 first: the shapes say so."""
    torch.save(randomized(of_pytorchcv("shufflenetv2_wd2")).state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"tensor 5 is features\.stage1\.unit1\.compress_conv1\.weight"):
        filled("shufflenet_v2_x0_5", tmp_path / "net.pth", 1000)


def test_transform_input_is_a_preprocessing(tmp_path: Path) -> None:
    """torchvision's googlenet and inception_v3 turn ImageNet's normalisation into values from -1 to 1 by themselves."""
    port = randomized(lambda: models.googlenet(transform_input=True, aux_logits=False, init_weights=False))
    torch.save(port.state_dict(), tmp_path / "net.pth")
    model = filled("googlenet_bn", tmp_path / "net.pth", 1000)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        expected = port((images - mean) / std)
        torch.testing.assert_close(model((images - 0.5) / 0.5), expected, rtol=1e-4, atol=1e-4)
        assert (model((images - mean) / std) - expected).abs().max() > 1e-2 * expected.abs().max()


def test_weights_for_blue_first_are_turned_in_the_first_layer(tmp_path: Path) -> None:
    port = randomized(CifarResNet)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    state = port.state_dict()
    with torch.no_grad():
        expected = port(images.flip(1))  # an image read in OpenCV's order
        torch.save({**state, "conv1.weight": state["conv1.weight"].flip(1)}, tmp_path / "net.pth")
        model = filled("resnet20", tmp_path / "net.pth", 10, shortcut="A_centred")
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
        assert (port(images) - expected).abs().max() > 1e-2 * expected.abs().max()


def test_a_map_flattened_channels_last_is_turned_in_the_linear_layer() -> None:
    """As Keras flattens it: the snippet of docs/weights.md."""
    maps = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    linear = torch.randn(7, 60, generator=torch.Generator().manual_seed(1))  # of height 3, width 4, 5 channels
    expected = maps.permute(0, 2, 3, 1).flatten(1) @ linear.T
    turned = linear.unflatten(1, (3, 4, 5)).permute(0, 3, 1, 2).flatten(1)
    torch.testing.assert_close(maps.flatten(1) @ turned.T, expected)
    assert (maps.flatten(1) @ linear.T - expected).abs().max() > 1


def test_squeezes_of_later_ports_go_to_those_ports(tmp_path: Path) -> None:
    """timm's seresnet50 is v1.5 with torch's pooling; the published se_resnet50 is v1 with Caffe's."""
    port = randomized(of_timm("seresnet50"))
    torch.save(port.state_dict(), tmp_path / "net.pth")
    images = torch.randn(1, 3, 65, 65, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = port(images)
        scale = expected.abs().max()
        assert (filled("se_resnet50", tmp_path / "net.pth", 1000)(images) - expected).abs().max() > 0.01 * scale
        assert (filled("timm:seresnet50", tmp_path / "net.pth", 1000)(images) - expected).abs().max() <= 1e-5 * scale

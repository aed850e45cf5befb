"""Pre-activation ResNet: Identity Mappings in Deep Residual Networks.

He, Zhang, Ren and Sun 2016, arXiv:1603.05027. The idea: move batch norm and ReLU in front of the convolutions, so that
nothing stands on the path of the additions; then any block's output is the input plus a sum of residuals, and a
thousand layers train.

preact_resnet18 to 200 are for ImageNet, as pytorchcv's preresnet18, 34, 50b to 200b: they halve the map in the 3x3
convolution, and norm and activate behind the stem as well. stem_norm=False is timm's resnetv2, which leaves that to the
first block, as the paper's appendix wants it. preact_resnet110, 164 and 1001 are for CIFAR: 110 of basic blocks, the
others of bottlenecks, with no norm behind the stem in the paper's code, pytorchcv and here. fb.resnet.torch has another
net of that name, which has a norm on the projections, and no pre-activation in the first stage at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.resnet import Norm, ZeroPad, create_norm_of
from opsin.checks import check_probability
from opsin.errors import unknown
from opsin.registry import Published, register


class PreActBlock(nn.Module):
    """x + body(relu(norm(x))). Figure 4e. A projection takes the activated map too. shortcut: None in a plain net."""

    def __init__(self, activation: nn.Sequential, body: nn.Sequential, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.activation = activation
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation(x)
        y = self.body(activated)
        if self.shortcut is not None:
            y += self.shortcut(activated if isinstance(self.shortcut, nn.Conv2d) else x)
        return y


class PreActResNet(Backbone):
    """A convolution, stages of blocks, each but the first halving the map, a last norm and ReLU, pooling, one linear.

    depths: blocks of each stage. bottleneck: 1x1, 3x3, 1x1 to four times the width, in place of two 3x3. widths: of the
    convolutions of each stage. stem_width: maps of the first convolution. small_images: a 3x3 stem that keeps the size,
    instead of one of stride 4. The maps of the stages are not activated: the next block, or the head, does that.

    stem_norm: norm and ReLU behind the stem as well, True for ImageNet and False for CIFAR unless given. residual=False
    leaves the shortcuts out: a plain net. shortcut: where the shape changes, "B" projects, "A" pads with zeros.
    norm: "bn", "gn" or None, as in ResNet. dropout: before the second convolution of every block, as Wide ResNet has.
    """

    def __init__(
        self,
        depths: Sequence[int],
        bottleneck: bool = False,
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_width: int = 64,
        small_images: bool = False,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        stem_norm: bool | None = None,
        shortcut: Literal["A", "B"] = "B",
        residual: bool = True,
        norm: Norm = "bn",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_classes, in_channels)
        if shortcut not in ("A", "B"):
            raise unknown("shortcut", shortcut, ("A", "B"))
        if norm not in ("bn", "gn", None):
            raise unknown("norm", norm, ("bn", "gn", "null"))
        check_probability("dropout", dropout)
        stem_norm = not small_images if stem_norm is None else stem_norm
        self.stem = _stem(in_channels, stem_width, small_images, stem_norm, norm)
        self.stages = nn.ModuleList()
        channels = stem_width
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = nn.Sequential()
            for place in range(depth):
                stride = 2 if stage > 0 and place == 0 else 1
                body = _body(channels, width, stride, bottleneck, norm, dropout)
                out_channels = 4 * width if bottleneck else width
                skip = _shortcut(channels, out_channels, stride, shortcut, norm) if residual else None
                blocks.append(PreActBlock(activation(channels, norm), body, skip))
                channels = out_channels
            self.stages.append(blocks)
        self.head = nn.Sequential(
            activation(channels, norm), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
        )
        self.channels = tuple(4 * width if bottleneck else width for width in widths)
        self.strides = tuple((1 if small_images else 4) * 2**stage for stage in range(len(widths)))
        initialize(self)


def initialize(model: nn.Module) -> None:
    """He et al. 2015, arXiv:1502.01852, by the outputs, as the authors' code; no bias on the logits."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)


def activation(channels: int, norm: Norm) -> nn.Sequential:
    """Norm and ReLU, or ReLU alone, which leaves its input as it is: the shortcut needs that too."""
    if norm is None:
        return nn.Sequential(nn.ReLU())
    return nn.Sequential(create_norm_of(norm, channels), nn.ReLU(inplace=True))


def _stem(in_channels: int, width: int, small_images: bool, normed: bool, norm: Norm) -> nn.Sequential:
    kernel_size, stride = (3, 1) if small_images else (7, 2)
    conv = nn.Conv2d(in_channels, width, kernel_size, stride, kernel_size // 2, bias=norm is None)
    stem = nn.Sequential(conv)
    if normed:
        stem.append(activation(width, norm))
    return stem if small_images else stem.append(nn.MaxPool2d(3, 2, 1))


def _body(in_channels: int, width: int, stride: int, bottleneck: bool, norm: Norm, dropout: float) -> nn.Sequential:
    """The convolutions of a block, each but the first behind its own norm and ReLU."""
    layers = (  # kernel size, stride, maps
        [(1, 1, width), (3, stride, width), (1, 1, 4 * width)] if bottleneck else [(3, stride, width), (3, 1, width)]
    )
    body = nn.Sequential()
    for place, (kernel_size, step, channels) in enumerate(layers):
        if place > 0:
            body.extend(activation(in_channels, norm))
        if place == 1:
            body.append(nn.Dropout(dropout))
        body.append(nn.Conv2d(in_channels, channels, kernel_size, step, kernel_size // 2, bias=norm is None))
        in_channels = channels
    return body


def _shortcut(in_channels: int, out_channels: int, stride: int, option: str, norm: Norm) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if option == "A":
        return ZeroPad(out_channels - in_channels, stride)
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=norm is None)


def _published(params: int, macs: int, metrics: Mapping[str, float] | None = None, size: int = 224) -> Published:
    results = {
        224: "; result read: fb.resnet.torch, of its own form",
        32: "; result: the paper's table 4, as gahaalt/cifar-vs-tensorflow2 quotes it",
    }
    return Published(
        paper="arXiv:1603.05027",
        year=2016,
        input=(3, size, size),
        params=params,
        macs=macs,
        metrics=metrics or {},
        idea="norm and activate before the convolutions: a clean path for the sum",
        source="counted: pytorchcv" + (results[size] if metrics else ""),
    )


def _imagenet(
    depth: int, depths: tuple[int, ...], params: int, macs: int, metrics: Mapping[str, float] | None = None
) -> Callable[..., PreActResNet]:
    """Enter a net for ImageNet: of basic blocks below 50 layers, of bottlenecks from there."""

    @register(
        f"preact_resnet{depth}", task="classify", network=PreActResNet, published=_published(params, macs, metrics)
    )
    def build(**options: Any) -> PreActResNet:
        return PreActResNet(depths, depth >= 50, **options)

    return build


def _cifar(
    depth: int, bottleneck: bool, params: int, macs: int, error: float | None = None
) -> Callable[..., PreActResNet]:
    """Enter a net for CIFAR of 6n + 2 layers, or of 9n + 2 with bottlenecks: three stages of n blocks."""
    blocks = (depth - 2) // (9 if bottleneck else 6)
    plan = (blocks, blocks, blocks), bottleneck, (16, 32, 64), 16, True
    metrics = None if error is None else {"cifar10 accuracy": round(100 - error, 2)}
    published = _published(params, macs, metrics, size=32)

    @register(f"preact_resnet{depth}", task="classify", network=PreActResNet, published=published)
    def build(*, num_classes: int = 10, **options: Any) -> PreActResNet:
        return PreActResNet(*plan, num_classes=num_classes, **options)

    return build


preact_resnet18 = _imagenet(18, (2, 2, 2, 2), 11_687_848, 1_814_073_344)
preact_resnet34 = _imagenet(34, (3, 4, 6, 3), 21_796_008, 3_663_761_408)
preact_resnet50 = _imagenet(50, (3, 4, 6, 3), 25_549_480, 4_089_184_256)
preact_resnet101 = _imagenet(101, (3, 4, 23, 3), 44_541_608, 7_801_405_440)
preact_resnet152 = _imagenet(152, (3, 8, 36, 3), 60_185_256, 11_513_626_624)
preact_resnet200 = _imagenet(
    200, (3, 24, 36, 3), 64_666_280, 15_007_481_856, {"imagenet1k top-1": 78.34, "imagenet1k top-5": 94.21}
)
preact_resnet20 = _cifar(20, False, 272_282, 40_813_184)  # not in the paper: ResNet-20's twin, small enough for a CPU
preact_resnet110 = _cifar(110, False, 1_730_522, 253_149_824, 6.37)
preact_resnet164 = _cifar(164, True, 1_703_258, 247_646_720, 5.46)
preact_resnet1001 = _cifar(1001, True, 10_327_706, 1_490_995_712, 4.92)

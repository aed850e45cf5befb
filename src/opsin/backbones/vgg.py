"""VGG: Very Deep Convolutional Networks for Large-Scale Image Recognition.

Simonyan and Zisserman 2014, arXiv:1409.1556. The idea: two 3x3 convolutions see as far as one of 5x5, and three as far
as one of 7x7, with fewer parameters and more non-linearities; so everything is 3x3, and only depth varies.
The names carry the number of layers with weights: A is vgg11, A-LRN vgg11_lrn, B vgg13, D vgg16, E vgg19. C has sixteen
layers like D, with 1x1 convolutions where D has 3x3 at the end of a stage: vgg16_c.
The maps of the stages are those before the pooling that follows: strides 1, 2, 4, 8, 16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.weights import torchvision_weights
from opsin.checks import check_count
from opsin.errors import unknown
from opsin.nn.norm import alexnet_lrn
from opsin.registry import Published, register

_WIDTHS = (64, 128, 256, 512, 512)

# The paper's table 1: the kernel sizes of the convolutions of each stage.
_A = ((3,), (3,), (3, 3), (3, 3), (3, 3))
_B = ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3))
_C = ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1))
_D = ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
_E = ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3))


class VGG(Backbone):
    """Five stages of convolutions, each but the first behind a max pooling, and three fully connected layers.

    kernel_sizes: of every convolution, by stage. norm: "bn" in every layer, "lrn" in the first (A-LRN), or None.
    hidden_features, pooled_size: width of the two hidden fully connected layers, and the side of the map that the first
    one sees. 4096 and 7 are the paper's; 512 and 1 make a net for small images, without nine tenths of the weights.
    downsampling: "max", the paper's; with "stride" the first convolution of a stage halves the map instead, with as
    many parameters (Springenberg et al. 2014, arXiv:1412.6806, section 3.1); the pooling before the head stays.
    init: "he" trains any of them from scratch. "paper" is N(0, 0.01^2), for which only net A is shallow enough; the
    deeper ones then start from a trained A (section 3.1, `initialize_from`).
    """

    min_size = 32

    def __init__(
        self,
        kernel_sizes: Sequence[Sequence[int]],
        norm: str | None = None,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        hidden_features: int = 4096,
        pooled_size: int = 7,
        dropout: float = 0.5,
        downsampling: Literal["max", "stride"] = "max",
        init: Literal["he", "paper"] = "he",
    ) -> None:
        super().__init__(num_classes, in_channels)
        if downsampling not in ("max", "stride"):
            raise unknown("downsampling", downsampling, ("max", "stride"))
        if init not in ("he", "paper"):
            raise unknown("init", init, ("he", "paper"))
        self.channels, self.strides = _WIDTHS, (1, 2, 4, 8, 16)
        self.stem = nn.Identity()  # there is none: the first stage sees the image
        self.stages = nn.ModuleList()
        width = in_channels
        for stage, sizes in enumerate(kernel_sizes):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if stage and downsampling == "max" else []
            for place, size in enumerate(sizes):
                stride = 2 if stage and place == 0 and downsampling == "stride" else 1
                layers.append(_layer(width, _WIDTHS[stage], size, norm, stride))
                width, norm = _WIDTHS[stage], None if norm == "lrn" else norm
            self.stages.append(nn.Sequential(*layers))
        self.head = nn.Sequential(
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(check_count("pooled_size", pooled_size)),  # the identity at the paper's 224
            nn.Flatten(),
            nn.Linear(width * pooled_size**2, check_count("hidden_features", hidden_features)),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden_features, hidden_features),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden_features, num_classes),
        )
        self._initialize(init)

    def initialize_from(self, state: Mapping[str, Tensor]) -> list[str]:
        """As in every network; but from a shallower VGG, take what the paper takes from net A (section 3.1).

        That is its first four convolutional layers and the fully connected ones. They go to the layers of the same
        name, those of the same place in the same stage.
        """
        given, own = _conv_layers(state), _conv_layers(self.state_dict())
        if set(given) < set(own):
            state = {k: v for k, v in state.items() if k.startswith((*given[:4], "head."))}
        return super().initialize_from(state)

    def _initialize(self, init: str) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and init == "he":
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(module.weight, std=0.01)
            else:
                continue
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def _layer(in_channels: int, out_channels: int, kernel_size: int, norm: str | None, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)
    relu = nn.ReLU(inplace=True)
    if norm == "bn":  # the convolution's bias is redundant before it; torchvision's nets, and so the weights, have it
        return nn.Sequential(conv, nn.BatchNorm2d(out_channels), relu)
    return nn.Sequential(conv, relu, alexnet_lrn()) if norm == "lrn" else nn.Sequential(conv, relu)


def _conv_layers(state: Mapping[str, Tensor]) -> list[str]:
    """Prefixes of the convolutional layers in a state dict, in the order of the network: `stages.<stage>.<place>.`"""
    return sorted({".".join(k.split(".")[:3]) + "." for k in state if k.startswith("stages.")})


def _published(params: int, macs: int, top1: float | None = None, top5: float | None = None) -> Published:
    metrics = {} if top1 is None or top5 is None else {"imagenet1k top-1": top1, "imagenet1k top-5": top5}
    return Published(
        paper="arXiv:1409.1556",
        year=2014,
        input=(3, 224, 224),
        params=params,
        macs=macs,
        metrics=metrics,
        idea="nothing but 3x3 convolutions, and many of them",
        source="counted and weights' results read: torchvision" if metrics else "counted on the paper's table 1",
    )


@register(
    "vgg11",
    task="classify",
    network=VGG,
    published=_published(132_863_336, 7_609_090_048, 69.02, 88.628),
    weights=torchvision_weights(("vgg11-8a719046", 69.02, 88.628)),
)
def vgg11(**options: Any) -> VGG:
    return VGG(_A, **options)


@register("vgg11_lrn", task="classify", network=VGG, published=_published(132_863_336, 7_609_090_048))
def vgg11_lrn(**options: Any) -> VGG:
    return VGG(_A, "lrn", **options)


@register(
    "vgg11_bn",
    task="classify",
    network=VGG,
    published=_published(132_868_840, 7_609_090_048, 70.37, 89.81),
    weights=torchvision_weights(("vgg11_bn-6002323d", 70.37, 89.81)),
)
def vgg11_bn(**options: Any) -> VGG:
    return VGG(_A, "bn", **options)


@register(
    "vgg13",
    task="classify",
    network=VGG,
    published=_published(133_047_848, 11_308_466_176, 69.928, 89.246),
    weights=torchvision_weights(("vgg13-19584684", 69.928, 89.246)),
)
def vgg13(**options: Any) -> VGG:
    return VGG(_B, **options)


@register(
    "vgg13_bn",
    task="classify",
    network=VGG,
    published=_published(133_053_736, 11_308_466_176, 71.586, 90.374),
    weights=torchvision_weights(("vgg13_bn-abd245e5", 71.586, 90.374)),
)
def vgg13_bn(**options: Any) -> VGG:
    return VGG(_B, "bn", **options)


@register("vgg16_c", task="classify", network=VGG, published=_published(133_638_952, 11_770_888_192))
def vgg16_c(**options: Any) -> VGG:
    return VGG(_C, **options)


@register("vgg16_c_bn", task="classify", network=VGG, published=_published(133_647_400, 11_770_888_192))
def vgg16_c_bn(**options: Any) -> VGG:
    return VGG(_C, "bn", **options)


@register(
    "vgg16",
    task="classify",
    network=VGG,
    published=_published(138_357_544, 15_470_264_320, 71.592, 90.382),
    weights=torchvision_weights(("vgg16-397923af", 71.592, 90.382)),
)
def vgg16(**options: Any) -> VGG:
    return VGG(_D, **options)


@register(
    "vgg16_bn",
    task="classify",
    network=VGG,
    published=_published(138_365_992, 15_470_264_320, 73.36, 91.516),
    weights=torchvision_weights(("vgg16_bn-6c64b313", 73.36, 91.516)),
)
def vgg16_bn(**options: Any) -> VGG:
    return VGG(_D, "bn", **options)


@register(
    "vgg19",
    task="classify",
    network=VGG,
    published=_published(143_667_240, 19_632_062_464, 72.376, 90.876),
    weights=torchvision_weights(("vgg19-dcbb9e9d", 72.376, 90.876)),
)
def vgg19(**options: Any) -> VGG:
    return VGG(_E, **options)


@register(
    "vgg19_bn",
    task="classify",
    network=VGG,
    published=_published(143_678_248, 19_632_062_464, 74.218, 91.842),
    weights=torchvision_weights(("vgg19_bn-c79401a0", 74.218, 91.842)),
)
def vgg19_bn(**options: Any) -> VGG:
    return VGG(_E, "bn", **options)

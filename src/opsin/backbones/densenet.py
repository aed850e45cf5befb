"""DenseNet: Densely Connected Convolutional Networks.

Huang, Liu, van der Maaten and Weinberger 2016, arXiv:1608.06993. The idea: every layer sees the maps of all layers
before it in its block, side by side, and adds only a few (the growth rate k) of its own; nothing has to be learnt
twice, and the loss reaches every layer on a short way.

densenet121 to densenet264 are the nets for ImageNet of table 1, densenet<L>_k<k> and densenet_bc<L>_k<k> those for
CIFAR of table 2: B narrows to 4k maps before each 3x3, C halves the maps between blocks. pytorchcv's nets without B
compress all the same, and so are smaller than the paper's. densenet161 has k = 48, all others k = 32.
Concatenating anew in each layer keeps a copy per layer, memory that grows with the square of the depth; recompute=True
makes these copies again in the backward pass: Pleiss et al. 2017, arXiv:1707.06990.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from opsin.backbones.backbone import Backbone
from opsin.backbones.weights import torchvision_weights
from opsin.checks import check_count, check_probability, check_share
from opsin.errors import InputError
from opsin.registry import Published, Weights, register


class DenseLayer(nn.Module):
    """BN, ReLU, convolution of all maps so far; with a bottleneck that is 1x1 to 4k, and BN, ReLU, 3x3 follow.

    forward([(B, C_i, H, W)]) -> (B, growth, H, W). The C_i add up to in_channels.
    """

    def __init__(self, in_channels: int, growth: int, bottleneck: bool, dropout: float, recompute: bool) -> None:
        super().__init__()
        self.recompute = recompute
        middle = 4 * growth if bottleneck else growth
        kernel_size = 1 if bottleneck else 3
        self.read = _norm_relu_conv(in_channels, middle, kernel_size)
        self.write = _norm_relu_conv(middle, growth, 3) if bottleneck else nn.Sequential()
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: list[Tensor]) -> Tensor:
        # What is compiled or exported plans its memory itself.
        if self.recompute and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # The second run must not add the batch to the norm's running statistics again.
            x = checkpoint(
                self._read,
                *maps,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=lambda: (nullcontext(), _on_copies(self.read)),
            )
        else:
            x = self._read(*maps)
        return self.dropout(self.write(x))

    def _read(self, *maps: Tensor) -> Tensor:
        return self.read(torch.cat(maps, dim=1))


class DenseBlock(nn.Module):
    """Layers that each see the input and the outputs of all before them; the output is all of these side by side.

    dense=False: each sees only the one before it, and the output is the last one's.
    """

    def __init__(self, layers: Sequence[DenseLayer], dense: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dense = dense

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            y = layer(maps)
            maps = [*maps, y] if self.dense else [y]
        return torch.cat(maps, dim=1)


class DenseNet(Backbone):
    """A stem, dense blocks with transitions between that halve the map, norm and ReLU, pooling, one linear layer.

    depths: layers of each block. growth: maps that each layer adds, k. bottleneck: B, compression: the share of maps
    that a transition keeps, C; 1 keeps all. stem_channels: 2k unless given. small_images: a stem of one 3x3 that keeps
    the size, instead of one of stride 4. dropout: behind each convolution that adds maps; the paper has 0.2 where the
    images are not augmented. recompute: memory linear in depth for about a fifth more time, the same results.
    dense=False leaves the concatenations out: a plain net, very thin unless its growth is raised.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int] = (6, 12, 24, 16),
        growth: int = 32,
        num_classes: int = 1000,
        in_channels: int = 3,
        bottleneck: bool = True,
        compression: float = 0.5,
        stem_channels: int | None = None,
        small_images: bool = False,
        dense: bool = True,
        dropout: float = 0.0,
        recompute: bool = False,
    ) -> None:
        super().__init__(num_classes, in_channels)
        check_count("growth", growth)
        if not depths:
            raise InputError("depths names no block; give the layers of each, such as (16, 16, 16)")
        check_share("compression", compression, hint="0.5 is the paper's")
        check_probability("dropout", dropout)
        channels = 2 * growth if stem_channels is None else check_count("stem_channels", stem_channels)
        self.stem = _stem(in_channels, channels, small_images)
        self.stages = nn.ModuleList()
        widths = []
        for place, depth in enumerate(depths):
            stage: list[nn.Module] = []
            if place:
                kept = max(1, int(channels * compression))
                stage += [_norm_relu_conv(channels, kept, 1), nn.AvgPool2d(2)]
                channels = kept
            layers = []
            for _ in range(check_count("depths", depth)):
                layers.append(DenseLayer(channels, growth, bottleneck, dropout, recompute))
                channels = channels + growth if dense else growth
            self.stages.append(nn.Sequential(*stage, DenseBlock(layers, dense)))
            widths.append(channels)
        self.head = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, num_classes),
        )
        self.channels = tuple(widths)
        self.strides = tuple((1 if small_images else 4) * 2**place for place in range(len(widths)))
        # the last transition must still have two rows to pool, after a stem that rounds up
        self.min_size = 2 ** (len(widths) - 1) if small_images else 4 * 2 ** (len(widths) - 1) - 3
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # He et al. 2015, arXiv:1502.01852: section 4.2
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)


def _norm_relu_conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True), conv)


def _stem(in_channels: int, channels: int, small_images: bool) -> nn.Sequential:
    if small_images:  # no norm: each layer of the first block begins with its own
        return nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))
    conv = nn.Conv2d(in_channels, channels, 7, 2, 3, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))


@contextmanager
def _on_copies(module: nn.Module) -> Iterator[None]:
    """Give the norms inside copies of their running statistics to count in, and forget these afterwards."""
    buffers = [(m, name, tensor) for m in module.modules() for name, tensor in m.named_buffers(recurse=False)]
    for owner, name, tensor in buffers:
        setattr(owner, name, tensor.clone())
    try:
        yield
    finally:
        for owner, name, tensor in buffers:
            setattr(owner, name, tensor)


def _published(size: int, params: int, macs: int, metrics: Mapping[str, float], source: str) -> Published:
    return Published(
        paper="arXiv:1608.06993",
        year=2016,
        input=(3, size, size),
        params=params,
        macs=macs,
        metrics=metrics,
        idea="each layer sees the maps of all layers before it",
        source=source,
    )


def _imagenet(
    name: str, depths: tuple[int, ...], growth: int, published: Published, weights: Mapping[str, Weights] | None = None
) -> None:
    """Register a net of table 1."""
    plan, rate = depths, growth

    @register(name, task="classify", network=DenseNet, published=published, weights=weights)
    def build(*, depths: Sequence[int] = plan, growth: int = rate, **options: Any) -> DenseNet:
        return DenseNet(depths=depths, growth=growth, **options)


def _cifar(depth: int, growth: int, compact: bool, params: int, macs: int, error: float, source: str = "") -> None:
    """Register a net of table 2: three blocks of (depth - 4) / 3 convolutions; compact is BC."""
    layers = (depth - 4) // (6 if compact else 3)
    plan, rate, share = (layers, layers, layers), growth, 0.5 if compact else 1.0
    stem = None if compact else 16
    published = _published(
        32,
        params,
        macs,
        {"cifar10 accuracy": round(100 - error, 2)},
        source or "counted on the paper's section 4.2; result read: the authors' README",
    )

    @register(
        f"densenet{'_bc' if compact else ''}{depth}_k{growth}", task="classify", network=DenseNet, published=published
    )
    def build(
        *,
        num_classes: int = 10,
        depths: Sequence[int] = plan,
        growth: int = rate,
        bottleneck: bool = compact,
        compression: float = share,
        stem_channels: int | None = stem,
        small_images: bool = True,
        **options: Any,
    ) -> DenseNet:
        return DenseNet(
            depths=depths,
            growth=growth,
            num_classes=num_classes,
            bottleneck=bottleneck,
            compression=compression,
            stem_channels=stem_channels,
            small_images=small_images,
            **options,
        )


for _name, _depths, _growth, _params, _macs, _top1, _top5, _digest in (
    ("densenet121", (6, 12, 24, 16), 32, 7_978_856, 2_834_161_664, 74.434, 91.972, "a639ec97"),
    ("densenet161", (6, 12, 36, 24), 48, 28_681_000, 7_727_907_072, 77.138, 93.56, "8d451a50"),
    ("densenet169", (6, 12, 32, 32), 32, 14_149_480, 3_359_843_328, 75.6, 92.806, "b2777c0a"),
    ("densenet201", (6, 12, 48, 32), 32, 20_013_928, 4_291_365_888, 76.896, 93.37, "c1103571"),
):
    _results = {"imagenet1k top-1": _top1, "imagenet1k top-5": _top5}
    _facts = _published(224, _params, _macs, _results, "counted and weights' results read: torchvision")
    _imagenet(_name, _depths, _growth, _facts, torchvision_weights((f"{_name}-{_digest}", _top1, _top5)))

_imagenet(
    "densenet264",
    (6, 12, 64, 48),
    32,
    _published(
        224,
        33_337_704,
        5_751_653_376,
        {"imagenet1k top-1": 77.9},
        "counted on the paper's table 1, no count is published; result read: the authors' README",
    ),
)
_cifar(40, 12, False, 1_019_722, 264_812_928, 5.24)
_cifar(100, 12, False, 6_979_642, 1_769_516_448, 4.1)
_cifar(100, 24, False, 27_249_082, 6_889_347_744, 3.74)
_cifar(40, 12, True, 176_122, 72_365_352, 6.43, "counted, == pytorchcv, whose result this is; not in the paper")
_cifar(100, 12, True, 769_162, 287_929_692, 4.51)
_cifar(250, 24, True, 15_324_406, 5_418_785_724, 3.62)
_cifar(190, 40, True, 25_624_430, 9_301_945_740, 3.46)

"""FaceNet: A Unified Embedding for Face Recognition and Clustering.

Schroff, Kalenichenko and Philbin 2015, arXiv:1503.03832. The idea: no classifier of people whose middle layer is then
used, but 128 numbers on a sphere that are trained for what they are used for: squared distances of one person below
those of two, by a margin of 0.2, over triplets that are chosen within large batches. For each anchor and positive the
negative is semi-hard: farther than the positive, and less than the margin farther (section 3.2). The hardest ones,
nearer than the positive, let a network collapse early; sandberg/facenet takes them in by default.

Networks are those of OpenFace (Amos et al. 2016, CMU-CS-16-118) to the parameter: facenet_nn2 is the paper's table 2,
an Inception network with L2 pooling, facenet_nn4_small2 a small one for 96x96 pixels. Convolutions have bias and batch
norm. Pooling within a module keeps the size of its map, as the paper has it, where Torch's module in OpenFace lets some
shrink and fills up with zeros; that changes no parameter.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opsin.backbones.googlenet import initialize_he
from opsin.checks import check_number
from opsin.embed.embedder import Embedder
from opsin.losses.identities import IdentityLoss
from opsin.losses.triplets import triplet_loss
from opsin.registry import Published, register

Pool: TypeAlias = Literal["max", "l2"]
# Of a module: 1x1, (3x3 reduce, 3x3), (5x5 reduce, 5x5), the pooling, and what it is brought down to; 0 or None has no
# such branch. Where there is no 1x1 branch the module halves its map, and pooling keeps its channels.
Row: TypeAlias = tuple[int, tuple[int, int], tuple[int, int] | None, Pool, int]
_NN2: tuple[Row, ...] = (
    (64, (96, 128), (16, 32), "max", 32),  # 3a
    (64, (96, 128), (32, 64), "l2", 64),
    (0, (128, 256), (32, 64), "max", 0),
    (256, (96, 192), (32, 64), "l2", 128),  # 4a
    (224, (112, 224), (32, 64), "l2", 128),
    (192, (128, 256), (32, 64), "l2", 128),
    (160, (144, 288), (32, 64), "l2", 128),
    (0, (160, 256), (64, 128), "max", 0),
    (384, (192, 384), (48, 128), "l2", 128),  # 5a
    (384, (192, 384), (48, 128), "max", 128),
)
_NN4_SMALL2: tuple[Row, ...] = (
    (64, (96, 128), (16, 32), "max", 32),  # 3a
    (64, (96, 128), (32, 64), "l2", 64),
    (0, (128, 256), (32, 64), "max", 0),
    (256, (96, 192), (32, 64), "l2", 128),  # 4a
    (0, (160, 256), (64, 128), "max", 0),  # 4e
    (256, (96, 384), None, "l2", 96),  # 5a
    (256, (96, 384), None, "max", 96),
)


class L2Pool(nn.Module):
    """The root of the sum of squares over 3x3 pixels, stride 1, with a border of zeros: (B, C, H, W) in and out.

    Where all are zero the slope is taken as 0; the root itself has none.
    """

    def forward(self, x: Tensor) -> Tensor:
        return (9 * F.avg_pool2d(x.square(), 3, 1, 1)).clamp(min=1e-12).sqrt()


class Inception(nn.Module):
    """Branches side by side, joined by channels. See `Row`."""

    def __init__(self, in_channels: int, row: Row) -> None:
        super().__init__()
        plain, three, five, pool, projected = row
        stride = 1 if plain else 2
        branches: list[nn.Module] = [_conv(in_channels, plain, 1)] if plain else []
        for size, widths in ((3, three), (5, five)):
            if widths is not None:
                reduced, wide = widths
                branches.append(nn.Sequential(_conv(in_channels, reduced, 1), _conv(reduced, wide, size, stride)))
        pooling = L2Pool() if pool == "l2" else nn.MaxPool2d(3, stride, padding=1)
        branches.append(nn.Sequential(pooling, _conv(in_channels, projected, 1)) if projected else pooling)
        self.branches = nn.ModuleList(branches)
        self.channels = plain + three[1] + (five[1] if five else 0) + (projected or in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class FaceNet(Embedder):
    """A stem with local response normalisation, Inception modules, average pooling, a linear layer, length 1.

    rows: of the modules, see `Row`. features: of an embedding. margin: of squared distances, in its loss.
    """

    normalized = True
    learned = ("stem", "stages")
    min_size = 32

    def __init__(
        self, rows: tuple[Row, ...], *, in_channels: int = 3, features: int = 128, margin: float = 0.2
    ) -> None:
        super().__init__(features, in_channels)
        self.stem = nn.Sequential(
            _conv(in_channels, 64, 7, 2),
            nn.MaxPool2d(3, 2, padding=1),
            nn.LocalResponseNorm(5, 1e-4, 0.75),
            _conv(64, 64, 1),
            _conv(64, 192, 3),
            nn.LocalResponseNorm(5, 1e-4, 0.75),
            nn.MaxPool2d(3, 2, padding=1),
        )
        modules, width = [], 192
        for row in rows:
            modules.append(Inception(width, row))
            width = modules[-1].channels
        self.stages = nn.Sequential(*modules)
        self.head = nn.Linear(width, features)
        initialize_he(self)
        self.criterion = IdentityLoss(
            triplet_loss, margin=check_number("margin", margin), mining="facenet", squared=True
        )

    def embed(self, images: Tensor) -> Tensor:
        return F.normalize(self.head(self.stages(self.stem(images)).mean(dim=(2, 3))), dim=1)


def _conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


_IDEA = "distances on a sphere, trained as they are used, by semi-hard triplets"


@register(
    "facenet_nn2",
    task="embed",
    network=FaceNet,
    published=Published(
        paper="arXiv:1503.03832",
        year=2015,
        input=(3, 224, 224),
        params=7_472_144,
        metrics={"lfw accuracy": 99.63},
        idea=_IDEA,
        source="OpenFace's nn2; the paper says 7.5 million",
    ),
)
def facenet_nn2(**options: Any) -> FaceNet:
    """The paper's NN2."""
    return FaceNet(_NN2, **options)


@register(
    "facenet_nn4_small2",
    task="embed",
    network=FaceNet,
    published=Published(
        paper="Amos, Ludwiczuk, Satyanarayanan: OpenFace, CMU-CS-16-118, 2016",
        year=2016,
        input=(3, 96, 96),
        params=3_733_968,
        metrics={"lfw accuracy": 92.92},
        idea=_IDEA,
        source="OpenFace's nn4.small2",
    ),
)
def facenet_nn4_small2(**options: Any) -> FaceNet:
    """OpenFace's small network, for faces of 96x96."""
    return FaceNet(_NN4_SMALL2, **options)

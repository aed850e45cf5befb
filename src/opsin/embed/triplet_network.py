"""The triplet network: three images at once, one of which is to be nearer to another than to the third.

Hoffer and Ailon 2014, arXiv:1412.6622. The idea: whether two images are alike depends on what they are compared with,
so distances are learned by comparing them, never by their values: no margin says what is far. The network is one thing,
the loss another: the paper's is the softmax ratio of the two distances (loss.name=soft_ratio); the hinge of a margin on
their difference (loss.name=triplet), which ports write as a margin ranking of the two distances, trains it too.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from opsin.checks import check_probability
from opsin.embed.embedder import Embedder
from opsin.losses.identities import IdentityLoss
from opsin.losses.triplets import soft_ratio_loss
from opsin.registry import Published, register


class TripletNetwork(Embedder):
    """Convolutions of 5x5, 3x3, 3x3 and 2x2 without padding, max pooling by 2 between them: of 32x32 pixels. Section 4.

    128 numbers, the last convolution at the one place that is left. dropout: behind each pooling.
    """

    normalized = False
    fixed_size = 32
    learned = ("layers",)

    def __init__(self, *, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__(128, in_channels)
        check_probability("dropout", dropout)
        layers: list[nn.Module] = []
        widths = (in_channels, 64, 128, 256)
        for inside, outside, size in zip(widths, widths[1:], (5, 3, 3), strict=False):
            layers += [nn.Conv2d(inside, outside, size), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(256, 128, 2), nn.Flatten())
        self.criterion = IdentityLoss(soft_ratio_loss)

    def embed(self, images: Tensor) -> Tensor:
        return self.layers(images)


@register(
    "triplet_network",
    task="embed",
    network=TripletNetwork,
    published=Published(
        paper="arXiv:1412.6622",
        year=2014,
        input=(3, 32, 32),
        params=505_088,
        metrics={"cifar10 accuracy": 87.1},
        idea="distances are learned by comparing two of them, without a margin",
        source="counted on the layers of section 4, for CIFAR-10",
    ),
)
def triplet_network(**options: Any) -> TripletNetwork:
    """Hoffer and Ailon's network for 32x32 images."""
    return TripletNetwork(**options)

"""Conv-4-64: the four-layer network of few-shot learning, and prototypical networks, which train it in episodes.

Vinyals et al. 2016, arXiv:1606.04080 (the network); Snell et al. 2017, arXiv:1703.05175. The idea: a new class is the
mean of the few embeddings that are known of it, its prototype, and an image is of the class whose prototype is nearest;
the network is trained as it is used, in batches that are such episodes. With one shot a prototype is one embedding, and
the rule that of nearest neighbours. Distances are Euclidean, squared in the softmax: a Bregman divergence, of which the
mean is the best prototype (section 2.3), where cosine distance is none.

A batch has P classes of K images: the first `shots` of each make its prototype, the others ask for it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from opsin.checks import check_count
from opsin.embed.embedder import Embedder
from opsin.losses.prototypical import PrototypicalLoss
from opsin.registry import Published, register


class Conv4(Embedder):
    """Four times: 3x3 convolution, batch norm, ReLU, max pooling by 2, which drops a last odd row; flattened.

    Of 28x28 pixels one place of 64 numbers is left; of 84x84 there are 5 x 5. width: of each layer. size: the side of
    images, by which `features` are known. shots: of an episode, images that make a prototype.
    """

    normalized = False
    learned = ("blocks",)

    def __init__(self, *, in_channels: int = 1, width: int = 64, size: int = 28, shots: int = 1) -> None:
        side = check_count("size", size, 16) // 16
        super().__init__(check_count("width", width) * side * side, in_channels)
        self.fixed_size = size
        self.blocks = nn.Sequential(
            *(_block(in_channels if k == 0 else width, width) for k in range(4)),
        )
        self.criterion = PrototypicalLoss(shots)

    def embed(self, images: Tensor) -> Tensor:
        return self.blocks(images).flatten(1)


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


@register(
    "conv4",
    task="embed",
    network=Conv4,
    alias="protonet",
    published=Published(
        paper="arXiv:1703.05175",
        year=2017,
        input=(1, 28, 28),
        params=111_936,
        idea="a class is the mean of its few embeddings, and an image of the class whose mean is nearest",
        source="counted on the paper's network, for grey images of 28x28",
    ),
)
def conv4(**options: Any) -> Conv4:
    """Conv-4-64 with a prototypical network's loss."""
    return Conv4(**options)

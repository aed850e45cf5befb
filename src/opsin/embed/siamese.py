"""Siamese networks: one network on two images, and a distance between what it makes of them.

siamese_contrastive: Hadsell, Chopra and LeCun 2006, doi:10.1109/CVPR.2006.100. The idea: a point for each image, where
a pair of the same is drawn together by its distance squared, and a pair of two pushed apart until a margin. The network
is Caffe's example for digits, a LeNet that ends in a point of the plane. The margin is one of the distance, as in the
paper, where Caffe's loss once had it of its square. In the paper's labels 0 is the same and 1 another; here a pair is
of the same where its identities are.

siamese_koch: Koch, Zemel and Salakhutdinov 2015, Siamese Neural Networks for One-shot Image Recognition (ICML deep
learning workshop). The idea: whoever can tell whether two images are of one class can name a class that it never saw,
by the one image that is known of it. The likeness is learned too: sigmoid(sum_j a_j |h1_j - h2_j| + b) of two hidden
layers, trained by cross-entropy. A batch of P identities with two or more images gives the pairs: each image with the
next of its own identity, and with the next of another, half and half as in the paper (section 3.3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opsin.checks import check_count, check_number
from opsin.embed.embedder import Embedder, Outputs
from opsin.losses.embedding import batch_contrastive_loss
from opsin.losses.gathering import gather
from opsin.losses.identities import IdentityLoss
from opsin.losses.pairs import neighbouring_pairs
from opsin.losses.terms import divide
from opsin.registry import Published, register


class ContrastiveSiamese(Embedder):
    """Two 5x5 convolutions with max pooling, 500 hidden units, 10, and `features`: of 28x28 pixels.

    margin: the distance from which two identities no longer push.
    """

    normalized = False
    fixed_size = 28
    learned = ("layers",)

    def __init__(self, *, in_channels: int = 1, features: int = 2, margin: float = 1.0) -> None:
        super().__init__(features, in_channels)
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 20, 5),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 5),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(800, 500),
            nn.ReLU(inplace=True),
            nn.Linear(500, 10),
        )
        self.point = nn.Linear(10, features)
        self.criterion = IdentityLoss(batch_contrastive_loss, margin=check_number("margin", margin, above=True))

    def embed(self, images: Tensor) -> Tensor:
        return self.point(self.layers(images))


class KochSiamese(Embedder):
    """Four convolutions, 4,096 sigmoids, and a weighted L1 distance: of 105x105 pixels. Figure 4 of the paper.

    hidden_features: of the embedding. Weights start as in the paper's section 3.2: convolutions from N(0, 0.01), the
    hidden layer from N(0, 0.2), biases from N(0.5, 0.01); the last layer, which the paper does not tell apart, with
    weights of N(0, 0.2) and a bias of 0.5.
    """

    normalized = False
    fixed_size = 105
    learned = ("convs", "hidden")

    def __init__(self, *, in_channels: int = 1, hidden_features: int = 4096) -> None:
        super().__init__(check_count("hidden_features", hidden_features), in_channels)
        self.convs = nn.Sequential(
            *(nn.Conv2d(in_channels, 64, 10), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 128, 7), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(128, 128, 4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(128, 256, 4), nn.ReLU(inplace=True)),
        )
        self.hidden = nn.Linear(256 * 6 * 6, hidden_features)
        self.likeness = nn.Linear(hidden_features, 1)
        self.criterion = None
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=0.01 if isinstance(module, nn.Conv2d) else 0.2)
                nn.init.normal_(module.bias, 0.5, 0.01)  # type: ignore[arg-type]

    def embed(self, images: Tensor) -> Tensor:
        return torch.sigmoid(self.hidden(self.convs(images).flatten(1)))

    def loss(self, outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of pairs within the batch, of all processes; of another criterion, as of any embedder."""
        if self.criterion is not None:
            return super().loss(outputs, targets)
        embeddings, labels = gather(outputs["embedding"]), gather(targets)
        first, second, same = neighbouring_pairs(labels)
        logits = -self.pair_distances(embeddings[first], embeddings[second])
        terms = F.binary_cross_entropy_with_logits(logits, same.to(logits.dtype), reduction="sum")
        return {"loss": divide(terms, torch.as_tensor(len(same), device=terms.device))}

    def pair_distances(self, first: Tensor, second: Tensor) -> Tensor:
        """The logit of being two identities: the probability of one is sigmoid(-distance). (N, D), (N, D) -> (N,)."""
        return -self.likeness((first - second).abs())[:, 0]

    def distances(self, first: Tensor, second: Tensor) -> Tensor:
        """The same of each of M with each of N, row by row, (M, N)."""
        rows = [self.pair_distances(row.expand_as(second), second) for row in first]
        return torch.stack(rows) if rows else first.new_zeros(0, len(second))


@register(
    "siamese_contrastive",
    task="embed",
    network=ContrastiveSiamese,
    published=Published(
        paper="Hadsell, Chopra, LeCun: Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006",
        year=2006,
        input=(1, 28, 28),
        params=431_102,
        idea="pairs of the same are drawn together, pairs of two pushed apart until a margin",
        source="counted on Caffe's mnist_siamese",
    ),
)
def siamese_contrastive(**options: Any) -> ContrastiveSiamese:
    """The contrastive Siamese network, for digits."""
    return ContrastiveSiamese(**options)


@register(
    "siamese_koch",
    task="embed",
    network=KochSiamese,
    published=Published(
        paper="Koch, Zemel, Salakhutdinov: Siamese Neural Networks for One-shot Image Recognition, 2015",
        year=2015,
        input=(1, 105, 105),
        params=38_951_745,
        metrics={"omniglot 20-way one-shot accuracy": 92.0},
        idea="a learned likeness of two images names classes by one image each",
        source="counted on the layers of the paper's figure 4",
    ),
)
def siamese_koch(**options: Any) -> KochSiamese:
    """Koch's one-shot network."""
    return KochSiamese(**options)

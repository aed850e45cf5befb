"""LeNets++ with centre loss: classes that softmax separates, drawn together around a centre each.

Wen, Zhang, Li and Qiao 2016, A Discriminative Feature Learning Approach for Deep Face Recognition,
doi:10.1007/978-3-319-46478-7_31. The idea: softmax asks that classes can be told apart, not that each is compact, so
that features of one class may lie farther from each other than from those of another. Centre loss adds half the squared
distance of each feature to the centre of its class, and centres follow the features by a rule of their own, see
`opsin.losses.CentreLoss`. LeNets++ is the network of the paper's figure 2, whose feature is a point of the plane, so
that both can be seen.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from opsin.checks import check_count, check_number
from opsin.embed.embedder import Embedder, Outputs
from opsin.losses.centre import CentreLoss
from opsin.registry import Published, register


class LeNetsPlusPlus(Embedder):
    """Three stages of two 5x5 convolutions with PReLU and max pooling by 2; a feature, and the classes of it. Table 1.

    Of 28x28 pixels. features: 2 in the paper. centre_weight: lambda, of centre loss beside softmax; 0 is softmax alone.
    Both losses are means over the batch, where the paper's are sums, which leaves lambda as it is. centre_alpha: the
    rate of the centres. PReLUs have one slope a layer, the feature's own too, as the published count of parameters has
    them.
    """

    normalized = False
    fixed_size = 28
    learned = ("stages", "feature")
    classifier = "scores"

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 1,
        features: int = 2,
        centre_weight: float = 0.1,
        centre_alpha: float = 0.5,
    ) -> None:
        super().__init__(features, in_channels)
        self.num_classes = check_count("num_classes", num_classes)
        self.centre_weight = check_number("centre_weight", centre_weight)
        layers: list[nn.Module] = []
        for width in (32, 64, 128):
            layers += [nn.Conv2d(in_channels, width, 5, padding=2), nn.PReLU()]
            layers += [nn.Conv2d(width, width, 5, padding=2), nn.PReLU(), nn.MaxPool2d(2)]
            in_channels = width
        self.stages = nn.Sequential(*layers, nn.Flatten())
        self.feature = nn.Sequential(nn.Linear(128 * 3 * 3, features), nn.PReLU())
        self.scores = nn.Linear(features, num_classes)
        self.criterion = CentreLoss(num_classes, features, alpha=centre_alpha) if centre_weight else None

    def forward(self, images: Tensor) -> Outputs:
        """images: (B, in_channels, 28, 28) -> {"embedding": (B, features), "logits": (B, num_classes)}."""
        outputs = super().forward(images)
        return {**outputs, "logits": self.scores(outputs["embedding"])}

    def embed(self, images: Tensor) -> Tensor:
        return self.feature(self.stages(images))

    def loss(self, outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
        """Softmax, and centre loss times its weight."""
        found = super().loss(outputs, targets)
        if isinstance(self.criterion, CentreLoss):
            found["centre"] = self.centre_weight * found.pop("embedding")
        return found


@register(
    "lenets_plus_plus",
    task="embed",
    network=LeNetsPlusPlus,
    published=Published(
        paper="Wen, Zhang, Li, Qiao: A Discriminative Feature Learning Approach for Deep Face Recognition, ECCV 2016",
        year=2016,
        input=(1, 28, 28),
        params=797_191,
        idea="features are drawn to the centre of their class, which follows them",
        source="counted on table 1, with a slope a PReLU",
    ),
)
def lenets_plus_plus(**options: Any) -> LeNetsPlusPlus:
    """LeNets++ with a feature of two numbers, by softmax and centre loss."""
    return LeNetsPlusPlus(**options)

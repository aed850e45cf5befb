"""Any classification network as an embedder: its last map, averaged, through a linear layer to a point of length 1.

Hermans, Beyer and Leibe 2017, In Defense of the Triplet Loss for Person Re-Identification, arXiv:1703.07737. The idea:
triplets with the hardest ones of each batch train a plain classification network from published weights better than
what was built for the purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from opsin import registry
from opsin.backbones.backbone import Backbone
from opsin.checks import check_probability
from opsin.embed.embedder import Embedder
from opsin.errors import InputError
from opsin.registry import Published, register


class BackboneEmbedder(Embedder):
    """A backbone, global average pooling, dropout, a linear layer, and batch norm where `norm`; then length 1.

    backbone: name of a classification network; backbone_options: its own; backbone_weights: published ones. features:
    of an embedding. norm: batch norm behind the linear layer, as behind the networks of ArcFace (arXiv:1801.07698,
    section 3.2.2). normalized: False leaves the length of embeddings as it is.
    """

    learned = ("backbone",)

    def __init__(
        self,
        *,
        in_channels: int = 3,
        backbone: str = "resnet18",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        features: int = 128,
        dropout: float = 0.0,
        norm: bool = False,
        normalized: bool = True,
    ) -> None:
        super().__init__(features, in_channels)
        network = registry.create_model(
            backbone, in_channels=in_channels, weights=backbone_weights, **(backbone_options or {})
        )
        if not isinstance(network, Backbone):
            raise InputError(f"{backbone} is no classification network; `opsin models --task classify` lists those")
        network.drop_aux_heads()
        network.keep_stages(len(network.strides))
        self.backbone, self.backbone_name, self.normalized = network, backbone, bool(normalized)
        self.strides, self.min_size, self.fixed_size = network.strides, network.min_size, network.fixed_size
        self.head = nn.Sequential(
            nn.Dropout(check_probability("dropout", dropout)),
            nn.Linear(network.channels[-1], features),
            *([nn.BatchNorm1d(features)] if norm else []),
        )

    def embed(self, images: Tensor) -> Tensor:
        found = self.head(self.backbone.features(images)[-1].mean(dim=(2, 3)))
        return F.normalize(found, dim=1) if self.normalized else found

    def initialize_from(self, state: Mapping[str, Tensor]) -> list[str]:
        """Copy what fits of an embedder's tensors, or of a classification network's, whichever reading fills more.

        Returns the names of ours that were not filled.
        """
        own = self.state_dict()
        readings = [dict(state), {f"backbone.{name}": tensor for name, tensor in state.items()}]
        fitting = [{k: v for k, v in one.items() if k in own and own[k].shape == v.shape} for one in readings]
        best = max(fitting, key=len)
        self.load_state_dict(best, strict=False)
        return [name for name in own if name not in best]


@register(
    "backbone_embedder",
    task="embed",
    network=BackboneEmbedder,
    published=Published(
        paper="arXiv:1703.07737",
        year=2017,
        input=(3, 224, 224),
        params=11_242_176,
        idea="any classification network under a linear layer, trained by triplets",
        source="counted here, on ResNet-18 with 128 numbers; the paper's TriNet is a ResNet-50",
    ),
)
def backbone_embedder(**options: Any) -> BackboneEmbedder:
    """Any backbone with an embedding head."""
    return BackboneEmbedder(**options)

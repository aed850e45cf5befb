"""Every embedder: importing this registers them by name."""

from opsin.embed import (
    backbone_embedder,
    centre_loss,
    deep_sort,
    facenet,
    prototypical,
    siamese,
    triplet_network,
)  # registers their models

__all__ = [
    "backbone_embedder",
    "centre_loss",
    "deep_sort",
    "facenet",
    "prototypical",
    "siamese",
    "triplet_network",
]

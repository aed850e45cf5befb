"""Every embedder: importing this registers them by name."""

from opsin.embed import backbone_embedder, prototypical  # registers their models

__all__ = ["backbone_embedder", "prototypical"]

"""Every network that finds named points: importing this registers them by name."""

from opsin.landmark import backbone_points, hourglass, wing_cnn  # registers their models

__all__ = ["backbone_points", "hourglass", "wing_cnn"]

"""Every network that finds named points: importing this registers them by name."""

from opsin.landmark import wing_cnn  # registers its models

__all__ = ["wing_cnn"]

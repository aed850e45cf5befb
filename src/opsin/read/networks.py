"""Every recognizer: importing this registers them by name."""

from opsin.read import crnn  # registers its models

__all__ = ["crnn"]

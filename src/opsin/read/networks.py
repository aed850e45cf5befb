"""Every recognizer: importing this registers them by name."""

from opsin.read import attention_reader, crnn  # registers their models

__all__ = ["attention_reader", "crnn"]

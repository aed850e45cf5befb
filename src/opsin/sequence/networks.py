"""Every network of sequences: importing this registers them by name."""

from opsin.sequence import rnnsearch, seq2seq  # registers their models

__all__ = ["rnnsearch", "seq2seq"]

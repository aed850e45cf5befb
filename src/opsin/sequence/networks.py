"""Every network of sequences: importing this registers them by name."""

from opsin.sequence import language_model, one_sequence, rnnsearch, seq2seq, transformer  # registers their models

__all__ = ["language_model", "one_sequence", "rnnsearch", "seq2seq", "transformer"]

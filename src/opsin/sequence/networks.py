"""Every network of sequences: importing this registers them by name."""

from opsin.sequence import (
    captioner,
    language_model,
    one_sequence,
    rnnsearch,
    seq2seq,
    transformer,
)  # registers their models

__all__ = ["captioner", "language_model", "one_sequence", "rnnsearch", "seq2seq", "transformer"]

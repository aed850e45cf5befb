"""The numbers that stand for no symbol of the data: what fills up, begins and ends a text, and what is not known."""

from __future__ import annotations

PAD, START, END, UNKNOWN = range(4)
SPECIALS = 4  # numbers before those of a vocabulary

"""What the data check says of texts: their characters and lengths, and crops that cannot show what they are said to."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from opsin.data.truth import Problem, Size, Summary
from opsin.errors import printable

_SMALLEST = 8  # pixels of a crop's height that letters can still be told apart in
_NARROWEST = 0.12  # of a crop's height, the least width of a character; an "l" of a narrow font has 0.2
_UPRIGHT = 1.5  # times as high as wide, from which on a text of some characters does not lie
_SHOWN = 60  # characters that are listed


@dataclass(frozen=True)
class TextSummary(Summary):
    """characters: how often each occurs. lengths: (N,) of the texts. lists: how many words each example's list has, of
    those that have one. pages: how many there are, 0 where that is not known. spaced: texts of several words.
    """

    characters: Counter[str] = field(default_factory=Counter)
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    lists: Sequence[int] = ()
    pages: int = 0
    spaced: int = 0

    def facts(self, others: Sequence[TextSummary] = ()) -> dict[str, Any]:
        """texts; length, the least, median and most; characters with their counts, the most frequent first.

        elsewhere: those that occur in other splits and not in the one to train on, with their counts there. once: those
        that occur once. spaced: texts with a blank within. pages; lists: examples with a word list, and of how many
        words. Counts and lengths are those of all splits.
        """
        everything = [self, *others]
        lengths = np.concatenate([one.lengths for one in everything])
        characters, rest = Counter[str](), Counter[str]()
        for one in everything:
            characters.update(one.characters)
        for one in others:
            rest.update({sign: count for sign, count in one.characters.items() if sign not in self.characters})
        lists = [count for one in everything for count in one.lists]
        found: dict[str, Any] = {
            "texts": len(lengths),
            "length": [int(lengths.min()), float(np.median(lengths)), int(lengths.max())] if len(lengths) else [],
            "characters": dict(characters.most_common()),
            "elsewhere": dict(rest.most_common()),
            "once": [sign for sign, count in sorted(self.characters.items()) if count == 1],
            "spaced": sum(one.spaced for one in everything),
        }
        if pages := sum(one.pages for one in everything):
            found["pages"] = pages
        if lists:
            found["lists"] = {"examples": len(lists), "words": [min(lists), max(lists)]}
        return found

    def lines(self, facts: Mapping[str, Any]) -> list[str]:
        if not facts.get("texts"):
            return []
        least, median, most = facts["length"]
        spaced = f", {facts['spaced']:,} of several words" if facts["spaced"] else ""
        lines = [f"texts: of {least:,} to {most:,} characters, {median:g} in the middle{spaced}"]
        if pages := facts.get("pages"):
            lines.append(f"pages: {pages:,}, each kept together in a division")
        if lists := facts.get("lists"):
            low, high = lists["words"]
            count = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            lines.append(f"word lists: of {lists['examples']:,} texts, {count} words each")
        lines.append(f"characters: {len(facts['characters']):,}: {_listed(sorted(facts['characters']))}")
        if facts["elsewhere"]:
            signs = _listed(sorted(facts["elsewhere"]))
            count = sum(facts["elsewhere"].values())
            lines.append(f"  {len(facts['elsewhere']):,} of them not in the training texts, {count:,} times: {signs}")
        if facts["once"]:
            lines.append(f"  {len(facts['once']):,} of them only once in the training texts: {_listed(facts['once'])}")
        return lines


def _listed(signs: Sequence[str]) -> str:
    """Characters side by side; what cannot be shown, and the blank, by its number."""
    shown = "".join(sign if sign.isprintable() and sign != " " else f"[{ord(sign):04X}]" for sign in signs[:_SHOWN])
    return printable(shown) + (f" and {len(signs) - _SHOWN:,} more" if len(signs) > _SHOWN else "")


def find_odd(texts: Sequence[str], sizes: Mapping[int, Size]) -> Iterator[Problem]:
    """What is odd in texts, and in the size of their crops."""
    for i, text in enumerate(texts):
        if wrong := _unreadable(text):
            reason = f"the text {_quoted(text)} has {wrong}"
            yield Problem("odd_character", "", reason, "warning", i)
        if i in sizes and (reason := _misfit(text, sizes[i])) is not None:
            yield Problem("odd_crop", "", reason, "warning", i)


def _unreadable(text: str) -> str:
    """Which of a text's characters nobody can see, in words; "" where there are none."""
    if text.isascii() and text.isprintable():
        return ""
    if "\ufffd" in text:
        return "U+FFFD in it, which stands for what was lost in a wrong encoding"
    odd = [sign for sign in text if unicodedata.category(sign) in ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp")]
    names = ", ".join(f"U+{ord(sign):04X}" for sign in dict.fromkeys(odd))
    return f"{names} in it, which cannot be seen" if odd else ""


def _misfit(text: str, size: Size) -> str | None:
    """Why a crop of (height, width) can hardly show a text."""
    height, width = size
    is_ = f"the crop is {width}x{height} pixels (width x height)"
    if height < 2 or width < 2:
        return f"{is_}: there is nothing to see"
    if height < _SMALLEST and width >= height:
        return f"{is_}, too low for letters to differ ({_SMALLEST})"
    if len(text) > 2 and height > _UPRIGHT * width:
        return f"{is_}, higher than wide, and says {_quoted(text)}: it may stand on its side, or be written downwards"
    if len(text) > 2 and width < _NARROWEST * height * len(text):
        return f"{is_}, too narrow for {_quoted(text)}"
    return None


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= 40 else f"{text[:40]}...") if not text.isprintable() else repr(text[:60])

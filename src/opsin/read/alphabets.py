"""Alphabets with a name: which characters, in which order, so that labels mean the same in every training.

`gb2312-1` are the 3,755 frequent characters of GB 2312-80 in the order of their codes, rows 16 to 55, by pinyin;
`gb2312` are these and the 3,008 of level 2, rows 56 to 87, by radical and strokes: 6,763. Neither has digits, letters
or signs: names joined by `+` are joined, as `ascii+gb2312-1`, each character once, in the order of the first.
"""

from __future__ import annotations

from functools import cache

from opsin.errors import InputError, unknown
from opsin.read.alphabet import ALPHANUMERIC, DIGITS, LOWER

_LEVEL_1, _LEVEL_2 = range(16, 56), range(56, 88)
PUNCTUATION = "，。、；：？！…—·“”‘’（）《》〈〉【】「」『』￥％＋－＝／～"  # noqa: RUF001  what Chinese print has of its own
NAMES = ("alphanumeric", "ascii", "digits", "lower", "letters", "latin", "gb2312-1", "gb2312", "chinese-signs")


@cache
def named(name: str) -> str:
    """The characters of a name, or of several joined by `+`. Raises InputError for an unknown one."""
    if "+" in name:
        return "".join(dict.fromkeys("".join(named(one.strip()) for one in name.split("+"))))
    if name == "gb2312-1":
        return _rows(_LEVEL_1)
    if name == "gb2312":
        return _rows(_LEVEL_1) + _rows(_LEVEL_2)
    if name == "latin":
        return named("ascii") + "".join(chr(code) for code in range(0xA1, 0x180) if code != 0xAD)
    known = {
        "alphanumeric": ALPHANUMERIC,
        "ascii": "".join(map(chr, range(0x20, 0x7F))),
        "digits": DIGITS,
        "lower": LOWER,
        "letters": LOWER + LOWER.upper(),
        "chinese-signs": PUNCTUATION,
    }
    if name not in known:
        raise unknown("alphabet", name, NAMES)
    return known[name]


def is_named(name: str) -> bool:
    """Whether a text is the name of an alphabet, or several joined; else it is the characters themselves."""
    try:
        named(name)
    except InputError:
        return False
    return True


def _rows(rows: range) -> str:
    """The characters of rows of GB 2312, 94 places each, less the places that it leaves empty."""
    codes = (bytes((0xA0 + row, 0xA0 + place)) for row in rows for place in range(1, 95))
    return "".join(code.decode("gb2312", "ignore") for code in codes)

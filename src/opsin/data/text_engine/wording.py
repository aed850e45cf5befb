"""What synthetic images say: words of a list, numbers, and characters at random, within an alphabet."""

from __future__ import annotations

import gzip
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path

from opsin.data.sample_files import SAMPLES
from opsin.errors import InputError

_COMMON = 0.75  # the share of words that are from the common part of the list
_SHORT = 0.7  # the share that is the shortest of three: what is written large is shorter than a dictionary's words
_MADE_UP, _NUMBERS, _MARKED = 0.06, 0.10, 0.06  # shares: random letters and digits; numbers; with punctuation
_CASES = (0.40, 0.30, 0.30)  # lower, Capitalised, UPPER
_WORDS_OF_A_LINE = (1, 7)
_CHARACTERS_OF_A_LINE = (4, 14)  # of a script without spaces
_LONGEST_RANDOM = 8
_MOST_FILE = 64 * 2**20  # bytes of a list of words


def gb2312(level: int) -> str:
    """The Chinese characters of GB2312, by Python's codec: of level 1, 3,755 common ones, or of level 2, 3,008."""
    rows = range(0xB0, 0xD8) if level == 1 else range(0xD8, 0xF8)
    codes = (bytes([row, column]) for row in rows for column in range(0xA1, 0xFF))
    return "".join(code.decode("gb2312", "ignore") for code in codes)


@cache
def alphabet(name: str) -> str:
    """Characters by name, or those of `name` itself; several joined by +. Each once, in order."""
    named = {
        "digits": string.digits,
        "lower": string.ascii_lowercase,
        "letters": string.ascii_letters,
        "alphanumeric": string.digits + string.ascii_lowercase,
        "ascii": string.digits + string.ascii_letters + string.punctuation,
    }
    parts = name.split("+") if name != "+" else [name]
    found = ""
    for part in parts:
        level = {"gb2312-1": (1,), "gb2312-2": (2,), "gb2312": (1, 2)}.get(part, ())
        found += "".join(gb2312(one) for one in level) if level else named.get(part, part)
    return "".join(one for one in dict.fromkeys(found) if not one.isspace())


@cache
def word_list(file: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Common words and others: of the package's list, English words of SCOWL's sizes 35 and 60, or of a text file.

    file: UTF-8, one word a line; all are common. Raises InputError for what cannot be opened or decoded, or is empty.
    """
    if not file:
        text = gzip.decompress((SAMPLES / "words.txt.gz").read_bytes()).decode("ascii")
        common, _, others = text.partition("\n\n")
        return tuple(common.split()), tuple(others.split())
    path = Path(file).expanduser()
    try:
        if path.stat().st_size > _MOST_FILE:
            raise InputError(f"words={file} has over {_MOST_FILE // 2**20} MiB; give a shorter list")
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"words={file}: line {line} is not UTF-8; save the list as UTF-8") from error
    except OSError as error:
        raise InputError(f"words={file} cannot be opened: {(error.strerror or str(error)).lower()}") from error
    found = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise InputError(f"words={file} has no words; expected one a line")
    return found, ()


@dataclass
class Wording:
    """Draws texts. characters: of which all texts are. file: of a list of words. length: fewest and most characters.

    Characters that no word of the list has, such as Chinese ones, are drawn at random, each as often as any other.
    """

    characters: str
    file: str = ""
    length: tuple[int, int] | None = None
    common: Sequence[str] = field(init=False)
    others: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        self._known = frozenset(self.characters)
        low, high = self.length or (1, 10**6)
        fits = [[one for one in part if self._fit(one) and low <= len(one) <= high] for part in word_list(self.file)]
        self.common, self.others = fits
        spelled = {letter for part in fits for word in part for letter in {*word, *word.upper(), *word.lower()}}
        latin = {*string.printable, *spelled}
        self._rest = [one for one in self.characters if one not in latin] or (
            list(self.characters) if not (self.common or self.others) else []
        )
        self._plain = [one for one in self.characters if one.isascii()] or list(self.characters)
        self._marks = [one for one in self.characters if one in "!?.,:;&'-"]
        if self.file and not (self.common or self.others):
            wanted = f" of {low} to {high} characters" if self.length else ""
            raise InputError(f"words={self.file} has no word{wanted} of the characters asked for")

    def words(self, seed: int) -> Iterator[str]:
        """Single words without end. The same seed gives the same."""
        draws = random.Random(seed)
        deck = self._deck(draws)
        while True:
            yield self._word(draws, deck)

    def lines(self, seed: int) -> Iterator[str]:
        """Lines of several words, or of characters of a script without spaces. `length` is of the whole line."""
        draws = random.Random(seed)
        deck = self._deck(draws)
        while True:
            yield self._line(draws, deck)

    def _word(self, draws: random.Random, deck: Iterator[str]) -> str:
        if self._rest and (not self.common or draws.random() < 0.8):
            return "".join(islice(deck, draws.randint(*(self.length or (1, _LONGEST_RANDOM)))))
        kind = draws.random()
        low, high = self.length or (1, _LONGEST_RANDOM)
        if not self.file and kind < _MADE_UP:
            return self._made_up(draws, low, high)
        if not self.file and kind < _MADE_UP + _NUMBERS and (found := self._number(draws, low, high)):
            return found
        word = self._cased(self._listed(draws), draws)
        if not self.file and kind > 1 - _MARKED and self._marks:
            marked = word + draws.choice(self._marks)
            return marked if self.length is None or len(marked) <= high else word
        return word

    def _line(self, draws: random.Random, deck: Iterator[str]) -> str:
        low, high = self.length or _CHARACTERS_OF_A_LINE
        if self._rest and (not self.common or draws.random() < 0.8):
            return "".join(islice(deck, draws.randint(low, high)))
        most = self.length[1] if self.length else 10**6
        case, found = draws.random(), ""
        for _ in range(draws.randint(*_WORDS_OF_A_LINE) if self.length is None else most):
            number = draws.random() < 0.2 and self._number(draws, 1, 12)
            word = number or self._listed(draws)
            word = self._case(word, 2 if case < 0.4 else 1 if case < 0.6 or not found else 0)
            if self._marks and draws.random() < 0.1:
                word += draws.choice(self._marks)
            if found and len(found) + 1 + len(word) > most:
                break
            found = f"{found} {word}" if found else word
            if self.length is not None and len(found) >= draws.randint(low, high):
                break
        return found[:most].strip()

    def _listed(self, draws: random.Random) -> str:
        part = self.common if self.common and (not self.others or draws.random() < _COMMON) else self.others
        if self.file or draws.random() >= _SHORT:
            return part[int(draws.random() * len(part))]
        return min((part[int(draws.random() * len(part))] for _ in range(3)), key=len)

    def _cased(self, word: str, draws: random.Random) -> str:
        """A word in lower or upper case or with a capital, as far as there are such characters."""
        if self.file:
            return word if self._whole(word) else self._case(word, 0)
        value = draws.random()
        return self._case(word, 0 if value < _CASES[0] else 1 if value < _CASES[0] + _CASES[1] else 2)

    def _case(self, word: str, case: int) -> str:
        wanted = (word, word[:1].upper() + word[1:], word.upper())[case]
        return next((one for one in (wanted, word, word.lower(), word.upper()) if self._whole(one)), word)

    def _made_up(self, draws: random.Random, low: int, high: int) -> str:
        return "".join(self._plain[int(draws.random() * len(self._plain))] for _ in range(draws.randint(low, high)))

    def _number(self, draws: random.Random, low: int, high: int) -> str:
        """A number, an amount, a date, a time, a code, such as signs and receipts have; "" where none fits."""
        digit = draws.choice
        forms = (
            "9",
            "99",
            "999",
            "9999",
            "9.99",
            "99.99",
            "$9.99",
            "99%",
            "99/99/99",
            "99:99",
            "9-9999",
            "A99",
            "1999",
        )
        for form in (digit(forms) for _ in range(5)):
            found = "".join(
                digit("0123456789") if one == "9" else digit(string.ascii_uppercase) if one == "A" else one
                for one in form
            )
            if low <= len(found) <= high and self._whole(found):
                return found
        return ""

    def _fit(self, word: str) -> bool:
        return self._whole(word) or self._whole(word.lower()) or self._whole(word.upper())

    def _whole(self, text: str) -> bool:
        return self._known.issuperset(text)

    def _deck(self, draws: random.Random) -> Iterator[str]:
        """The characters that no word has, shuffled, again and again."""
        while self._rest:
            shuffled = list(self._rest)
            draws.shuffle(shuffled)
            yield from shuffled

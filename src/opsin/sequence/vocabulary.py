"""The symbols of texts and their numbers: characters, words, or pairs of bytes (Sennrich et al. 2016, 1508.07909).

Four numbers stand for no symbol of the data, see `opsin.sequence.tokens`: `PAD` fills a batch up after the end of a
text, `START` is what a decoder is given first, `END` what it says last, and `UNKNOWN` every symbol that the training
data has not, or too rarely.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from opsin.errors import InputError, unknown
from opsin.sequence.tokens import END, PAD, SPECIALS, START, UNKNOWN

UNITS = ("characters", "words", "bpe")
Unit = Literal["characters", "words", "bpe"]
_SHOWN = {"characters": "\ufffd", "words": "<unk>", "bpe": ""}  # how an unknown symbol is written


@dataclass(frozen=True)
class Vocabulary:
    """What the numbers of a text's symbols mean.

    unit: "characters", "words" (parted by white space, joined by blanks) or "bpe". symbols: the k-th has the number
    `SPECIALS` + k. merges: of "bpe" the tokenizer as JSON, as the library `tokenizers` has it; else "".
    """

    unit: str
    symbols: tuple[str, ...]
    merges: str = ""

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise unknown("unit", self.unit, UNITS)

    def __len__(self) -> int:
        """How many numbers there are, those of no symbol too."""
        return SPECIALS + len(self.symbols)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {symbol: SPECIALS + k for k, symbol in enumerate(self.symbols)}

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.merges)

    def split(self, text: str) -> list[str]:
        """The symbols of a text."""
        if self.unit == "words":
            return text.split()
        return list(text) if self.unit == "characters" else list(self._tokenizer.encode(text).tokens)

    def encode(self, text: str) -> list[int]:
        """The numbers of a text's symbols, neither `START` nor `END` among them."""
        if self.unit == "bpe":
            return [SPECIALS + number for number in self._tokenizer.encode(text).ids]
        numbers = self._numbers
        return [numbers.get(symbol, UNKNOWN) for symbol in self.split(text)]

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of some numbers, up to the first `END`; `PAD` and `START` are left out."""
        kept = list[int]()
        for number in numbers:
            if number == END:
                break
            if number not in (PAD, START):
                kept.append(number)
        if self.unit == "bpe":
            return self._tokenizer.decode([number - SPECIALS for number in kept if number >= SPECIALS])
        shown = [self.symbol(number) for number in kept]
        return (" " if self.unit == "words" else "").join(shown)

    def symbol(self, number: int) -> str:
        """What a number is written as; "" for what stands for no symbol."""
        if number == UNKNOWN:
            return _SHOWN[self.unit]
        return self.symbols[number - SPECIALS] if number >= SPECIALS else ""

    def unknown(self, text: str) -> list[str]:
        """The symbols of a text that have no number of their own, each once, in their order."""
        if self.unit == "bpe":
            return []
        return [symbol for symbol in dict.fromkeys(self.split(text)) if symbol not in self._numbers]

    def to_meaning(self) -> dict[str, Any]:
        """Plain JSON, saved with a model."""
        return {"unit": self.unit, "symbols": list(self.symbols), **({"merges": self.merges} if self.merges else {})}

    @classmethod
    def from_meaning(cls, meaning: Mapping[str, Any]) -> Vocabulary:
        """What `to_meaning` gave."""
        return cls(str(meaning["unit"]), tuple(map(str, meaning["symbols"])), str(meaning.get("merges", "")))


def build_vocabulary(
    texts: Iterable[str], unit: str = "characters", *, min_count: int = 1, most: int | None = None
) -> Vocabulary:
    """The vocabulary of some texts, its symbols in their own order.

    min_count: how often a symbol must occur to have a number. most: how many symbols have one, the most frequent; of
    "bpe" that many are learned, 8,000 if None. Raises InputError for texts without a symbol.
    """
    if unit not in UNITS:
        raise unknown("unit", unit, UNITS)
    if unit == "bpe":
        return _learn_pairs(list(texts), 8000 if most is None else most, min_count)
    counts = Counter[str]()
    for text in texts:
        counts.update(text.split() if unit == "words" else text)
    kept = [(symbol, count) for symbol, count in counts.items() if count >= min_count]
    if not kept:
        rarely = f" that occurs {min_count} times or more" if counts else ""
        raise InputError(f"the training texts have no symbol{rarely}; a vocabulary of {unit} needs one")
    kept.sort(key=lambda one: (-one[1], one[0]))
    return Vocabulary(unit, tuple(sorted(symbol for symbol, _ in kept[:most])))


def _learn_pairs(texts: Sequence[str], size: int, min_count: int) -> Vocabulary:
    """Byte-pair symbols of texts: every byte is one, so that nothing is unknown, and the most frequent pairs."""
    library = _library()
    if size < 256:
        raise InputError(f"a vocabulary of byte pairs holds the 256 bytes; got a size of {size}, expected 256 or more")
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=max(2, min_count),
        show_progress=False,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    numbers = tokenizer.get_vocab()
    return Vocabulary("bpe", tuple(sorted(numbers, key=lambda symbol: numbers[symbol])), tokenizer.to_str())


def load_tokenizer(merges: str) -> Any:
    """The tokenizer of a vocabulary of byte pairs. Raises ValueError for JSON that is none."""
    library = _library()
    try:
        return library.Tokenizer.from_str(merges)
    except Exception as error:  # the library raises no narrower one
        raise ValueError(f"it holds no tokenizer: {error}") from None


def _library() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError:
        raise InputError("byte pairs need the package tokenizers: pip install 'opsin[bpe]'") from None

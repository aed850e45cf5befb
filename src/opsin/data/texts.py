"""What an image reads: a text of each example, and the words that it may be where those are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from opsin.data.text_check import TextSummary, find_odd
from opsin.data.truth import Problem, Size, Truth

if TYPE_CHECKING:
    from PIL.Image import Image

FILL = -1  # after the end of a text in a batch


@dataclass(frozen=True, eq=False)
class PackedTexts(Sequence[str]):
    """Strings, in arrays. codes: uint32, the code points of all.

    starts: (N,) int64, where each begins in `codes`. lengths: (N,) int64, how many code points it has.
    """

    codes: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def pack(cls, texts: Iterable[str]) -> PackedTexts:
        found = list(texts)
        lengths = np.array([len(text) for text in found], np.int64)
        codes = np.frombuffer("".join(found).encode("utf-32-le", "surrogatepass"), np.uint32)
        return cls(codes, np.cumsum(lengths) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return self.select(np.arange(len(self))[i])
        return self.codes_of(i).tobytes().decode("utf-32-le", "surrogatepass")

    def codes_of(self, i: int) -> np.ndarray:
        """The code points of a text, (n,) uint32."""
        start = self.starts[i]
        return self.codes[start : start + self.lengths[i]]

    def select(self, places: np.ndarray) -> PackedTexts:
        """The texts at `places`, (M,) int64, in that order."""
        return PackedTexts(self.codes, self.starts[places], self.lengths[places])


@dataclass(frozen=True, eq=False)
class Texts(Truth):
    """What the image of each example reads.

    texts: of each example. characters: every character that a model of this data has to know, in the order of its
    labels; those of the texts themselves if not given otherwise. lexicons: the number of each example's list among
    `words`, -1 for none; words: lists of words of which one is the text. pages: what a division keeps together.
    fold_case, only: how a model compares texts, see `opsin.read.alphabet.Alphabet`; plain data says neither.
    """

    texts: PackedTexts
    characters: str
    lexicons: np.ndarray | None = None
    words: Sequence[PackedTexts] = ()
    pages: PackedTexts | None = None
    fold_case: bool = False
    only: bool = False

    @classmethod
    def of(cls, texts: Iterable[str], characters: str | None = None, **more: Any) -> Texts:
        """From strings."""
        packed = PackedTexts.pack(texts)
        return cls(packed, alphabet_of(packed) if characters is None else characters, **more)

    def with_lexicons(self, lexicons: Sequence[Sequence[str]]) -> Texts:
        """With the words of which each text is one, none for an empty list; equal lists are kept once."""
        numbers = dict[tuple[str, ...], int]()
        own = [numbers.setdefault(tuple(words), len(numbers)) if words else -1 for words in lexicons]
        if not numbers:
            return self
        return replace(self, lexicons=np.array(own, np.int64), words=[PackedTexts.pack(words) for words in numbers])

    @property
    def meaning(self) -> Mapping[str, Any]:
        flags = {name: True for name in ("fold_case", "only") if getattr(self, name)}
        return {"alphabet": self.characters, **flags}

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, places: np.ndarray) -> Texts:
        lexicons = None if self.lexicons is None else self.lexicons[places]
        pages = None if self.pages is None else self.pages.select(places)
        return replace(self, texts=self.texts.select(places), lexicons=lexicons, pages=pages)

    def match(self, meaning: Mapping[str, Any]) -> Texts:
        """The same texts: what a model's alphabet lacks it cannot read, and an evaluation counts that as errors."""
        flags = {name: bool(meaning.get(name, False)) for name in ("fold_case", "only")}
        return replace(self, characters=str(meaning["alphabet"]), **flags)

    def groups(self) -> Sequence[str] | None:
        return self.pages

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        """`text`: its code points, (n,) int32."""
        return {"text": torch.from_numpy(self.texts.codes_of(i).astype(np.int32))}

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`text`: (B, longest) int32 code points, each row filled up with -1."""
        texts = [sample["text"] for sample in samples]
        filled = torch.full((len(texts), max((len(text) for text in texts), default=0)), FILL, dtype=torch.int32)
        for row, text in zip(filled, texts, strict=True):
            row[: len(text)] = text
        return {"text": filled}

    def lexicon(self, i: int) -> PackedTexts | None:
        """The words of which an example is one; None where they are not known."""
        number = -1 if self.lexicons is None else int(self.lexicons[i])
        return None if number < 0 else self.words[number]

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        if training:
            reason = "{source}: no text of the {split} split has a character to learn"
            return [] if int(self.texts.lengths.sum()) else [Problem("no_texts", "", reason)]
        return list(find_odd(self.texts, sizes))

    def same(self, i: int, other: Any, j: int) -> str | None:
        mine, theirs = self.texts[i], other.texts[j]
        return None if mine == theirs else f"with the text {mine!r}, here it is {theirs!r}"

    def digest(self, i: int) -> bytes:
        return self.texts.codes_of(i).tobytes()

    def summary(self) -> TextSummary:
        known = np.zeros(0, np.int64) if self.lexicons is None else self.lexicons[self.lexicons >= 0]
        return TextSummary(
            kind="one text an image",
            section="texts",
            grid=(5, 200, 12),
            characters=count_characters(self.texts),
            lengths=self.texts.lengths,
            lists=[len(self.words[number]) for number in known.tolist()],
            pages=0 if self.pages is None else len(set(self.pages)),
            spaced=sum(" " in text for text in self.texts),
        )

    def draw(self, image: Image, i: int, scale: tuple[float, float] = (1.0, 1.0)) -> Image:
        from opsin.data.drawing import write_under

        return write_under(image, self.texts[i])

    def draw_batch(
        self, image: Image, batch: Mapping[str, Any], k: int, scale: tuple[float, float] = (1.0, 1.0)
    ) -> Image:
        from opsin.data.drawing import write_under

        return write_under(image, strings(batch["text"][k : k + 1])[0])


def strings(text: Tensor) -> list[str]:
    """The texts of a batch, (B, longest) code points filled up with -1."""
    rows = text.cpu().numpy().astype(np.int32)
    return [row[row != FILL].astype(np.uint32).tobytes().decode("utf-32-le", "surrogatepass") for row in rows]


def count_characters(texts: PackedTexts) -> Counter[str]:
    """How often each character occurs in texts."""
    chosen = [texts.codes_of(i) for i in range(len(texts))]
    codes, counts = np.unique(np.concatenate(chosen) if chosen else np.zeros(0, np.uint32), return_counts=True)
    return Counter({chr(code): int(count) for code, count in zip(codes.tolist(), counts.tolist(), strict=True)})


def alphabet_of(*texts: PackedTexts) -> str:
    """Every character that occurs in any of some texts, in the order of code points."""
    return "".join(sorted(set[str]().union(*map(count_characters, texts))))

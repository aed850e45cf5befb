"""Ways to decode: which text a network's probabilities are taken to be, by themselves, by words or by a language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.errors import InputError, unknown
from opsin.files import read_regular
from opsin.ops.decoding import ctc_prefix_beam
from opsin.ops.language import CharacterModel, Lexicon
from opsin.ops.sequence import edit_distances
from opsin.read.alignment import read_along, score_words
from opsin.read.alphabet import Alphabet
from opsin.read.recognizer import Reading

METHODS = ("greedy", "beam")


@dataclass(frozen=True)
class Decoding:
    """How texts are decoded, as the options of predict and eval say.

    decode: "greedy", the best path, or "beam", the best text of a search over prefixes. beam_width: of that. lexicon: a
    file of words, one a line; nothing else is read then. language_model: a file of text by whose characters the next
    one is weighed, with language_weight, and label_bonus for each. A lexicon and a language model need a beam.
    """

    decode: str = "greedy"
    beam_width: int = 25
    lexicon: str | None = None
    language_model: str | None = None
    language_weight: float = 0.5
    label_bonus: float = 0.0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Decoding:
        """Of the options of a prediction, those that are given. Raises InputError for those that do not fit."""
        names = [field.name for field in fields(cls)]
        found = cls(**{name: value for name, value in options.items() if name in names and value is not None})
        if found.decode not in METHODS:
            raise unknown("way to decode", found.decode, METHODS)
        if found.language_model is None and options.get("language_weight") is not None:
            raise InputError("language_weight weighs a language model; give a text file by language_model too")
        return found

    @property
    def searches(self) -> bool:
        """Whether the beam search decodes."""
        return self.decode == "beam" or self.lexicon is not None or self.language_model is not None

    def describe(self) -> str:
        """In words."""
        if not self.searches:
            return "greedy decoding"
        parts = [f"beam search over {self.beam_width} prefixes"]
        parts += ["words of the lexicon alone"] if self.lexicon else []
        parts += [f"a language model with weight {self.language_weight:g}"] if self.language_model else []
        return ", ".join(parts)


class TextDecoder:
    """Probabilities (B, T, K) -> readings, by a Decoding.

    blank: of the network; None of one without, such as one with attention, of which a lexicon gives the word with the
    least edit distance, and a beam is refused. greedy: the network's own decoding.
    """

    def __init__(self, decoding: Decoding, alphabet: Alphabet, num_classes: int, blank: int | None) -> None:
        self.decoding, self.alphabet, self.blank = decoding, alphabet, blank
        self.words = [] if decoding.lexicon is None else encode_words(read_lines(decoding.lexicon), alphabet)
        if decoding.lexicon is not None and not self.words:
            raise InputError(f"{decoding.lexicon} has no word that the alphabet of the model can write")
        self.tree: Lexicon | None = None
        self.language: CharacterModel | None = None
        if blank is None:
            if decoding.decode == "beam" or decoding.language_model is not None:
                raise InputError("a beam search and a language model are of networks with a blank, as CRNN; leave them")
            return
        if self.words:
            separator = alphabet.encode(" ")[0] if " " in alphabet.characters else None
            shifted = [[_shift(label, blank) for label in word] for word in self.words]
            self.tree = Lexicon(shifted, None if separator is None else _shift(separator, blank))
        if decoding.language_model is not None:
            lines = [
                [_shift(n, blank) for n in alphabet.encode(x) if n >= 0] for x in read_lines(decoding.language_model)
            ]
            self.language = CharacterModel(lines, num_classes, blank=blank)

    def __call__(self, probabilities: Tensor, greedy: Sequence[Reading]) -> list[Reading]:
        """Of each image its reading; no characters where nothing could be read. greedy: by the network's own way."""
        if not self.decoding.searches:
            return list(greedy)
        if self.blank is None:
            return [nearest_word(one, self.words) for one in greedy]
        strings = ctc_prefix_beam(
            log_probabilities(probabilities).clamp(max=0).transpose(0, 1),
            width=self.decoding.beam_width,
            blank=self.blank,
            lexicon=self.tree,
            language_model=self.language,
            language_weight=self.decoding.language_weight,
            label_bonus=self.decoding.label_bonus,
        )
        rows = probabilities.detach().cpu().double().numpy()
        return [self._best(row, found) for row, found in zip(rows, strings, strict=True)]

    def _best(self, row: np.ndarray, found: Sequence[Any]) -> Reading:
        assert self.blank is not None
        if not found:  # the beam was too narrow to hold a word
            return Reading([], [], [])
        labels = [label - (label > self.blank) for label in found[0].labels]
        return read_along(row, labels, self.blank) or Reading([], [], [])


def most_probable_word(
    probabilities: Tensor, greedy: Reading, words: Sequence[Sequence[int]], blank: int | None
) -> int:
    """The place of the word of a list that an image is most probably of.

    probabilities: (T, K). With a blank by the probability of each word, all alignments together, as Shi et al. 2015,
    section 2.4.2, have it; without one by the edit distance to what was read.
    """
    if blank is None:
        distances = edit_distances([greedy.labels] * len(words), words)
        return int(distances.argmin())
    return int(score_words(log_probabilities(probabilities), words, blank).argmax())


def nearest_word(reading: Reading, words: Sequence[Sequence[int]]) -> Reading:
    """The word with the least edit distance to what was read; its characters have the scores of those, where equal."""
    word = list(words[int(edit_distances([reading.labels] * len(words), words).argmin())])
    if word == list(reading.labels):
        return reading
    mean = float(np.mean(reading.scores)) if reading.scores else 0.0
    last = max(len(reading.steps) - 1, 0)
    steps = [reading.steps[min(place, last)] if reading.steps else 0 for place in range(len(word))]
    return Reading(word, [mean] * len(word), steps)


def encode_words(words: Sequence[str], alphabet: Alphabet) -> list[list[int]]:
    """Labels of the words that an alphabet can write, each once, in their order."""
    found = dict.fromkeys(tuple(labels) for word in words if (labels := alphabet.encode(word)) and -1 not in labels)
    return [list(word) for word in found]


def read_lines(path: str) -> list[str]:
    """The lines of a UTF-8 file that are not empty. Raises InputError for a file that is none."""
    try:
        text = read_regular(Path(path)).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8, at byte {error.start}; save it as UTF-8") from None
    lines = [line.strip() for line in text.splitlines()]
    if not any(lines):
        raise InputError(f"{path} is empty; expected text, a word or a sentence a line")
    return [line for line in lines if line]


def _shift(label: int, blank: int) -> int:
    return label + (label >= blank)


def log_probabilities(probabilities: Tensor) -> Tensor:
    """log p, where p may be 0: (..., K)."""
    return torch.log(probabilities.double().clamp(min=torch.finfo(torch.float32).tiny))

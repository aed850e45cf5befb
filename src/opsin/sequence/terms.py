"""How a model reads and writes: vocabularies of its texts, or the scale of its numbers; chosen once, saved with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.data import Preprocessing, Split
from opsin.errors import InputError
from opsin.sequence.inputs import pad, text_of
from opsin.sequence.tokens import END, PAD
from opsin.sequence.truth import WRITTEN, SequenceTruth
from opsin.sequence.vocabulary import Vocabulary, build_vocabulary

IGNORED = -1  # among labels: after the end of a text
_READ = 2000  # series whose numbers say the mean and the deviation


@dataclass(frozen=True)
class Terms:
    """What of a model's meaning says how sequences become its input, and its output texts."""

    meaning: Mapping[str, Any]

    @property
    def form(self) -> str:
        """One of `opsin.sequence.truth.FORMS`."""
        return str(self.meaning["form"])

    @property
    def classes(self) -> list[str]:
        """Names of classes or labels."""
        return [str(name) for name in self.meaning.get("classes", ())]

    @cached_property
    def source(self) -> Vocabulary | None:
        """Of what is read; None of numbers."""
        return Vocabulary.from_meaning(self.meaning["source"]) if "source" in self.meaning else None

    @cached_property
    def target(self) -> Vocabulary:
        """Of what is written: its own, or that of what is read."""
        if "target" in self.meaning:
            return Vocabulary.from_meaning(self.meaning["target"])
        assert self.source is not None
        return self.source

    @property
    def channels(self) -> int:
        """Numbers of a step, or channels of an image; 0 of texts."""
        return int(self.meaning.get("channels", 0))

    @property
    def images(self) -> Preprocessing:
        """How an image that is to be described becomes one of those of the training: their size and channels."""
        height, width = (int(side) for side in self.meaning["size"])
        channels = self.channels
        return Preprocessing(size=(height, width), channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)

    @property
    def values(self) -> int:
        """How many numbers are answered."""
        return int(self.meaning.get("values", 0))

    @property
    def max_length(self) -> int:
        """The most symbols that are written unless a call says otherwise."""
        return int(self.meaning.get("max_length", 100))

    @property
    def num_classes(self) -> int:
        """Outputs of the network."""
        if self.form in (*WRITTEN, "language"):
            return len(self.target)
        return self.values if self.form == "values" else len(self.classes)

    def as_input(self, raw: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What was read, code points (n,) or numbers (T, C), as the network's input and its lengths (B,).

        Symbols (B, S) int64, `PAD` after the end, or numbers (B, S, C) float32. Texts to be continued end with `END`.
        Images, uint8 (C, H, W) of one size, are (B, C, H, W) float32 in [0, 1], and read at once: their lengths are 1.
        """
        if self.form == "captions":
            return torch.stack([one.float() / 255 for one in raw]), torch.ones(len(raw), dtype=torch.int64)
        if self.source is None:
            mean, std = (self.meaning.get(name) for name in ("mean", "std"))
            if mean is not None:
                raw = [(one - torch.tensor(mean)) / torch.tensor(std) for one in raw]
            return pad(raw, 0.0, torch.float32)
        encoded = [self.source.encode(text_of(one)) for one in raw]
        return pad([[*one, END] for one in encoded] if self.form == "language" else encoded, PAD, torch.int64)

    def as_target(self, raw: Any, source: Sequence[Tensor]) -> dict[str, Tensor]:
        """The truth of a batch as the network's loss takes it. source: what was read, as of `as_input`."""
        if self.form == "language":
            return {"tokens": self.as_input(source)[0]}
        if self.form in WRITTEN:
            return {"tokens": pad([self.target.encode(text_of(one)) for one in raw], PAD, torch.int64)[0]}
        if self.form == "labels":
            place = {name: k for k, name in enumerate(self.classes)}
            rows = [[place.get(name, IGNORED) for name in text_of(one).split()] for one in raw]
            return {"labels": pad(rows, IGNORED, torch.int64)[0]}
        return {"values": self.as_scaled(raw)} if self.form == "values" else {"label": raw}

    def as_scaled(self, values: Tensor) -> Tensor:
        """Numbers to be found, (B, K), as the network's loss takes them: less their mean, over their deviation."""
        mean, std = self._answer_scale(values)
        return (values - mean) / std

    def in_units(self, values: Tensor) -> Tensor:
        """What a network answers, (B, K), in the units of the data: `as_scaled`, undone."""
        mean, std = self._answer_scale(values)
        return values * std + mean

    def _answer_scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        given = (self.meaning.get(name, [fill]) for name, fill in (("answer_mean", 0.0), ("answer_std", 1.0)))
        mean, std = (torch.tensor(one, dtype=like.dtype, device=like.device) for one in given)
        return mean, std


def choose_terms(
    train: Split, *, unit: str, target_unit: str, size: int | None, min_count: int, shared: bool, normalize: bool,
    max_length: int | None,
) -> dict[str, Any]:  # fmt: skip
    """The terms of a model for a training split."""
    truth: SequenceTruth = train.kind
    found: dict[str, Any] = {}
    options = {"min_count": min_count, "most": size}
    inputs: Any = train.inputs
    strings: Any = getattr(inputs, "strings", None)
    if truth.form == "captions":
        found |= {"channels": inputs.channels, "size": list(inputs.size_of_all)}
        found["target"] = build_vocabulary(truth.texts or (), target_unit, **options).to_meaning()
    elif strings is None:
        found["channels"] = int(inputs.channels)
        found |= _scale(train) if normalize else {}
    elif truth.form == "labels":
        found["source"] = build_vocabulary(strings(), "words", **options).to_meaning()
    elif truth.form == "pairs" and shared:
        if unit != target_unit:
            raise InputError(f"one vocabulary of both texts needs one unit, not {unit} and {target_unit}")
        found["source"] = build_vocabulary(_both(strings(), truth.texts), unit, **options).to_meaning()
    else:
        found["source"] = build_vocabulary(strings(), unit, **options).to_meaning()
        if truth.form == "pairs":
            found["target"] = build_vocabulary(truth.texts or (), target_unit, **options).to_meaning()
    if truth.form == "values" and truth.numbers is not None:
        found["values"] = int(truth.numbers.shape[1])
        found |= _answer_scale(truth.numbers) if normalize else {}
    if truth.form in (*WRITTEN, "language"):
        texts: Any = truth.texts
        if truth.form == "language":
            texts = inputs.strings()
        written = Vocabulary.from_meaning(found["target"] if "target" in found else found["source"])
        longest = max((len(written.split(text)) for text in _longest(texts)), default=1)
        found["max_length"] = max_length or 2 * longest
    return found


def _both(first: Iterable[str], second: Iterable[str] | None) -> Iterable[str]:
    yield from first
    yield from second or ()


def _longest(texts: Any, count: int = 50) -> list[str]:
    """The texts with the most characters, among which is that with the most symbols, all but always."""
    order = np.argsort(-texts.lengths, kind="stable")[:count]
    return [texts[int(i)] for i in order]


def _scale(train: Split) -> dict[str, Any]:
    """Mean and deviation of each channel, of at most so many series."""
    places = np.unique(np.linspace(0, len(train) - 1, min(len(train), _READ)).astype(int)).tolist()
    rows = torch.cat([train.read(i) for i in places]).double()
    std = rows.std(dim=0, unbiased=False)
    return {"mean": rows.mean(dim=0).tolist(), "std": torch.where(std > 0, std, 1.0).tolist()}


def _answer_scale(numbers: np.ndarray) -> dict[str, Any]:
    """Mean and deviation of each number that is to be found, (N, K)."""
    values = numbers.astype(np.float64)
    std = values.std(axis=0)
    return {"answer_mean": values.mean(axis=0).tolist(), "answer_std": np.where(std > 0, std, 1.0).tolist()}

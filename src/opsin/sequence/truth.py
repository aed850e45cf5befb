"""What is known of a sequence: another text, what follows, a label of each symbol, a class, or numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from opsin.data.labels import match_classes
from opsin.data.texts import PackedTexts
from opsin.data.truth import Problem, Size, Summary, Truth
from opsin.errors import InputError, unknown

FORMS: Mapping[str, str] = {
    "pairs": "a text for each text",
    "captions": "a text for each image",
    "language": "texts that go on",
    "labels": "a label for each word",
    "classes": "a class for each sequence",
    "values": "numbers for each sequence",
}
# What a network's `answers_with` says -> the form that it is for
ANSWERS: Mapping[str, str] = {
    "text": "pairs", "caption": "captions", "next": "language", "labels": "labels", "class": "classes",
    "values": "values",
}  # fmt: skip
WRITTEN = ("pairs", "captions")  # forms whose truth is a text that a model writes


@dataclass(frozen=True)
class SequenceSummary(Summary):
    """lengths: (N,) of the symbols or steps of what is known, none where there are none."""

    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def facts(self, others: Sequence[SequenceSummary] = ()) -> dict[str, Any]:
        """length: the least, median and most of the truths of all splits."""
        lengths = np.concatenate([one.lengths for one in (self, *others)])
        if not len(lengths):
            return {}
        return {"length": [int(lengths.min()), float(np.median(lengths)), int(lengths.max())]}

    def lines(self, facts: Mapping[str, Any]) -> list[str]:
        if "length" not in facts:
            return []
        least, median, most = facts["length"]
        return [f"lengths: {least:,} to {most:,}, {median:g} in the middle"]


@dataclass(frozen=True, eq=False)
class SequenceTruth(Truth):
    """What a model is to say of each sequence.

    form: one of `FORMS`. texts: of "pairs" and "captions" the text to be written, of "labels" the labels joined by
    blanks. classes: names of classes and labels. numbers: of "classes" (N,) int64, of "values" (N, K) float32. size:
    how many examples there are. terms: how a model reads and writes, see `opsin.sequence.terms`; empty until a training
    has chosen it.
    """

    form: str
    size: int
    texts: PackedTexts | None = None
    numbers: np.ndarray | None = None
    classes: Sequence[str] = ()
    terms: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_texts(cls, form: str, texts: Sequence[str]) -> SequenceTruth:
        """Of "pairs", "captions" or "labels", from strings."""
        names = sorted({name for text in texts for name in text.split()}) if form == "labels" else ()
        return cls(form, len(texts), texts=PackedTexts.pack(texts), classes=tuple(names))

    @classmethod
    def of_classes(cls, names: Sequence[str]) -> SequenceTruth:
        """Of the name of each example's class."""
        classes = sorted(set(names))
        place = {name: k for k, name in enumerate(classes)}
        return cls("classes", len(names), numbers=np.array([place[n] for n in names], np.int64), classes=classes)

    @property
    def meaning(self) -> Mapping[str, Any]:
        return {"form": self.form, **({"classes": list(self.classes)} if self.classes else {}), **self.terms}

    def __len__(self) -> int:
        return self.size

    def select(self, places: np.ndarray) -> SequenceTruth:
        return replace(
            self,
            size=len(places),
            texts=None if self.texts is None else self.texts.select(places),
            numbers=None if self.numbers is None else self.numbers[places],
        )

    def match(self, meaning: Mapping[str, Any]) -> SequenceTruth:
        """In a model's terms: its vocabulary and the order of its classes."""
        if meaning.get("form") != self.form:
            wanted = FORMS.get(str(meaning.get("form")), "something else")
            raise InputError(f"the model was trained on {wanted}, this data has {FORMS[self.form]}")
        terms = {key: value for key, value in meaning.items() if key not in ("form", "classes")}
        found = replace(self, terms=terms)
        if not self.classes:
            return found
        known = [str(name) for name in meaning["classes"]]
        places = match_classes(self.classes, known)
        if places is None or self.numbers is None:
            return replace(found, classes=known)
        return replace(found, classes=known, numbers=np.asarray(places, np.int64)[self.numbers])

    def strata(self) -> np.ndarray | None:
        return self.numbers if self.form == "classes" else None

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        """`target`: code points (n,) int32 of a text, (K,) float32, or a class."""
        if self.texts is not None:
            return {"target": torch.from_numpy(self.texts.codes_of(i).astype(np.int32))}
        if self.numbers is None:
            return {}
        return {"target": self.numbers[i] if self.numbers.ndim == 1 else torch.from_numpy(self.numbers[i])}

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`target`: a list of code points, or one tensor of classes (B,) or values (B, K)."""
        if self.form == "language" or not samples:
            return {}
        if self.texts is not None:
            return {"target": [sample["target"] for sample in samples]}
        return super().collate(samples)

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        if not training or self.form != "classes" or len(self.classes) > 1:
            return []
        named = f"only the class {self.classes[0]!r}" if self.classes else "no classes"
        return [Problem("one_class", "", f"{{source}} has {named}; a classifier needs two or more")]

    def members(self, name: str) -> np.ndarray:
        if self.form != "classes" or self.numbers is None:
            return np.arange(len(self))
        return np.flatnonzero(self.numbers == list(self.classes).index(name))

    def summary(self) -> SequenceSummary:
        counts: dict[str, int] = {}
        if self.form == "classes" and self.numbers is not None:
            found = np.bincount(self.numbers, minlength=len(self.classes))
            counts = dict(zip(self.classes, found.tolist(), strict=True))
        objects: dict[str, int] = {}
        if self.form == "labels" and self.texts is not None:
            objects = dict(Counter(name for text in self.texts for name in text.split()).most_common())
        return SequenceSummary(
            kind=FORMS[self.form],
            section="sequences",
            counts=counts,
            objects=objects,
            noun="labels" if objects else "sequences",
            exclusive=bool(counts),
            lengths=np.zeros(0, np.int64) if self.texts is None else self.texts.lengths,
        )

    def same(self, i: int, other: Any, j: int) -> str | None:
        """A text may have several translations, an image several captions: they never contradict each other."""
        return None if self.form in WRITTEN or self.digest(i) == other.digest(j) else "with another answer"


def check_form(form: str) -> str:
    """The form, if it is one. Raises InputError with the nearest."""
    if form not in FORMS:
        raise unknown("form of sequences", form, FORMS)
    return form

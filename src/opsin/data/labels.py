"""Class labels: one of each example, or any number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from opsin import rooms
from opsin.data.class_names import translate
from opsin.data.source import Source
from opsin.data.truth import Problem, Size, Summary, Truth
from opsin.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_NAMES = 3  # of an image's classes in a drawing
MULTI_LABEL = f"{rooms.DEFAULT_TASK}.multi_label=true"  # what a recipe sets for any number of labels


@dataclass(frozen=True, eq=False)
class ClassLabels(Truth):
    """labels: (N,) int64, -1 where there is none, or (N, K) float32 of 0 and 1. classes: the K names."""

    labels: np.ndarray
    classes: Sequence[str]

    @property
    def meaning(self) -> Mapping[str, Any]:
        return {"classes": list(self.classes), **({"multi_label": True} if self.labels.ndim == 2 else {})}

    @property
    def presence(self) -> np.ndarray:
        """The labels, as they are."""
        return self.labels

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, places: np.ndarray) -> ClassLabels:
        return ClassLabels(self.labels[places], self.classes)

    def match(self, meaning: Mapping[str, Any]) -> ClassLabels:
        known = list(meaning["classes"])
        places = match_classes(self.classes, known)
        return ClassLabels(self.labels, known) if places is None else self.relabel(places, known)

    def relabel(self, places: Sequence[int] | np.ndarray, classes: Sequence[str]) -> ClassLabels:
        """With class k called `places[k]` of `classes`. Classes with the same place become one."""
        new = np.asarray(places, dtype=np.int64)
        if self.labels.ndim == 1:
            return ClassLabels(np.where(self.labels < 0, -1, new[self.labels]), classes)
        labels = np.zeros((len(self), len(classes)), np.float32)
        for column, place in zip(self.labels.T, new.tolist(), strict=False):
            np.maximum(labels[:, place], column, out=labels[:, place])
        return ClassLabels(labels, classes)

    def several(self) -> ClassLabels:
        """As rows of 0 and 1, of any number of classes each."""
        return ClassLabels(one_hot(self.labels, len(self.classes)), self.classes)

    def shown(self, i: int) -> list[int]:
        """The classes of an example."""
        label = self.labels[i]
        return np.flatnonzero(label).tolist() if self.labels.ndim == 2 else [int(label)] * int(label >= 0)

    def strata(self) -> np.ndarray:
        return strata(self.labels)

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        return {"label": self.labels[i]}

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        if not training or len(self.classes) > 1:
            return []
        only = f"only the class {self.classes[0]!r}" if self.classes else "no classes"
        advice = "a classifier needs two or more, each in a folder of its own or a column"
        return [Problem("one_class", "", f"{{source}} has {only}; {advice}")]

    def same(self, i: int, other: Any, j: int) -> str | None:
        one, two = self._named(i), other._named(j)
        return None if one == two else f"labelled {two}, not {one}"

    def members(self, name: str) -> np.ndarray:
        label = list(self.classes).index(name)
        return np.flatnonzero(self.labels == label if self.labels.ndim == 1 else self.labels[:, label] > 0)

    def summary(self) -> Summary:
        single = self.labels.ndim == 1
        return Summary(
            kind="one label an image" if single else "multi-label",
            counts=dict(zip(self.classes, class_counts(self.labels, len(self.classes)).tolist(), strict=True)),
            exclusive=single,
            advice="; consider loss.class_weights=balanced",
        )

    def digest(self, i: int) -> bytes:
        return self.labels[i].tobytes()

    def draw_batch(
        self, image: Image, batch: Mapping[str, Any], k: int, scale: tuple[float, float] = (1.0, 1.0)
    ) -> Image:
        """Over the names of its classes, with their shares where labels were mixed."""
        from opsin.data.drawing import Line, add_caption

        label, lines = batch["label"][k], [Line("no label")]
        if not label.is_floating_point():
            lines = [Line(str(self.classes[int(label)]))] if label >= 0 else lines
        else:
            shown = sorted(label.nonzero()[:, 0].tolist(), key=lambda one: -float(label[one]))[:_MOST_NAMES]
            lines = [Line(str(self.classes[one]), f"{100 * float(label[one]):.0f} %") for one in shown] or lines
        return add_caption(image, lines, narrowest=image.width)

    def _named(self, i: int) -> str:
        return "+".join(self.classes[k] for k in self.shown(i)) or "nothing"


def as_several(source: Source, multi_label: bool = True) -> Source:
    """A source of class labels, where `multi_label` with those of one class an example as rows of 0 and 1."""
    if not multi_label:
        return source
    return replace(source, splits={key: one.with_truth(one.kind.several()) for key, one in source.splits.items()})


def match_classes(own: Sequence[str], known: Sequence[str]) -> list[int] | None:
    """The place of each class among those that a model knows; None where they are the same in the same order.

    ImageNet's folder names stand for its classes. Raises InputError for a class that the model never saw.
    """
    own, known = translate(list(own), list(known)), list(known)
    if own == known:
        return None
    missing = [name for name in own if name not in known]
    if missing:
        raise InputError(
            f"the model does not know the classes {', '.join(missing[:5])}; it was trained on {', '.join(known[:10])}"
        )
    return [known.index(name) for name in own]


def strata(labels: np.ndarray) -> np.ndarray:
    """One class a row: the label, or of several labels the rarest; -1 for a row without any."""
    if labels.ndim == 1:
        return labels
    counts = labels.sum(axis=0)
    rarest = np.where(labels > 0, counts, np.inf).argmin(axis=1)
    return np.where(labels.any(axis=1), rarest, -1)


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """How many examples each class has: (num_classes,) int64. Negative labels count for none."""
    if labels.ndim == 2:
        return labels.sum(axis=0).astype(np.int64)
    return np.bincount(labels[labels >= 0], minlength=num_classes)


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(N,) int64 -> (N, num_classes) float32, a row of zeros for a negative label; what is 2-D already stays."""
    if labels.ndim == 2:
        return labels
    return (labels[:, None] == np.arange(num_classes)).astype(np.float32)

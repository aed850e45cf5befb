"""What is known of images of several domains: which domain each is of, and the class where it may be known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from opsin.data import Source, Split
from opsin.data.inputs import Concatenated
from opsin.data.labels import class_counts
from opsin.data.truth import Problem, Size, Summary, Truth

if TYPE_CHECKING:
    from PIL.Image import Image

TARGET = -1  # the domain of what is adapted to; those that teach count from 0
UNKNOWN = -1  # the label of an image whose class nobody says


@dataclass(frozen=True, eq=False)
class DomainLabels(Truth):
    """labels: (N,) int64, -1 where the class is not known. domains: (N,) int64, -1 of the target. classes: K names.

    weights: (N,) float32, how much each example counts in the classification loss, 1 on average; None: all alike.
    """

    labels: np.ndarray
    domains: np.ndarray
    classes: Sequence[str]
    weights: np.ndarray | None = None

    @property
    def meaning(self) -> Mapping[str, Any]:
        return {"classes": list(self.classes)}

    @property
    def presence(self) -> np.ndarray:
        """(N,) int64: the labels, as they are."""
        return self.labels

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, places: np.ndarray) -> DomainLabels:
        weights = None if self.weights is None else self.weights[places]
        return DomainLabels(self.labels[places], self.domains[places], self.classes, weights)

    def weighed(self, weights: np.ndarray) -> DomainLabels:
        """The same with other weights of the examples."""
        return replace(self, weights=weights.astype(np.float32))

    def strata(self) -> np.ndarray:
        return self.labels

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        found = {"label": self.labels[i], "domain": self.domains[i]}
        return found if self.weights is None else found | {"weight": self.weights[i]}

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        return []  # each domain was looked at by itself, with the truth that it was opened with

    def members(self, name: str) -> np.ndarray:
        return np.flatnonzero(self.labels == list(self.classes).index(name))

    def summary(self) -> Summary:
        counts = class_counts(self.labels, len(self.classes))
        return Summary(
            kind="one label an image, and images of a domain without",
            counts=dict(zip(self.classes, counts.tolist(), strict=True)),
            exclusive=True,
        )

    def digest(self, i: int) -> bytes:
        return self.labels[i].tobytes() + self.domains[i].tobytes()

    def draw_batch(
        self, image: Image, batch: Mapping[str, Any], k: int, scale: tuple[float, float] = (1.0, 1.0)
    ) -> Image:
        """Over the name of its class, and where it is of the target, that."""
        from opsin.data.drawing import Line, add_caption

        label, domain = int(batch["label"][k]), int(batch["domain"][k])
        shown = str(self.classes[label]) if label >= 0 else "no label"
        where = "target" if domain == TARGET else f"source {domain + 1}"
        return add_caption(image, [Line(shown), Line(where)], narrowest=image.width)


def join(parts: Sequence[tuple[Split, np.ndarray, int]], classes: Sequence[str]) -> Split:
    """One split of several domains, in order. parts: of each the split, its labels (N,) and its domain."""
    inputs = Concatenated([split.inputs for split, _, _ in parts])
    labels = np.concatenate([labels for _, labels, _ in parts]).astype(np.int64)
    domains = np.concatenate([np.full(len(split), domain, np.int64) for split, _, domain in parts])
    return Split(inputs, DomainLabels(labels, domains, classes))


@dataclass
class Domains(Source):
    """The data of an adaptation: as splits what it may see, and apart from them what no training is given.

    oracle: the target's test images with their classes, where somebody has labelled them: they are looked at once, when
    all is done, for a figure beside the others. names: of the domains that teach. target: the name of the other; "".
    notes: what is to be said of the domains. bridges: training images of the domains between, without labels.
    """

    oracle: Split | None = None
    names: Sequence[str] = ()
    target: str = ""
    notes: Sequence[str] = ()
    bridges: Sequence[Split] = ()

"""Identities: who or what an example shows, a person, a product, a character, of which others may be met in use."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from opsin.data.labels import match_classes
from opsin.data.source import Source
from opsin.data.truth import Problem, Size, Summary, Truth
from opsin.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class IdentitySummary(Summary):
    """How many identities there are, and how many examples of each."""

    images: Sequence[int] = ()

    def facts(self, others: Sequence[Any] = ()) -> dict[str, Any]:
        found = [one for summary in (self, *others) for one in summary.images]
        if not found:
            return {"identities": 0}
        return {
            "identities": len(found),
            "least": min(found),
            "median": float(np.median(found)),
            "most": max(found),
            "single": sum(one == 1 for one in found),
        }

    def lines(self, facts: Mapping[str, Any]) -> list[str]:
        if not facts.get("identities"):
            return ["no identity"]
        single = f"; {facts['single']:,} have one" if facts["single"] else ""
        spread = f"{facts['least']:,} to {facts['most']:,} images each, {facts['median']:g} in the middle"
        return [f"{facts['identities']:,} identities of {spread}{single}"]


@dataclass(frozen=True, eq=False)
class Identities(Truth):
    """labels: (N,) int64, places in `names`, -1 where an identity is not known. names: of the identities.

    closed: those that are met in use are those of the training, as of classes, and a division cuts within each. Else
    they are others, and a division keeps all examples of an identity together.
    """

    labels: np.ndarray
    names: Sequence[str]
    closed: bool = False

    @property
    def meaning(self) -> Mapping[str, Any]:
        return {"classes": list(self.names)} if self.closed else {}

    @property
    def presence(self) -> np.ndarray:
        """The labels, as they are."""
        return self.labels

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, places: np.ndarray) -> Identities:
        return replace(self, labels=self.labels[places])

    def match(self, meaning: Mapping[str, Any]) -> Identities:
        known = list(meaning.get("classes", ()))
        if not known or not self.closed:
            return self
        places = match_classes(self.names, known)
        if places is None:
            return self
        new = np.asarray(places, np.int64)
        return replace(self, labels=np.where(self.labels < 0, -1, new[self.labels]), names=known)

    def compact(self) -> Identities:
        """Numbered anew, without the identities that no example shows."""
        there = np.unique(self.labels[self.labels >= 0])
        number = np.full(len(self.names) + 1, -1, np.int64)
        number[there] = np.arange(len(there))
        return replace(self, labels=number[self.labels], names=[self.names[k] for k in there.tolist()])

    def counts(self) -> np.ndarray:
        """(K,) int64: the examples of each identity."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.names))

    def strata(self) -> np.ndarray | None:
        return self.labels if self.closed else None

    def groups(self) -> Sequence[str] | None:
        if self.closed:
            return None
        # an example of nobody known stands alone; a NUL is in no file's name
        return [self.names[int(k)] if k >= 0 else f"\0{i}" for i, k in enumerate(self.labels)]

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        return {"identity": self.labels[i]}

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        counts = self.counts()
        there = int((counts > 0).sum())
        if there < 2:
            only = f"only one identity, {self.names[int(counts.argmax())]!r}" if there else "no identities"
            advice = "it takes two or more, each in a folder of its own or a column"
            return [Problem("one_identity", "", f"{{source}} has {only}; {advice}", "error" if training else "warning")]
        if counts.max() < 2:
            reason = "no identity in {source} has two images, so that nothing says what is the same; add images of each"
            return [Problem("single_images", "", reason, "error" if training else "warning")]
        single = np.flatnonzero(counts == 1)
        if training or not len(single):
            return []
        first = ", ".join(repr(self.names[k]) for k in single[:3].tolist())
        more = f" and {len(single) - 3:,} more" if len(single) > 3 else ""
        reason = f"one image each of {first}{more} in {{split}}: they serve as others, and are never a pair of the same"
        return [Problem("single_images", "", reason, "note")]

    def same(self, i: int, other: Any, j: int) -> str | None:
        one, two = self._named(i), other._named(j)
        return None if one == two else f"of {two}, not of {one}"

    def summary(self) -> Summary:
        counts = self.counts()
        return IdentitySummary(kind="one identity an image", section="identities", images=counts[counts > 0].tolist())

    def digest(self, i: int) -> bytes:
        return self._named(i).encode("utf-8", "surrogatepass")

    def draw(self, image: Image, i: int, scale: tuple[float, float] = (1.0, 1.0)) -> Image:
        """Over the name of its identity."""
        from opsin.data.drawing import Line, add_caption

        return add_caption(image, [Line(self._named(i))], narrowest=image.width)

    def _named(self, i: int) -> str:
        label = int(self.labels[i])
        return str(self.names[label]) if label >= 0 else "nobody known"


def identities_of(source: Source, closed: bool | None = None) -> Source:
    """A source of one class label an example, with each class as an identity.

    closed: see `Identities`; None where the source's own splits show the same identities. What is wrong with classes
    that differ between splits is not wrong with identities. Raises InputError for several labels an example.
    """
    splits = {}
    for key, split in source.splits.items():
        if split.kind.presence.ndim != 1:
            raise InputError(f"{source.name} has several labels an image; an identity is one")
        splits[key] = split.kind
    if closed is None:
        shown = [set(np.unique(truth.labels).tolist()) - {-1} for truth in splits.values()]
        closed = len(shown) > 1 and all(one == shown[0] for one in shown)
    dropped = {"class_mismatch", "empty_class"}
    return replace(
        source,
        splits={
            key: split.with_truth(Identities(splits[key].labels, splits[key].classes, closed))
            for key, split in source.splits.items()
        },
        problems=[
            *(problem for problem in source.problems if problem.kind not in dropped),
            *([] if closed else _on_both_sides(source.name, splits)),
        ],
    )


def _on_both_sides(name: str, splits: Mapping[str, Any]) -> list[Problem]:
    """Identities that stand in two splits, which are to show others."""
    shown = {
        key: {truth.classes[k] for k in np.unique(truth.labels[truth.labels >= 0]).tolist()}
        for key, truth in splits.items()
    }
    problems = []
    for one, other in itertools.combinations(shown, 2):
        if both := sorted(shown[one] & shown[other]):
            named = ", ".join(map(repr, both[:3])) + (f" and {len(both) - 3:,} more" if len(both) > 3 else "")
            reason = (
                f"{len(both):,} of {len(shown[other]):,} identities of {other} are in {one} too, {named}: scores on "
                f"{other} are too good; put all images of an identity on one side"
            )
            problems.append(Problem("identity_on_both_sides", name, reason, "warning"))
    return problems

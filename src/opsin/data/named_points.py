"""Named points: where each of the same few points of an object lies in every image, such as the corners of its eyes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from opsin.data.point_sets import eyes_of_names, find_flip, flip_of_names, known_points, mean_shape, recognize_set
from opsin.data.truth import Problem, Size, Summary, Truth
from opsin.errors import InputError, printable

if TYPE_CHECKING:
    from PIL.Image import Image

Eyes = Mapping[str, Sequence[Sequence[int]]]


@dataclass(frozen=True, eq=False)
class NamedPoints(Truth):
    """Points of each example, in continuous pixels of its image.

    points: (N, P, 2) float32, NaN where a point is not known. names: of the P points. visible: (N, P) bool, False of a
    known point that is hidden. flip: of each point the one that it becomes in a mirror image; None where that is not
    known. eyes: see `opsin.data.point_sets.PointSet`. people: of each example whom it shows, where that is known, which
    a division keeps together.
    """

    points: np.ndarray
    names: Sequence[str]
    visible: np.ndarray
    flip: tuple[int, ...] | None = None
    eyes: Eyes = field(default_factory=dict)
    people: Sequence[str] | None = None

    @classmethod
    def of(
        cls,
        points: np.ndarray,
        names: Sequence[str] | None = None,
        visible: np.ndarray | None = None,
        people: Sequence[str] | None = None,
    ) -> NamedPoints:
        """From points (N, P, 2), NaN where not known, with the names, and with all that follows from these."""
        names = [str(k) for k in range(points.shape[1])] if names is None else list(names)
        known = known_points(points)
        visible = known if visible is None else visible & known
        return cls(points.astype(np.float32), tuple(names), visible, people=people).described()

    def described(self) -> NamedPoints:
        """The same with `flip` and `eyes` as the names and the mean shape say; see `opsin.data.point_sets`."""
        shape = mean_shape(self.points)
        known = recognize_set(shape)
        if known is not None:
            return replace(self, flip=known.flip, eyes=known.eyes)
        flip = flip_of_names(self.names) or find_flip(shape)
        return replace(self, flip=flip, eyes=eyes_of_names(self.names))

    @property
    def meaning(self) -> Mapping[str, Any]:
        eyes = {name: [list(eye) for eye in pair] for name, pair in self.eyes.items()}
        flip = None if self.flip is None else list(self.flip)
        return {"points": list(self.names), "flip": flip, "eyes": eyes}

    @property
    def known(self) -> np.ndarray:
        """(N, P) bool: which points are known."""
        return known_points(self.points)

    def __len__(self) -> int:
        return len(self.points)

    def select(self, places: np.ndarray) -> NamedPoints:
        people = None if self.people is None else [self.people[k] for k in np.asarray(places).tolist()]
        return replace(self, points=self.points[places], visible=self.visible[places], people=people)

    def match(self, meaning: Mapping[str, Any]) -> NamedPoints:
        names, own = [str(name) for name in meaning["points"]], list(self.names)
        if len(names) != len(own):
            raise InputError(
                f"the model knows {len(names)} points, {_listed(names)}; this data has {len(own)}, {_listed(own)}"
            )
        order = np.arange(len(own))
        if own != names and not all(name.isdigit() for name in own):
            missing = [name for name in names if name not in own]
            if missing:
                raise InputError(
                    f"the model knows the points {_listed(missing)}, which this data has not: {_listed(own)}"
                )
            order = np.array([own.index(name) for name in names])
        flip, eyes = meaning.get("flip"), meaning.get("eyes") or {}
        return replace(
            self,
            points=self.points[:, order],
            visible=self.visible[:, order],
            names=tuple(names),
            flip=None if flip is None else tuple(int(k) for k in flip),
            eyes={name: tuple(tuple(eye) for eye in pair) for name, pair in eyes.items()},
        )

    def groups(self) -> Sequence[str] | None:
        return self.people

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        """points: `Points` (P, 2) of the image; visible: (P,) bool; size: (2,) int64, its height and width."""
        from opsin.data.transforms.points import Points

        if size is None:
            return {"points": self.points[i], "visible": self.visible[i]}
        return {
            "points": Points(self.points[i].copy(), canvas_size=size),
            "visible": self.visible[i],
            "size": np.array(size, np.int64),
        }

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return super().collate([{key: _plain(value) for key, value in sample.items()} for sample in samples])

    def extents(self, i: int) -> Tensor | None:
        import torch

        own = self.points[i][self.known[i]]
        if not len(own):
            return torch.zeros(0, 4)
        return torch.from_numpy(np.concatenate([own.min(axis=0), own.max(axis=0)])[None])

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        counts = self.known.sum(axis=1)
        if training:
            reason = "{source} has no image with a point; there is nothing to train on"
            return [] if counts.any() else [Problem("no_points", "", reason)]
        found = [
            Problem("no_points", "", "none of its points is known: nothing is learned from it", "warning", i)
            for i in np.flatnonzero(counts == 0).tolist()
        ]
        some = np.flatnonzero((counts > 0) & (counts < len(self.names))).tolist()
        for i in some:
            missing = [self.names[int(k)] for k in np.flatnonzero(~self.known[i])]
            found.append(Problem("unknown_points", "", f"not known: {_listed(missing)}", "note", i))
        for i, (height, width) in sizes.items():
            outside = np.flatnonzero(((self.points[i] < 0) | (self.points[i] > (width, height))).any(axis=1))
            if len(outside):
                listed = _listed([self.names[int(k)] for k in outside])
                found.append(
                    Problem("points_outside", "", f"outside of the image of {height}x{width}: {listed}", "warning", i)
                )
        return found

    def same(self, i: int, other: Any, j: int) -> str | None:
        same = np.array_equal(self.points[i], other.points[j], equal_nan=True)
        return None if same else "with other points"

    def summary(self) -> Summary:
        return PointSummary(self)

    def draw(self, image: Image, i: int, scale: tuple[float, float] = (1.0, 1.0)) -> Image:
        from opsin.data.point_drawing import draw_points

        return draw_points(image, self.points[i] * scale, self.visible[i])

    def draw_batch(
        self, image: Image, batch: Mapping[str, Any], k: int, scale: tuple[float, float] = (1.0, 1.0)
    ) -> Image:
        from opsin.data.point_drawing import draw_points

        points, visible = batch["points"][k].cpu().numpy(), batch["visible"][k].cpu().numpy()
        return draw_points(image, points * scale, visible)


class PointSummary(Summary):
    """What named points hold: their number, how many are known and visible, the pairs, the people."""

    def __init__(self, truth: NamedPoints) -> None:
        super().__init__(kind=f"{len(truth.names)} points", section="points", grid=(6, 160, 3))
        object.__setattr__(self, "_truth", truth)

    def facts(self, others: Sequence[Any] = ()) -> dict[str, Any]:
        truths: list[NamedPoints] = [self._truth, *(one._truth for one in others)]  # type: ignore[attr-defined]
        known = np.concatenate([one.known for one in truths])
        visible = np.concatenate([one.visible for one in truths])
        own = truths[0]
        people = [set(one.people) for one in truths if one.people is not None]
        return {
            "names": list(own.names),
            "known": round(float(known.mean()), 4) if known.size else None,
            "visible": round(float(visible.sum() / max(1, known.sum())), 4),
            "flip_pairs": pairs_of(own.flip, own.names) if own.flip is not None else None,
            "normalizers": [*own.eyes, "box_diagonal", "box_size", "image_diagonal"],
            "people": len(set().union(*people)) if people else None,
        }

    def lines(self, facts: Mapping[str, Any]) -> list[str]:
        pairs = facts["flip_pairs"]
        found = [f"points: {_listed(facts['names'])}"]
        if facts["known"] is not None:
            found.append(f"  {100 * facts['known']:.1f} % known, of these {100 * facts['visible']:.1f} % visible")
        if pairs is None:
            found.append("  pairs that change places in a mirror image: not found; give them to flip images")
        else:
            shown = _listed([f"{one}-{other}" for one, other in pairs], 8) if pairs else "none"
            found.append(f"  pairs that change places in a mirror image: {shown}")
        found.append(f"  errors can be divided by: {', '.join(facts['normalizers'])}")
        return found + ([f"  people: {facts['people']:,}"] if facts["people"] is not None else [])


def pairs_of(flip: Sequence[int], names: Sequence[str]) -> list[list[str]]:
    """The pairs of a mirror image by their names, each once; points on the axis are in none."""
    return [[names[one], names[other]] for one, other in enumerate(flip) if one < other]


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, Tensor) else value


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(printable(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown

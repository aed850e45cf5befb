"""The tracks of one sequence, as columns: what formats read and write, trackers give and the evaluation takes.

Frames are 0-based here whatever a file says. Boxes are xyxy in continuous pixels, x2 and y2 exclusive. Detections are
tracks whose identities are all `NOBODY`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from opsin.structures import Instances

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

NOBODY = -1  # the identity of what has none: a detection
NO_CLASS = -1  # the label of a region that says only that nothing in it is evaluated
_NONE: Mapping[str, NDArray[Any]] = MappingProxyType({})
_COLUMNS = ("frames", "ids", "boxes", "scores", "labels", "ignored", "visibility")


@dataclass(frozen=True, eq=False)
class Tracks:
    """What is where in which frame of one sequence, and who it is. Rows are sorted by frame; all columns have length N.

    frames: (N,) int64, 0-based, below num_frames. ids: (N,) int64, -1 of detections and of regions. boxes: (N, 4)
    float64, xyxy. scores: (N,) float64, on the scale of whoever gave them; 1 of truth. labels: (N,) int64, places in
    `classes`, or -1. ignored: (N,) bool, what the data itself says is not to be evaluated: neither wanted nor wrong.
    visibility: (N,) float64 in [0, 1], the share of an object that is seen; None where it is not known. classes: their
    names. num_frames: of the sequence, those without objects too. fps: frames a second; None where unknown. size: width
    and height in pixels; None where unknown. name: of the sequence. batch: whether later frames were used, which no
    online tracker can. open_ended: nobody said how many frames there are, and num_frames is that of the last row.
    others: columns of length N that one format or one step has beside these, as "truncation".
    """

    frames: Integers
    ids: Integers
    boxes: Floats
    scores: Floats
    labels: Integers
    ignored: Flags
    classes: tuple[str, ...]
    num_frames: int
    visibility: Floats | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None
    name: str = ""
    batch: bool = False
    open_ended: bool = False
    others: Mapping[str, NDArray[Any]] = field(default_factory=lambda: _NONE)

    def __post_init__(self) -> None:
        count = len(self.frames)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"boxes must be ({count}, 4) for {count} frames, got {self.boxes.shape}")
        for name, column in self._columns():
            if len(column) != count:
                raise ValueError(f"{name} has length {len(column)}, frames have {count}")
        if count and (np.any(np.diff(self.frames) < 0) or self.frames[0] < 0 or self.frames[-1] >= self.num_frames):
            raise ValueError(f"frames must be sorted, of at least 0 and below num_frames, {self.num_frames}")

    @classmethod
    def build(
        cls,
        frames: ArrayLike,
        boxes: ArrayLike,
        ids: ArrayLike | None = None,
        scores: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        ignored: ArrayLike | None = None,
        *,
        num_frames: int | None = None,
        classes: Sequence[str] = ("object",),
        **rest: Any,
    ) -> Tracks:
        """Tracks of columns in any order; what is left out is what detections of one class have.

        ids: -1 by default. scores: 1. labels: 0. ignored: False. num_frames: up to the last row's. rest: the other
        fields of `Tracks`. Rows of one frame keep their order.
        """
        at = np.asarray(frames, np.int64)
        count = len(at)
        order = np.argsort(at, kind="stable")
        others = {name: np.asarray(column)[order] for name, column in rest.pop("others", _NONE).items()}
        visibility = rest.pop("visibility", None)
        return cls(
            frames=at[order],
            ids=(np.full(count, NOBODY) if ids is None else np.asarray(ids, np.int64))[order],
            boxes=np.asarray(boxes, np.float64).reshape(count, 4)[order],
            scores=(np.ones(count) if scores is None else np.asarray(scores, np.float64))[order],
            labels=(np.zeros(count, np.int64) if labels is None else np.asarray(labels, np.int64))[order],
            ignored=(np.zeros(count, np.bool_) if ignored is None else np.asarray(ignored, np.bool_))[order],
            classes=tuple(classes),
            num_frames=int(at.max(initial=-1)) + 1 if num_frames is None else num_frames,
            visibility=None if visibility is None else np.asarray(visibility, np.float64)[order],
            others=others,
            **rest,
        )

    @classmethod
    def of_instances(cls, frames: Iterable[Instances], **rest: Any) -> Tracks:
        """Tracks of the instances of each frame, in order, of the first to the last. rest: fields of `Tracks`."""
        each = list(frames)
        at = np.repeat(np.arange(len(each)), [len(one) for one in each])

        def column(name: str, default: float) -> NDArray[Any]:
            values = [getattr(one, name) for one in each]
            parts = [np.full(len(one), default) if value is None else value.detach().cpu().numpy()
                     for one, value in zip(each, values, strict=True)]  # fmt: skip
            return np.concatenate([*parts, np.empty(0)])

        boxes = np.concatenate([np.empty((0, 4)), *(one.boxes.detach().cpu().double().numpy() for one in each)])
        rest.setdefault("num_frames", len(each))
        return cls.build(at, boxes, column("ids", NOBODY), column("scores", 1.0), column("labels", 0), **rest)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def has_ids(self) -> bool:
        """Whether any row has an identity; detections have none."""
        return bool(np.any(self.ids != NOBODY))

    def rows(self, frame: int) -> slice:
        """The rows of a frame."""
        first, last = np.searchsorted(self.frames, (frame, frame + 1))
        return slice(int(first), int(last))

    def frame(self, frame: int) -> Instances:
        """The objects of a frame as trackers take them: boxes, scores, labels, and ids where there are any."""
        import torch  # columns alone are read, evaluated and written without it

        from opsin.structures import Instances

        rows = self.rows(frame)
        boxes, labels, scores, ids = (
            torch.from_numpy(column[rows].copy()) for column in (self.boxes, self.labels, self.scores, self.ids)
        )
        return Instances(boxes, labels=labels, scores=scores, ids=ids if self.has_ids else None)

    def select(self, rows: Flags | Integers) -> Tracks:
        """The chosen rows, all columns together. rows: (N,) bool, or places in ascending order of frames."""
        chosen: dict[str, Any] = {name: column[rows] for name, column in self._columns() if name in _COLUMNS}
        others = {name: column[rows] for name, column in self.others.items()}
        return replace(self, **chosen, others=others)

    def of_class(self, name: str) -> Tracks:
        """The rows of one class, and regions without one. Raises KeyError for a name that is not among the classes."""
        if name not in self.classes:
            raise KeyError(name)
        return self.select((self.labels == self.classes.index(name)) | (self.labels == NO_CLASS))

    def _columns(self) -> list[tuple[str, NDArray[Any]]]:
        """Every column that there is, by its name."""
        own = [(name, getattr(self, name)) for name in _COLUMNS]
        return [(name, column) for name, column in own if column is not None] + list(self.others.items())

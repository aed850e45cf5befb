"""What is known of a split's examples, by kind: class labels, boxes, and whatever a task brings of its own.

Whatever opens, divides, checks, draws and loads data asks the truth, and knows no task. A kind keeps columns, never one
object an image: it is handed to every worker process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from opsin.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]  # height and width of an image
T = TypeVar("T", bound="Truth")


@dataclass(frozen=True)
class Problem:
    """Something wrong with a data source. path: the file, with the line or place in it.

    An "error" makes training refuse or its result mislead; a "warning" wants a look; a "note" is good to know.

    A truth knows neither names nor splits. Of what it finds, `path` is empty where it concerns the source as a whole,
    and `index` says which example it concerns; in `reason`, {source} and {split} stand for their names. `name_problem`
    fills them in.
    """

    kind: str
    path: str
    reason: str
    severity: Literal["error", "warning", "note"] = "error"
    index: int | None = None


@dataclass(frozen=True)
class Summary:
    """What a truth holds, in numbers and for people.

    kind: in a few words, as "one label an image". counts: of each class, the examples that show it. noun: what is
    counted to see whether the classes are balanced: examples, or `objects` within them, of each class. exclusive:
    whether an example has one class, so that classes can be folders. advice: what to do about classes of very
    different sizes. section: the key of its facts in JSON, as "boxes". colours: of each class the one that the truth is
    drawn in; none where it is the palette's. grid: columns, pixels of a cell and most rows of a contact sheet of what
    has no classes; None for one row.
    """

    kind: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    noun: str = "images"
    objects: Mapping[str, int] = field(default_factory=dict)
    exclusive: bool = False
    advice: str = ""
    section: str = "truth"
    colours: Sequence[tuple[int, int, int]] = ()
    grid: tuple[int, int, int] | None = None

    @property
    def weighed(self) -> Mapping[str, int]:
        """Of each class what its weight in training is: its objects, or its examples where there are none within."""
        return self.objects or self.counts

    def facts(self, others: Sequence[Any] = ()) -> dict[str, Any]:
        """What is worth knowing of this truth and `others` of its kind, the summaries of a source's other splits.

        Plain values, as of JSON.
        """
        return {}

    def lines(self, facts: Mapping[str, Any]) -> list[str]:
        """The facts for people, a line each."""
        return []


class Truth(ABC):
    """What is known of each example of a split. A kind restates what is not as it is here.

    Required are `__len__`, `select` and `read`. Every method may be called in any process and any thread; none changes
    the truth.
    """

    @property
    def meaning(self) -> Mapping[str, Any]:
        """What it takes to read an answer, as plain JSON, such as {"classes": [...]}; saved with a model."""
        return {}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def select(self: T, places: np.ndarray) -> T:
        """That of the examples at `places`, (M,) int64, in that order."""

    @abstractmethod
    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        """What is known of an example, as fields of its sample.

        size: (height, width) of its image as it was read; None where there is no image, and for a digest. `Instances`
        and torchvision's tv_tensors move with the image; anything else is carried as it is.
        """

    def match(self: T, meaning: Mapping[str, Any]) -> T:
        """The same in a model's terms. Raises InputError for what the model does not know."""
        if dict(meaning) != dict(self.meaning):
            raise InputError(f"the model was trained on data of {dict(meaning)}, this is of {dict(self.meaning)}")
        return self

    def strata(self) -> np.ndarray | None:
        """(N,) int64: the class that a division keeps in proportion, -1 for none; None divides at random."""
        return None

    def groups(self) -> Sequence[str] | None:
        """What a division keeps together, by example: an identity, a scene, a page. None where each stands alone."""
        return None

    def partners(self, i: int) -> np.ndarray | None:
        """The examples that may be mixed into an example, (M,) int64, M > 0; None: any."""
        return None

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The fields of several samples as those of their batch, in the worker.

        Each tensor that a worker sends costs an open file: it is to be few. `unpack` gives them their form.
        """
        return {key: collate_values([sample[key] for sample in samples]) for key in (samples[0] if samples else ())}

    def unpack(self, batch: dict[str, Any]) -> None:
        """Give what `collate` packed its form, in the batch itself, in the process that trains."""
        return

    def extents(self, i: int) -> Tensor | None:
        """Boxes around what an example shows, (n, 4) in pixels of its image; None where nothing is known of places."""
        return None

    def unreadable(self, i: int) -> str | None:
        """Why the truth of an example cannot be read, of a kind that lies in files of its own; None where it can."""
        return None

    def misfit(self, i: int, size: Size) -> str | None:
        """Why the truth cannot be that of an image of (height, width); None where it can."""
        return None

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        """What is wrong, or worth a look. sizes: of the images that could be read.

        training: instead, what makes training on this truth impossible, by the examples and their classes alone.
        """
        return []

    def same(self, i: int, other: Any, j: int) -> str | None:
        """How the truth of an example differs from `other`'s of an equal one, as "with other boxes"; None if not."""
        return None if self.digest(i) == other.digest(j) else "with another truth"

    def members(self, name: str) -> np.ndarray:
        """The places of the examples of a class that the summary counts; all where there are no classes."""
        return np.arange(len(self))

    def summary(self) -> Summary:
        """What it holds."""
        return Summary()

    def digest(self, i: int) -> bytes:
        """Bytes that are equal where the truth of two examples is."""
        return b"".join(key.encode() + _as_bytes(value) for key, value in sorted(self.read(i, None).items()))

    def draw(self, image: Image, i: int, scale: tuple[float, float] = (1.0, 1.0)) -> Image:
        """An example's image, RGB, with its truth drawn on it. scale: how much wider and higher it has become."""
        return image

    def draw_batch(
        self, image: Image, batch: Mapping[str, Any], k: int, scale: tuple[float, float] = (1.0, 1.0)
    ) -> Image:
        """The k-th image of a batch, RGB, with its truth as the batch has it: moved with the image, mixed.

        Here it is the example's own, as `draw` has it: a kind whose fields move or mix restates it.
        """
        return self.draw(image, int(batch["index"][k]), scale)


def name_problem(problem: Problem, source: str, split: str, path: str) -> Problem:
    """A truth's finding with the names filled in. path: of the example, or of the source."""
    reason = problem.reason.replace("{split}", split).replace("{source}", source)
    return Problem(problem.kind, problem.path or path, reason, problem.severity)


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return repr((value.dtype.str, value.shape)).encode() + value.tobytes()
    return repr(value).encode()


def collate_values(values: Sequence[Any]) -> Any:
    """Tensors or arrays of one shape, or numbers, as one tensor; anything else as a list."""
    first = values[0]
    if isinstance(first, Tensor):
        same = len({value.shape for value in values}) == 1
        return torch.stack(list(values)) if same else list(values)
    if isinstance(first, np.generic):
        return torch.from_numpy(np.array(values))
    if isinstance(first, np.ndarray):
        same = len({value.shape for value in values}) == 1
        return torch.from_numpy(np.stack(values)) if same else list(values)
    return torch.tensor(values) if isinstance(first, (bool, int, float)) else list(values)

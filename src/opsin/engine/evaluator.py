"""What evaluates: collects what a model gives over a split, and says how good it is. One class a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from opsin import rooms
from opsin.engine.own_metrics import find_metrics, measure
from opsin.errors import InputError
from opsin.structures import Batch

if TYPE_CHECKING:
    from opsin.data import Split
    from opsin.engine.predict import Predictor
    from opsin.engine.report import Section
    from opsin.engine.tiles import TileCount


class Addition(Protocol):
    """What an option of an evaluation found beside the metrics."""

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON, the metrics too."""
        ...

    def describe(self) -> str:
        """Lines for a terminal."""
        ...


@dataclass
class Result:
    """What an evaluation found. details: what it writes beside its metrics, as plain JSON values.

    evidence: whatever `Evaluator.sections` draws the report from. data: what was evaluated on, in words. shown: the
    metrics as people read them. tiles: what was looked at in tiles, where large images were. known: that the model was
    trained on some of the images, in words.
    """

    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    evidence: Any = None
    addition: Addition | None = None
    data: str = ""
    shown: dict[str, str] = field(default_factory=dict)
    tiles: TileCount | None = None
    known: str | None = None

    def lines(self) -> dict[str, str]:
        """Every metric as a terminal shows it, in its unit and with its digits."""
        return {name: self.shown.get(name, f"{value:.4f}") for name, value in self.metrics.items()}


class Evaluator(ABC):
    """Made for one pass over one split, without a training: `update` batch by batch, then `result`.

    What it collects is `parts`: (place in the split, values) of every example, so that several processes together,
    each with its own examples, find what one would find. One that counts something else overrides `state` and `merge`.
    A subclass's keyword-only parameters are the options of `opsin eval`.
    takes_answers: whether `evaluate` gives it the answers of `predict` and examples as they were read, by
    `update_answers`; a validation within a training gives outputs to `update` all the same.
    """

    takes_answers: ClassVar[bool] = False

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.room = rooms.evaluating_room(predictor.room)
        self.parts: list[tuple[int, Any]] = []
        self.own_metrics: dict[str, Any] = find_metrics(predictor.recipe)

    def begin(self, split: Split) -> None:  # noqa: B027 - most tasks need no more than the batches
        """Look at the split before its first batch. A validation within a training does not call it."""

    @abstractmethod
    def update(self, outputs: Any, batch: Batch) -> None:
        """Take what the model gives for a batch, which lies where the loader has left it, but for the inputs.

        outputs: of forward; None of a task without a network, which evaluates `predictor.answers` of the batch.
        """

    def answer_options(self) -> dict[str, Any]:
        """The options of a prediction whose answers `update_answers` takes."""
        return {}

    def update_answers(self, answers: Sequence[Mapping[str, Any]], batch: Batch) -> None:
        """Take the answers for a batch whose examples and truth are as they were read, in the place of `update`.

        So large images are evaluated in tiles. A metric that only outputs have, such as the loss, is then absent.
        """
        raise InputError(f"{self.room.task} is not evaluated with tiles; leave tile out")

    @abstractmethod
    def brief(self) -> dict[str, float]:
        """The few numbers worth a column in every epoch; `loss` among them."""

    @abstractmethod
    def result(self) -> Result:
        """Every metric of the split. A metric that is undefined there is absent."""

    def compared(self) -> tuple[Any, Any]:
        """What metrics of the user's own are given: the predictions for the split, and its truth."""
        raise InputError(f"{self.room.task} takes no metrics of your own; leave metrics out")

    def calibrate(self) -> None:  # noqa: B027 - most tasks fit nothing
        """Fit what is fitted after training, if anything, and give it to the model. Sees validation data alone."""

    @contextmanager
    def previewing(self) -> Iterator[None]:
        """While it lasts, the model carries what `calibrate` would fit and answers cannot do without.

        For the model that is saved in the middle of a training, after each validation: it is to be quick.
        """
        yield

    def sections(self, result: Result, split: Split) -> list[Section]:
        """The report's images and tables for an evaluated split."""
        return []

    def measure_own(self, taken: Mapping[str, float]) -> dict[str, float]:
        """The metrics of the user's own. taken: the task's, whose names are taken."""
        return measure(self.own_metrics, self.compared(), taken) if self.own_metrics else {}

    def collect(self, places: Sequence[int], values: Sequence[Any]) -> None:
        """Keep the values of examples by their places in the split."""
        self.parts += zip(places, values, strict=True)

    def collected(self) -> list[Any]:
        """The values of all examples, in the order of the split, whatever process saw them."""
        return [values for _, values in sorted(self.parts, key=lambda part: part[0])]

    def state(self) -> Any:
        """What was collected, picklable, to be sent to another process."""
        return self.parts

    def merge(self, states: Sequence[Any]) -> None:
        """Replace what was collected by that of all processes together."""
        self.parts = [part for state in states for part in state]


@dataclass
class Evaluated:
    """A split and what was found of it."""

    split: Split
    result: Result
    sections: list[Section] = field(default_factory=list)

    @property
    def metrics(self) -> Mapping[str, float]:
        return self.result.metrics


def create_evaluator(predictor: Predictor, **options: Any) -> Evaluator:
    """What evaluates a task's models. Raises InputError for a task that has no evaluation, and for unknown options."""
    room = rooms.evaluating_room(predictor.room)
    if room.evaluates is None:
        raise InputError(f"{room.task} has no evaluation")
    for option in room.options.get("eval", ()):
        if option.opens and options.get(option.name):
            raise InputError(f"{option.name} is for --predictions; a run knows how its data is read")
    given = room.check_options("eval", options, f"evaluation with {predictor.recipe.model.name or room.task}")
    return rooms.load(room.evaluates)(predictor, **given)

"""Several runs as one: a first that finds regions in an image, and a second that answers for each of them.

A task is a pipeline if its `Room` has `parts`: the names of its runs, in the order of their work, and the task that
each is of. Its predictor is a `Pipeline`, which says how answers are put together; what finds, cuts out and answers is
here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from opsin import rooms
from opsin.engine.checkpoint import Facts, read_model, save_parts
from opsin.engine.exported import refuse_exported
from opsin.engine.predict import Predictor, assemble, load
from opsin.engine.program import Program
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError, unknown
from opsin.ops.quads import convex_quad, cut_quad, quad_of_box

if TYPE_CHECKING:
    from typing_extensions import Self

    from opsin.engine.answers import Answer
    from opsin.engine.tiles import Tiles

_AT_ONCE = "opsin.at_once"  # among the options of a prediction: how many regions the second run takes at once
_MOST = 2000  # regions of an image: a detector without a threshold may find any number


@dataclass(frozen=True)
class Region:
    """A part of an image. quad: its corners, see `opsin.ops.quads`. score: how certain it is, in [0, 1]."""

    quad: np.ndarray
    score: float


@dataclass(frozen=True)
class Asked:
    """The options of a prediction, by whose they are. at_once: regions that the second run takes at once."""

    own: Mapping[str, Any] = field(default_factory=dict)
    first: Mapping[str, Any] = field(default_factory=dict)
    second: Mapping[str, Any] = field(default_factory=dict)
    at_once: int = 32


class Pipeline(Predictor):
    """Answers for an image by two runs. A task's own says in `join` what is made of what they say.

    Images are looked at one by one, so that no more than one and its regions are in memory; `batch_size` is that of
    the second run.
    """

    def __init__(self, model: nn.Module | None, facts: Facts) -> None:
        super().__init__(model, facts)
        self.parts: dict[str, Predictor] = {}

    @classmethod
    def of_parts(cls, task: str, parts: Mapping[str, Predictor]) -> Pipeline:
        """Raises InputError where a run is of another task than its place wants."""
        room = rooms.find_room(task)
        if room.parts.keys() != parts.keys():
            raise InputError(f"{task} is made of {' and '.join(room.parts)}, and {' and '.join(parts)} are given")
        for name, wanted in room.parts.items():
            if parts[name].recipe.task != wanted:
                raise InputError(f"the {name} is of the task {parts[name].recipe.task}; it has to be a run of {wanted}")
        own = cls(None, Facts(load_recipe({"task": task}), None))
        own.parts = {name: parts[name] for name in room.parts}
        return own

    # What a task says

    def join(self, image: Tensor, regions: Sequence[Region], answers: Sequence[Answer], own: Any) -> dict[str, Any]:
        """Plain values for an image (C, H, W), of its regions and the answer for each. own: the task's options."""
        found = zip(regions, answers, strict=True)
        return {"regions": [{"quad": plain_quad(one.quad), "score": one.score, **answer} for one, answer in found]}

    def answer(self, image: Tensor, asked: Asked) -> dict[str, Any]:
        """Plain values for an image, uint8 (C, H, W)."""
        regions = self.find_regions(image, asked)
        return self.join(image, regions, self.look(image, [one.quad for one in regions], asked), asked.own)

    # The two runs

    @property
    def first(self) -> Predictor:
        """The run that finds regions."""
        return next(iter(self.parts.values()))

    @property
    def second(self) -> Predictor:
        """The run that answers for a region."""
        return list(self.parts.values())[-1]

    def find_regions(self, image: Tensor, asked: Asked) -> list[Region]:
        """What the first run finds in an image, the most certain first."""
        answer = self.first.predict(image, batch_size=1, **asked.first)
        return [region_of(one) for one in answer["instances"][:_MOST]]

    def look(self, image: Tensor, quads: Sequence[np.ndarray], asked: Asked) -> list[Answer]:
        """What the second run says of the parts of an image that lie in quads, in their order."""
        bounds = (image.shape[-1], image.shape[-2])
        return self.answer_cuts([cut_quad(image, np.clip(quad, 0, bounds)) for quad in quads], asked)

    def answer_cuts(self, cuts: Sequence[Tensor], asked: Asked) -> list[Answer]:
        """The second run's answers for images, which it is given by their shape, the narrowest first."""
        order = sorted(range(len(cuts)), key=lambda i: cuts[i].shape[-1] / cuts[i].shape[-2])
        found: dict[int, Answer] = {}
        if order:
            given = [cuts[i] for i in order]
            answers = self.second.predict(given, batch_size=asked.at_once, **asked.second)
            found = dict(zip(order, answers, strict=True))
        return [found[i] for i in range(len(cuts))]

    # As every predictor

    @property
    def device(self) -> torch.device:
        return self.first.device if self.parts else torch.device("cpu")

    def to(self, device: str | torch.device) -> Self:
        for part in self.parts.values():
            part.to(device)
        return self

    def without_network(self) -> Self:
        own = super().without_network()
        own.parts = {name: part.without_network() for name, part in self.parts.items()}
        return own

    def begin(self) -> None:
        for part in self.parts.values():
            part.begin()

    def programs(self) -> list[Program]:
        """Refused: its runs are exported one by one."""
        raise InputError(
            f"{self.recipe.task} is a pipeline of {' and '.join(self.parts)}; export the runs that it was made of, and "
            "give the files in their place"
        )

    def tiles(self, tile: str | int | None = None, batch_size: int = 32) -> Tiles | None:
        """How the first run cuts large images."""
        return self.first.tiles(tile, batch_size)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(f'{name}: {part!r}' for name, part in self.parts.items())}>"

    def stream(self, images: Any, *, batch_size: int = 32, bgr: bool = False, **options: Any) -> Iterator[Answer]:
        """As of every predictor, an image at a time. batch_size: regions at once."""
        options[_AT_ONCE] = batch_size
        return super().stream(images, batch_size=1, bgr=bgr, **options)

    def stream_video(
        self, path: Any, *, batch_size: int = 32, every: int = 1, **options: Any
    ) -> Iterator[tuple[Tensor, Answer]]:
        """As of every predictor, a frame at a time. batch_size: regions at once."""
        options[_AT_ONCE] = batch_size
        return super().stream_video(path, batch_size=1, every=every, **options)

    @torch.inference_mode()
    def _answer(self, loaded: Sequence[Any], options: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [self.answer(image, options["asked"]) for image in loaded]

    def _checked(self, options: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
        given = dict(options)
        at_once, tile = given.pop(_AT_ONCE, batch_size), given.pop("tile", None)
        self.tiles(tile, batch_size)
        of = f"prediction with {self.recipe.task}"
        own = {name: value for name, value in given.items() if self.room.option("predict", name) is not None}
        rest = {name: value for name, value in given.items() if name not in own}
        if strange := [name for name in rest if self.second.room.option("predict", name) is None]:
            raise unknown(f"option of {of}", strange[0], [option.name for option in self.room.options_of("predict")])
        checked = self.room.check_options("predict", own, of)
        second = self.second.room.check_options("predict", rest, of)
        first = {**({} if tile is None else {"tile": tile}), **self.first_options(checked)}
        return {"asked": Asked(checked, first, second, at_once)}

    def first_options(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """What of the task's options the first run is given."""
        return {}


def region_of(found: Mapping[str, Any]) -> Region:
    """The region of what a first run found: of its polygon, if it has one, else of its box.

    A polygon of four corners is taken as it is; around any other, and one whose corners fold, goes a rectangle: see
    `convex_quad`.
    """
    if found.get("polygon") is None:
        quad = quad_of_box(found["box"])
    else:
        quad = convex_quad(np.asarray(found["polygon"], np.float64).reshape(-1, 2))
    return Region(quad, float(found.get("score", 1.0)))


def plain_quad(quad: np.ndarray) -> list[list[float]]:
    """A quad for JSON, to a hundredth of a pixel."""
    return np.round(quad, 2).tolist()


def load_pipeline(*, device: str | None = None, **runs: Any) -> Predictor:
    """Several runs as one predictor: `opsin.load_pipeline(detector="runs/a", recognizer="runs/b")`.

    runs: by what they are in it, what `opsin.load` takes, or what it gave. device: as of `opsin.load`. Raises
    InputError for names that no task is made of, and for a run of another task than its place wants.
    """
    task = rooms.find_pipeline(runs).task
    return assemble(
        task, {name: run if isinstance(run, Predictor) else load(run, device) for name, run in runs.items()}
    )


def save_pipeline(path: str | Path, **runs: str | Path) -> Path:
    """Write several runs as one file, which `opsin.load` and the command take as a run; returns the file.

    runs: by what they are in it, run folders, model.safetensors or published weights. The runs stay as they are.
    Raises InputError as `load_pipeline`, and for exported files.
    """
    path, room = Path(path), rooms.find_pipeline(runs)
    if path.suffix.lower() != ".safetensors":
        raise InputError(f"a pipeline is saved as a safetensors file; {path} has to end in .safetensors")
    parts = {}
    for name in room.parts:
        refuse_exported(runs[name], "save")
        parts[name] = read_model(runs[name])
        if (task := parts[name].recipe.task) != room.parts[name]:
            raise InputError(f"the {name} {runs[name]} is of the task {task}; it has to be a run of {room.parts[name]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_parts(path, Facts(load_recipe({"task": room.task}), None), parts)
    return path

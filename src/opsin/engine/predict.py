"""A model in use: the same preparation of its input as in training, whatever it is given."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from opsin import objects, rooms
from opsin.checks import check_count
from opsin.data import Preprocessing, Source, Split
from opsin.engine.answers import Answer, lend, wrap
from opsin.engine.checkpoint import Facts, Saved, read_model
from opsin.engine.devices import best_device
from opsin.engine.exported import FILES, read_exported
from opsin.engine.inputs import expand, find_inputs, is_live, is_video
from opsin.engine.load_image import from_bgr, load_image
from opsin.engine.named_weights import saved_parts
from opsin.engine.own_networks import opened_with
from opsin.engine.program import Program
from opsin.engine.recipe import Recipe, load_recipe
from opsin.engine.run import is_unfinished
from opsin.engine.tiles import Place, Tiles, choose_tiling, read_tile
from opsin.engine.video import Damage, batched, open_video
from opsin.errors import InputError, say
from opsin.rooms import Room
from opsin.structures import Batch

if TYPE_CHECKING:
    from typing_extensions import Self

Given = Any  # an image in any form that `load_image` takes
_TILES = "opsin.tiles"  # among the options of a prediction: how images are cut; no task's option has such a name


class Predictor:
    """A model with its preprocessing and what its answers mean. `opsin.load("runs/x")` makes one.

    What a task overrides is small: `answers`, `draw` and `describe`, and `run` where forward is not all.
    key: the field of a batch that holds what the network is given, see `opsin.data.Inputs`.
    takes: "each" input has an answer of its own; "together", all inputs of a call have one; "frames", as each, but they
    come in the order of time, `begin` before the first; "nothing", the model answers without any.
    answer_class: of what `predict` gives, with the task's own fields and conversions.
    normalizes: whether `run` normalises what the network is given; not where the network is an exported file's.
    """

    key: ClassVar[str] = "image"
    answer_class: ClassVar[type[Answer]] = Answer
    takes: ClassVar[Literal["each", "together", "frames", "nothing"]] = "each"

    def __init__(self, model: nn.Module | None, facts: Facts) -> None:
        self._model, self.facts = model, facts
        self.normalizes = True
        self.room: Room = rooms.find_room(facts.recipe.task)

    # What a task says

    def answers(
        self, outputs: Any, sizes: Sequence[tuple[int, int]], originals: Sequence[Any], **options: Any
    ) -> list[dict[str, Any]]:
        """Plain values of what the network says of each input, which the engine makes answers of, see `answer_class`.

        sizes: (height, width) of the images as they were given; originals: what was given, read. options: those that
        the task declares for "predict".
        """
        raise InputError(f"models for {self.recipe.task} give no answers")

    def draw(self, image: Tensor, answer: dict[str, Any]) -> Any:
        """An image, uint8 (C, H, W), with its answer drawn on it, as a PIL image. Without the network's help."""
        raise InputError(f"answers of {self.recipe.task} are not drawn on images")

    def merge(
        self, answers: Sequence[dict[str, Any]], places: Sequence[Place], size: tuple[int, int], **options: Any
    ) -> dict[str, Any]:
        """One answer for an image of (height, width), of those for parts of it, each at its place in the image.

        The whole image is the first of them. options: as of `answers`. A task whose answers are about the whole image
        leaves it as it is, and takes no tiles.
        """
        raise InputError(f"answers of {self.recipe.task} are about the whole image: it takes no tiles, leave tile out")

    def describe(self, answer: dict[str, Any]) -> str:
        """An answer in a few words, for a line on a terminal."""
        return ", ".join(f"{key} {value}" for key, value in answer.items() if key not in ("path", "drawn"))

    def for_inputs(self, found: Sequence[Any], options: Mapping[str, Any]) -> Predictor:
        """What answers the inputs of a call of the command, as `find` gave them: itself, by default.

        Another where a task has several answers to the same images, such as two that are compared with each other.
        """
        return self

    def find(self, inputs: Sequence[str | Path]) -> Sequence[Any]:
        """The inputs in paths and folders, mostly a file each. Raises InputError where there are none."""
        return find_inputs(inputs)

    def expand(self, given: Any) -> tuple[Sequence[Any], bool]:
        """What `predict` is given, input by input, and whether it is a single one."""
        return expand(given)

    def receive(self, value: Any) -> Any:
        """What `predict` is given for a value of JSON that came over a network: no name of a file is one.

        Numbers in lists, as an array float32, by default. Raises InputError for what is none, and if it takes images.
        """
        if self.preprocessing is not None:
            raise InputError("the model looks at images; send them as files")
        try:
            return np.asarray(value, np.float32)
        except (TypeError, ValueError, OverflowError):
            raise InputError("the model takes numbers, in lists of equal lengths") from None

    def read(self, given: Any) -> Any:
        """One input as it is given, read: an image, uint8 (C, H, W). Raises InputError for what cannot be one."""
        return load_image(given)

    def collate(self, originals: Sequence[Any]) -> Tensor:
        """Inputs that were read, as a batch before normalisation: what an exported program takes."""
        if self.preprocessing is None:
            return torch.stack(list(originals))
        return torch.stack([self.preprocessing.prepare(image) for image in originals])

    def run(self, batch: Tensor, originals: Sequence[Any]) -> Any:
        """What the network gives for a batch of `collate`, on its device."""
        return self.model(self.normalize(batch))

    def normalize(self, batch: Tensor) -> Tensor:
        """A batch of `collate` as the network takes it."""
        return batch if self.preprocessing is None or not self.normalizes else self.preprocessing.normalize(batch)

    def finish_training(self) -> None:
        """Leave out what served the training alone; the model will not be trained on."""

    def begin(self) -> None:
        """Forget what was seen before: the next frame is the first."""

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """What the network's forward is given, of a loaded batch: normalised, in its precision, on its device."""
        values: Any = batch[self.key].to(self.device) if self.key in batch else batch
        if self.preprocessing is None:
            return (values,)
        images = self.preprocessing.normalize(values, self.dtype)
        return (images.to(memory_format=torch.channels_last) if self.recipe.train.channels_last else images,)

    def outputs(self, batch: Batch) -> Any:
        """What an evaluation is given of a loaded batch: what forward gives for it; None where there is no network."""
        return self.model(*self.inputs(batch)) if self.has_network else None

    def prepare_split(self, split: Split) -> Split:
        """A split with what the model needs of it beside inputs and truth. Raises InputError where that is lacking."""
        return split

    @classmethod
    def relabel(cls, recipe: Recipe, source: Source) -> Source:
        """A divided source as the recipe's model sees its truth, in training and evaluation."""
        return source

    @classmethod
    def labels_of(cls, meaning: Mapping[str, Any]) -> list[str]:
        """What the rows of a network's last layers stand for, in their order, by what its truth means: the classes.

        So that a training which begins with another's weights keeps what both know; see `opsin.nn.capabilities`.
        """
        return [str(name) for name in meaning.get("classes", ())]

    @classmethod
    def network_of_program(
        cls, run: Callable[[Tensor], Mapping[str, Tensor]], facts: Facts, texts: Mapping[str, Any]
    ) -> nn.Module:
        """The network of an exported file: what `answers` asks of one, its forward being the file's program.

        texts: the file's metadata, read. Raises ValueError, TypeError or KeyError for those that cannot be.
        """
        raise InputError(f"exported files of {facts.recipe.task} run by their own runtime only; load the run itself")

    @classmethod
    def of_parts(cls, task: str, parts: Mapping[str, Predictor]) -> Predictor:
        """The predictor of a pipeline, of those that it is made of, by name; see `opsin.engine.pipeline`."""
        raise InputError(f"{task} is not made of several runs")

    def embed(self, images: Sequence[Given]) -> Tensor:
        """Vectors that say how images look, float32 (N, D) on the CPU: those that its answers hold as "embedding".

        Raises InputError where they hold none.
        """
        try:
            vectors = [torch.as_tensor(answer.value("embedding")) for answer in self.predict(list(images))]
        except KeyError:
            raise InputError(f"a run of {self.recipe.task} gives no vectors that say how an image looks") from None
        return torch.stack(vectors).float().cpu()

    def without_network(self) -> Self:
        """What draws and describes answers: a copy that holds no weights, so that an answer holds none."""
        own = copy.copy(self)
        own._model = None
        return own

    def programs(self) -> list[Program]:
        """What `opsin export` can write. Raises InputError, with the way out, for a model that it cannot."""
        raise InputError(f"{self.recipe.model.name or self.recipe.task} has nothing that can be exported")

    # What all have

    @property
    def has_network(self) -> bool:
        """Whether there is a network; a rule has none."""
        return self._model is not None

    @property
    def model(self) -> Any:
        """The network. Raises InputError where there is none."""
        if self._model is None:
            raise InputError(f"{self.recipe.task} has no network")
        return self._model

    @model.setter
    def model(self, model: nn.Module) -> None:
        self._model = model

    @property
    def recipe(self) -> Recipe:
        """The recipe that the model was trained by."""
        return self.facts.recipe

    @property
    def preprocessing(self) -> Any:
        """How images become the network's input: a `Preprocessing`; None where it takes no images."""
        return self.facts.preprocessing

    @property
    def classes(self) -> list[str]:
        """Names of the classes that the model knows; none where it has no classes."""
        return self.facts.classes

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        first = None if self._model is None else next(self._model.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the model's parameters."""
        first = None if self._model is None else next(self._model.parameters(), None)
        return torch.float32 if first is None or not first.is_floating_point() else first.dtype

    def __repr__(self) -> str:
        parts = [f"{objects.short_name(self.recipe.model.name) or self.recipe.task} on {self.device}"]
        if self.classes:
            parts.append(f"{len(self.classes)} classes")
        if self.preprocessing is not None:
            parts.append("x".join(map(str, (self.preprocessing.channels, *self.preprocessing.size))))
        return f"<{type(self).__name__} {', '.join(parts)}>"

    def tiles(self, tile: str | int | None = None, batch_size: int = 32) -> Tiles | None:
        """How large images are cut: as `tile` says, else as was saved with the model; None where they are not."""
        tile = read_tile(self.facts.tile if tile is None else tile)
        if tile is None or tile == "off":
            return None
        if type(self).merge is Predictor.merge:
            self.merge([], [], (0, 0))
        tiling = choose_tiling(tile, self.facts.objects, self.preprocessing, self.recipe.model.name)
        return None if tiling is None else Tiles(tiling, batch_size)

    def __call__(self, images: Any = (), **options: Any) -> Any:
        """The same as `predict`."""
        return self.predict(images, **options)

    def to(self, device: str | torch.device) -> Self:
        """Move the model to "cpu", "cuda:1", "mps", ...; returns this predictor. InputError where that cannot be."""
        if self._model is not None:
            try:
                self._model.to(device)
            except (RuntimeError, AssertionError) as error:
                raise InputError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from None
        return self

    def predict(
        self,
        images: Given | Iterable[Given] = (),
        *,
        stream: bool = False,
        batch_size: int = 32,
        bgr: bool = False,
        every: int = 1,
        **options: Any,
    ) -> Any:
        """The `Answer` for an image, or `Answers`, a list, for several, for a folder or for the frames of a video.

        images: a path, a folder, a pattern ("photos/*.jpg"), an http(s) address, "-" for standard input, bytes, an open
        file, a PIL image, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), a tensor (C, H, W) with C of 1, 3 or 4;
        or a sequence of any of these, an array (B, H, W, C) or a tensor (B, C, H, W). Or a video alone. Values are
        uint8, uint16, bool, or float in [0, 1].
        bgr: arrays and tensors have blue first, as OpenCV's `imread` and `VideoCapture` give them; without it such an
        array is read as RGB, red and blue exchanged, and answered wrongly without a word.
        every: of a video, of so many frames the first alone. stream: give an iterator of answers instead, one by one,
        that holds no more than a batch, of an iterator or a camera that is given too; an unreadable input is an answer
        with `error` then. options: the task's, `top` of a classifier, `threshold` of both; `tile`, "auto", "off" or
        pixels, looks at large images in tiles too, see `opsin.engine.tiles`. Raises InputError for what cannot be read.
        """
        self._checked(options, batch_size)  # before anything is read
        single, found = False, iter(())
        if self.takes in ("together", "nothing"):
            single, found = True, self.stream([] if self.takes == "nothing" else self.expand(images)[0], **options)
        elif is_live(images) and not stream:
            raise InputError(f"{images} is a camera and has no end; stream=True gives its answers as they come")
        elif is_live(images) or is_video(images):
            video: Any = images
            frames = self.stream_video(video, batch_size=batch_size, every=every, **options)
            found = (answer for _, answer in frames)
        elif stream and _flows(images):
            found = self.stream(images, batch_size=batch_size, bgr=bgr, **options)
        else:
            items, single = self.expand(images)
            found = self.stream(items, batch_size=batch_size, bgr=bgr, **options)
        if stream:
            return found
        answers = self.answer_class.list_class(found)
        for answer in answers:
            if answer.error is not None:
                raise InputError(answer.error)
        return answers[0] if single else answers

    def stream(
        self, images: Given | Iterable[Given], *, batch_size: int = 32, bgr: bool = False, **options: Any
    ) -> Iterator[Answer]:
        """Answers one by one, in order. One for an unreadable image has the key `error` and nothing but its path.

        No more than a batch of images is held at once; an answer has its own at hand until the next is asked for.
        images, bgr: as `predict` takes them.
        """
        options = self._checked(options, batch_size)
        images = images if _flows(images) else self.expand(images)[0]
        images = map(from_bgr, images) if bgr else images
        self.begin()
        drawer = self.without_network()
        if self.takes in ("together", "nothing"):
            given = list(images)
            named = {"paths": [str(i) for i in given]} if given else {}
            (values,) = self._answer([self.read(image) for image in given], options)[:1]
            yield self.answer_class({**named, **values}, drawer)
            return
        for chunk in batched(images, batch_size):
            yield from self._answer_chunk(chunk, drawer, options)

    def _answer_chunk(self, chunk: Sequence[Given], drawer: Predictor, options: Mapping[str, Any]) -> Iterator[Answer]:
        read: list[Any] = []
        for image in chunk:
            try:
                read.append(self.read(image))
            except InputError as error:
                read.append(error)
        loaded = [one for one in read if not isinstance(one, InputError)]
        answers = iter(self._answer(loaded, options) if loaded else [])
        for image, one in zip(chunk, read, strict=True):
            path = {"path": str(image)} if isinstance(image, str | Path) else {}
            if isinstance(one, InputError):
                yield self.answer_class({**path, "error": str(one)}, drawer)
            else:
                yield from lend(wrap(self.answer_class, {**path, **next(answers)}, drawer, image, one), one)

    def stream_video(
        self,
        path: str | Path | int,
        *,
        batch_size: int = 32,
        every: int = 1,
        damaged: Callable[[str], None] = warnings.warn,
        **options: Any,
    ) -> Iterator[tuple[Tensor, Answer]]:
        """Frames, uint8 (3, H, W), each with its answer, which has the keys `frame` and `time` in seconds too.

        path: a file, an http(s) or rtsp address, or a webcam by its number. every: of so many frames the first alone.
        damaged: is called at the end, with a line that says what could not be read, where something could not.
        No more than a batch of frames is held at once, of a camera's one. Raises InputError for what is no video.
        """
        options = self._checked(options, batch_size)
        check_count("every", every)
        self.begin()
        drawer = self.without_network()
        damage = Damage()
        with open_video(path, every, damage) as video:
            for chunk in batched(video, 1 if is_live(path) else batch_size):
                found = self._answer([frame.image for frame in chunk], options)
                for frame, values in zip(chunk, found, strict=True):
                    values = {"path": str(path), "frame": frame.index, "time": frame.time, **values}
                    answer = wrap(self.answer_class, values, drawer, path, frame.image)
                    for lent in lend(answer, frame.image):
                        yield frame.image, lent
        if damage and not is_live(path):
            damaged(f"{path} is damaged: {damage}; all else was read")

    def annotate(self, image: Given, answer: dict[str, Any], *, bgr: bool = False) -> Any:
        """The image with its answer drawn on it, a PIL image. bgr: as of `predict`."""
        return self.draw(self.read(from_bgr(image) if bgr else image), answer)

    @torch.inference_mode()
    def _answer(self, loaded: Sequence[Any], options: Mapping[str, Any]) -> list[dict[str, Any]]:
        if (tiles := options.get(_TILES)) is not None:
            own = {name: value for name, value in options.items() if name != _TILES}
            return tiles.answer(self, loaded, lambda images: self._answer(images, own), own)
        outputs = self.run(self.collate(loaded).to(self.device), loaded) if self.has_network else None
        sizes = [(one.shape[-2], one.shape[-1]) for one in loaded if one.ndim > 1]
        return self.answers(outputs, sizes, loaded, **options)

    def _checked(self, options: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
        given = dict(options)
        tiles = self.tiles(given.pop("tile", None), batch_size)
        checked = self.room.check_options(
            "predict", given, f"prediction with {self.recipe.model.name or self.recipe.task}"
        )
        return checked if tiles is None else {**checked, _TILES: tiles}


def load(
    run: str | Path,
    device: str | None = None,
    *,
    model: nn.Module | str | None = None,
    classes: Sequence[str] | str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Predictor:
    """A ready model from a run folder, a model.safetensors, or published weights by name ("resnet50:imagenet1k").

    Or from a run of the Hugging Face hub ("hf:owner/name"), downloaded where it is not here. A file of `opsin export`,
    .onnx or .xml, is run by its own runtime, on the CPU, and answers as the run does. A task without networks is
    loaded by its own name. device: "cpu", "cuda", ...; the best there is if None. model: of a run that was given its
    network as an object, the same again; the run's weights are put into it.

    model: of a file of weights of one's own, the name of the network, with `options` of its builder; see
    `opsin.load_weights` for which files. classes: their names in the order of the file's, or the data set that has them
    ("imagenet1k", "coco"); numbers if None. preprocessing: what the weights were trained with, keys of
    `opsin.data.Preprocessing`; the usual one of the network for those left out.
    """
    if isinstance(model, str):
        given = {"classes": classes, "preprocessing": preprocessing, "options": options}
        return _build(Saved(**saved_parts(model, run, **given)), run, device)
    if classes is not None or preprocessing is not None or options is not None:
        raise InputError("classes, preprocessing and options are for a file of weights; say which network: model=NAME")
    if model is not None:
        return _load_into(model, run, device)
    if not Path(run).exists() and str(run) in rooms.list_tasks():
        return _load_rule(str(run))
    if Path(run).suffix.lower() in FILES:
        return _load_exported(Path(run), device)
    return _build(read_model(run), run, device)


def _load_into(model: nn.Module, run: str | Path, device: str | None) -> Predictor:
    """A run's model, with its weights in a network that is given."""
    with opened_with(model, run) as saved:
        return _build(saved, run, device)


def assemble(task: str, parts: Mapping[str, Predictor]) -> Predictor:
    """The predictor of a task that is made of several runs, of theirs. Raises InputError for other tasks."""
    return rooms.load(rooms.find_room(task).predicts or "").of_parts(task, parts)


def _build(saved: Saved, run: str | Path, device: str | None) -> Predictor:
    if saved.parts:
        return assemble(saved.recipe.task, {name: _build(part, run, device) for name, part in saved.parts.items()})
    device = best_device(device)
    try:
        model = saved.build().to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    predictor = create_predictor(model, saved)
    predictor.finish_training()
    if not saved.metrics and is_unfinished(Path(run)):
        again = f"opsin train --resume {run}"
        say(f"{run} is an unfinished training: this is its best model so far; to go on with it: {again}")
    return predictor


def _flows(given: Any) -> bool:
    """Whether inputs come one by one from something that is not to be held as a whole."""
    return isinstance(given, Iterator) and not callable(getattr(given, "read", None))


def create_predictor(model: nn.Module | None, facts: Facts) -> Predictor:
    """The predictor of a recipe's task. Raises InputError for a task that predicts nothing."""
    room = rooms.find_room(facts.recipe.task)
    if room.predicts is None:
        raise InputError(f"{room.task} predicts nothing")
    names = [field.name for field in fields(Facts)]  # not the weights too
    own = Facts(**{name: getattr(facts, name) for name in names})
    return rooms.load(room.predicts)(model, own)


def _load_rule(task: str) -> Predictor:
    """A task that answers without a network."""
    room = rooms.find_room(task)
    if room.parts:
        flags = " ".join(f"--{name} RUN" for name in room.parts)
        raise InputError(f"{task} is made of several runs; give them, {flags}, or the file that they were saved as")
    if room.networks is not None or room.trains is not None or room.predicts is None:
        raise InputError(f"{task} is a task, not a run; give the folder of a training, or published weights")
    return rooms.load(room.predicts)(None, Facts(load_recipe({"task": task}), None))


def _load_exported(path: Path, device: str | None) -> Predictor:
    """A model by its exported file."""
    if device not in (None, "cpu"):
        raise InputError(f"{path} is run on the CPU, not on {device!r}; load the run itself for other devices")
    file = read_exported(path)
    room = rooms.find_room(file.facts.recipe.task)
    predicts: type[Predictor] = rooms.load(room.predicts or "")
    try:
        network = predicts.network_of_program(file.run, file.facts, file.texts)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path} has a damaged description: {type(error).__name__}: {error}") from None
    predictor = predicts(network.eval(), file.facts)
    predictor.normalizes = False
    return predictor


def describe_input(preprocessing: Preprocessing) -> str:
    """What an exported program is given, in words for those who use its file without opsin."""
    size = ", ".join(map(str, (preprocessing.channels, *preprocessing.size)))
    return (
        f"images: uint8 (batch, {size}), {'RGB' if preprocessing.channels == 3 else 'grey'}, 0 to 255, not normalised. "
        f"Of each image, {_FITS[preprocessing.fit]} (height, width), {preprocessing.interpolation}, antialiased. "
    )


_FITS = {
    "squash": "resize both sides to size",
    "crop": "resize until it covers size / crop_ratio, then cut out the centre",
    "pad": "shrink until it fits into size, never enlarge, and set it in the middle of black",
}


def find_images(inputs: Sequence[str | Path], *, videos: bool = False) -> list[Path]:
    """The image files of paths, folders and patterns, folders searched through and sorted.

    videos: find those in folders too. Raises InputError where there are none.
    """
    found = find_inputs(inputs, videos=videos)
    if other := next((one for one in found if not isinstance(one, Path)), None):
        raise InputError(f"{other} is no file; save it as one first")
    return found

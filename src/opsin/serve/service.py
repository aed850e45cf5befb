"""What is answered to a request: its inputs decoded in threads, asked in batches, and put together as JSON."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import json
import math
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from opsin import registry
from opsin.data.image_values import first_line
from opsin.engine.predict import Predictor
from opsin.engine.video import Frame
from opsin.errors import InputError, printable
from opsin.serve import given, schema
from opsin.serve.batching import Batcher
from opsin.serve.bodies import CLOSE, Sent, read_body, take_apart
from opsin.serve.limits import RETRY, Limits, Refused, Room
from opsin.serve.schema import Asked, Questions
from opsin.serve.workers import Workers
from opsin.version import __version__

T = TypeVar("T")
_LARGEST_DRAWN = 1600  # pixels of the longer side of a drawn image
_BODIES = 8  # uploads of the largest size that are held at once
_IMAGES = 4  # decoded images of the largest size that are held at once


@dataclass(frozen=True)
class Reply:
    """What goes back: a status, headers, and JSON unless the headers say otherwise."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def reply(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """A reply of JSON."""
    return Reply(status, to_json(value), {"Content-Type": "application/json", **(headers or {})})


class Service:
    """A loaded model, ready to answer requests of any number of clients. Made once for a server.

    name: of the run, without its folder. options: of the task, that the server was started with; closed: clients may
    give none. Its methods run in one event loop; the model has a thread of its own.
    """

    def __init__(
        self,
        predictor: Predictor,
        name: str,
        limits: Limits,
        options: Mapping[str, Any] | None = None,
        *,
        closed: bool = False,
    ) -> None:
        self.predictor, self.name, self.limits = predictor, name, limits
        self.questions = Questions(predictor, options or {}, closed=closed)
        self.batcher = Batcher(predictor, limits.batch_size, limits.wait)
        self.workers = Workers(min(8, max(4, os.cpu_count() or 1)))
        self.compares = compares(predictor, self.questions.fixed)
        self.places, self.bodies = Room(limits.queue), Room(_BODIES * limits.upload)
        self.pixels = Room(_IMAGES * limits.pixels)
        self.stopping = asyncio.Event()
        self._about = {"run": name, "opsin": __version__}

    # Requests

    async def predict(self, sent: AsyncIterator[bytes], headers: Mapping[str, str], query: Mapping[str, Any]) -> Reply:
        """An answer for each input. sent: the body as it comes; headers: lower case; query: name -> values."""
        return await self._handle(self._predict, sent, headers, query)

    async def compare(self, sent: AsyncIterator[bytes], headers: Mapping[str, str], query: Mapping[str, Any]) -> Reply:
        """One answer for two images, of models that say whether both show the same."""
        return await self._handle(self._compare, sent, headers, query)

    async def _handle(
        self,
        answer: Callable[[Sent, Asked], Coroutine[Any, Any, list[Any]]],
        sent: AsyncIterator[bytes],
        headers: Mapping[str, str],
        query: Mapping[str, Any],
    ) -> Reply:
        try:
            with self.places.at_once(1, f"{self.limits.queue} requests are under way; come again"):
                return await self._within(self._answer(answer, sent, headers, query))
        except Refused as refused:
            return reply(refused.status, {"error": refused.reason}, refused.headers)
        except InputError as error:
            return reply(400, {"error": printable(" ".join(str(error).split()))})

    async def _within(self, work: Coroutine[Any, Any, T]) -> T:
        """What work gives. Raises Refused, 503, where it takes too long, and where the server ends."""
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({task, stop}, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if self.stopping.is_set():
                raise Refused(503, "the server ends", {**RETRY, **CLOSE})
            raise Refused(503, f"it took longer than {self.limits.seconds:g} seconds", {**RETRY, **CLOSE})
        finally:
            stop.cancel()
            task.cancel()

    async def _answer(
        self,
        answer: Callable[[Sent, Asked], Coroutine[Any, Any, list[Any]]],
        sent: AsyncIterator[bytes],
        headers: Mapping[str, str],
        query: Mapping[str, Any],
    ) -> Reply:
        with self.bodies.growing("uploads of others are under way; come again") as hold:
            body = await read_body(sent, headers, self.limits, hold)
            taken = await self.workers.run(take_apart, body, headers.get("content-type", ""))
            del body
            if len(taken) > self.limits.inputs:
                raise Refused(413, f"{len(taken):,} inputs; a request may have {self.limits.inputs}")
            for name in query.keys() & taken.options.keys():
                raise InputError(f"{name} is given in the address and in the body; give it once")
            asked = self.questions.read({**query, **taken.options})
            answers = await answer(taken, asked)
        return Reply(200, await self._encode(answers, asked), {"Content-Type": "application/json"})

    async def _encode(self, answers: Sequence[Any], asked: Asked) -> bytes:
        value = {"answers": answers, **self._about}
        return await self.workers.run(to_json, value) if asked.include else to_json(value)

    # Answers

    async def _predict(self, sent: Sent, asked: Asked) -> list[Any]:
        takes = self.predictor.takes
        if takes == "nothing" or (takes == "together" and len(sent)):
            return [await self._at_once(self.predictor, sent, asked)]
        if not len(sent):
            raise InputError("nothing came in; send an image's bytes, a form with files, or JSON")
        jobs = [self._of_file(data, f"file {place}", asked) for place, data in enumerate(sent.files, 1)]
        jobs += [self._of_value(value, asked) for value in sent.values]
        if len(jobs) == 1:
            return await jobs[0]
        found = await asyncio.gather(*jobs, return_exceptions=True)
        if failed := next((one for one in found if isinstance(one, BaseException) and not _is_input(one)), None):
            raise failed
        answers = [one if isinstance(one, list) else [_refusal(one)] for one in found]
        if all(isinstance(one, BaseException) for one in found):
            raise next(one for one in found if isinstance(one, BaseException))
        return [one for own in answers for one in own]

    async def _compare(self, sent: Sent, asked: Asked) -> list[Any]:
        if self.compares is not True:
            raise Refused(404, str(self.compares))
        if len(sent) != 2:
            raise InputError(f"two images are compared, got {len(sent)}")
        return [await self._at_once(None, sent, asked)]

    async def _of_file(self, data: bytes, name: str, asked: Asked) -> list[Any]:
        kind = given.kind_of(data)
        if kind == "video":
            return await self._of_video(data, name, asked)
        if kind == "image":
            pixels = await self.workers.run(given.measure, data, name, self.limits.pixels)
            return [await self._of_image(pixels, asked, given.read_image, data, name)]
        count = await self.workers.run(given.pages_of, data, name, self.limits)
        most = min(self.limits.pixels, 60_000_000)
        answers = []
        for number in range(1, count + 1):
            page = await self._of_image(most // 4, asked, given.read_page, data, number, name, most)
            answers.append({"page": number, **page})
        return answers

    async def _of_image(self, pixels: int, asked: Asked, read: Callable[..., Any], *how: Any) -> dict[str, Any]:
        """The answer to an image that `read` gives. pixels: that it has."""
        async with self.pixels.when_free(pixels):
            with self.batcher.coming():
                image = await self.workers.run(read, *how)
                waiting = self.batcher.ask(image, asked.options)
            answer = await asyncio.wrap_future(waiting)
            return await self._present(answer, asked)

    async def _of_value(self, value: Any, asked: Asked) -> list[Any]:
        received = self.predictor.receive(value)
        return [await self._present(await asyncio.wrap_future(self.batcher.ask(received, asked.options)), asked)]

    async def _of_video(self, data: bytes, name: str, asked: Asked) -> list[Any]:
        film = await self.workers.run(given.Film, data, name, asked.every, self.limits)
        own, answers = copy.copy(self.predictor), []  # what it remembers of the frames is its own
        try:
            async with self.pixels.when_free(self.limits.pixels):
                while frames := await self.workers.run(film.decode):
                    job = self.batcher.call(lambda frames=frames: film.answer(own, frames, asked.options))
                    found = await asyncio.wrap_future(job)
                    answers += await self.workers.run(_present_frames, frames, found, asked)
        finally:
            film.close()
        return answers

    async def _at_once(self, predictor: Predictor | None, sent: Sent, asked: Asked) -> Any:
        """The one answer to all inputs of a request; where no predictor is given, of what compares two images."""
        sizes = [
            await self.workers.run(given.measure, data, f"file {place}", self.limits.pixels)
            for place, data in enumerate(sent.files, 1)
        ]
        if sum(sizes) > self.pixels.total:
            raise Refused(413, f"together they have more than {self.pixels.total:,} pixels")
        async with self.pixels.when_free(sum(sizes)):
            read = [
                await self.workers.run(given.read_image, data, f"file {place}")
                for place, data in enumerate(sent.files, 1)
            ]
            inputs = [*read, *map(self.predictor.receive, sent.values)]
            chosen = predictor or self.predictor.for_inputs(inputs, {})
            job = self.batcher.call(lambda: next(iter(chosen.stream(inputs, **asked.options))))
            return await self._present(await asyncio.wrap_future(job), asked)

    async def _present(self, answer: Any, asked: Asked) -> dict[str, Any]:
        return await self.workers.run(present, answer, asked.include) if asked.include else present(answer, ())

    # What it is

    def meta(self) -> dict[str, Any]:
        """What a client has to know: the task, classes, preprocessing, licence, options, limits, run and version."""
        facts = self.predictor.facts
        return {
            "task": self.predictor.recipe.task,
            "about": self.predictor.room.help,
            "model": self.predictor.recipe.model.name,
            "classes": self.predictor.classes,
            "preprocessing": None if facts.preprocessing is None else facts.preprocessing.to_dict(),
            "licence": licence_of(self.predictor, self.name),
            "takes": self.predictor.takes,
            "gives": self.questions.include,
            "takes_files": self.predictor.key == "image",
            "compares": self.compares is True,
            "options": self.questions.describe(),
            "limits": vars(self.limits),
            **self._about,
        }

    def stop(self) -> None:
        """Let all requests under way get 503; no further one is answered."""
        self.stopping.set()

    def close(self) -> None:
        """Let the threads go."""
        self.batcher.close()
        self.workers.close()


def _is_input(error: BaseException) -> bool:
    return isinstance(error, InputError) or (isinstance(error, Refused) and error.status != 503)


def _refusal(error: BaseException) -> dict[str, str]:
    return {"error": printable(" ".join((error.reason if isinstance(error, Refused) else str(error)).split()))}


def compares(predictor: Predictor, options: Mapping[str, Any]) -> bool | str:
    """Whether a model has another answer for two images than one each; else why not, in words."""
    if predictor.key != "image":
        return "the model compares no images"
    two = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 2
    try:
        return predictor.for_inputs(two, {}) is not predictor or "the model compares no images"
    except InputError as error:
        return str(error)


def licence_of(predictor: Predictor, name: str) -> str | None:
    """The licence of the weights that were published, or that the training began with; None where nobody stated one."""
    found = predictor.facts.first_weights.get("licence")
    model, weights = registry.split_weights(name)
    if found is None and weights is not None and registry.is_model(model):
        found = registry.find_weights(model, weights).licence
    return found


def run_name(run: str | Path) -> str:
    """What a run is called in answers: its last folder, without where it lies on this machine."""
    path = Path(run)
    return path.resolve().name if path.exists() else str(run)


def present(answer: Any, include: Sequence[str]) -> dict[str, Any]:
    """An answer as plain values, without names of files of this machine, and with what else was asked for.

    "drawn" is None where it cannot be, and "not_drawn" says why.
    """
    found: dict[str, Any] = _without(answer, frozenset(answer.local))
    for name in include:
        if name == schema.DRAWN:
            try:
                found[name] = _drawn(answer)
            except InputError as error:
                found |= {name: None, "not_drawn": printable(first_line(error))}
        elif name == schema.DESCRIBED:
            found[name] = printable(answer.describe())
        else:
            found[name] = _array(answer, name)
    return found


def _present_frames(frames: Sequence[Frame], answers: Sequence[Any], asked: Asked) -> list[dict[str, Any]]:
    return [
        {"frame": frame.index, "time": round(frame.time, 4), **present(answer, asked.include)}
        for frame, answer in zip(frames, answers, strict=True)
    ]


def _without(value: Any, keys: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _without(one, keys) for key, one in value.items() if key not in keys}
    return [_without(one, keys) for one in value] if isinstance(value, list | tuple) else value


def _drawn(answer: Any) -> str:
    """The image with its answer, as an address that holds it: "data:image/jpeg;base64,..."."""
    image = answer.plot().convert("RGB")
    image.thumbnail((_LARGEST_DRAWN, _LARGEST_DRAWN))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _array(answer: Any, name: str) -> Any:
    """{"dtype", "shape", "base64"} of an array, little-endian and in C order; a plain value as it is."""
    try:
        value = answer.value(name)
    except KeyError:
        return None
    if not isinstance(value, np.ndarray):
        return value if isinstance(value, bool | int | float | str | type(None)) else None
    plain = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    return {"dtype": str(value.dtype), "shape": list(value.shape),
            "base64": base64.b64encode(plain.tobytes()).decode("ascii")}  # fmt: skip


def to_json(value: Any) -> bytes:
    """JSON of ASCII characters; a number that is none, or infinite, is null, as JSON has no such ones."""
    try:
        return json.dumps(value, allow_nan=False).encode("ascii")
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False).encode("ascii")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def said_of(error: BaseException) -> str:
    """The first line of an error, for the log."""
    return printable(f"{type(error).__name__}: {first_line(error)}")

"""The model's own thread, which puts the images of several requests into one batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opsin.engine.predict import Predictor
from opsin.errors import InputError
from opsin.serve.workers import settle


@dataclass(eq=False)
class Job:
    """What waits for the model: an input with its options, or work that is done alone. key: what batches share."""

    given: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    key: Hashable = None
    work: Callable[[], Any] | None = None
    future: Future[Any] = field(default_factory=Future)


class Batcher:
    """Asks a model, in one thread: inputs with equal options together, `batch_size` at most, all else in its turn.

    An input waits for others only while some are known to come, that are being decoded, and for `wait` seconds at most.
    batches: how many inputs each of the last batches had, for those who measure.
    """

    def __init__(self, predictor: Predictor, batch_size: int, wait: float) -> None:
        self.predictor, self.batch_size, self.wait = predictor, batch_size, wait
        self.batches: deque[int] = deque(maxlen=1000)
        self._waiting: deque[Job] = deque()
        self._coming, self._closed = 0, False
        self._ready = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="opsin model", daemon=True)
        self._thread.start()

    def ask(self, given: Any, options: Mapping[str, Any]) -> Future[Any]:
        """The answer to one input; InputError where it cannot be read."""
        key = tuple(sorted((name, repr(value)) for name, value in options.items()))
        return self._put(Job(given, options, key))

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """What a function gives, called in the model's thread when its turn has come."""
        return self._put(Job(work=work))

    @contextmanager
    def coming(self) -> Iterator[None]:
        """While something is decoded that will be asked, so that it is worth waiting for."""
        with self._ready:
            self._coming += 1
        try:
            yield
        finally:
            with self._ready:
                self._coming -= 1
                self._ready.notify()

    def close(self, seconds: float = 0.5) -> None:
        """End the thread; one that is in the middle of a batch is left to itself after `seconds`."""
        with self._ready:
            self._closed = True
            for job in self._waiting:
                job.future.cancel()
            self._waiting.clear()
            self._ready.notify()
        self._thread.join(seconds)

    def _put(self, job: Job) -> Future[Any]:
        with self._ready:
            if self._closed:
                job.future.cancel()
            else:
                self._waiting.append(job)
                self._ready.notify()
        return job.future

    def _run(self) -> None:
        while batch := self._next():
            if batch[0].work is not None:
                settle(batch[0].future, batch[0].work)
            else:
                self._answer([job for job in batch if job.future.set_running_or_notify_cancel()])
            del batch  # not held while the thread waits

    def _next(self) -> list[Job]:
        """The next batch, or work alone; nothing where the server ends."""
        with self._ready:
            while not self._waiting and not self._closed:
                self._ready.wait()
            if self._closed:
                return []
            batch = [self._waiting.popleft()]
            if batch[0].work is not None:
                return batch
            end = time.monotonic() + self.wait
            while True:
                self._take_alike(batch)
                left = end - time.monotonic()
                if len(batch) >= self.batch_size or left <= 0 or self._coming <= 0:
                    return batch
                self._ready.wait(left)

    def _take_alike(self, batch: list[Job]) -> None:
        """Move what waits and has equal options into a batch."""
        for job in list(self._waiting):
            if len(batch) >= self.batch_size:
                return
            if job.work is None and job.key == batch[0].key:
                self._waiting.remove(job)
                batch.append(job)

    def _answer(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        self.batches.append(len(jobs))
        try:
            found = list(self.predictor.stream([job.given for job in jobs], batch_size=len(jobs), **jobs[0].options))
        except BaseException as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs:  # one of them spoils it for the others
                self._answer([job])
            return
        for job, answer in zip(jobs, found, strict=True):
            if answer.error is None:
                job.future.set_result(answer)
            else:
                job.future.set_exception(InputError(answer.error))

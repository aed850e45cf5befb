"""Batches for training and evaluation, the same whatever loads them.

The order of an epoch derives from (seed, epoch), every random choice for a sample from (seed, epoch, index). So batches
are equal for any number of workers and processes, and after a resume in the middle of an epoch.

What a sample holds beside its input is the truth's, see `opsin.data.truth.Truth`: `label`, `instances` and what other
kinds bring. Every batch has `index`, the places of its samples in their split, and `path`, their names.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from multiprocessing.util import Finalize
from typing import Any, overload

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from opsin import rooms
from opsin.data.decoder_messages import listening, say_once, trace
from opsin.data.digests import of_value
from opsin.data.preprocessing import Preprocessing
from opsin.data.source import Split
from opsin.data.transforms.augmentation import prepare_sample
from opsin.data.truth import Truth, collate_values
from opsin.errors import InputError, JobError
from opsin.structures import Batch

# Signals that ask a process to end; Windows has fewer.
STOPPING = tuple(one for name in ("SIGINT", "SIGTERM", "SIGHUP") if (one := getattr(signal, name, None)) is not None)
Key = tuple[int, int]  # (epoch, index)
Sample = dict[str, Any]  # an example's input under its key, and the fields of its truth
Order = Callable[[int], Sequence[np.ndarray]]  # epoch -> its global batches: of each the places, in the split
_ORDER = 0xFFFF_FFFF  # stands in the place of an index where the seed is that of an epoch's order
_READING = 0x12EA_D000  # stands where partners are counted, where the seed is that of reading an example


class Partners(Sequence[Sample]):
    """Other samples of a split, chosen by the seeds given; `partners[k]` reads one, each time anew.

    So what is mixed only now and then costs no reading else. Any may come that the truth allows, also the sample
    itself, as in a split of one; see `Truth.partners`.
    """

    def __init__(self, read: Callable[[int], Sample], indices: Sequence[int]) -> None:
        self.indices = tuple(indices)
        self._read = read

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, place: int) -> Sample: ...

    @overload
    def __getitem__(self, place: slice) -> Partners: ...

    def __getitem__(self, place: int | slice) -> Sample | Partners:
        if isinstance(place, slice):
            return Partners(self._read, self.indices[place])
        return self._read(self.indices[place])


class WorkerError(JobError):
    """A process that loads ahead has ended, or has no room for what it loads."""


class ImageLoader(DataLoader):
    """A DataLoader of `Batch`: images uint8 (B, C, h, w), index, path, and what the truth gives. See `create_loader`.

    `position` is (epoch, batches already trained on): iteration begins there. Iterating does not move it, since workers
    run ahead; the trainer sets it. `len` is always the number of batches in a whole epoch.
    """

    def __init__(self, samples: _Samples, batches: _Batches, workers: int, pin_memory: bool) -> None:
        if workers:
            _end_workers_at_exit(os.getpid())
        super().__init__(
            samples,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_shared,
            pin_memory=pin_memory,
            worker_init_fn=_prepare_worker,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else each epoch's start would draw from the global one
        )
        self.batches, self.truth = batches, samples.split.truth

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return _unpacked(super().__iter__(), self.truth)

    @property
    def position(self) -> tuple[int, int]:
        return self.batches.position

    @position.setter
    def position(self, value: tuple[int, int]) -> None:
        self.batches.position = value

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch: to its first batch, unless the position is within it already."""
        self.batches.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """The position, as plain numbers."""
        return {"epoch": self.position[0], "batch": self.position[1]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from the position that `state_dict` gave."""
        self.position = (state["epoch"], state["batch"])


def create_loader(
    split: Split,
    preprocessing: Preprocessing | None,
    *,
    batch_size: int,
    training: bool = False,
    augmentation: Callable[..., Any] | None = None,
    order: Order | None = None,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool | None = None,
    pin_memory: bool = False,
    digests: bool = False,
) -> ImageLoader:
    """A loader of a split's batches.

    preprocessing: what prepares images; None leaves every example as it is read.
    training: each epoch in another order. Process `rank` of `world_size` takes places [rank * B, (rank + 1) * B) of
    each global batch of world_size * B. The last, smaller one is dropped, unless it is the only one or `drop_last` says
    otherwise; kept, it is shared out evenly, and repeats samples only where there are fewer than processes.
    Else in order: `rank` takes every world_size-th sample; nothing is dropped or repeated.
    order: the global batches of each epoch, in the place of these; each is shared out evenly in turn. It must give the
    same for the same epoch, and as many batches for each.
    augmentation: what `create_augmentation` gives, or anything that takes a sample, a dict of "image" and the truth's
    fields, and `Partners` as many as its attribute `partners` says, and gives the changed sample; it is to draw from
    torch's global CPU generator alone, which is seeded for it. Without one, see `prepare_sample`.
    workers: processes that load ahead; 0 loads in this one. An unreadable file raises InputError that names it.
    digests: without an augmentation, batches have `digest`, of each example as it was read, see
    `opsin.data.digests.of_value`.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0), ("world_size", world_size, 1)):
        if value < least:
            raise InputError(f"{name} is {value}; expected {least} or more")
    if not 0 <= rank < world_size:
        raise InputError(f"rank is {rank}; expected 0 to {world_size - 1}")
    if training and len(split) == 0:
        raise InputError("the split to train on holds no images")
    samples = _Samples(split, preprocessing, augmentation, seed, digests=digests)
    if order is not None:
        batches = _Batches(order, rank, world_size)
    elif training:
        share = batch_size * world_size
        dropping = len(split) >= share if drop_last is None else drop_last
        batches = _Batches(_Shuffled(len(split), share, seed, dropping), rank, world_size)
    else:
        batches = _Batches(_InTurn(np.arange(rank, len(split), world_size), batch_size, bool(drop_last)), 0, 1)
    return ImageLoader(samples, batches, workers, pin_memory)


class _Samples(Dataset):
    """Whole batches by their keys. An InputError is returned, not raised: workers would wrap it in their traceback."""

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing | None,
        augmentation: Any,
        seed: int,
        *,
        digests: bool = False,
    ) -> None:
        self.split, self.preprocessing, self.augmentation, self.seed = split, preprocessing, augmentation, seed
        self.everything, self.digests = np.arange(len(split)), digests

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, keys: list[Key]) -> Batch | InputError:
        state = torch.get_rng_state()
        others = (random.getstate(), np.random.get_state()) if self.split.inputs.draws else None
        indices, key, truth = [index for _, index in keys], self.split.inputs.key, self.split.truth
        batch: dict[str, Any] = {
            "index": torch.tensor(indices),
            "path": [self.split.inputs.name(index) for index in indices],
        }
        heard: dict[str, str] = {}
        try:
            with listening() as heard:
                samples = [self._sample(epoch, index) for epoch, index in keys]
                if self.split.inputs.stored:
                    trace(partial(self.split.inputs.read, index) for index in indices)
        except InputError as error:
            return error
        finally:
            torch.set_rng_state(state)
            if others is not None:
                random.setstate(others[0])
                np.random.set_state(others[1])
        if heard:
            say_once(heard)
        batch[key] = collate_values([sample.pop(key) for sample in samples])
        if self.digests:
            batch["digest"] = [sample.pop("digest") for sample in samples]
        return batch | (truth.collate(samples) if truth is not None else {})  # type: ignore[return-value]

    def _sample(self, epoch: int, index: int) -> Sample:
        if self.split.inputs.draws:
            seed_reading(derive_seed(self.seed, epoch, index, _READING))
        sample = self._read(index)
        if self.augmentation is None:
            seen = {"digest": of_value(sample[self.split.inputs.key])} if self.digests else {}
            sample = sample if self.preprocessing is None else prepare_sample(sample, self.preprocessing)
            return {**sample, **seen}
        count = getattr(self.augmentation, "partners", 0)
        pool = None if self.split.truth is None or not count else self.split.truth.partners(index)
        pool = self.everything if pool is None else pool
        chosen = [int(pool[derive_seed(self.seed, epoch, index, 1 + k) % len(pool)]) for k in range(count)]
        torch.default_generator.manual_seed(derive_seed(self.seed, epoch, index))
        return self.augmentation(sample, Partners(self._read, chosen))

    def _read(self, index: int) -> Sample:
        """An example as it is read, with its truth."""
        inputs, truth = self.split.inputs, self.split.truth
        value, sample = inputs.read(index), {}
        if truth is not None:
            try:
                sample = truth.read(index, value.shape[-2:] if inputs.key == "image" else None)
            except InputError as error:
                raise InputError(f"{inputs.name(index)}: {error}") from error
        sample[inputs.key] = value
        return sample


class _Shuffled:
    """All examples in an order that the seed decides, in batches of `share`. dropping: not the last, smaller one."""

    def __init__(self, length: int, share: int, seed: int, dropping: bool) -> None:
        self.length, self.share, self.seed = length, share, seed
        self.count = length // share if dropping else -(-length // share)

    def __call__(self, epoch: int) -> list[np.ndarray]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, _ORDER))
        places = torch.randperm(self.length, generator=generator).numpy()
        return [places[k * self.share : (k + 1) * self.share] for k in range(self.count)]


class _InTurn:
    """The places in their order, in batches of `size`. dropping: not the last, smaller one."""

    def __init__(self, places: np.ndarray, size: int, dropping: bool) -> None:
        count = len(places) // size if dropping else -(-len(places) // size)
        self.batches = [places[k * size : (k + 1) * size] for k in range(count)]

    def __call__(self, epoch: int) -> list[np.ndarray]:
        return self.batches


class _Batches(Sampler[list[Key]]):
    """The keys of one process's batches, from `position` to the end of its epoch. order: of all processes together."""

    def __init__(self, order: Order, rank: int, world_size: int) -> None:
        self.order, self.rank, self.world_size = order, rank, world_size
        self.position: tuple[int, int] = (0, 0)
        self._count = len(order(0))

    @property
    def sampler(self) -> _Batches:
        """Itself: where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.position[0]:
            self.position = (epoch, 0)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, done = self.position
        mine = [self._mine(chunk) for chunk in self.order(epoch)[done:]]
        return iter([[(epoch, index) for index in chunk.tolist()] for chunk in mine])

    def _mine(self, chunk: np.ndarray) -> np.ndarray:
        """This process's part of a global batch."""
        if len(chunk) < self.world_size:  # every process needs a sample, or the others would wait for it
            chunk = np.resize(chunk, self.world_size)
        return np.array_split(chunk, self.world_size)[self.rank]


def _unpacked(batches: Iterator[Any], truth: Truth | None) -> Iterator[Any]:
    while True:
        try:
            batch = next(batches, None)
        except RuntimeError as error:
            raise _failed_worker(error) or error from error
        if batch is None:
            return
        if isinstance(batch, InputError):
            raise batch
        if truth is not None:
            truth.unpack(batch)
        yield batch


def _failed_worker(error: RuntimeError) -> WorkerError | None:
    """The error for a worker that has ended or has no room for a batch; None for any other."""
    text = " ".join(str(error).split())
    if "Too many open files" in text:
        return WorkerError("too many open files for the workers: raise ulimit -n, or set fewer train.workers")
    if "DataLoader worker" not in text:
        return None
    if "shared memory" in text or "Bus error" in text:
        return WorkerError("too little shared memory (/dev/shm) for workers: enlarge it, or set train.workers=0")
    if "is killed by signal" in text or "exited unexpectedly" in text:
        return WorkerError("a worker that loads images has ended, maybe for want of memory")
    return None


@cache
def _end_workers_at_exit(process: int) -> None:
    """Python ends and awaits them by a signal that they leave to this process; so it does after an error.

    process: the id of this one, of which each may be forked from one with workers of its own.
    """

    def end() -> None:
        if (child_ends := getattr(signal, "SIGCHLD", None)) is not None:
            signal.signal(child_ends, signal.SIG_DFL)  # torch's raises for a worker that was killed
        for worker in multiprocessing.active_children():
            if worker.daemon:
                worker.kill()

    Finalize(None, end, exitpriority=100)  # as for `atexit`, which processes of multiprocessing do without


def _prepare_worker(worker: int) -> None:
    """Leave signals that end a training to the main process, which ends its step; workers end with their loader.

    A terminal, systemd or a scheduler sends them to the whole group of processes.

    One that was started afresh imports what the command was given by `--import`.
    """
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    rooms.import_inherited()


def _shared(batch: Any) -> Any:
    """A batch as it is, its tensors in shared memory where a worker has made it.

    Else the thread that sends it would put them there: without room it loses the batch, and the training waits for it.
    """
    if get_worker_info() is not None:
        _share(batch)
    return batch


def _share(value: Any) -> None:
    if isinstance(value, torch.Tensor):
        value.share_memory_()
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            _share(inner)


def seed_reading(seed: int) -> None:
    """Seed all that a transform within a data set of another library may draw from."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def derive_seed(*numbers: int) -> int:
    """One well-mixed seed of 64 bits from several numbers: splitmix64 (Steele et al. 2014), one round a number."""
    state, mask = 0, 0xFFFF_FFFF_FFFF_FFFF
    for number in numbers:
        state = (state + number + 0x9E37_79B9_7F4A_7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58_476D_1CE4_E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D0_49BB_1331_11EB) & mask
        state ^= state >> 31
    return state

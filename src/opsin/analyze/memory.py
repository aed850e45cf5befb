"""What a network needs to be trained and used: every allocation of a step followed without data, and measured.

The estimate runs the real training step (forward, loss, backward, optimizer) on tensors without data and adds up the
storages that are alive after each operator. What it cannot see is inside the kernels: their workspace, and what an
allocator rounds up or keeps back. `measure_memory` runs the same step and asks the allocator.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity
from torch.profiler import profile as record
from torch.utils._python_dispatch import TorchDispatchMode

from opsin.analyze.costs import tensors_in
from opsin.analyze.explain_schema import Latency, Memory
from opsin.errors import InputError, JobError, unknown
from opsin.nn.capabilities import example_input, example_loss
from opsin.nn.counting import meta_twin

# numbers kept for each learnable one, between steps
OPTIMIZERS = {"sgd": 1, "plain_sgd": 0, "adamw": 2}

_POINTS = 400


class _Ledger(TorchDispatchMode):
    """The bytes of all storages that are alive, after each operator."""

    def __init__(self, *given: Any) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.now = self.peak = 0
        self.line: list[int] = []
        for tensor in tensors_in(given):
            self.note(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tensors_in(output):
            self.note(tensor)
        self.line.append(self.now)
        return output

    def note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.alive or storage.nbytes() == 0:
            return
        self.alive[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self.alive.pop(key, 0)


def estimate_memory(
    model: nn.Module, input_size: tuple[int, int, int] | None, batch: int = 1, optimizer: str = "sgd"
) -> Memory:
    """Bytes to train and to infer at a batch of (C, H, W) images, in the model's own floating-point type.

    input_size: None for the network's own `example`, here and in all that follows.
    optimizer: "sgd" (with momentum), "plain_sgd", "adamw". Raises InputError for another, a batch below 1, or an input
    that the model refuses.
    """
    _check(batch, optimizer)
    twin, images = _twin(model, input_size, batch)
    with torch.no_grad():
        infer = _Ledger(_held(twin), images)
        with infer:
            answer = twin(images)
        del answer
    twin, images = _twin(model, input_size, batch)
    train = _Ledger(_held(twin), images)
    before = train.now
    saved = _step(twin, images, optimizer, train) - before
    learned = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(_bytes(p) for p in learned)
    return Memory(
        batch=batch,
        optimizer=optimizer,
        weights=sum(_bytes(p) for p in model.parameters()),
        buffers=sum(_bytes(b) for b in model.buffers()),
        gradients=gradients,
        optimizer_state=gradients * OPTIMIZERS[optimizer],
        saved_activations=saved,
        train_peak=train.peak,
        infer_peak=infer.peak,
        timeline_train=_thin(train.line),
        timeline_infer=_thin(infer.line),
    )


def measure_memory(
    model: nn.Module,
    input_size: tuple[int, int, int] | None,
    batch: int = 1,
    optimizer: str = "sgd",
    device: str | None = None,
) -> tuple[int, int, str]:
    """(training peak, inference peak, device): bytes that the allocator handed out at once, in real runs of a copy.

    On a GPU what torch reports; on a CPU the sum over the allocator's own events, kernels' workspace included. Weights
    and input are part of it. Raises InputError as `estimate_memory`, JobError where it does not fit.
    """
    _check(batch, optimizer)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        twin, images = _real(model, input_size, batch, device)
        with torch.no_grad():
            infer = _peak(lambda: twin(images), [*_held(twin), images], device)
        twin, images = _real(model, input_size, batch, device)
        train = _peak(lambda: _step(twin, images, optimizer), [*_held(twin), images], device)
    except (torch.OutOfMemoryError, MemoryError):
        raise JobError(f"a batch of {batch} does not fit into the memory of {device}; take a smaller one") from None
    return train, infer, device


def with_measurement(memory: Memory, model: nn.Module, input_size: tuple[int, int, int] | None) -> Memory:
    """The same, with the measured peaks of this machine."""
    train, infer, device = measure_memory(model, input_size, memory.batch, memory.optimizer)
    return replace(memory, measured_train_peak=train, measured_infer_peak=infer, device=device)


def measure_latency(
    model: nn.Module, input_size: tuple[int, int, int] | None, batch: int = 1, runs: int = 10, seconds: float = 5.0
) -> Latency:
    """Time of a forward pass in eval, after two to warm up: at most `runs` of them, and about `seconds` in all."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    twin, images = _real(model, input_size, batch, device)
    twin.eval()
    times: list[float] = []

    def once() -> float:
        started = time.perf_counter()
        twin(images)
        if device == "cuda":
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - started)

    with torch.no_grad():
        spent = once() + once()
        while len(times) < runs and (len(times) < 3 or spent < 1000 * seconds):
            times.append(once())
            spent += times[-1]
    return Latency(batch, median(times), min(times), max(times), len(times), device, torch.get_num_threads())


def _check(batch: int, optimizer: str) -> None:
    if batch < 1:
        raise InputError(f"batch must be at least 1, got {batch}")
    if optimizer not in OPTIMIZERS:
        raise unknown("optimizer of a memory estimate", optimizer, OPTIMIZERS)


def _twin(model: nn.Module, input_size: tuple[int, int, int] | None, batch: int) -> tuple[nn.Module, Tensor]:
    twin, _ = meta_twin(model, input_size)
    return twin, example_input(twin, input_size, batch)


def _real(
    model: nn.Module, input_size: tuple[int, int, int] | None, batch: int, device: str
) -> tuple[nn.Module, Tensor]:
    """A copy with values on the device, and noise for images, else its own example.

    A model without data gets small random numbers.
    """
    if any(p.is_meta for p in model.parameters()):
        twin = copy.deepcopy(model).to_empty(device=device)
        with torch.no_grad():
            for tensor in _held(twin):
                if tensor.is_floating_point():
                    tensor.normal_(0, 0.01).abs_()
                else:
                    tensor.zero_()
    else:
        twin = copy.deepcopy(model).to(device)
    if input_size is None:
        return twin.eval(), example_input(twin, None, batch)
    dtype = next((p.dtype for p in twin.parameters()), torch.float32)
    return twin.eval(), torch.rand(batch, *input_size, device=device, dtype=dtype)


def _held(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _step(model: nn.Module, images: Tensor, optimizer: str, ledger: _Ledger | None = None) -> int:
    """A training step: forward, loss, backward, update. Returns the bytes that the ledger has before the backward.

    At a batch of 1 batch norms use their running statistics: a map of 1x1 has no others.
    """
    model.train()
    for module in model.modules():
        if len(images) == 1 and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    learned = [p for p in model.parameters() if p.requires_grad]
    plain: dict[str, Any] = {"foreach": False}  # one tensor after another: the least memory that an update can take
    if optimizer == "adamw":
        update: torch.optim.Optimizer = torch.optim.AdamW(learned, **plain)
    else:
        update = torch.optim.SGD(learned, lr=1e-6, momentum=0.9 if optimizer == "sgd" else 0.0, **plain)
    with ledger or contextlib.nullcontext():
        outputs = model(images)
        loss = example_loss(model, outputs, tensors_in(outputs))
        del outputs
        saved = ledger.now if ledger is not None else 0
        loss.backward()
        del loss
        update.step()
    return saved


def _peak(run: Callable[[], Any], held: Sequence[Tensor], device: str) -> int:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated())
    with _silent_start():
        recorder = record(activities=[ProfilerActivity.CPU], profile_memory=True)
        recorder.__enter__()
    try:
        run()
    finally:
        with _silent_start():
            recorder.__exit__(None, None, None)
    now = peak = 0
    events = [e for e in recorder.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()  # type: ignore[attr-defined]
        peak = max(peak, now)
    return peak + sum(map(_bytes, held))


@contextlib.contextmanager
def _silent_start() -> Iterator[None]:
    """The profiler's library writes its own starting, stopping and missing GPUs to standard error, past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _thin(line: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """At most _POINTS of a line, the highest of each stretch."""
    stretch = -(-len(line) // _POINTS) if line else 1
    points = []
    for start in range(0, len(line), stretch):
        part = line[start : start + stretch]
        best = max(range(len(part)), key=part.__getitem__)
        points.append((start + best, part[best]))
    return tuple(points)

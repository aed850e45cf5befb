"""How much memory there is, and how much a piece of work takes at most: of this process, or of a CUDA device."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch

from opsin.errors import InputError

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_EVERY = 0.002  # seconds between two looks at the process
_EXHAUSTED = ("out of memory", "can't allocate memory", "cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class Memory(Protocol):
    """Where a training takes its memory.

    forecast: whether work that takes too much would end the process, so that it must be known before it is tried.
    """

    forecast: bool

    def available(self) -> int:
        """Bytes that a training may take beside what is taken now."""
        ...

    def measure(self, work: Callable[[], object]) -> int | None:
        """Bytes that a piece of work took at most beside what was taken at `available`; None where it ran out."""
        ...


def memory_of(device: torch.device) -> Memory:
    """The memory of a device. Raises InputError for one whose memory nothing here measures."""
    if device.type == "cpu":
        return ProcessMemory()
    if device.type == "cuda":
        return CudaMemory(device)
    raise InputError(f"train.batch_size: auto measures memory of cpu and cuda, not of {device.type}; give a number")


class ProcessMemory:
    """The main memory: what the machine has left, or the control group or a limit of the process, if that is less."""

    forecast = True

    def __init__(self, proc: Path = _PROC, cgroup: Path = _CGROUP) -> None:
        self.proc, self.cgroup = proc, cgroup
        self._before = self._taken()

    def available(self) -> int:
        gc.collect()
        self._before = self._taken()  # once: what work gives back, the process keeps for the next
        found = [self._of_machine(), *self._of_groups(), self._of_limits()]
        return max(0, min(value for value in found if value is not None))

    def measure(self, work: Callable[[], object]) -> int | None:
        gc.collect()
        ended, most = threading.Event(), [self._taken()]

        def look() -> None:
            while not ended.wait(_EVERY):
                most[0] = max(most[0], self._taken())

        watch = threading.Thread(target=look, daemon=True)
        watch.start()
        try:
            fitted = _try(work)
        finally:
            ended.set()
            watch.join()
        return max(0, max(most[0], self._taken()) - self._before) if fitted else None

    def _taken(self) -> int:
        """Resident bytes of this process; where /proc is not, the most that it ever had."""
        try:
            return int((self.proc / "self" / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            import resource

            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return most if sys.platform == "darwin" else 1024 * most

    def _of_machine(self) -> int:
        try:
            lines = (self.proc / "meminfo").read_text().splitlines()
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        except (OSError, ValueError, StopIteration):
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2

    def _of_groups(self) -> list[int]:
        """What the control groups of this process, and those around them, leave."""
        try:
            lines = (self.proc / "self" / "cgroup").read_text().splitlines()
        except OSError:
            return []
        left = []
        for line in lines:
            number, kinds, path = line.split(":", 2)
            if number == "0" and not kinds:
                root, limit, taken = self.cgroup, "memory.max", "memory.current"
            elif "memory" in kinds.split(","):
                root, limit, taken = self.cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            else:
                continue
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):  # "max" is none
                    left.append(int((folder / limit).read_text()) - int((folder / taken).read_text()))
                if folder == root:
                    break
        return left

    def _of_limits(self) -> int | None:
        """What `ulimit -v` leaves of the address space."""
        try:
            import resource

            soft, _ = resource.getrlimit(resource.RLIMIT_AS)
            if soft == resource.RLIM_INFINITY:
                return None
            return soft - int((self.proc / "self" / "statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        except (ImportError, OSError, ValueError, IndexError):
            return None


class CudaMemory:
    """The memory of a CUDA device: what is free, and what torch holds of it."""

    forecast = False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def available(self) -> int:
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self.device)[0]

    def measure(self, work: Callable[[], object]) -> int | None:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_reserved(self.device)
        fitted = _try(work)
        most = torch.cuda.max_memory_reserved(self.device)
        gc.collect()
        torch.cuda.empty_cache()
        return most - before if fitted else None


def _try(work: Callable[[], object]) -> bool:
    """Whether a piece of work was done before memory ran out."""
    try:
        work()
    except MemoryError:
        return False
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not any(words.lower() in str(error).lower() for words in _EXHAUSTED):
            raise
        return False
    return True

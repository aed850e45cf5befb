"""Where a result was made: versions and devices."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("opsin", "torch", "torchvision", "lightning", "torchmetrics", "numpy")


def environment() -> dict[str, str]:
    """Versions of Python, opsin and what it stands on; the devices, the processor's cores for us, and the system."""
    found = {name: _version(name) for name in _PACKAGES}
    return {
        "opsin": found.pop("opsin"),
        "python": platform.python_version(),
        **found,
        "devices": ", ".join(_devices()),
        "cpu cores": str(_cores()),
        "threads": str(torch.get_num_threads()),
        "system": platform.platform(),
    }


def _cores() -> int:
    """The processor's cores that this process may use, where the system tells; else all."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        runtime = f"CUDA {torch.version.cuda}" if torch.version.cuda else "ROCm"
        return [f"{names.count(name)} x {name} ({runtime})" for name in dict.fromkeys(names)]
    if torch.backends.mps.is_available():
        return ["Apple GPU"]
    return [_processor()]


def _processor() -> str:
    """The processor's name, which Linux keeps apart from `platform`."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

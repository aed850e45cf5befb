"""Where a model computes."""

from __future__ import annotations

from typing import Any

import torch


def best_device(wanted: str | None = None) -> str:
    """The device that is wanted, or the best there is: cuda, then mps, then cpu. wanted: "cpu", "cuda:1", ..."""
    if wanted is not None:
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def accelerator_device(accelerator: str, devices: object = None) -> torch.device:
    """The device of a recipe's `train.accelerator`; the CPU where this machine lacks the one it names.

    devices: as of the recipe; of a list of one, that one.
    """
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    named = accelerator if accelerator in there and there[accelerator]() else "cpu"
    chosen = best_device() if accelerator in ("auto", "gpu") else named
    if chosen == "cuda" and isinstance(devices, list) and len(devices) == 1:
        return torch.device(f"cuda:{devices[0]}")
    return torch.device(chosen)


def count_processes(devices: int | str | list[int], device: torch.device) -> int:
    """Training processes on this machine. devices: `train.devices` of a recipe."""
    if isinstance(devices, list):
        return len(devices)
    text = str(devices)
    if text.isdigit():
        return int(text)
    return torch.cuda.device_count() if device.type == "cuda" else 1  # "auto", -1


def describe_machine(processes: int, device: torch.device) -> dict[str, Any]:
    """What of the machine may change the last bits of a training's sums, for its checkpoint."""
    return {"threads": torch.get_num_threads(), "processes": processes, "device": device.type}

"""A device by the name that a command is given, as keys of a recipe."""

from __future__ import annotations

import re
from typing import Any

from opsin.errors import InputError


def devices_of(device: str) -> dict[str, Any]:
    """The keys of a recipe that choose a device: `cuda:1`. Raises InputError for one that is not there."""
    form = re.fullmatch(r"(cpu|mps|cuda)(?::(\d+))?", device)
    if form is None or (form[2] and form[1] != "cuda"):
        raise InputError(f"unknown --device {device!r}; take cpu, cuda, cuda:1 (the second) or mps")
    import torch

    kind, number = form[1], form[2]
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: torch finds no Apple GPU here; take cpu, or leave --device out")
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if there == 0:
        raise InputError(f"--device {device}: torch finds no CUDA device here; take cpu, or leave --device out")
    if number and int(number) >= there:
        listed = ", ".join(f"cuda:{place}" for place in range(there))
        raise InputError(f"--device {device} is not here; there is {listed}")
    return {"train.accelerator": kind, "train.devices": [int(number)] if number else 1}

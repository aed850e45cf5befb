"""Keys of a recipe that are "auto": which there are, and what takes their place before a training begins.

`train.batch_size` and `optim.lr` are measured by training steps, see `batch_size` and `learning_rate`; `data.size`
follows from the images, see `input_size`; `train.workers` and `train.precision` from the machine, here. What was found
stands in the run's recipe, so that a resumed run has it. A training is what that number in its place would give.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from opsin.data import Source
from opsin.engine.devices import accelerator_device, count_processes
from opsin.engine.recipe import Recipe, load_recipe
from opsin.errors import InputError

AUTO = "auto"
MEASURED = ("train.batch_size", "optim.lr")
_FOUND = "OPSIN_MEASURED"  # hands what the first process measured to those that Lightning starts
_MOST = 8  # worker processes: more rarely help, and each holds its own batches
_CGROUP = Path("/sys/fs/cgroup")


def take(overrides: Mapping[str, Any] | None) -> tuple[dict[str, Any], frozenset[str]]:
    """Overrides without the measured keys that are "auto", which keep the recipe's own number until then, and those."""
    given = dict(overrides or {})
    wanted = frozenset(key for key in MEASURED if given.get(key) == AUTO)
    return {key: value for key, value in given.items() if key not in wanted}, wanted


def set_aside(recipe: Recipe) -> tuple[Recipe, frozenset[str]]:
    """The recipe with the defaults in the place of measured keys that are "auto", and those keys."""
    values = recipe.model_dump()
    wanted = frozenset(key for key in MEASURED if _value(values, key) == AUTO)
    if not wanted:
        return recipe, wanted
    for key in wanted:
        section, _, name = key.partition(".")
        del values[section][name]
    return load_recipe(values), wanted


def by_machine(recipe: Recipe, source: Source, given: Collection[str] | None) -> tuple[Recipe, list[str]]:
    """The recipe with numbers for workers and precision, where they are "auto" or flags leave them open, and a line.

    given: the keys that flags gave; None of a recipe, which has the defaults of all recipes.
    """
    open_keys = () if given is None else [key for key in ("train.workers", "train.precision") if key not in given]
    values: dict[str, Any] = dict.fromkeys(open_keys, AUTO)
    values |= {f"train.{name}": AUTO for name in ("workers", "precision") if getattr(recipe.train, name) == AUTO}
    slow = _emulated(recipe)
    if not values:
        return recipe, slow
    asked, words = [key for key in values if key not in open_keys], []
    if "train.workers" in values:
        values["train.workers"] = count_workers(recipe, stored=source.splits["train"].inputs.stored)
        if values["train.workers"] or "train.workers" in asked:
            words.append(_describe_workers(values["train.workers"]))
    if "train.precision" in values:
        values["train.precision"] = best_precision(recipe, cpu="train.precision" in asked)
        if values["train.precision"] != "32-true" or "train.precision" in asked:
            words.append(f"precision {values['train.precision']}")
    line = f"{', '.join(words)}; train.workers and train.precision override"
    return load_recipe(recipe.model_dump(), values), slow + ([line] if words else [])


def count_workers(recipe: Recipe, *, stored: bool) -> int:
    """How many processes read ahead for each that trains: its share of the cores, at most eight.

    None for examples that lie in memory, and where there is one core. On a CPU that trains, half: it needs the rest.
    """
    train = recipe.train
    device = accelerator_device(train.accelerator, train.devices)
    share = available_cores() // max(1, count_processes(train.devices, device))
    if not stored or share < 2:
        return 0
    return min(_MOST, share // 2 if device.type == "cpu" else share)


def best_precision(recipe: Recipe, *, cpu: bool = False) -> str:
    """bf16-mixed on a GPU that computes in bfloat16, else 32-true. cpu: on a processor with tiles of it, too."""
    device = accelerator_device(recipe.train.accelerator, recipe.train.devices)
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.get_device_capability(device) >= (8, 0) else "32-true"
    return "bf16-mixed" if cpu and device.type == "cpu" and "amx_bf16" in processor_capabilities() else "32-true"


def processor_capabilities() -> frozenset[str]:
    """Instruction sets of this processor by torch's names, as "avx2" or "amx_bf16"; none where torch does not say."""
    ask: Callable[[], Mapping[str, Any]] | None = getattr(torch.cpu, "get_capabilities", None)
    return frozenset(name for name, there in ask().items() if there is True) if ask is not None else frozenset()


def _emulated(recipe: Recipe) -> list[str]:
    """A warning where the recipe's bfloat16 is computed by other instructions, which takes many times as long."""
    device = accelerator_device(recipe.train.accelerator, recipe.train.devices)
    known = processor_capabilities()
    if recipe.train.precision != "bf16-mixed" or device.type != "cpu" or "avx2" not in known or "avx512_f" in known:
        return []
    return [
        "warning: train.precision bf16-mixed: this processor has no instructions for bfloat16, and a step may take ten "
        "times as long; train.precision=32-true, or auto, is faster here"
    ]


def available_cores() -> int:
    """Cores that this process may use: by its affinity, and by the quota of its control group."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)  # Linux has it
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min(cores, int(_quota(_CGROUP) or cores)))


def first_process() -> bool:
    """Whether this is the process that decides for all of a distributed training."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0


def measured_together(wanted: Collection[str], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the first process measures, the same in every one. Raises InputError where they cannot agree."""
    if first_process():
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise _disagreement(wanted)
        found = measure()
        os.environ[_FOUND] = json.dumps(found)
        return found
    if _FOUND not in os.environ:
        raise _disagreement(wanted)
    return json.loads(os.environ[_FOUND])


def _disagreement(wanted: Collection[str]) -> InputError:
    keys = " and ".join(sorted(wanted))
    return InputError(
        f"{keys}: auto is measured in one process, and these were not started by opsin; find the number in a run "
        "of one process, and give it"
    )


def _value(values: Mapping[str, Any], key: str) -> Any:
    section, _, name = key.partition(".")
    return values[section].get(name)


def _describe_workers(count: int) -> str:
    if count == 0:
        return "no worker processes"
    return f"{count} worker process{'es' if count > 1 else ''} read{'' if count > 1 else 's'} ahead"


def _quota(folder: Path) -> float | None:
    """Cores that a control group grants, version 2 or 1; None where it grants all."""
    try:
        limit, period = (folder / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit, period = (int((folder / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return None if limit <= 0 else limit / period
    except (OSError, ValueError):
        return None

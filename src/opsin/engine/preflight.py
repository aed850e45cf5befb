"""What would end a training, or make it learn nothing, after its data is read and before its first step."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from opsin.data import Split
from opsin.engine.devices import accelerator_device, count_processes
from opsin.engine.recipe import Recipe
from opsin.engine.task import Task
from opsin.errors import InputError
from opsin.nn.norm import SteadyBatchNorm2d

_MOST_PROCESSES = 64  # on processors, whatever the number of their cores


def check_settings(recipe: Recipe) -> None:
    """Refuse what no data can make right, before any is read. Raises InputError that names the key and the remedy."""
    weights = recipe.loss.class_weights
    if isinstance(weights, list) and not any(weights):
        raise InputError("loss.class_weights are all 0, with which nothing is learned; give one a larger number")
    train, cores = recipe.train, os.cpu_count() or 1
    on_processors = train.accelerator == "cpu" or (train.accelerator == "auto" and not torch.cuda.is_available())
    if on_processors and isinstance(train.devices, int) and train.devices > max(cores, _MOST_PROCESSES):
        raise InputError(
            f"train.devices is {train.devices}, and each is a process on the CPU; this machine has {cores} cores"
        )
    _check_startable(count_processes(train.devices, accelerator_device(train.accelerator, train.devices)))


def _check_startable(processes: int) -> None:
    """Refuse several processes where Lightning, which starts the others by the same program, has no file of it."""
    started = {"LOCAL_RANK", "RANK", "SLURM_PROCID"} & os.environ.keys()  # by torchrun, SLURM or the first process
    interactive = getattr(sys, "ps1", None) is not None  # Lightning forks there
    program = sys.modules["__main__"].__spec__ is not None or Path(sys.argv[0]).is_file()
    if processes > 1 and not (started or interactive or program):
        raise InputError(
            f"{processes} devices are as many processes, each of which runs this program from its beginning, and "
            f"`python {sys.argv[0]}` has no file to run: write it to a file, or set train.devices=1"
        )


def check_fit(task: Task, splits: Mapping[str, Split]) -> None:
    """Refuse settings that do not fit the splits, and batches that the network cannot be trained on."""
    train, schedule = task.recipe.train, task.recipe.schedule
    if "val" not in splits:
        remedy = "set data.val_fraction, or give the data a val split"
        if train.early_stopping_patience is not None:
            raise InputError(f"train.early_stopping_patience needs a validation split, and there is none; {remedy}")
        if schedule.name == "plateau":
            raise InputError(f"schedule.name is plateau, which needs a validation split, and there is none; {remedy}")
        if train.monitor is not None:
            raise InputError(f"train.monitor is {train.monitor}, and there is no validation split; {remedy}")
    processes = count_processes(train.devices, accelerator_device(train.accelerator, train.devices)) * train.num_nodes
    if "val" in splits and len(splits["val"]) < processes:
        raise InputError(
            f"the validation split has {len(splits['val'])}, fewer than the {processes} processes that train; raise "
            "data.val_fraction, or lower train.devices"
        )
    if not isinstance(train.batch_size, int):
        return
    size, images = train.batch_size, len(splits["train"])
    if min(size, images) == 1 and (layer := _needs_several(task)) is not None:
        why = f"train.batch_size is {size}" if size == 1 else "the training split has one image"
        raise InputError(
            f"{why}, and {layer} of {task.recipe.model.name} normalises over a batch of 1x1 maps, which needs two or "
            "more; take larger batches, larger images (data.size) or a network without batch norm there"
        )


def _needs_several(task: Task) -> str | None:
    """The first batch norm that is given one value a channel by a batch of one; None where there is none."""
    prepared = task.preprocessing
    norms: dict[nn.Module, str] = {
        module: name
        for name, module in task.model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or not module.track_running_stats)
        if not isinstance(module, SteadyBatchNorm2d)  # which knows what to do then
    }
    if prepared is None or not norms:
        return None
    found: list[str] = []

    def look(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if given[0].numel() == given[0].shape[1] * given[0].shape[0] == given[0].shape[1]:
            found.append(norms[module])
            raise _FoundError

    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    kept = {name: buffer.clone() for name, buffer in task.model.named_buffers()}
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            images = torch.zeros(1, prepared.channels, *prepared.size, dtype=torch.uint8)
            task.model(*task.predictor.inputs({"image": images, "index": torch.zeros(1), "path": [""]}))
    except (_FoundError, ValueError, RuntimeError):  # what else is wrong is not for here
        pass
    finally:
        torch.set_rng_state(state)
        for hook in hooks:
            hook.remove()
        for name, buffer in task.model.named_buffers():
            buffer.copy_(kept[name])
    return found[0] if found else None


class _FoundError(Exception):
    """Ends the forward pass."""

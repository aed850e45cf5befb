"""Train, from a recipe to a run folder with an evaluated model and a report."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from rich.console import Console
from torch import nn

from opsin import errors, objects, rooms
from opsin.data import Source, Split
from opsin.data.loading import ImageLoader, WorkerError, create_loader
from opsin.data.members import Members
from opsin.engine import automatic, callbacks, own_parts
from opsin.engine.callbacks import CheckpointFiles
from opsin.engine.checkpoint import read_checkpoint, read_model, save_model
from opsin.engine.devices import accelerator_device
from opsin.engine.evaluate import evaluate_split
from opsin.engine.first_weights import load_first_weights, load_published_weights
from opsin.engine.frozen_start import FrozenStart, describe_frozen_start
from opsin.engine.input_size import choose_size
from opsin.engine.learning_rate import LearningRates
from opsin.engine.loggers import Trackers, check_installed, create_loggers
from opsin.engine.measured import find_learning_rate, measure
from opsin.engine.membership import Division, restoring
from opsin.engine.preflight import check_fit, check_settings
from opsin.engine.recipe import Recipe, load_recipe, read_recipe
from opsin.engine.resuming import (
    check_fits,
    ended_by_another,
    find_checkpoint,
    find_members,
    left_to_train,
    locked,
    stopped_in_words,
)
from opsin.engine.run import RunFolder
from opsin.engine.run_report import write_run_report
from opsin.engine.stages import run_stages
from opsin.engine.starting import given_keys, recipe_of, start
from opsin.engine.task import Task
from opsin.engine.tiles import measure_objects
from opsin.errors import InputError, JobError
from opsin.schemes import naming, split_scheme

_RUN_VARIABLE = "OPSIN_RUN_FOLDER"  # tells the processes that Lightning starts which folder the first one made

Say = Callable[[str], None]


@dataclass
class Run:
    """A finished training: its folder, and its model's metrics on the test split (val where there is no test)."""

    path: Path
    metrics: dict[str, float]
    split: str
    epochs: int
    report: Path | None = None
    history: list[dict[str, float]] = field(default_factory=list, repr=False)


def train(
    recipe: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    model: str | nn.Module | None = None,
    data: Any = None,
    loss: str | Callable[..., Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    optimizer: Any = None,
    callbacks: Sequence[Any] | None = None,
    classes: Sequence[str] | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    say: Say = errors.say,
    **flags: Any,
) -> Run:
    """Train a model as a recipe or these keywords say, or go on with an interrupted run.

    recipe: a shipped recipe's name, a YAML file, a mapping, or a model's name with `data`; one that says nothing of how
    to train is completed for its data, see `opsin.engine.starting`. overrides: {"train.epochs": 5, ...}, stronger than
    what follows. model: a name, or a network, which is trained itself and keeps the weights that the run keeps: images
    (B, C, H, W) float -> logits (B, K), or one with the three verbs, see `opsin.engine.own_parts`. data: a name, a
    path, or a data set of torch, torchvision or Hugging Face, or a mapping of "train", "val" and "test" to them, see
    `opsin.data.source_of`. loss: of (logits (B, K), targets) -> a number or named ones. metrics: by their names, each
    of (predictions, truth) of a split, or torchmetrics'; they are val_NAME. optimizer: a class of torch.optim or its
    name, or a partial of it with its options. callbacks: Lightning's. Each may be a dotted path instead, whose module
    is then imported. classes: names of the classes of a data set that has none. flags: task, weights, epochs,
    batch_size, lr, size, seed, workers, skip_bad.
    out: the run folder to make, runs/<name> if None. resume: a run to continue; `overrides` and keywords may then
    change it, what it was given as objects is given again, and `recipe` stays None. say: receives progress lines, by
    default on standard error. Raises InputError before anything is trained, JobError after. Data and weights by name
    (torchvision:CIFAR10, hf:owner/name) are downloaded where the call names them; those of a recipe's file are used if
    they are here.
    """
    own = own_parts.collect(
        model=model,
        data=data,
        loss=loss,
        metrics=metrics,
        optimizer=optimizer,
        callbacks=callbacks,
        classes=classes,
        **flags,
    )
    settings = {**own.settings, **(overrides or {})}
    with objects.lending(own.objects):
        if resume is None and (isinstance(recipe, str) or (recipe is None and own.settings)):
            recipe = recipe_of(recipe, settings)
        return run_recipe(recipe, settings, out=out, resume=resume, say=say)


def run_recipe(
    recipe: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    say: Say = errors.say,
    watching: Sequence[Callback] = (),
    test: bool = True,
) -> Run:
    """`train`, with what the call was given as objects lent.

    watching: callbacks of this call, no part of the recipe, called after all others. test: whether the model is
    evaluated on the test split too, or on val alone.
    """
    if resume is not None and (recipe is not None or out is not None):
        raise InputError("a resumed run has its recipe and folder already; give resume alone, with overrides if needed")
    folder = None if resume is None else RunFolder.open(resume)
    loaded, given, wanted = _read(recipe, overrides, folder, say)
    with _quiet_lightning(), ExitStack() as held, stopped_in_words(lambda: folder):
        if folder is not None:
            held.enter_context(locked(folder))
        torch.manual_seed(loaded.train.seed)  # the first weights; all other randomness derives from it step by step
        loaded = own_parts.check_recipe(loaded)
        resumed = folder is not None and (folder.last.exists() or folder.previous.exists())
        with naming(overrides, None if isinstance(recipe, str | Path) else recipe):
            members = find_members(folder) if folder is not None else None
            task, source, splits = prepare(loaded, say, resumed=resumed, given=given, members=members)
        loaded = task.recipe
        stages = task.stages()  # before anything is written: they may need what is not installed
        if folder is None:
            folder = _create_folder(out, recipe, loaded)
            held.enter_context(locked(folder))
        measure(task, splits, folder, wanted, create_train_loader, say)
        task.to(_device(loaded))
        task.callbacks = tuple(watching)
        if stages:
            run_stages(stages, task, splits, folder, _fit_stage, say)
        else:
            trainer = _fit(task, splits, folder, say, resume=resume is not None)
            if not trainer.is_global_zero:
                sys.exit(0)  # the first process alone evaluates and reports
            _load_kept(task, folder, trainer, say)
        return _finish(task, source, splits, folder, say, test=test)


def find_lr(
    recipe: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    say: Say = errors.say,
) -> LearningRates:
    """Measure which learning rates a training can take, and train nothing. See `opsin.engine.learning_rate`.

    recipe, overrides, out, say: as of `train`. The run's folder has the recipe and the curve: learning_rate.csv, .svg
    and .png, and a report. `train(resume=folder, overrides={"optim.lr": rate})` begins the training there.
    """
    loaded, given, wanted = _read(recipe, overrides, None, say)
    with _quiet_lightning():
        torch.manual_seed(loaded.train.seed)
        with naming(overrides, None if isinstance(recipe, str | Path) else recipe):
            task, source, splits = prepare(loaded, say, given=given)
        folder = _create_folder(out, recipe, task.recipe)
        measure(task, splits, folder, wanted - {"optim.lr"}, create_train_loader, say)
        split = task.predictor.prepare_split(splits["train"])
        found = find_learning_rate(task, split, folder, create_train_loader, say)
    folder.write_recipe(task.recipe.to_yaml())
    say(f"report: {write_run_report(task, folder, {}, [], source)}")
    say(f"to train with it: opsin train --resume {folder.path} --lr {found.suggestion:g}")
    return found


def _read(
    recipe: str | Path | Mapping[str, Any] | None,
    overrides: Mapping[str, Any] | None,
    folder: RunFolder | None,
    say: Say,
) -> tuple[Recipe, Collection[str] | None, frozenset[str]]:
    """The recipe of a new training, or of a run to go on with; the keys that flags gave; and those to be measured."""
    overrides, wanted = automatic.take(overrides)
    if folder is None and recipe is None:
        raise InputError("nothing to train: give a recipe, or a run to resume")
    if folder is not None:
        values = read_recipe(folder.recipe)
        own_parts.check_given(values, overrides or {}, folder.path)
    else:
        values = dict(recipe) if isinstance(recipe, Mapping) else read_recipe(recipe or "")
        values = own_parts.with_own_optimizer(values, overrides or {})
    loaded = load_recipe(values, overrides, say=say)
    given = None if folder is not None else given_keys(recipe, overrides)
    check_installed(loaded.train.logger)
    loaded, more = automatic.set_aside(loaded)
    loaded.imports = rooms.imported_packages()
    wanted |= more
    if wanted and folder is not None and (folder.last.exists() or folder.previous.exists()):
        keys = " and ".join(sorted(wanted))
        raise InputError(f"{keys}: auto is measured before the first step, which this run has behind it; give a number")
    return loaded, None if given is None else frozenset(given) - more, wanted


def prepare(
    recipe: Recipe,
    say: Say,
    *,
    resumed: bool = False,
    given: Collection[str] | None = None,
    members: Members | None = None,
) -> tuple[Task, Source, dict[str, Split]]:
    """Open and check the data, divide it, and build the task's model for it.

    resumed: the weights come from a checkpoint, so that none are fetched or read here. given: the keys that flags gave,
    where the task may choose the others; see `opsin.engine.starting`. members: of the splits of a run under way. The
    recipe in effect is the task's.
    """
    room = rooms.find_room(recipe.task)
    if room.trains is None:
        verbs = {"predict": room.predicts, "eval": rooms.evaluating_room(room).evaluates}
        users = " and ".join(f"`opsin {verb}`" for verb, has in verbs.items() if has is not None)
        raise InputError(f"{recipe.task} trains nothing" + (f"; use it with {users}" if users else ""))
    check_settings(recipe)
    kind: type[Task] = rooms.load(room.trains)
    recipe, _ = automatic.set_aside(recipe)
    with restoring(members):
        source = kind.open(recipe, say)
    recipe.data.changes = "refuse"  # what was accepted was this once
    recipe, sized = choose_size(recipe, source, kind)
    preprocessing = kind.create_preprocessing(recipe, source)
    recipe, started = (recipe, []) if given is None else start(recipe, source, preprocessing, given)
    recipe, machine = automatic.by_machine(recipe, source, given)
    recipe, completed = kind.complete(recipe, source, preprocessing)
    source, extended = kind.extend(recipe, source, say)
    splits = source.splits
    task = kind.build(recipe, preprocessing, source)
    check_fit(task, splits)
    own_parts.check_task(task)
    division = _note(task, source)
    task.create_optimizers(steps_per_epoch=1)  # a wrong option is refused before anything is written
    if not resumed and recipe.train.init is not None:
        for line in load_first_weights(task, recipe.train.init):
            say(line)
    elif not resumed and recipe.model.weights is not None:
        load_published_weights(task, recipe.model, say)
    elif not resumed and recipe.model.backbone_weights is not None:
        task.load_backbone(recipe.model.backbone_weights, say)
    chosen = [*division.lines, *sized, *started, *machine, *completed, *extended]
    for line in _announce(task, source, splits, chosen, task.describe_fit(splits["train"])):
        say(line)
    return task, source, splits


def _note(task: Task, source: Source) -> Division:
    """What a model is used with that follows from its data; how that was divided."""
    sizes = measure_objects(source.splits["train"], task.preprocessing)
    task.facts.objects = {} if sizes is None else sizes.to_dict()
    division: Division = source.division or Division()  # a task may divide in its own way
    task.facts.members = None if division.members is None else division.members.pack()
    return division


def _announce(
    task: Task, source: Source, splits: Mapping[str, Split], chosen: list[str], misfits: list[str]
) -> list[str]:
    """What is about to happen, with every setting that changes the result without showing.

    chosen: by the task, and other data. misfits: what of the data does not fit the model.
    """
    recipe, train = task.recipe, task.recipe.train
    counts = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    facts = [f"{objects.short_name(recipe.model.name)} on {source.name} ({source.format}): {counts}"]
    if task.classes:
        facts.append(f"{len(task.classes)} classes")
    if (prepared := task.preprocessing) is not None:
        facts.append(f"input {prepared.channels}x{prepared.size[0]}x{prepared.size[1]}")
    lines = ["; ".join(facts), *chosen, *misfits, *task.describe_settings()]
    if recipe.augment:
        lines.append("augmentation: " + "; ".join(task.describe_augmentation()))
    lines += describe_mixing(recipe)
    if train.ema_decay is not None:
        lines.append(f"moving average of the weights, decay {train.ema_decay:g}: it is what is evaluated and saved")
    if train.freeze_epochs is not None:
        lines.append(describe_frozen_start(task))
    if train.early_stopping_patience is not None:
        lines.append(f"stops early after {train.early_stopping_patience} epochs without a better {task.monitored[0]}")
    if "val" in splits and train.keep == "best":
        lines.append(f"the saved model is that of the epoch with the best {task.monitored[0]}")
    return lines


def describe_mixing(recipe: Recipe) -> list[str]:
    """A line where images and labels of a batch are mixed with each other."""
    mixup, cutmix = recipe.mixing.mixup, recipe.mixing.cutmix
    return [f"batches are mixed: mixup alpha {mixup:g}, cutmix alpha {cutmix:g}"] if mixup or cutmix else []


def _create_folder(out: str | Path | None, recipe: str | Path | Mapping[str, Any] | None, loaded: Recipe) -> RunFolder:
    """The run folder; every further process of a distributed training takes that of the first."""
    if not errors.is_first_process():
        made = os.environ.get(_RUN_VARIABLE, out)
        if made is None:
            raise InputError("processes that were not started by opsin itself need --out, to agree on the run folder")
        return RunFolder(Path(made))
    named = objects.short_name(loaded.data.source)
    source = Path((split_scheme(named) or ("", named))[1]).name.split(".")[0]
    model = objects.short_name(loaded.model.name)
    name = Path(recipe).stem if isinstance(recipe, str | Path) else f"{model}_{source}"
    folder = RunFolder.create(out, name.replace(":", "_"))  # of timm:NAME, scenes:60; no sign for every file's name
    os.environ[_RUN_VARIABLE] = str(folder.path.resolve())
    return folder


def _fit(
    task: Task, splits: Mapping[str, Split], folder: RunFolder, say: Say, *, resume: bool, alone: bool = False
) -> Trainer:
    """One training by gradient. alone: refuse more than one process."""
    recipe = task.recipe
    task.failed_batch = folder.path / "failed_batch.safetensors"
    found = find_checkpoint(folder, say) if resume else None
    checkpoint, content = (None, {}) if found is None else found
    if checkpoint is not None:
        check_fits(checkpoint, content, task)
    elif resume:
        say("no checkpoint had been written yet; starting from the first step")
    trainer = _create_trainer(task, folder, say, has_val="val" in splits)
    world, rank = trainer.world_size, trainer.global_rank
    if alone and world > 1:
        raise InputError(
            f"{recipe.model.name} is trained in stages, which takes one process, not {world}; set train.devices=1"
        )
    if trainer.is_global_zero:
        folder.write_recipe(recipe.to_yaml())
    if checkpoint is not None and not left_to_train(content, task, trainer, _device(recipe), say):
        return trainer
    common = {
        "rank": rank,
        "world_size": world,
        "pin_memory": trainer.accelerator.__class__.__name__ == "CUDAAccelerator",
    }
    ready = {name: task.predictor.prepare_split(split) for name, split in splits.items() if name != "test"}
    loader = create_train_loader(task, ready["train"], **common)
    task.epoch_batches = len(loader)
    val = create_loader(ready["val"], **_loading(task), **common) if "val" in ready else None
    if checkpoint is not None:
        # Lightning restores a loader only in the middle of an epoch, and after it has begun to iterate.
        epoch, batch = content["opsin"]["position"]
        loader.position = (epoch, batch)
    try:
        trainer.fit(task, loader, val, ckpt_path=checkpoint)
    except KeyboardInterrupt:
        raise _stopped_at_once(folder) from None
    except SystemExit as exit_:  # Lightning turns a second Ctrl-C into an exit
        raise _stopped_at_once(folder) from exit_
    except (RuntimeError, WorkerError) as error:
        raise ended_by_another(error, folder, world) or error from error
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()  # else its threads may outlive the interpreter, which then aborts
    return trainer


def create_train_loader(task: Task, split: Split, **processes: Any) -> ImageLoader:
    """The batches that a task is trained on, of a prepared split.

    processes: the keywords rank, world_size and pin_memory of `opsin.data.create_loader`.
    """
    augmentation, order = task.create_augmentation(), task.order(split)
    return create_loader(split, training=True, augmentation=augmentation, order=order, **_loading(task), **processes)


def _loading(task: Task) -> dict[str, Any]:
    train = task.recipe.train
    common = {"batch_size": train.batch_size, "seed": train.seed, "workers": train.workers}
    return {"preprocessing": task.preprocessing, **common}


def _fit_stage(task: Task, splits: Mapping[str, Split], folder: RunFolder, say: Say) -> None:
    """A training by gradient that is one stage of several; the weights that the recipe keeps stay in the model."""
    resume = folder.last.exists() or folder.previous.exists()
    trainer = _fit(task, splits, folder, say, resume=resume, alone=True)
    _load_kept(task, folder, trainer, say)
    task.to(_device(task.recipe))


def _stopped_at_once(folder: RunFolder) -> JobError:
    return callbacks.StoppedError(
        f"stopped; continue from the last checkpoint with: opsin train --resume {folder.path}"
    )


def _create_trainer(task: Task, folder: RunFolder, say: Say, *, has_val: bool) -> Trainer:
    train = task.recipe.train
    monitor, mode = task.monitored

    def save_weights(state: dict[str, torch.Tensor]) -> None:
        if train.keep == "best":
            _save_best(task, folder, state)

    parts: list[Callback] = [callbacks.Position()]
    parts += [callbacks.MovingAverage(train.ema_decay)] if train.ema_decay is not None else []
    parts += [FrozenStart(train.freeze_epochs)] if train.freeze_epochs is not None else []
    parts += [callbacks.StepLimit(train.max_steps)] if train.max_steps is not None else []
    if train.early_stopping_patience is not None and has_val:
        parts.append(callbacks.early_stopping(monitor, mode, train.early_stopping_patience))
    parts += [history := callbacks.History(folder, say), Trackers(train.logger, folder, history, say)]
    if callbacks.on_terminal():
        parts.append(callbacks.ProgressBar(Console(stderr=True)))
    parts += [*own_parts.create_callbacks(task.recipe), divergence := callbacks.Divergence(say)]
    parts.append(callbacks.Checkpoints(folder, monitor, mode, train.save_every_steps, save_weights, divergence))
    parts += [callbacks.CleanStop(folder, say), *task.callbacks]
    loggers = create_loggers(train.logger, folder)
    try:
        return Trainer(
            accelerator=train.accelerator,
            devices=train.devices,
            num_nodes=train.num_nodes,
            strategy=train.strategy,
            precision=train.precision,  # type: ignore[arg-type]
            max_epochs=train.epochs,
            # With several optimizers the task accumulates and clips itself, and Lightning refuses to.
            accumulate_grad_batches=train.accumulate if task.automatic_optimization else 1,
            gradient_clip_val=train.clip_norm if task.automatic_optimization else None,
            sync_batchnorm=train.sync_batchnorm,
            deterministic=train.deterministic,
            callbacks=parts,
            logger=loggers or False,
            plugins=[CheckpointFiles()],
            default_root_dir=folder.path,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (ValueError, RuntimeError, TypeError) as error:
        raise InputError(f"the train section does not fit this machine: {' '.join(str(error).split())}") from None
    except Exception as error:
        if type(error).__name__ == "MisconfigurationException":
            raise InputError(f"the train section does not fit this machine: {' '.join(str(error).split())}") from None
        raise


def _finish(
    task: Task, source: Source, splits: Mapping[str, Split], folder: RunFolder, say: Say, *, test: bool = True
) -> Run:
    """Calibrate the trained model on val, evaluate it on test unless not `test`, write it and the report."""
    task.to(_device(task.recipe)).eval()
    evaluated = {}
    for name in [n for n in ("val", "test" if test else "") if n in splits]:
        evaluated[name] = evaluate_split(task.create_evaluator(), splits[name], calibrate=name == "val")
    task.conclude(folder, say)
    split = "test" if "test" in evaluated else "val" if "val" in evaluated else ""
    metrics = evaluated[split].metrics if split else {}
    _save(task, folder, {f"{split}_{k}": v for k, v in metrics.items()})
    history = callbacks.read_rows(folder.metrics)
    report = write_run_report(task, folder, evaluated, history, source, splits["train"])
    for line in _table({name: evaluation.result.lines() for name, evaluation in evaluated.items()}):
        say(line)
    say(f"report: {report}")
    return Run(folder.path, metrics, split, len(history), report, history)


def _table(columns: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Lines of a table, a row for each metric. columns: of each split, metric -> text."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    cells = [["metric", *names], *([split, *(column.get(n, "-") for n in names)] for split, column in columns.items())]
    first, *widths = [max(map(len, column)) for column in cells]
    return [
        "  ".join([f"{name:{first}}", *(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))])
        for name, *texts in (zip(*cells, strict=True) if columns else ())
    ]


def _load_kept(task: Task, folder: RunFolder, trainer: Trainer, say: Say) -> None:
    """The weights that the recipe keeps: of the best epoch, or of the last; the best where the training diverged."""
    known: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    kept = next(part for part in known if isinstance(part, callbacks.Checkpoints))
    if kept.divergence.now and kept.best is not None and folder.best.exists():
        _load_checkpoint(task, folder.best)
        say(f"the training ended diverged: the saved model is that of epoch {kept.best_epoch}, the best one")
    elif task.recipe.train.keep == "best" and folder.model.exists():
        task.model.load_state_dict(read_model(folder.model).state, strict=False)
    else:
        _load_last(task, folder)


def _load_last(task: Task, folder: RunFolder) -> None:
    """The weights after the last epoch."""
    _load_checkpoint(task, folder.last)


def _load_checkpoint(task: Task, path: Path) -> None:
    """The weights of a checkpoint: the moving average where there is one."""
    content = read_checkpoint(path)
    state = {k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")}
    averages = [v["average"] for v in content["callbacks"].values() if isinstance(v, dict) and "average" in v]
    task.model.load_state_dict(averages[0] if averages else state, strict=False)


def _save(
    task: Task, folder: RunFolder, metrics: Mapping[str, float], state: dict[str, torch.Tensor] | None = None
) -> None:
    save_model(folder.model, task.model, task.facts, metrics, state)


def _save_best(task: Task, folder: RunFolder, state: dict[str, torch.Tensor]) -> None:
    """The model of the best epoch so far, as it is used should the training end here."""
    with task.evaluator.previewing() if task.evaluator is not None else nullcontext():
        _save(task, folder, {}, state)


def _device(recipe: Recipe) -> torch.device:
    """Where the finished model is evaluated."""
    return accelerator_device(recipe.train.accelerator, recipe.train.devices)


@contextmanager
def _quiet_lightning():
    """Lightning's hints are for those who write its loops; ours go to `say` in plain words."""
    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            known = r".*(num_workers|worker processes|GPU available|LeafSpec|pin_memory).*"
            warnings.filterwarnings("ignore", message=known)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

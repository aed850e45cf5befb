"""Evaluate a trained model on a split, and write down what was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from opsin import data, registry
from opsin.data import Source, Split
from opsin.engine.checkpoint import Saved, read_model
from opsin.engine.report import Code, Section, Table, curves, environment, profile_section, write_report
from opsin.engine.run import RunFolder
from opsin.engine.task import Task, split_data
from opsin.errors import InputError
from opsin.files import atomic
from opsin.nn.counting import count_macs, count_parameters, describe_second_stage, layer_table, short_count


@dataclass
class Evaluated:
    """A split's metrics and the evaluation behind them."""

    metrics: dict[str, float]
    evaluation: Any
    split: Split
    details: dict[str, Any]


@torch.no_grad()
def evaluate_split(task: Task, split: Split, *, calibrate: bool = False, batch_size: int | None = None) -> Evaluated:
    """Run the model over a split and evaluate it. calibrate: fit the task's calibration on this split first."""
    was_training = task.training
    task.eval()
    evaluator = task.create_evaluator()
    loader = data.create_loader(
        split,
        task.preprocessing,
        batch_size=batch_size or task.recipe.train.batch_size,
        workers=task.recipe.train.workers,
        **task.loader_options(split),
    )
    for batch in loader:
        batch["image"] = batch["image"].to(task.device)
        evaluator.update(task.outputs(task.images(batch), batch), batch)
    if calibrate:
        task.calibrate(evaluator)
    metrics, evaluation = task.evaluate(evaluator)
    task.train(was_training)
    return Evaluated(metrics, evaluation, split, task.details(evaluation))


def evaluate(
    run: str | Path,
    data: str | Path | None = None,
    split: str | None = None,
    *,
    device: str | None = None,
    change: Callable[[Any], nn.Module] | None = None,
) -> dict[str, float]:
    """The metrics of a run's model on a split of its own data, or of another source with the same classes.

    run: a run folder, a model.safetensors or published weights by name ("resnet50:imagenet1k"), which need data and
    know ImageNet's folder names. split: "train", "val" or "test"; None takes test, else val, else all there is.
    change: what to evaluate in the place of the model, such as `opsin.detect.fast_rcnn.truncated_svd` gives. A run on
    its own data, unchanged, gets evaluation_<split>.json with everything that was found.
    """
    saved = read_model(run)
    evaluated, name = _evaluate(saved, data, split, device, change)
    folder = RunFolder(Path(run))
    if folder.path.is_dir() and data is None and change is None:
        report_file = folder.path / f"evaluation_{name}.json"
        with atomic(report_file) as temporary:
            temporary.write_text(
                json.dumps({"split": name, "metrics": evaluated.metrics, **evaluated.details}, indent=1)
            )
    return evaluated.metrics


def _evaluate(
    saved: Saved,
    source_name: str | Path | None,
    split: str | None,
    device: str | None,
    change: Callable[[Any], nn.Module] | None,
) -> tuple[Evaluated, str]:
    section = saved.recipe.data
    if not (source_name or section.source):
        raise InputError("published weights come without data; say on which to evaluate them, with --data")
    source = data.open(source_name or section.source, saved.recipe.task, multi_label=section.multi_label)
    if section.skip_bad:
        source = source.without(data.verify(source))
    splits = split_data(saved.recipe, source) if source_name is None else source.splits
    name = split or next((n for n in ("test", "val", "all") if n in splits), "train")
    if name not in splits:
        raise InputError(f"{source.name} has no split {name!r}; it has {', '.join(splits)}")
    source = registry.find_task(saved.recipe.task).arrange(saved.recipe, replace(source, splits={name: splits[name]}))
    task = restore_task(saved, source, device)
    if change is not None:
        task.model = change(task.model)
    chosen = _with_classes(source.splits[name], data.translate(source.classes, saved.classes), saved.classes)
    return evaluate_split(task, chosen), name


def _with_classes(split: Split, own: list[str], trained: list[str]) -> Split:
    """The split with its labels in the model's order. Raises InputError for a class that the model never saw."""
    if own == trained:
        return split
    missing = [name for name in own if name not in trained]
    if missing:
        raise InputError(
            f"the model does not know the classes {', '.join(missing[:5])}; it was trained on {', '.join(trained[:10])}"
        )
    return split.relabel(torch.tensor([trained.index(name) for name in own]).numpy(), len(trained))


def restore_task(saved: Saved, source: Source, device: str | None) -> Task:
    """The task of a saved model, ready to evaluate."""
    task_class = registry.find_task(saved.recipe.task)
    task: Task = task_class(saved.build(), saved.recipe, saved.preprocessing, saved.classes)
    return task.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def write_run_report(
    task: Task,
    folder: RunFolder,
    evaluated: Mapping[str, Evaluated],
    history: list[dict[str, float]],
    source: Source,
    training: Split | None = None,
) -> Path:
    """report.html of a run: curves, evaluation, mistakes, profile, recipe, environment. training: the split it saw."""
    recipe = task.recipe
    split = "test" if "test" in evaluated else next(iter(evaluated), None)
    sections: list[Section] = []
    headline: dict[str, str] = {}
    if split is not None:
        metrics = evaluated[split].metrics
        headline = {f"{split} {k.replace('_', ' ')}": _format(k, v) for k, v in list(metrics.items())[:4]}
        rows = [[k, *(_format(k, j.metrics.get(k)) for j in evaluated.values())] for k in metrics]
        sections.append(Table("Metrics", ["metric", *evaluated], rows))
        sections += task.sections(evaluated[split].evaluation, evaluated[split].split)
    if training is not None:
        sections += task.inspections(training)
    sections[1:1] = curves(history, *task.monitored)
    size = (task.preprocessing.channels, *task.preprocessing.size)
    layers = layer_table(task.model, size)
    totals = {"parameters": count_parameters(task.model), "macs": count_macs(task.model, size)}
    headline |= {"parameters": short_count(totals["parameters"]), "multiply-adds": short_count(totals["macs"])}
    sections.append(profile_section(layers, totals, counted_on=describe_second_stage(task.model)))
    sections.append(Code("Recipe", recipe.to_yaml()))
    sections.append(Table("Environment", ["what", "version"], [[k, v] for k, v in environment().items()]))
    return write_report(folder.report, f"{recipe.model.name} on {source.name}", headline, sections)


def _format(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if name.startswith(("loss", "nll")) else f"{100 * value:.2f} %"

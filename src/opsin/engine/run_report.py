"""The report of a run: curves, evaluation, mistakes, profile, recipe, environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from opsin import rooms
from opsin.data import Source, Split
from opsin.engine.evaluator import Evaluated
from opsin.engine.learning_rate import read_learning_rates
from opsin.engine.report import Code, Section, Table, curves, environment, profile_section, write_report
from opsin.engine.run import RunFolder
from opsin.engine.task import Task
from opsin.nn.capabilities import names_input
from opsin.nn.counting import count_macs, count_parameters, describe_second_stage, layer_table, short_count
from opsin.objects import short_name


def write_run_report(
    task: Task,
    folder: RunFolder,
    evaluated: Mapping[str, Evaluated],
    history: list[dict[str, float]],
    source: Source,
    training: Split | None = None,
) -> Path:
    """report.html of a run. training: the split it saw."""
    recipe, room = task.recipe, rooms.evaluating_room(task.room)
    split = "test" if "test" in evaluated else next(iter(evaluated), None)
    sections: list[Section] = []
    headline: dict[str, str] = {}
    if split is not None:
        metrics = evaluated[split].metrics
        headline = {f"{split} {k.replace('_', ' ')}": room.format(k, v) for k, v in list(metrics.items())[:4]}
        rows = [[k, *(room.format(k, e.metrics.get(k)) for e in evaluated.values())] for k in metrics]
        sections.append(Table("Metrics", ["metric", *evaluated], rows))
        sections += task.create_evaluator().sections(evaluated[split].result, evaluated[split].split)
    if training is not None:
        sections += task.inspections(training)
    tested = read_learning_rates(folder)
    sections[1:1] = [*curves(history, *task.monitored), *([] if tested is None else [tested.figure()])]
    prepared = task.preprocessing
    size = None if prepared is None else (prepared.channels, *prepared.size)
    headline["parameters"] = short_count(parameters := count_parameters(task.model))
    if size is not None or names_input(task.model):  # else there is nothing to count it with
        totals = {"parameters": parameters, "macs": count_macs(task.model, size)}
        headline["multiply-adds"] = short_count(totals["macs"])
        layers = layer_table(task.model, size)
        sections.append(profile_section(layers, totals, counted_on=describe_second_stage(task.model)))
    sections.append(Code("Recipe", recipe.to_yaml()))
    sections.append(Table("Environment", ["what", "version"], [[k, v] for k, v in environment().items()]))
    return write_report(folder.report, f"{short_name(recipe.model.name)} on {source.name}", headline, sections)

"""The page of a comparison: what differs by how much, the curves of every training, and how it was compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from matplotlib.ticker import MaxNLocator

from opsin.engine import charts
from opsin.engine.comparison import Comparison, Found, measured_names
from opsin.engine.intervals import mean_interval
from opsin.engine.report import Code, Figure, Section, Table, Text, environment, write_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_COLOURS = {"better": charts.GREEN, "worse": charts.ORANGE}


def write_comparison_report(found: Comparison) -> Path:
    """report.html of a comparison, into its folder."""
    reference = found.reference
    headline = {f"{reference.name}: {found.split} {found.metric}": found.format_mean(reference.mean)}
    headline |= {"trainings": str(sum(len(side.trainings) for side in found.sides)), "seeds": str(len(found.seeds))}
    sections: list[Section] = [Text("In short", found.summary()), _differences(found)]
    if any(side.values for side in found.others()):
        caption = (
            f"The difference in {found.split} {found.metric} to {reference.name}. A point a seed; the bar is the "
            f"mean's interval of {100 * found.level:g} %: one that meets zero shows no difference."
        )
        sections.append(Figure("Differences", _forest(found), caption, wide=True))
    sections += _curves(found)
    sections += [_all_metrics(found), _trainings(found), Text("How it was compared", _method(found))]
    for name, recipe in found.settings.get("recipes", {}).items():
        values = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, width=120)
        sections.append(Code(f"The recipe {name}", values))
    if overrides := found.settings.get("overrides"):
        sections.append(Code("Set for all sides", "\n".join(f"{key}: {value}" for key, value in overrides.items())))
    sections.append(Table("Environment", ["what", "version"], [[k, v] for k, v in environment().items()]))
    words = {"ablation": f"Ablation of {reference.name}", "race": "Race"}
    title = words.get(found.kind, found.kind)
    if found.kind == "race":
        title += f" of {', '.join(side.name for side in found.sides)}"
    return write_report(found.path / "report.html", title, headline, sections)


def _differences(found: Comparison) -> Table:
    rows: list[list[Any]] = []
    for side in [found.reference, *found.others()]:
        is_reference = side is found.reference
        rows.append(
            [
                side.name,
                found.format_mean(side.mean),
                None if is_reference else found.format_difference(found.difference(side)),
                "the reference" if is_reference else found.verdict(side),
                len(side.values),
                f"{side.seconds:.0f} s",
            ]
        )
    columns = ["side", f"{found.split} {found.metric}", "difference", "verdict", "seeds", "a training"]
    return Table("What differs", columns, rows)


def _forest(found: Comparison) -> bytes:
    sides = [side for side in found.others() if found.difference(side) is not None]
    metric = found.room.metric(found.metric)
    scale = metric.scale if metric else 1.0

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for place, side in enumerate(reversed(sides)):
            interval = found.difference(side)
            assert interval is not None
            colour = _COLOURS.get(found.verdict(side), charts.MUTED)
            if interval.half is not None:
                ends = [scale * interval.low, scale * interval.high]
                axes.plot(ends, [place, place], color=colour, linewidth=2.4)
            points = [
                scale * (one.value - two.value)
                for one, two in zip(side.trainings, found.reference.trainings, strict=False)
                if one.value is not None and two.value is not None
            ]
            axes.plot(points, [place] * len(points), "o", color=colour, markersize=3.5, alpha=0.55)
            axes.plot([scale * interval.mean], [place], "D", color=colour, markersize=6)
        axes.axvline(0, color=charts.INK, linewidth=1)
        axes.set_yticks(range(len(sides)), [_short(side.name) for side in reversed(sides)])
        axes.set_ylim(-0.6, len(sides) - 0.4)
        unit = f" ({metric.unit} points)" if metric and metric.unit == "%" else ""
        way = "higher is better" if found.mode == "max" else "lower is better"
        axes.set_xlabel(f"difference in {found.metric}{unit}; {way}")
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)

    return charts.svg(draw, 9.0, 1.1 + 0.34 * max(len(sides), 2))


def _short(name: str, most: int = 52) -> str:
    return name if len(name) <= most else f"{name[: most - 3]}..."


def _curves(found: Comparison) -> list[Section]:
    """The compared metric by epoch: each other side with the reference, and the training loss likewise."""
    made: list[Section] = []
    metric = found.room.metric(found.metric)
    percent = metric is not None and metric.unit == "%"
    others = [side for side in found.others() if side.values]
    for column, title, shown in ((f"val_{found.metric}", f"validation {found.metric}", percent),
                                 ("train_loss", "training loss", False)):  # fmt: skip
        groups = [[found.reference, *others]] if len(others) < len(charts.LINES) else [
            [found.reference, side] for side in others
        ]  # fmt: skip
        for group in groups:
            series = {side.name: curves for side in group if (curves := _rows(side, column))}
            if len(series) < 2:
                continue
            name = title.capitalize().replace("_", " ")
            name += "" if len(groups) == 1 else f": {_short(group[1].name)}"
            caption = "Thin lines are seeds, the thick line their mean."
            made.append(Figure(name, _draw_curves(series, percent=shown), caption))
    return made


def _rows(side: Found, column: str) -> list[tuple[list[float], list[float]]]:
    """(epochs, values) of each training that has such a column."""
    found = []
    for one in side.trainings:
        points = [(row["epoch"], row[column]) for row in one.history if math.isfinite(row.get(column, math.nan))]
        if points:
            found.append(([x for x, _ in points], [y for _, y in points]))
    return found


def _draw_curves(series: Mapping[str, Sequence[tuple[list[float], list[float]]]], *, percent: bool) -> bytes:
    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for colour, (name, curves) in zip(charts.LINES, series.items(), strict=False):
            for x, y in curves if len(curves) > 1 else ():
                axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.35)
            _mean_line(axes, curves, colour, _short(name, 30))
        if percent:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        canvas.legend(loc="outside upper left", ncols=2, handlelength=1.2, columnspacing=1.4)

    return charts.svg(draw)


def _mean_line(axes: Axes, curves: Sequence[tuple[list[float], list[float]]], colour: str, name: str) -> None:
    """The mean over seeds of the epochs that all of them have."""
    held = [dict(zip(x, y, strict=True)) for x, y in curves]
    epochs = sorted(set.intersection(*(set(one) for one in held)))
    means = [sum(one[epoch] for one in held) / len(held) for epoch in epochs]
    marker = "o" if len(epochs) <= 2 else None
    axes.plot(epochs, means, color=colour, label=name, marker=marker, markersize=3.5)


def _all_metrics(found: Comparison) -> Table:
    names = measured_names(found.sides)[:12]
    rows: list[list[Any]] = []
    for side in found.sides:
        cells: list[Any] = [side.name]
        for name in names:
            values = [one.metrics[name] for one in side.trainings if name in one.metrics]
            cells.append(found.room.format(name, mean_interval(values).mean) if values else None)
        rows.append(cells)
    return Table("All metrics", ["side", *names], rows, f"Means over the seeds, on {found.split}.")


def _trainings(found: Comparison) -> Table:
    rows: list[list[Any]] = []
    for side in found.sides:
        for seed, one in zip(found.seeds, side.trainings, strict=False):
            state = f"failed: {one.error}" if one.error else "from the cache" if one.cached else "trained"
            rows.append([side.name, str(seed), found.format(one.value), len(one.history), f"{one.seconds:.0f} s", state,
                         one.path.name])  # fmt: skip
    columns = ["side", "seed", f"{found.split} {found.metric}", "epochs", "time", "state", "folder"]
    note = "Each training is a run of its own, in the folder of the trainings, with its own report."
    return Table("Trainings", columns, rows, note)


def _method(found: Comparison) -> str:
    level = f"{100 * found.level:g} %"
    text = f"All sides were trained with the same seeds on the same split, and evaluated on {found.split}. "
    text += f"A difference is the mean over seeds of the difference to {found.reference.name} with the same seed; its "
    text += f"interval is Student's, of {level}. Where it holds zero, these trainings show no difference.\n\n"
    count = len(found.others())
    if count > 1:
        expected = count * (1 - found.level)
        text += (
            f"Of {count} sides that make no difference at all, about {expected:.2g} would seem to make one by chance. "
        )
    text += "The intervals speak of other seeds, not of other images: all seeds meet the same ones."
    if found.settings.get("budget") is not None:
        if found.kind == "race":
            text += f"\n\nEach training was given {found.settings['budget']:.0f} s, by steps that were timed before."
        else:
            text += f"\n\nNo training was to take over {found.settings['budget']:.0f} s; all have the same epochs."
    if found.split == "val":
        text += (
            "\n\nThe best epoch is chosen on the same split where the recipe keeps the best, on all sides alike, which "
        )
        text += "makes each value a little too good. The test split decided nothing."
    return text

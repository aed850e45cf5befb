"""The report of a search: every trial, how the best value came down, and what each setting had to do with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from opsin.engine import charts
from opsin.engine.report import Code, Figure, Section, Table, Text, environment, write_report
from opsin.engine.search import Search, Trial, quiet_optuna, short
from opsin.engine.search_space import Between, Range

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_ENOUGH = 8  # finished trials, below which the importance of a setting is chance


def write_tune_report(search: Search, test: Mapping[str, float]) -> Path:
    """report.html of a search. test: the metrics of the best trial's model on the test split."""
    trials = search.ranked()
    scored = [trial for trial in search.trials() if trial.value is not None]
    best = search.best()
    words = search.monitor.replace("val_", "validation ").replace("_", " ")
    headline = {f"best {words}": search.format(best.value if best else None)}
    headline |= {f"test {k.replace('_', ' ')}": search.room.format(k, v) for k, v in list(test.items())[:2]}
    headline["trials"] = str(sum(trial.state != "interrupted" for trial in trials))
    sections: list[Section] = [_table(search, trials)]
    if len(scored) > 1:
        sections.append(
            Figure("History", _history(search, scored), "A point a trial; the line is the best until then.")
        )
        for key, one in search.settings.ranges.items():
            sections.append(Figure(key, _scatter(search, key, one, scored)))
        if len(search.settings.ranges) > 1:
            caption = "A line a trial; the better, the stronger. Logarithmic where the range was."
            sections.append(Figure("All settings at once", _parallel(search, scored), caption, wide=True))
    if importance := find_importance(search):
        note = "The share of the differences between trials that each setting explains (PED-ANOVA)."
        sections.append(Table("Importance", ["setting", "share"], list(importance.items()), note, bars=("share",)))
    sections.append(Text("How it was compared", _method(search)))
    if best is not None:
        sections.append(Code("The best recipe", (search.path / "best.yaml").read_text(encoding="utf-8")))
    sections.append(Table("Environment", ["what", "version"], [[k, v] for k, v in environment().items()]))
    title = f"Tuning {search.settings.first.model.name} on {Path(search.settings.first.data.source).name}"
    return write_report(search.path / "report.html", title, headline, sections)


def find_importance(search: Search) -> dict[str, float]:
    """The share of each setting in the differences between finished trials, the largest first; none for too few."""
    finished = [trial for trial in search.trials() if trial.state == "complete"]
    if len(finished) < _ENOUGH or len({trial.value for trial in finished}) < 2 or len(search.settings.ranges) < 2:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with quiet_optuna():
        return get_param_importances(search.study, evaluator=PedAnovaImportanceEvaluator())


def _method(search: Search) -> str:
    better = "highest" if search.mode == "max" else "lowest"
    epoch = "of each trial's saved model, that of its best epoch unless the recipe keeps the last,"
    text = f"Trials are compared by {search.monitor} {epoch} and the {better} is the best. All see the same validation "
    text += (
        "images, on which the best of many is a little too good by chance. The test split decided nothing: the best "
    )
    text += "trial's model alone was evaluated on it, at the end."
    if search.settings.prune:
        text += "\n\nA pruned trial was ended early, because it was worse than the median of the others at that epoch."
    return text


def _table(search: Search, trials: Sequence[Trial]) -> Table:
    keys = list(search.settings.ranges)
    rows = [
        [
            trial.name,
            search.format(trial.value),
            *(short(trial.params[key]) if key in trial.params else None for key in keys),
            trial.epochs,
            f"{trial.seconds:.0f} s",
            f"{trial.state}: {trial.error}" if trial.error else trial.state,
        ]
        for trial in trials
    ]
    note = "The best first. Each trial is a run of its own, in the folder of that name, with its own report."
    return Table("Trials", ["trial", search.monitor, *keys, "epochs", "time", "state"], rows, note)


def _history(search: Search, trials: Sequence[Trial]) -> bytes:
    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        best, line, choose = None, [], max if search.mode == "max" else min
        for trial in trials:
            if trial.state == "complete" and trial.value is not None:
                best = trial.value if best is None else choose(best, trial.value)
            line.append(math.nan if best is None else best)
        places = [int(trial.name.rpartition("_")[2]) for trial in trials]
        axes.step(places, line, where="post", color=charts.BLUE)
        _points(axes, search, places, trials)
        axes.set_xlabel("trial")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        canvas.legend(loc="outside upper left", ncols=3, handlelength=1.2)

    return charts.svg(draw)


def _scatter(search: Search, key: str, one: Range, trials: Sequence[Trial]) -> bytes:
    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        known = [trial for trial in trials if key in trial.params]
        if isinstance(one, Between):
            _points(axes, search, [float(trial.params[key]) for trial in known], known)
            if one.log:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
                axes.xaxis.set_minor_formatter(lambda value, _: "")
        else:
            names = [short(value) for value in one.values]
            _points(axes, search, [names.index(short(trial.params[key])) for trial in known], known)
            axes.set_xticks(range(len(names)), names)
            axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_xlabel(key)

    return charts.svg(draw)


def _points(axes: Axes, search: Search, places: Sequence[float], trials: Sequence[Trial]) -> None:
    for state, colour in (("complete", charts.BLUE), ("pruned", charts.MUTED)):
        chosen = [(x, trial.value) for x, trial in zip(places, trials, strict=True) if trial.state == state]
        if chosen:
            x, y = zip(*chosen, strict=True)
            axes.plot(x, y, "o", color=colour, label=state, markersize=5, alpha=0.85)
    axes.set_ylabel(search.monitor)
    metric = search.room.metric(search.monitor)
    if metric is not None and metric.unit == "%":
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")


def _parallel(search: Search, trials: Sequence[Trial]) -> bytes:
    """A vertical axis a setting and one for the value; each trial a line through them."""
    ranges = search.settings.ranges
    known = [trial for trial in trials if set(ranges) <= set(trial.params)]
    values = [trial.value for trial in known if trial.value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for trial in sorted(known, key=lambda one: one.value or 0, reverse=search.mode == "min"):
            share = ((trial.value or 0) - low) / ((high - low) or 1)
            strength = share if search.mode == "max" else 1 - share
            heights = [*(_height(one, trial.params[key]) for key, one in ranges.items()), share]
            colour = charts.ORANGE if strength == 1 else charts.BLUE
            axes.plot(range(len(heights)), heights, color=colour, alpha=0.15 + 0.85 * strength, linewidth=1.6)
        for place, one in enumerate(ranges.values()):
            axes.axvline(place, color=charts.GRID, linewidth=1)
            for height, label in _marks(one):
                axes.annotate(label, (place, height), (4, 0), "data", "offset points", fontsize=8, color=charts.MUTED)
        axes.axvline(len(ranges), color=charts.GRID, linewidth=1)
        for height, value in ((0, low), (1, high)):
            text, place = search.format(value), (len(ranges), height)
            axes.annotate(text, place, (4, 0), "data", "offset points", fontsize=8, color=charts.MUTED)
        axes.set_xticks(range(len(ranges) + 1), [*ranges, search.monitor])
        axes.set_yticks([])
        axes.set_xlim(-0.1, len(ranges) + 0.35)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    return charts.svg(draw, 9.0, 3.6)


def _height(one: Range, value: Any) -> float:
    """Where a value stands between the ends of its range, 0 to 1."""
    if not isinstance(one, Between):
        return [short(choice) for choice in one.values].index(short(value)) / (len(one.values) - 1)
    if one.log:
        return math.log(value / one.low) / math.log(one.high / one.low)
    return (value - one.low) / (one.high - one.low)


def _marks(one: Range) -> list[tuple[float, str]]:
    values = (one.low, one.high) if isinstance(one, Between) else one.values
    return [(_height(one, value), short(value)) for value in values]

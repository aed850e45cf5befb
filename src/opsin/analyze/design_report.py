"""The page of a design: distributions of errors, the widths of the best networks and their lines, and the trends."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import yaml

from opsin.analyze.design_results import Design, describe_difference
from opsin.analyze.design_space import error_distribution
from opsin.engine import charts
from opsin.engine.report import Code, Figure, Section, Table, Text, environment, write_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

# What the paper reports of the best networks, for the table beside what was found here.
PAPER = {
    "depth": "about 20 blocks, at any size (figure 11)",
    "bottleneck ratio": "1, no bottleneck (figure 11)",
    "group width": "grows with the size (figure 11)",
    "width multiplier": "about 2.5, not 2 (figure 11)",
}
_SHOWN = 5  # of the best networks' widths


def write_design_report(found: Design) -> Path:
    """report.html of a design, into its folder."""
    spaces = found.settings.spaces
    headline = {f"{space}: least error": f"{100 * min(found.errors(space), default=1.0):.2f} %" for space in spaces}
    headline["networks"] = str(sum(one.error is not None for one in found.networks))
    distribution = (
        "The share of networks with an error up to each: the further to the left and up, the better the space."
    )
    sections: list[Section] = [_spaces(found), Figure("Distributions of errors", _distributions(found), distribution)]
    fitted = "How far the widths are from the nearest quantised line, e_fit, against the error. Section 3.3."
    sections += [
        Figure("Fit of a line", _fits(found), fitted),
        *(
            Figure(f"Widths of the best of {space}", _widths(found, space), _WIDTHS)
            for space in spaces
            if found.of(space)
        ),
        _trends(found),
    ]
    for what in ("depth", "bottleneck ratio", "width multiplier"):
        if any(what in one.numbers() for one in found.networks if one.error is not None):
            sections.append(Figure(what.capitalize(), _scatter(found, what)))
    sections.append(_predictors(found))
    for cost in ("activations", "macs"):
        caption = "Over all networks of all spaces; a forward pass of 16 images on this machine, the least of three."
        sections.append(Figure(f"Seconds by {cost}", _times(found, cost), caption))
    sections += [_networks(found), Text("How it was done", _method(found))]
    values = yaml.safe_dump(found.settings.values(), sort_keys=False, allow_unicode=True, width=120)
    sections.append(Code("The recipe of all", values))
    sections.append(Table("Environment", ["what", "version"], [[k, v] for k, v in environment().items()]))
    return write_report(found.path / "report.html", f"Design spaces: {', '.join(spaces)}", headline, sections)


_AXES = {"depth": "blocks", "bottleneck ratio": "bottleneck ratio, mean over blocks", "width multiplier": "w_m"}
_WIDTHS = "Widths of the blocks, and dashed the nearest quantised line; the best networks first."


def _spaces(found: Design) -> Table:
    rows: list[list[Any]] = []
    for place, space in enumerate(found.settings.spaces):
        wrong = found.errors(space)
        shown = [f"{100 * v:.2f} %" for v in (wrong[0], median(wrong), wrong[-1])] if wrong else ["-"] * 3
        fits = [one.fit.error for one in found.of(space)]
        mean_fit = sum(fits) / len(fits) if fits else None
        rows.append([space, len(wrong), *shown, describe_difference(found.difference(space), place == 0), mean_fit])
    columns = ["space", "networks", "least error", "median", "largest", "mean error to the first", "mean e_fit"]
    note = "A difference is of the means, with Welch's interval of 95 %; one that holds zero is no difference."
    return Table("Spaces", columns, rows, note)


def _colours(found: Design) -> dict[str, str]:
    return dict(zip(found.settings.spaces, charts.LINES * 2, strict=False))


def _distributions(found: Design) -> bytes:
    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for space, colour in _colours(found).items():
            if wrong := found.errors(space):
                x, y = error_distribution(wrong)
                axes.step(
                    [100 * x[0], *(100 * x)], [0, *y], where="post", color=colour, label=f"{space} ({len(wrong)})"
                )
        axes.set_xlabel("error, %")
        axes.set_ylabel("share of networks")
        canvas.legend(loc="outside upper left", ncols=3, handlelength=1.2)

    return charts.svg(draw)


def _fits(found: Design) -> bytes:
    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for space, colour in _colours(found).items():
            best = found.of(space)
            x, y = [one.fit.error for one in best], [100 * (one.error or 0) for one in best]
            axes.plot(x, y, "o", color=colour, label=space, markersize=4, alpha=0.8)
        axes.set_xlabel("e_fit")
        axes.set_ylabel("error, %")
        canvas.legend(loc="outside upper left", ncols=3, handlelength=1.2)

    return charts.svg(draw)


def _widths(found: Design, space: str) -> bytes:
    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for colour, one in zip(charts.LINES, found.of(space)[:_SHOWN], strict=False):
            stages = one.sample.stages
            own = [width for width, depth in zip(stages.widths, stages.depths, strict=True) for _ in range(depth)]
            blocks = range(1, len(own) + 1)
            axes.step(blocks, own, where="mid", color=colour, label=f"{100 * (one.error or 0):.2f} %")
            dashed = {"linewidth": 1, "linestyle": (0, (3, 3))}
            axes.step(blocks, one.fit.widths(len(own)), where="mid", color=colour, **dashed)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("block")
        axes.set_ylabel("width")
        canvas.legend(loc="outside upper left", ncols=5, handlelength=1.0, columnspacing=1.0)

    return charts.svg(draw)


def _trends(found: Design) -> Table:
    rows: list[list[Any]] = []
    for space in found.settings.spaces:
        for name, best in found.trends(space).items():
            span = f"{best.low:.3g} to {best.high:.3g}"
            rows.append([space, name, f"{best.median:.3g}", span, PAPER[name]])
    note = (
        "Which value the best networks have, by the paper's bootstrap: of a quarter of the networks, drawn 10,000 "
        "times, the value of the best one; median, and the middle 95 %. The width multiplier of AnyNets is that of the "
        "nearest line, where that rises."
    )
    return Table("Trends", ["space", "number", "best value", "95 %", "the paper, of RegNetX on ImageNet"], rows, note)


def _scatter(found: Design, what: str) -> bytes:
    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for space, colour in _colours(found).items():
            known = [(one.numbers()[what], 100 * (one.error or 0)) for one in found.of(space) if what in one.numbers()]
            x, y = [value for value, _ in known], [error for _, error in known]
            axes.plot(x, y, "o", color=colour, label=space, markersize=4, alpha=0.8)
        axes.set_xlabel(_AXES.get(what, what))
        axes.set_ylabel("error, %")
        canvas.legend(loc="outside upper left", ncols=3, handlelength=1.2)

    return charts.svg(draw)


def _predictors(found: Design) -> Table:
    rows = [[name, None if r is None else f"{r:+.2f}"] for name, r in found.predictors().items()]
    note = (
        "Pearson's correlation with the seconds of a forward pass. The paper finds that activations, the outputs of "
        "all convolutions, go along with the time on accelerators better than multiply-adds do (figure 12). Where all "
        "networks have nearly the same multiply-adds, these can say little."
    )
    return Table("What predicts the time", ["cost", "r"], rows, note)


def _times(found: Design, cost: str) -> bytes:
    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for space, colour in _colours(found).items():
            timed = [one for one in found.networks if one.sample.space == space and one.seconds is not None]
            x = [getattr(one.cost, cost) / 1e6 for one in timed]
            axes.plot(x, [1000 * (one.seconds or 0) for one in timed], "o", color=colour, label=space, markersize=4)
        axes.set_xlabel(f"{cost}, millions")
        axes.set_ylabel("ms")

    return charts.svg(draw)


def _networks(found: Design) -> Table:
    rows: list[list[Any]] = []
    for space in found.settings.spaces:
        for one in [*found.of(space), *(o for o in found.networks if o.sample.space == space and o.error is None)]:
            stages = one.sample.stages
            lists = [" ".join(f"{value:g}" for value in values) for values in
                     (stages.depths, stages.widths, stages.bottleneck_ratios, stages.group_widths)]  # fmt: skip
            error = f"failed: {one.trained.error}" if one.error is None else f"{100 * one.error:.2f} %"
            costs = [one.cost.macs, one.cost.params, one.cost.activations]
            rows.append([space, error, *lists, *costs, one.fit.error, one.trained.path.name])
    columns = ["space", "error", "depths", "widths", "ratios", "groups", "multiply-adds", "parameters", "activations"]
    return Table("Networks", [*columns, "e_fit", "folder"], rows, "The best of each space first.")


def _method(found: Design) -> str:
    settings = found.settings
    text = (
        f"{settings.samples} networks of each space with {' and '.join(settings.limits)}, of {settings.block} blocks, "
    )
    text += f"were trained for {settings.epochs} epochs each by one recipe, and evaluated on validation. "
    text += f"The error is 1 less {found.metric}. The test split decided nothing.\n\n"
    text += (
        "Short trainings of small networks say which space is better for such; what holds on ImageNet is in the paper."
    )
    return text

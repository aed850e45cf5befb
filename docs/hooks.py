"""Parts of pages, and plots, made from the package itself when the site is built: they cannot be out of date."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diagrams
from opsin import rooms
from opsin.cli.command import VERBS

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from torch import Tensor

    Curve = Callable[[Tensor], Tensor]  # (N,) -> (N,), each number by itself

RECIPES = Path(__file__).parents[1] / "src" / "opsin" / "recipes"
TASKS = Path(__file__).parents[1] / "tests" / "rooms"  # tasks outside the package, which the tests run


_DIAGRAM = re.compile(r"^```diagram[ \t]*(.*)\n((?:.*\n)*?)```[ \t]*$", re.MULTILINE)
_FAMILY = re.compile(r"<!-- models (\w+) -->")
_FILE = re.compile(r"<!-- file (\S+)(?: (\w+))? -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page: fills in the marked places, and draws the diagrams."""
    for marker, write in PARTS.items():
        if marker in markdown:
            markdown = markdown.replace(marker, "\n".join(write()))
    markdown = _FAMILY.sub(lambda found: "\n".join(family(found[1])), markdown)
    markdown = _FILE.sub(lambda found: "\n".join(file(found[1], found[2])), markdown)
    return _DIAGRAM.sub(lambda found: diagrams.draw(found[2], found[1].strip()), markdown)


def recipes() -> Iterator[str]:
    """Every shipped recipe: what its header says, and the recipe itself."""
    for path in sorted(RECIPES.glob("*/*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
        yield f"## {path.stem}\n"
        yield from header_to_markdown(lines[:end])
        yield f'\n??? note "The recipe"\n\n    ```yaml title="{path.relative_to(RECIPES.parent)}"'
        yield from (f"    {line}" for line in lines[end:])
        yield "    ```\n"


def header_to_markdown(comments: list[str]) -> Iterator[str]:
    """Comment lines as Markdown: what is indented is shown as code."""
    code = False
    for comment in comments:
        line = comment.removeprefix("#").removeprefix(" ")
        if line.startswith("  ") != code and line:
            code = not code
            yield "\n```sh" if code else "```\n"
        yield line.strip() if code else line
    if code:
        yield "```"


def models() -> Iterator[str]:
    """A table of every registered model."""
    yield "| name | parameters | multiply-adds | input | year | paper { .words } | idea { .words } | weights |"
    yield "|---|--:|--:|---|---|---|---|---|"
    for model in _models():
        paper = re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", model["paper"] or "")
        cells = [*_counts(model), str(model["year"] or ""), paper, model["idea"], _weights(model)]
        yield f"| {' | '.join(cells)} |"


def family(name: str) -> Iterator[str]:
    """A table of the models of one file of `opsin.backbones`, with what was published of each."""
    rows = [model for model in _models() if model["family"] == name]
    if not rows:
        raise ValueError(f"<!-- models {name} -->: no model of that family is registered")
    yield "| name | parameters | multiply-adds | input | published results | weights |"
    yield "|---|--:|--:|---|---|---|"
    for model in sorted(rows, key=lambda model: (-(model["input"] or (0, 0))[1], model["params"])):
        results = ", ".join(f"{metric} {value:g} %" for metric, value in model["metrics"].items())
        yield f"| {' | '.join([*_counts(model), results, _weights(model)])} |"


def file(place: str, name: str | None = None) -> Iterator[str]:
    """A Python file that the tests run, or what it defines under a name, as a block of code."""
    lines = (TASKS / place).read_text(encoding="utf-8").splitlines()
    if name is not None:
        nodes: list[Any] = ast.parse("\n".join(lines)).body
        named = [node for node in nodes if name in (getattr(node, "name", ""), *_targets(node))]
        if not named:
            raise ValueError(f"<!-- file {place} {name} -->: {place} defines no {name}")
        decorated: list[Any] = getattr(named[0], "decorator_list", [])
        lines = lines[min(node.lineno for node in (named[0], *decorated)) - 1 : named[0].end_lineno]
    yield from (f'```python title="{place}"', *lines, "```")


def _targets(node: Any) -> list[str]:
    return [getattr(target, "id", "") for target in getattr(node, "targets", ())]


@cache
def _models() -> list[dict[str, Any]]:
    return json.loads(opsin("models", "--json"))


def _counts(model: Mapping[str, Any]) -> list[str]:
    macs = f"{model['macs']:,}" if model["macs"] else ""
    params = f"{model['params']:,}" if model["params"] else ""
    return [f"`{model['name']}`", params, macs, "x".join(map(str, model["input"] or ()))]


def _weights(model: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in model["weights"])


def commands() -> Iterator[str]:
    """The help of every command."""
    yield f"```text\n{opsin('--help')}\n```\n"
    for name in [*VERBS, *(name for room in rooms.built_in_rooms() for name in room.commands)]:
        yield f"## opsin {name}\n\n```text\n{opsin(name, '--help')}\n```\n"
        yield from _options_of_tasks(name)


def _options_of_tasks(verb: str) -> Iterator[str]:
    """What each task adds to a verb, as a table."""
    for room in rooms.built_in_rooms():
        if room.options.get(verb):
            yield f"For the task `{room.task}` it takes these too:\n\n| option | meaning |\n|---|---|"
            for option in room.options[verb]:
                value = f" {option.metavar or option.type.__name__.upper()}" if option.type is not bool else ""
                yield f"| `{option.flag}{value}` | {option.help.replace('|', chr(92) + '|')} |"
            yield ""


def opsin(*arguments: str) -> str:
    """What a command prints, as on a terminal of 100 columns without colours."""
    code = "import sys; sys.argv[0] = 'opsin'; from opsin.cli import main; main()"
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return "\n".join(line.rstrip() for line in result.stdout.strip("\n").splitlines())


def recipe_keys() -> Iterator[str]:
    """Every key of a recipe, a table a section."""
    from opsin.engine.recipe_keys import list_parts

    for part in list_parts():
        named = f"`{part.name}`"
        meaning = " ".join(part.meaning.split())
        yield f"\n## {part.name or 'Outside of the sections'}\n\n{meaning}"
        if part.open:
            yield f"\nEvery other key of {named} is an option of what its `name` names, and is checked by that."
        yield "\n| key | type | default | meaning |\n|---|---|---|---|"
        for key in part.keys:
            default = "required" if key.required else f"`{key.default_text}`"
            default = "see below" if isinstance(key.default, dict) else default
            yield f"| `{key.key}` | {_cell(key.type)} | {default} | {_cell(key.meaning)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# What to choose between: need -> a model and the weights whose figures stand beside it.
CLASSIFIERS = {
    "a first try on photographs": "resnet18:imagenet1k",
    "the standard, with most published comparisons": "resnet50:imagenet1k_v2",
    "little memory, fast on a processor": "regnety_400mf:imagenet1k_v2",
    "the fastest on a processor ([measured](inference.md))": "shufflenet_v2_x1_0:imagenet1k",
    "mobile devices": "mobilenet_v3_small:imagenet1k",
    "mobile devices, more accurate": "mobilenet_v3_large:imagenet1k_v2",
    "accuracy at moderate cost": "efficientnet_b4:imagenet1k",
    "the best accuracy here, at any cost": "tf_efficientnet_b7:imagenet1k_noisy_student",
}
SMALL = {"images up to 64 pixels, from scratch": "resnet20", "digits, letters, icons": "lenet5"}
DETECTORS = {
    "the most accurate": ("faster_rcnn_bccd", "faster_rcnn"),
    "in one stage": ("yolov4_bccd", "yolov4"),
    "in one stage, widely exported": ("yolov3_bccd", "yolov3"),
    "mobile devices and processors": ("ssd_bccd", "ssd"),
    "small, of few operations": ("efficientdet_bccd", "efficientdet"),
    "many objects, dense": ("retinanet_bccd", "retinanet"),
}


def classifiers() -> Iterator[str]:
    """Models by need, with what is registered of them."""
    from opsin import registry

    yield "| for | model and weights | parameters | multiply-adds | input | ImageNet top-1 |\n|---|---|--:|--:|---|--:|"
    for need, name in (CLASSIFIERS | SMALL).items():
        model, _, weights = name.partition(":")
        facts = registry.find_model(model).to_dict()
        result = f"{facts['weights'][weights]['metrics']['imagenet1k top-1']:.1f} %" if weights else ""
        size = facts["weights"][weights]["preprocessing"]["size"] if weights else facts["input"][1:]
        macs = f"{facts['macs'] / 1e6:,.0f} M" if facts["macs"] else ""
        sides = "x".join(map(str, size))
        yield f"| {need} | `{name}` | {facts['params'] / 1e6:.1f} M | {macs} | {sides} | {result} |"


def detectors() -> Iterator[str]:
    """Detectors by need, with what the headers of their recipes measured."""
    yield "| for | model | recipe | AP50 | AP |\n|---|---|---|--:|--:|"
    for need, (recipe, model) in DETECTORS.items():
        (path,) = RECIPES.glob(f"*/{recipe}.yaml")
        found = re.search(r"Reaches AP50 ([\d.]+) and AP ([\d.]+) %", path.read_text(encoding="utf-8"))
        if found is None:
            raise ValueError(f"the header of {recipe} has no AP")
        yield f"| {need} | `{model}` | `{recipe}` | {found[1]} % | {found[2]} % |"


PARTS = {
    "<!-- recipes -->": recipes,
    "<!-- models -->": models,
    "<!-- commands -->": commands,
    "<!-- recipe keys -->": recipe_keys,
    "<!-- classifiers to choose from -->": classifiers,
    "<!-- detectors to choose from -->": detectors,
}


# Plots of values and gradients: `![...](plots/NAME.svg)` on a page of `blocks`


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Called by mkdocs once it has found the pages: adds the plots, without a trace in the tree."""
    from mkdocs.structure.files import File

    for name, draw in PLOTS.items():
        files.append(File.generated(config, f"blocks/plots/{name}.svg", content=draw()))
    files.append(File.generated(config, "recipe.schema.json", content=opsin("recipe", "schema")))
    curves = training_losses(Path(config.docs_dir) / "networks" / "plain_vs_residual.csv")
    files.append(File.generated(config, "networks/plots/plain-vs-residual.svg", content=curves))


def plot(curves: Mapping[str, Curve], low: float, high: float, label: str) -> bytes:
    """Values and gradients of functions of one number between two, side by side, as SVG. label: what the number is."""
    import torch

    from opsin.engine import charts

    x = torch.linspace(low, high, 801, dtype=torch.float64, requires_grad=True)

    def draw(canvas: Any) -> None:
        value, slope = canvas.subplots(1, 2)
        for colour, (name, function) in zip(charts.LINES, curves.items(), strict=False):
            y = function(x)
            (gradient,) = torch.autograd.grad(y.sum(), x)
            height = gradient.max() - gradient.min()
            gradient[1:][gradient.diff().abs() > height / 10] = torch.nan  # a jump is a gap, not a line
            value.plot(x.detach(), y.detach(), color=colour, label=name)
            slope.plot(x.detach(), gradient, color=colour)
        for axes, title in ((value, "value"), (slope, "gradient")):
            axes.set_title(title, color=charts.MUTED, fontsize=10)
            axes.set_xlabel(label)
            axes.axhline(0, color=charts.MUTED, linewidth=0.8, zorder=1)
        canvas.legend(*value.get_legend_handles_labels(), loc="outside upper left", ncols=5, handlelength=1.2)

    return charts.svg(draw, 7.6, 3.2)


def training_losses(path: Path) -> bytes:
    """A table of measured losses over its first column, the epochs, as SVG: plain nets dashed, a colour a depth."""
    import csv

    from opsin.engine import charts

    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "epoch"]
    colours = dict(zip(dict.fromkeys(name.split()[1] for name in names), charts.LINES, strict=False))

    def draw(canvas: Any) -> None:
        axes = canvas.add_subplot()
        for name in names:
            kind, depth = name.split()
            style = "--" if kind == "plain" else "-"
            losses = [float(row[name]) for row in rows]
            axes.plot([int(row["epoch"]) for row in rows], losses, style, color=colours[depth], label=name)
        axes.set_xlabel("epoch")
        axes.set_ylabel("training loss")
        canvas.legend(loc="outside right center")

    return charts.svg(draw, 7.6, 3.6)


def activations(*names: str, low: float = -6, high: float = 6) -> bytes:
    """Activations by the names that `create_activation` knows."""
    from opsin.nn.activation import create_activation

    return plot({name: create_activation(name).double() for name in names}, low, high, "x")


def loss(name: str, target: float, **options: Any) -> Curve:
    """A loss by name as a function of one prediction for one target."""
    import torch

    from opsin.losses import create_loss

    criterion = create_loss(name, reduction="none", **options)
    return lambda x: criterion(x, torch.full_like(x, target))


def regression(limit: float) -> bytes:
    """Errors of coordinates."""
    names = {"l1": {}, "smooth_l1": {}, "huber, beta=2": {"beta": 2.0}, "wing": {}, "l2": {}}
    curves = {name: loss(name.partition(",")[0], 0, **options) for name, options in names.items()}
    if limit > 3:
        del curves["l2"]  # its parabola would press the others flat
    return plot(curves, -limit, limit, "error")


def wing_steps() -> bytes:
    """Slopes of losses by the error, and the share of an error that a step removes, at a rate that suits 5 pixels."""
    import torch

    from opsin.engine import charts

    error = torch.linspace(0.25, 20, 400, dtype=torch.float64, requires_grad=True)
    names = ("l2", "l1", "smooth_l1", "wing")

    def draw(canvas: Any) -> None:
        slope, share = canvas.subplots(1, 2)
        for colour, name in zip(charts.LINES, names, strict=False):
            (gradient,) = torch.autograd.grad(loss(name, 0)(error).sum(), error)
            at_five = gradient[(error - 5).abs().argmin()]
            slope.plot(error.detach(), gradient, color=colour, label=name)
            share.plot(error.detach(), 10 * (gradient / error).detach() / (at_five / 5), color=colour)
        slope.set_title("gradient", color=charts.MUTED, fontsize=10)
        share.set_title("share of the error that a step removes, in %", color=charts.MUTED, fontsize=10)
        slope.set_ylim(0, 6)
        share.set_ylim(0, 60)
        for axes in (slope, share):
            axes.set_xlabel("error, in pixels")
        canvas.legend(*slope.get_legend_handles_labels(), loc="outside upper left", ncols=5, handlelength=1.2)

    return charts.svg(draw, 7.6, 3.2)


def adaptive_wing() -> bytes:
    """Errors of a heatmap, on the background, on a slope and on a peak."""
    curves = {f"y={y}": (lambda e, y=y: loss("adaptive_wing", y)(e + y)) for y in (0.0, 0.5, 1.0)}
    return plot(curves, -1, 1, "error")


def certainty() -> bytes:
    """One logit whose target is 1: cross-entropy against the squared error of the same sigmoid."""
    entropy, square = loss("sigmoid_cross_entropy", 1), loss("l2", 1)
    return plot({"cross-entropy": entropy, "squared error": lambda z: square(z.sigmoid())}, -8, 8, "logit")


def focal() -> bytes:
    """One logit whose target is 1, by gamma."""
    curves = {f"gamma={gamma}": loss("focal", 1, alpha=None, gamma=gamma) for gamma in (0, 0.5, 1, 2, 5)}
    return plot(curves, -4, 6, "logit")


def boxes() -> bytes:
    """A box of 2x2 that slides along x over a target of 2x2."""
    import torch

    from opsin.losses import create_loss

    target = torch.tensor([0.0, 0, 2, 2], dtype=torch.float64)

    def curve(name: str) -> Curve:
        criterion = create_loss(name, reduction="none")
        return lambda x: criterion(target + x[:, None] * torch.tensor([1.0, 0, 1, 0]), target.expand(len(x), 4))

    return plot({name: curve(name) for name in ("iou", "giou", "diou")}, -5, 5, "shift")


def pairs() -> bytes:
    """Contrastive loss of two embeddings at a distance, of one identity and of two."""
    import torch

    from opsin.losses import contrastive_loss

    def curve(same: bool) -> Curve:
        return lambda d: contrastive_loss(
            d[:, None], torch.zeros_like(d[:, None]), torch.full_like(d, same), reduction="none"
        )

    return plot({"same": curve(True), "different": curve(False)}, 0.001, 2, "distance")


PLOTS: dict[str, Callable[[], bytes]] = {
    "squashing": partial(activations, "sigmoid", "tanh", "hard_sigmoid"),
    "rectifiers": partial(activations, "relu", "leaky_relu", "prelu", "elu", "relu6", low=-4, high=8),
    "smooth-rectifiers": partial(activations, "relu", "silu", "gelu", "mish", "hard_swish"),
    "regression-near": partial(regression, 2),
    "regression-far": partial(regression, 20),
    "wing-steps": wing_steps,
    "adaptive-wing": adaptive_wing,
    "certainty": certainty,
    "focal": focal,
    "boxes": boxes,
    "pairs": pairs,
}

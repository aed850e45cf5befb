"""Arguments that several verbs take, and how a task's own options become flags of a verb."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from opsin.cli import completion
from opsin.rooms import Option, Room

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
AllowedFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="FOLDER",
        help="A folder besides the data's own whose files its lists and annotations may name; may be given again.",
        show_default=False,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        help="cpu, cuda, cuda:1, mps; the best available if not given.",
        autocompletion=completion.devices,
    ),
]
SOURCES = (
    "A built-in name (digits, scenes); class folders, a zip of them, a CSV, npz or IDX; with boxes: Pascal VOC, COCO "
    "json, YOLO (data.yaml, obj.data) or a CSV; made here: synthetic:words; downloaded by name: torchvision:CIFAR10, "
    "hf:owner/name."
)
Tile = Annotated[
    str | None,
    typer.Option(
        metavar="auto|SIZE|off",
        help="Predict images larger than a tile in overlapping tiles too, segmenters in these alone. SIZE: of a tile, "
        "in pixels; auto: by the sizes of the training objects. As saved with the model, else off, if not given. For "
        "tasks that locate objects or pixels.",
        show_default=False,
    ),
]
DataSource = Annotated[str | None, typer.Option("--data", "-d", metavar="SOURCE", help=SOURCES)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the recipe, for example optim.lr=0.01. Repeatable."),
]
RUNS = (
    "A run folder, a model.safetensors, published weights such as resnet50:imagenet1k, or a run of the Hugging Face "
    "hub, hf:owner/name."
)
Trained = Annotated[Path, typer.Argument(metavar="RUN", help=RUNS, show_default=False)]

# What is trained: of `train` and `tune`

Trainable = Annotated[
    str | None,
    typer.Argument(
        metavar="TASK|RECIPE|MODEL",
        help="A shipped recipe's name, a recipe file, a model's name (`opsin models` lists them), or a task.",
        show_default=False,
        autocompletion=completion.trainable,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="A name from `opsin models`.", autocompletion=completion.models
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        "-w",
        metavar="NAME",
        help="Weights of the model to start from: published ones, such as imagenet1k, a file (.pth, .th, "
        ".safetensors, ...), or hf:owner/name.",
    ),
]
Epochs = Annotated[int | None, typer.Option(metavar="N", help="Passes over the training images.")]


def number_or_auto(kind: type[int] | type[float]) -> Callable[[str], Any]:
    """Reads an option that takes a number, or "auto" where the training is to find it."""

    def parse(text: str) -> Any:
        if text == "auto":
            return text
        try:
            return kind(text)
        except ValueError:
            noun = "a whole number" if kind is int else "a number"
            raise typer.BadParameter(f"expected {noun} or auto") from None

    return parse


def examples(*calls: str) -> str:
    """Lines under a verb's help."""
    return "\n".join(["Examples:", *(f"  opsin {call}" for call in calls)])


def with_options(verb: Callable[..., Any], options: Sequence[Option], room: Room | None) -> Callable[..., Any]:
    """A verb whose last parameter, `options`, is filled from flags, one for each option of a task."""
    own = [p for p in inspect.signature(verb).parameters.values() if p.name != "options"]
    hints = {name: hint for name, hint in get_type_hints(verb, include_extras=True).items() if name != "options"}
    panel = "Options" if room is None else f"Options of {room.task}"
    added = [_parameter(option, panel) for option in options]
    names = {parameter.name: option.name for parameter, option in zip(added, options, strict=True)}

    def command(**given: Any) -> Any:
        chosen = {names[key]: given.pop(key) for key in list(given) if key in names}
        kept = {name: value for name, value in chosen.items() if not (value is None or value is False or value == [])}
        return verb(**given, options=kept)

    hints |= {parameter.name: parameter.annotation for parameter in added}
    command.__name__, command.__doc__ = verb.__name__, verb.__doc__
    command.__annotations__ = hints
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in own]
    command.__signature__ = inspect.Signature([*keyword, *added])  # type: ignore[attr-defined]
    return command


_METAVARS = {int: "N", float: "X"}


def _parameter(option: Option, panel: str) -> inspect.Parameter:
    flags = option.flags
    settings: dict[str, Any] = {"help": option.help, "show_default": False, "rich_help_panel": panel}
    if option.type is not bool:
        settings["metavar"] = option.metavar or _METAVARS.get(option.type) or option.name.upper()
    if option.default is not None:
        settings["help"] = f"{option.help} {option.default} if not given."
    if None not in (option.minimum, option.maximum):
        settings["help"] += f" From {option.minimum:g} to {option.maximum:g}."
    if option.type in (int, float):
        settings |= {"min": option.minimum, "max": option.maximum}
    if option.type is bool:
        kind: Any = bool
    else:
        single: Any = option.type
        kind = list[single] | None if option.repeatable else single | None
    return inspect.Parameter(
        f"option_{option.name}",
        inspect.Parameter.KEYWORD_ONLY,
        default=False if option.type is bool else None,
        annotation=Annotated[kind, typer.Option(*flags, **settings)],
    )

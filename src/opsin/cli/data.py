"""`opsin data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from opsin import rooms
from opsin.cli import completion
from opsin.cli.arguments import SOURCES, AllowedFolders, AsJson, examples
from opsin.cli.early_checks import check_data
from opsin.cli.printing import make_folder, print_json, put
from opsin.cli.which_task import task_of_options
from opsin.cli.written_formats import write_source
from opsin.errors import InputError
from opsin.files import check_new
from opsin.progress import Meter

EXAMPLES = examples(
    "data digits",
    "data photos/ --sheet sheet.png",
    "data annotated/ --sheet boxes.png",
    "data annotated/ --model yolov3 --set data.size=320",
    "data annotated/ --proposals sliding_windows --set limit=500 --sheet recall.png",
    "data retinanet_scenes --augmented seen.png",
    "data digits --export images/ --split test --limit 8",
    "data annotated/ --as yolo yolo_set/",
)


def data(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCES, show_default=False)],
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="With --as: a new folder to write to.", show_default=False)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="The task to read the data for; recognised from its files if not given.",
            show_default=False,
            autocompletion=completion.tasks,
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a contact sheet to this file: sample images with their labels, boxes or masks."
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write images as PNG files into class folders here.")
    ] = None,
    as_format: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="FORMAT",
            help="Write the data with its splits to the folder OUT in another format: coco, yolo, voc or icdar for "
            "boxes, folders or csv for class labels, masks, voc or coco for masks, jsonl or tsv for texts.",
        ),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="With --as: link to the images instead of copying them.")
    ] = False,
    augmented: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With a recipe (name or file) or a run as SOURCE: draw the first batch of its training, augmented, "
            "with its labels or boxes, to this file.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="SPLIT", help="The split to export, or for a task's own checks; test if there is one."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="How many images to export.")] = None,
    allow: AllowedFolders = None,
    as_json: AsJson = False,
    *,
    options: dict[str, Any],
) -> None:
    """Check a data set: splits, classes, balance, and everything that is wrong with it."""
    if augmented is not None:
        others = {"--sheet": sheet, "--export": export, "--split": split, "--task": task, **options}
        _draw_augmented(source, augmented, [name for name, value in others.items() if value is not None], as_json)
        return
    if (as_format is None) != (out is None):
        missing = "a folder to write to: opsin data SOURCE --as coco OUT" if out is None else f"--as FORMAT for {out}"
        raise InputError(f"give {missing}")
    if out is not None:
        check_new(out)
    check_data(source)
    from opsin import data as opened_by

    task = task or task_of_options(options) or opened_by.recognize_task(source)
    room = rooms.find_room(task)
    opens = [option.name for option in room.options.get("data", ()) if option.opens]
    opening = {name: options.pop(name) for name in opens if name in options}
    opened = opened_by.open(source, task, allow=allow or (), **opening)
    if as_format is not None and out is not None:
        print(write_source(opened, room, as_format, out, link))
        return
    total = sum(len(one) for one in opened.splits.values())
    with Meter(f"reading {opened.name}", total, "examples") as meter:
        diagnosis = opened_by.inspect(opened, task, progress=meter)
    found: dict[str, Any] = {}
    if room.checks is not None and options:
        found = rooms.load(room.checks)(opened.without(diagnosis.problems), source, split, options)
    if sheet is not None:
        drawn = [one.draw() for one in found.values() if one.draw() is not None]
        opened_by.contact_sheet(opened, sheet, below=drawn[0] if drawn else None)
    if export is not None:
        make_folder(export)
        opened_by.export(opened, export, split=split, limit=limit)
    for one in found.values():
        diagnosis.problems += one.problems
    if as_json:
        print_json(diagnosis.to_dict() | {key: one.to_dict() for key, one in found.items()})
    else:
        put(opened_by.render(diagnosis), several=True)
        for one in found.values():
            put(one.render(), several=True)
    if any(problem.severity == "error" for problem in diagnosis.problems):
        raise typer.Exit(1)


def _draw_augmented(recipe: str, path: Path, others: list[str], as_json: bool) -> None:
    """What a training sees, as an image and in words. others: options that are of a data source."""
    if others:
        raise InputError(f"--augmented draws what a training sees, by its recipe alone; leave out {others[0]}")
    from opsin.engine.augmented import first_batch

    seen = first_batch(recipe)
    drawn = seen.draw(path)
    if as_json:
        print_json({"augmented": {"path": str(drawn), **seen.to_dict()}})
        return
    put("\n".join([*seen.lines, f"drawn to {drawn}"]), several=True)

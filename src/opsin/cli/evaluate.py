"""`opsin eval`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opsin import rooms
from opsin.cli.arguments import RUNS, AllowedFolders, AsJson, DataSource, Device, Tile, examples
from opsin.cli.early_checks import check_data, check_files, check_run
from opsin.cli.printing import print_json, print_table, put, terminal_width
from opsin.cli.which_task import holds_answers
from opsin.errors import InputError

if TYPE_CHECKING:
    from opsin.engine.evaluator import Result

EXAMPLES = examples(
    "eval runs/lenet5_digits",
    "eval resnet50:imagenet1k --data photos/ --json",
    "eval runs/ssd_scenes --data aerial/ --split val --tile auto --save",
    "eval runs/fast_rcnn --truncated-svd 256,64",
    *rooms.examples("eval"),
)


def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help=f"{RUNS} Or a file or folder of answers, as of --predictions, which it is left out with.",
            show_default=False,
        ),
    ] = None,
    data: DataSource = None,
    split: Annotated[
        str | None, typer.Option(metavar="SPLIT", help="train, val or test; test if there is one.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            "--detections",
            metavar="FILE",
            help="Evaluate a file or folder of predictions, of any tool, against --data; no model is run.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="With --predictions: the task; that of the data if not given.")
    ] = None,
    tile: Tile = None,
    save: Annotated[
        bool,
        typer.Option("--save", help="Save --tile in the model, which then predicts with it. Not allowed on test data."),
    ] = False,
    device: Device = None,
    allow: AllowedFolders = None,
    as_json: AsJson = False,
    *,
    options: dict[str, Any],
) -> None:
    """Evaluate a trained model on its own or other data with its classes, or a file of predictions of any tool."""
    check_data(data)
    with _allowing(allow):
        _evaluate(run, data, split, predictions, task, tile, save, device, as_json, options)


def _allowing(folders: Sequence[str] | None) -> AbstractContextManager[None]:
    """That data may name files in these folders; what reads data is imported where there are some."""
    if not folders:
        return nullcontext()
    from opsin.data.allowed_folders import allowing

    return allowing(folders)


def _evaluate(
    run: Path | None,
    data: str | None,
    split: str | None,
    predictions: Path | None,
    task: str | None,
    tile: str | None,
    save: bool,
    device: str | None,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    if predictions is None and run is not None and data is not None and run.exists() and holds_answers(run):
        run, predictions = None, run
    if predictions is not None:
        _refuse(run is not None, f"{run} and --predictions: give one of them", save or tile or device)
        if data is None:
            raise InputError(f"say what {predictions} is evaluated against, with --data")
        check_files([predictions])
        from opsin.engine.score import score

        _show_scores(score(predictions, data, split, task=task, **options), as_json)
        return
    if run is None:
        raise InputError("say what to evaluate: opsin eval RUN, or opsin eval --predictions FILE --data SOURCE")
    if task is not None:
        raise InputError(f"--task is for --predictions; {run} has its own")
    check_run(run)
    from opsin.engine.evaluate import evaluate_run

    result = evaluate_run(run, data, split, device=device, tile=tile, save=save, **options)
    metrics, addition = result.metrics, result.addition
    if as_json:
        found = metrics if addition is None else addition.to_dict()
        print_json(found if result.tiles is None else {**found, "tile": result.tiles.to_dict()})
        return
    _show_metrics(result)
    if addition is not None:
        put(addition.describe(), several=True)
    if result.tiles is not None:
        put(result.tiles.describe(), several=True)
    if save:
        put(f"saved with {run}: predictions use --tile {tile} unless they say otherwise")


def _refuse(both: bool, message: str, of_a_run: Any) -> None:
    if both:
        raise InputError(message)
    if of_a_run:
        raise InputError("--tile, --save and --device are for a run; --predictions runs no model")


def _show_metrics(result: Result) -> None:
    put(result.data)
    width, texts = max(len(name) for name in result.metrics), result.lines()
    right = max(len(text.partition(" ")[0]) for text in texts.values())
    for name, text in texts.items():
        value, _, unit = text.partition(" ")
        put(f"{name:{width}}  {value:>{right}} {unit}".rstrip())


def _show_scores(result: Result, as_json: bool) -> None:
    """Metrics and the tables of classes and sequences, which no run's folder keeps here."""
    if as_json:
        print_json({**result.metrics, **result.details})
        return
    _show_metrics(result)
    for key in ("per_class", "per_sequence", "ladder"):
        if rows := result.details.get(key):
            columns = list(rows[0])
            print()
            print_table(columns, [_cells(row, columns) for row in rows], range(1, len(columns)), terminal_width())


def _cells(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    values = [row[column] for column in columns]
    return ["-" if one is None else f"{one:.4f}" if isinstance(one, float) else str(one) for one in values]

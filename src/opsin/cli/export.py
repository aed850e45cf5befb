"""`opsin export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opsin.cli import completion
from opsin.cli.arguments import AsJson, Trained, examples
from opsin.cli.early_checks import check_run
from opsin.cli.printing import print_json, put

EXAMPLES = examples(
    "export runs/lenet5_digits",
    "export runs/yolov3_bccd --format openvino --out cells.xml",
    "export resnet50:imagenet1k --format torch",
)


def export(
    run: Trained,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="onnx|openvino|torch",
            help="File format, by the runtime that reads it.",
            autocompletion=completion.export_formats,
        ),
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="The file; model.onnx, model.xml or model.pt2 in the run if not given."
        ),
    ] = None,
    half: Annotated[
        bool,
        typer.Option(
            "--half",
            help="Store weights in 16 bits: half the size. Refused where a single answer differs; of texts alone.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Export a trained model for other runtimes, and check that its outputs there are the same.

    Preprocessing and class names travel in the file. It is compared with the model on images of the run's own data.
    """
    check_run(run)
    from opsin.engine.export import export as write

    written = write(run, format, out, half=half)
    if as_json:
        print_json(written.to_dict())
    else:
        put(written.describe(), several=True)

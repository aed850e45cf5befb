"""`opsin serve`."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from opsin import rooms
from opsin.cli.arguments import RUNS, Device, Tile, examples
from opsin.cli.early_checks import check_run
from opsin.errors import InputError, say

EXAMPLES = examples(
    "serve runs/lenet5_digits",
    "serve runs/lenet5_digits.onnx --port 9000",
    "serve --detector runs/lines --recognizer runs/reader",
    "serve runs/faces --gallery people.safetensors --host 0.0.0.0 --token SECRET",
)


def _of_pages(words: str) -> Any:
    """A run of a pipeline."""
    return typer.Option(metavar="RUN", help=words, show_default=False, rich_help_panel="Pages")


def _limit(words: str, metavar: str = "N") -> Any:
    return typer.Option(metavar=metavar, min=1, help=words, rich_help_panel="Limits")


def serve(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help=f"{RUNS} Or a file of opsin export, .onnx or .xml.", show_default=False),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where it listens. Other machines reach it only if this is one of its addresses, or 0.0.0.0 for all.",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0 for any that is free.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="Who asks has to send it: Authorization: Bearer TOKEN. OPSIN_TOKEN in the environment does the same, "
            "and is not seen in the list of processes.",
            show_default=False,
        ),
    ] = None,
    closed: Annotated[
        bool, typer.Option("--fixed", help="Clients may give no options; those of this command count.")
    ] = False,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images that the model sees at once.")] = 16,
    wait: Annotated[
        float, typer.Option(metavar="MS", min=0, max=1000, help="Milliseconds that an image waits for others at most.")
    ] = 5.0,
    tile: Tile = None,
    device: Device = None,
    upload: Annotated[int, _limit("Megabytes of a request.", "MB")] = 32,
    pixels: Annotated[int, _limit("Megapixels of an image, a frame or a page.", "MP")] = 50,
    inputs: Annotated[int, _limit("Images of a request.")] = 64,
    frames: Annotated[int, _limit("Frames of a video that are answered.")] = 300,
    queue: Annotated[int, _limit("Requests at once; one more gets 503.")] = 64,
    seconds: Annotated[int, _limit("Seconds until a request is answered, or gets 503.", "S")] = 60,
    detector: Annotated[
        str | None, _of_pages("In the place of RUN, with --recognizer: the run that finds the lines of whole pages.")
    ] = None,
    recognizer: Annotated[str | None, _of_pages("With --detector: the run that says what each line reads.")] = None,
    *,
    options: dict[str, Any],
) -> None:
    """Answer over HTTP: a page for a browser, and a JSON API. Ctrl-C ends it."""
    named = {"detector": detector, "recognizer": recognizer}
    parts = {name: one for name, one in named.items() if one is not None}
    name = _check(run, parts)
    from opsin.serve.limits import Limits
    from opsin.serve.server import address_of, is_loopback, listen
    from opsin.serve.server import run as run_server

    listening = listen(host, port)
    limits = Limits(
        upload * 1_000_000, pixels * 1_000_000, inputs, frames, queue, seconds=float(seconds), batch_size=batch_size,
        wait=wait / 1000,
    )  # fmt: skip
    predictor = _load(run, parts, device)
    own = {**options, **({} if tile is None else {"tile": tile})}
    token = token or os.environ.get("OPSIN_TOKEN") or None

    def make() -> Any:
        from opsin.serve.service import Service, run_name

        shown = run_name(name) if run is not None else " + ".join(map(run_name, parts.values()))
        return Service(predictor, shown, limits, own, closed=closed)

    def ready(service: Any) -> None:
        say(f"serving {service.name} at {address_of(listening)}; Ctrl-C ends it")
        if not is_loopback(listening):
            guarded = "with the token" if token else "without a token: set one with --token"
            say(f"opsin: every machine that reaches {host} may use it, unencrypted, {guarded}")

    run_server(make, listening, token=token, ready=ready)


def _check(run: str | None, parts: dict[str, str]) -> str:
    """What is served, in words. Raises InputError for what can be refused before anything is loaded."""
    if lacking := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]:
        raise InputError(f"opsin serve needs {' and '.join(lacking)}: pip install 'opsin[serve]'")
    if parts:
        rooms.find_pipeline(parts)
        if run is not None:
            raise InputError(f"{run} and --{next(iter(parts))} are given; serve one run, or the parts of one")
    elif run is None:
        raise InputError("say which model answers: opsin serve RUN")
    for one in (run, *parts.values()):
        if one is not None:
            check_run(one)
    return run or " + ".join(parts.values())


def _load(run: str | None, parts: dict[str, str], device: str | None) -> Any:
    from opsin.engine.pipeline import load_pipeline
    from opsin.engine.predict import load

    return load_pipeline(device=device, **parts) if run is None else load(run, device)

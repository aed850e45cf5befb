"""`opsin predict`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from opsin.cli.arguments import AsJson, Device, Trained, examples
from opsin.cli.drawn_files import WRITTEN, check_out, plan
from opsin.cli.early_checks import check_run
from opsin.cli.printing import make_folder, print_json
from opsin.engine.inputs import check_inputs, is_live, is_video
from opsin.errors import InputError, say
from opsin.progress import follow

EXAMPLES = examples(
    "predict runs/lenet5_digits seven.png",
    "predict resnet50:imagenet1k photos/ --out drawn/",
    "predict resnet50:imagenet1k 'photos/**/*.jpg' https://example.org/cat.jpg",
    "predict runs/yolov3_scenes clip.mp4 --every 10    (0 in the place of clip.mp4: the first webcam)",
    "predict runs/lenet5_digits - < seven.png",
    "predict runs/lenet5_digits --help    (shows the options of its task too)",
)


def predict(
    run: Trained,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Images, videos, folders of them, patterns in quotes ('photos/**/*.jpg'), http(s) addresses, - for an "
            "image on standard input, a webcam by its number, rtsp://...",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="Write the images with their answers drawn here, under their own names and folders. Not in, around or "
            "the same as an input folder.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images at once.")] = 32,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Of a video's frames, take every N-th.")] = 1,
    device: Device = None,
    as_json: AsJson = False,
    *,
    options: dict[str, Any],
) -> None:
    """Use a trained model on images and videos: prints what it finds, and draws it with --out."""
    check_inputs(inputs or [])
    if out is not None:
        check_out(out, inputs or [])
    check_run(run)
    from opsin.engine.predict import load

    predictor = load(run, device)
    options = {"batch_size": batch_size, **options}
    if predictor.takes in ("together", "nothing"):
        _answer_once(predictor, predictor.find(inputs) if inputs else [], options, as_json)
        return
    if not inputs:
        raise InputError(f"say what to predict on: opsin predict {run} INPUT...")
    found = predictor.find(inputs)
    images = [one for one in found if not is_video(one)]
    videos = [one for one in found if is_video(one)]
    targets = {} if out is None else dict(zip(map(str, found), plan(found, inputs, out), strict=True))
    if out is not None:
        make_folder(out)
    answers: list[dict[str, Any]] = []
    # On a terminal the answers themselves show how far it has come.
    shown = follow(images, "predicting", "inputs", quiet=not as_json and sys.stdout.isatty())
    for place, (image, answer) in enumerate(zip(shown, predictor.stream(images, **options), strict=True), 1):
        answers.append(answer)
        if "error" in answer:
            print(f"opsin: {answer['error']}", file=sys.stderr)
            continue
        if out is not None:
            answer["drawn"] = str(_draw(predictor, image, answer, targets[str(image)]))
        if not as_json:
            print(f"{answer.get('path', place)}  {predictor.describe(answer)}")
    for video in videos:
        frames = _watch(predictor, video, targets.get(str(video)), {**options, "every": every})
        name = Path(str(video)).name
        for answer in follow(frames, f"predicting {name}", "frames", quiet=not as_json and sys.stdout.isatty()):
            if as_json:
                answers.append(answer)
            else:
                print(f"{video}  {answer['time']:.2f} s  {predictor.describe(answer)}")
    if as_json:
        print_json(answers)
    if failed := sum("error" in answer for answer in answers):
        raise InputError(f"{failed} of {len(images)} inputs could not be read")


def _answer_once(predictor: Any, inputs: Sequence[Any], options: dict[str, Any], as_json: bool) -> None:
    """The one answer of a model that looks at all of its input together, or needs none."""
    answer = next(predictor.stream(list(inputs), **options))
    if as_json:
        print_json([answer])
    else:
        print(predictor.describe(answer))


def _watch(predictor: Any, video: Any, drawn: Path | None, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The answers of a video's frames, which are written with their answers drawn on them where `drawn` says."""
    from contextlib import ExitStack

    from opsin.engine.video import frame_rate, write_video

    if is_live(video):
        say("opsin: a camera has no end; Ctrl-C ends it")
    with ExitStack() as stack:
        write = None
        if drawn is not None:
            make_folder(drawn.parent)
            write = stack.enter_context(write_video(drawn, frame_rate(video) / options["every"]))
        try:
            for image, answer in predictor.stream_video(video, **options):
                if write is not None:
                    write(predictor.annotate(image, answer))
                    answer["drawn"] = str(drawn)
                yield answer
        except KeyboardInterrupt:  # how a camera is ended: what was drawn so far is kept
            if not is_live(video):
                raise


def _draw(predictor: Any, image: Any, answer: dict[str, Any], target: Path) -> Path:
    """Write the annotated image."""
    from opsin.data.drawing import save_image

    return save_image(predictor.annotate(image, answer), target, **WRITTEN[target.suffix.lower()][1])

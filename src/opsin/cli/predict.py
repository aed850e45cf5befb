"""`opsin predict`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from opsin.cli.arguments import AsJson, Device, Trained, examples
from opsin.cli.early_checks import check_run
from opsin.cli.printing import make_folder, print_json
from opsin.errors import InputError
from opsin.progress import follow

EXAMPLES = examples(
    "predict runs/lenet5_digits seven.png",
    "predict resnet50:imagenet1k photos/ --out drawn/",
    "predict runs/lenet5_digits --help    (shows the options of its task too)",
)


def predict(
    run: Trained,
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="INPUT...", help="Images, videos, or folders of them.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Write the images with their answers drawn here."),
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images at once.")] = 32,
    device: Device = None,
    as_json: AsJson = False,
    *,
    options: dict[str, Any],
) -> None:
    """Use a trained model on images and videos: prints what it finds, and draws it with --out."""
    for path in inputs or ():
        if not path.exists():
            raise InputError(f"no file or folder at {path}")
    check_run(run)
    from opsin.engine.predict import load
    from opsin.engine.video import is_video

    predictor = load(run, device)
    options = {"batch_size": batch_size, **options}
    if predictor.takes in ("together", "nothing"):
        _answer_once(predictor, inputs or [], options, as_json)
        return
    if not inputs:
        raise InputError(f"say what to predict on: opsin predict {run} INPUT...")
    found = predictor.find(inputs)
    images: list[Any] = []
    videos: list[Path] = []
    for one in found:
        (videos if isinstance(one, Path) and is_video(one) else images).append(one)
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
            answer["drawn"] = str(_draw(predictor, image, answer, out, inputs))
        if not as_json:
            print(f"{answer.get('path', place)}  {predictor.describe(answer)}")
    for video in videos:
        drawn = None if out is None else _target(video, out, inputs, ".mp4")
        frames = _watch(predictor, video, drawn, options)
        for answer in follow(frames, f"predicting {video.name}", "frames", quiet=not as_json and sys.stdout.isatty()):
            if as_json:
                answers.append(answer)
            else:
                print(f"{video}  {answer['time']:.2f} s  {predictor.describe(answer)}")
    if as_json:
        print_json(answers)
    if failed := sum("error" in answer for answer in answers):
        raise InputError(f"{failed} of {len(images)} inputs could not be read")


def _answer_once(predictor: Any, inputs: Sequence[Path], options: dict[str, Any], as_json: bool) -> None:
    """The one answer of a model that looks at all of its input together, or needs none."""
    answer = next(predictor.stream(list(inputs), **options))
    if as_json:
        print_json([answer])
    else:
        print(predictor.describe(answer))


def _target(given: Path, out: Path, inputs: Sequence[Path], suffix: str) -> Path:
    """Where the annotated form of a file goes: under the folder structure it was found in."""
    root = next((folder for folder in inputs if folder.is_dir() and given.is_relative_to(folder)), given.parent)
    target = (out / given.relative_to(root)).with_suffix(suffix)
    if target.exists() and target.resolve() == given.resolve():
        raise InputError(f"--out {out} would overwrite {given}; choose another folder")
    make_folder(target.parent)
    return target


def _watch(predictor: Any, video: Path, drawn: Path | None, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The answers of a video's frames, which are written with their answers drawn on them where `drawn` says."""
    from contextlib import ExitStack

    from opsin.engine.video import frame_rate, write_video

    with ExitStack() as stack:
        write = None if drawn is None else stack.enter_context(write_video(drawn, frame_rate(video)))
        for image, answer in predictor.stream_video(video, **options):
            if write is not None:
                write(predictor.annotate(image, answer))
                answer["drawn"] = str(drawn)
            yield answer


def _draw(predictor: Any, image: Path, answer: dict[str, Any], out: Path, inputs: Sequence[Path]) -> Path:
    """Write the annotated image."""
    from opsin.data.drawing import save_image

    return save_image(predictor.annotate(image, answer), _target(image, out, inputs, ".png"))

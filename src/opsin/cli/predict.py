"""`opsin predict`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from opsin import rooms
from opsin.cli.arguments import RUNS, AsJson, Device, Tile, examples
from opsin.cli.drawn_files import WRITTEN, check_out, plan
from opsin.cli.early_checks import check_run
from opsin.cli.predict_output import PredictOutput
from opsin.cli.printing import make_folder, print_json, put
from opsin.cli.which_task import task_of_run
from opsin.engine.inputs import check_inputs, is_live, is_video
from opsin.errors import InputError, JobError, say
from opsin.progress import follow

EXAMPLES = examples(
    "predict runs/lenet5_digits seven.png",
    "predict resnet50:imagenet1k photos/ --out drawn/",
    "predict resnet50:imagenet1k 'photos/**/*.jpg' https://example.org/cat.jpg",
    "predict runs/yolov3_scenes clip.mp4 --every 10    (0 in the place of clip.mp4: the first webcam)",
    "predict runs/lenet5_digits - < seven.png",
    "predict runs/yolov3_scenes photos/ --as coco labelled/",
    "predict runs/ssd_scenes aerial.jpg --tile auto --out drawn/",
    "predict --detector runs/lines --recognizer runs/reader scan.pdf --format text --out text/",
    "predict runs/lenet5_digits --help    (shows the options of its task too)",
)


def _of_pages(metavar: str, words: str) -> Any:
    """An option of reading whole pages."""
    return typer.Option(metavar=metavar, help=words, show_default=False, rich_help_panel="Pages")


def predict(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help=RUNS, show_default=False)] = None,
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
            help="Write the images, with the predictions drawn on them, to this folder, under their own names. "
            "It cannot be an input folder, lie in one or hold one.",
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORM",
            help="What to write to --out: drawn, the images with what was found; of segmenters overlay, the same, "
            "index, a PNG of class numbers for each, or polygons or runs, COCO's json.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images at once.")] = 32,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Of a video, use every N-th frame.")] = 1,
    tile: Tile = None,
    device: Device = None,
    detector: Annotated[
        str | None,
        _of_pages("RUN", "In the place of RUN, with --recognizer: the run that finds the lines of whole pages."),
    ] = None,
    recognizer: Annotated[
        str | None,
        _of_pages("RUN", "With --detector: the run that says what each line reads. Pages may be images or PDF files."),
    ] = None,
    save: Annotated[
        Path | None,
        _of_pages(
            "FILE", "Write both runs as one file, FILE.safetensors, which is used as a run; INPUT may be left out then."
        ),
    ] = None,
    as_json: AsJson = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print one line of JSON for each input, as soon as it is done.")
    ] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the predictions as a table.", show_default=False)
    ] = None,
    coco: Annotated[
        Path | None,
        typer.Option(
            "--coco", metavar="FILE", help="Write what was found as COCO json, objects with scores.", show_default=False
        ),
    ] = None,
    crops: Annotated[
        Path | None,
        typer.Option(
            "--crops", metavar="DIR", help="Write each detected object, cropped from its image.", show_default=False
        ),
    ] = None,
    written: Annotated[
        tuple[str, Path] | None,
        typer.Option(
            "--as",
            metavar="FORMAT OUT",
            help="Write images and what was found, without scores, as a data set to the new folder OUT: coco, yolo or "
            "voc for boxes, masks, voc or coco for maps of classes.",
            show_default=False,
        ),
    ] = None,
    *,
    options: dict[str, Any],
) -> None:
    """Use a trained model on images and videos: prints what it finds, and draws it with --out."""
    output = PredictOutput(csv, coco, crops, jsonl, written, form, out)
    run, inputs, parts = _subject(run, inputs or [], {"detector": detector, "recognizer": recognizer}, save)
    _check(run, parts, inputs, out, output, as_json)
    if save is not None and not (_save(save, parts) and inputs):
        return
    predictor, found = _load(run, parts, device, inputs, options)
    output.check_form(predictor.answer_class)
    own = output.take_files(predictor.room, options, inputs)
    options = {"batch_size": batch_size, **({"tile": tile} if tile is not None else {}), **own}
    if predictor.takes in ("together", "nothing"):
        _answer_once(predictor, found, options, as_json, output)
        return
    if not inputs:
        raise _without_input(run, parts)
    images = [one for one in found if not is_video(one)]
    videos = [one for one in found if is_video(one)]
    if videos and output.form not in (None, predictor.answer_class.forms[0]) and not output.joins:
        raise InputError(f"--format {output.form} is for images, and {videos[0]} is a video; leave --format out")
    targets = dict(zip(map(str, found), plan(found, inputs, out), strict=True)) if out and not output.joins else {}
    if out is not None:
        make_folder(out)
    quiet = not (as_json or jsonl) and sys.stdout.isatty()  # there the answers themselves show how far it has come
    answers: list[dict[str, Any]] = []

    def give(answer: Any, shown: dict[str, Any], name: str) -> None:
        output.add(answer, shown)
        if as_json:
            answers.append(shown)
        elif not jsonl and answer.error is None:
            put(f"{name}  {predictor.describe(answer)}")

    failed, followed = 0, follow(images, "predicting", "inputs", quiet=quiet)
    for place, (image, answer) in enumerate(zip(followed, predictor.stream(images, **options), strict=True), 1):
        shown, failed = dict(answer), failed + (answer.error is not None)
        if answer.error is not None:
            put(f"opsin: {answer.error}", error=True)
        elif targets:
            shown["drawn"] = str(_draw(answer, targets[str(image)], output.form or "drawn"))
        give(answer, shown, str(answer.get("path", place)))
    watched = [
        _watch(predictor, one, targets.get(str(one)), {**options, "every": every}, give, quiet) for one in videos
    ]
    output.finish(predictor.answer_class, rooms.find_room(predictor.recipe.task))
    if as_json:
        print_json(answers)
    if failed := failed + watched.count("unreadable"):
        raise InputError(f"{failed} of {len(found)} inputs could not be read")
    if damaged := watched.count("damaged"):
        raise JobError(f"{damaged} of {len(videos)} videos could not be read whole; what was read is answered")


def _subject(
    run: str | None, inputs: Sequence[str], named: dict[str, str | None], save: Path | None
) -> tuple[str | None, list[str], dict[str, str]]:
    """The run, None where parts stand for it, the inputs, and the parts: with these the first word is an input."""
    parts = {name: one for name, one in named.items() if one is not None}
    if parts:
        rooms.find_pipeline(parts)
        return None, [*([] if run is None else [run]), *inputs], parts
    if save is not None:
        raise InputError("--save writes several runs as one file; give them: --detector RUN --recognizer RUN")
    if run is None:
        raise InputError("say which model predicts, and on what: opsin predict RUN INPUT...")
    return run, list(inputs), parts


def _check(
    run: str | None,
    parts: dict[str, str],
    inputs: Sequence[str],
    out: Path | None,
    output: PredictOutput,
    as_json: bool,
) -> None:
    """What can be refused before anything is loaded."""
    task = rooms.find_pipeline(parts).task if parts else task_of_run(str(run))
    if task is None or rooms.find_room(task).given == "files":
        check_inputs(inputs)
    if out is not None:
        check_out(out, inputs)
    for one in (run, *parts.values()):
        if one is not None:
            check_run(one)
    output.check(task, str(run or " and ".join(parts.values())), [Path(one) for one in inputs], as_json)


def _load(
    run: str | None, parts: dict[str, str], device: str | None, inputs: Sequence[str], options: dict[str, Any]
) -> tuple[Any, Sequence[Any]]:
    """What predicts on the inputs, and these one by one."""
    from opsin.engine.pipeline import load_pipeline
    from opsin.engine.predict import load

    predictor = load_pipeline(device=device, **parts) if run is None else load(run, device)
    found = predictor.find(inputs) if inputs else []
    return predictor.for_inputs(found, options), found


def _save(file: Path, parts: dict[str, str]) -> Path:
    from opsin.engine.pipeline import save_pipeline

    written = save_pipeline(file, **parts)
    say(f"written: {written}")
    return written


def _without_input(run: str | None, parts: dict[str, str]) -> InputError:
    given = run or " ".join(f"--{name} {one}" for name, one in parts.items())
    return InputError(f"say what to predict on: opsin predict {given} INPUT...")


def _answer_once(
    predictor: Any, inputs: Sequence[Any], options: dict[str, Any], as_json: bool, output: PredictOutput
) -> None:
    """The one answer of a model that looks at all of its input together, or needs none."""
    if output.out is not None:
        output.join(predictor.answer_class)
    answer = next(predictor.stream(list(inputs), **options))
    output.add(answer, dict(answer))
    output.finish(predictor.answer_class, rooms.find_room(predictor.recipe.task))
    if as_json:
        print_json([answer])
    elif not output.jsonl:
        put(predictor.describe(answer))


def _watch(
    predictor: Any,
    video: Any,
    drawn: Path | None,
    options: dict[str, Any],
    give: Callable[[Any, dict[str, Any], str], None],
    quiet: bool,
) -> str:
    """Predict on a video: "whole", "damaged" where some of it could not be read, or "unreadable"."""
    lines: list[str] = []
    frames = _frames(predictor, video, drawn, {**options, "damaged": lines.append})
    try:
        for answer in follow(frames, f"predicting {Path(str(video)).name}", "frames", quiet=quiet):
            give(
                answer,
                {**answer, **({} if drawn is None else {"drawn": str(drawn)})},
                f"{video}  {answer['time']:.2f} s",
            )
    except InputError as error:
        put(f"opsin: {error}", error=True)
        return "unreadable"
    for line in lines:
        put(f"opsin: {line}", error=True)
    return "damaged" if lines else "whole"


def _frames(predictor: Any, video: Any, drawn: Path | None, options: dict[str, Any]) -> Iterator[Any]:
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
            for _, answer in predictor.stream_video(video, **options):
                if write is not None:
                    write(answer.plot())
                yield answer
        except KeyboardInterrupt:  # how a camera is ended: what was drawn so far is kept
            if not is_live(video):
                raise


def _draw(answer: Any, target: Path, form: str) -> Path:
    """Write the annotated image, or another form of the answer."""
    return answer.write(form, target, **WRITTEN[target.suffix.lower()][1])

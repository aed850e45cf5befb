"""The verbs on the command line. Each imports what it needs when it runs, so that help is instant."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from opsin import __version__
from opsin.errors import InputError, JobError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

app = typer.Typer(
    name="opsin",
    help="Train, evaluate, use and understand any published vision network.",
    epilog="Start with: opsin train lenet5_digits",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Typer carries click inside or depends on it, by version; its own exceptions lead to the common base either way.
_UsageError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is if not given.")]
_SOURCES = (
    "A built-in name (digits, scenes); class folders, a zip of them, a CSV, npz or IDX; with boxes: Pascal VOC, COCO "
    "json, YOLO (data.yaml, obj.data) or a CSV."
)
DataSource = Annotated[str | None, typer.Option("--data", "-d", help=_SOURCES)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the recipe, for example optim.lr=0.01. Repeatable."),
]

Trained = Annotated[
    Path,
    typer.Argument(
        help="A run folder, a model.safetensors, or published weights such as resnet50:imagenet1k.", show_default=False
    ),
]


def _examples(*calls: str) -> str:
    return "\n\n".join(["Examples:", *(f"  opsin {call}" for call in calls)])


def _version(asked: bool) -> None:
    if asked:
        print(f"opsin {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
) -> None:
    if offline:
        os.environ["OPSIN_OFFLINE"] = "1"
    if debug:
        os.environ["OPSIN_DEBUG"] = "1"


@app.command(
    epilog=_examples(
        "train lenet5_digits",
        "train classify --model resnet18 --weights imagenet1k --data photos/ --epochs 20",
        "train detect --model ssdlite --data annotated/ --epochs 50",
        "train resnet20_fashion --set optim.lr=0.05 --set train.ema_decay=0.999",
        "train --resume runs/lenet5_digits",
    )
)
def train(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="TASK|RECIPE",
            help="A task (classify, detect), a shipped recipe's name, or a recipe file.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A name from `opsin models`.")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", "-w", help="Published weights of the model to start from, by name.")
    ] = None,
    data: DataSource = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step of one process.")] = None,
    lr: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides the first weights, the order and every random choice.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read images; does not change the result.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run folder to make; runs/NAME if not given.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue this run where it stopped.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave unreadable images out instead of refusing.")
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Train a model: by a recipe, or a task with --model and --data. Makes a run folder with the model and a report."""
    if what is None and resume is None and model is None:
        raise InputError("say what to train: a recipe (opsin train lenet5_digits), or a task with --model and --data")
    from opsin import registry
    from opsin.engine.recipe import parse_setting
    from opsin.engine.train import train as run_training

    flags = {
        "model.name": model,
        "model.weights": weights,
        "data.source": data,
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "optim.lr": lr,
        "train.seed": seed,
        "train.workers": workers,
        "data.skip_bad": skip_bad or None,
    }
    overrides = {key: value for key, value in flags.items() if value is not None}
    overrides |= dict(parse_setting(setting) for setting in settings or [])
    recipe: Any = what
    if what is not None and what in registry.list_tasks():
        recipe = {"task": what}
    elif what is None and resume is None:
        recipe = {}
    run = run_training(recipe, overrides, out=out, resume=resume)
    if as_json:
        _print_json(
            {
                "run": str(run.path),
                "split": run.split,
                "metrics": run.metrics,
                "report": str(run.report),
                "epochs": run.epochs,
            }
        )


@app.command(
    name="eval",
    epilog=_examples(
        "eval runs/lenet5_digits",
        "eval resnet50:imagenet1k --data photos/ --json",
        "eval runs/fast_rcnn --truncated-svd 256,64",
    ),
)
def evaluate(
    run: Trained,
    data: DataSource = None,
    split: Annotated[str | None, typer.Option(help="train, val or test; test if there is one.")] = None,
    ranks: Annotated[
        str | None,
        typer.Option(
            "--truncated-svd",
            metavar="FC6,FC7",
            help="Of a Fast R-CNN: evaluate it with these layers decomposed, for example 1024,256; says what it saves.",
        ),
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a trained model on a split of its own data, or on other data of the same classes."""
    if ranks is None:
        from opsin.engine.evaluate import evaluate as evaluate

        thinned, metrics = None, evaluate(run, data, split, device=device)
    else:
        from opsin.detect.truncated_svd import evaluate_thinned

        wanted = _numbers("--truncated-svd", "FC6,FC7", "1024,256", ranks)
        thinned = evaluate_thinned(run, wanted, data, split, device=device)
        metrics = thinned.metrics
    if as_json:
        _print_json(metrics if thinned is None else thinned.to_dict())
        return
    width = max(len(name) for name in metrics)
    for name, value in metrics.items():
        print(f"{name:{width}}  {value:.4f}")
    if thinned is not None:
        print(thinned.describe())


@app.command(
    epilog=_examples("predict runs/lenet5_digits seven.png", "predict resnet50:imagenet1k photos/ --out drawn/")
)
def predict(
    run: Trained,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Images, videos, or folders of them.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the images with their answers drawn here.")
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Of a classifier: how many classes to name in --json; 5.", show_default=False),
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Of a detector: the least score of an object; the one that was best in validation.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 32,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Use a trained model on images and videos: prints what it finds, and draws it with --out."""
    from opsin.engine.predict import find_images, load
    from opsin.engine.video import is_video

    found = find_images(inputs, videos=True)
    images, videos = [p for p in found if not is_video(p)], [p for p in found if is_video(p)]
    given = {"top": top, "score_threshold": score_threshold}
    options = {"batch_size": batch_size} | {key: value for key, value in given.items() if value is not None}
    predictor = load(run, device)
    if out is not None:
        _make_folder(out)
    answers: list[dict[str, Any]] = []
    failed = 0
    for image, answer in zip(images, predictor.stream(images, **options), strict=True):
        answers.append(answer)
        if "error" in answer:
            failed += 1
            print(f"opsin: {answer['error']}", file=sys.stderr)
            continue
        if out is not None:
            answer["drawn"] = str(_draw(predictor, image, answer, out, inputs))
        if not as_json:
            print(f"{image}  {predictor.describe(answer)}")
    for video in videos:
        drawn = None if out is None else _target(video, out, inputs, ".mp4")
        for answer in _watch(predictor, video, drawn, options):
            if as_json:
                answers.append(answer)
            else:
                print(f"{video}  {answer['time']:.2f} s  {predictor.describe(answer)}")
    if as_json:
        _print_json(answers)
    if failed:
        raise InputError(f"{failed} of {len(images)} images could not be read")


@app.command(
    epilog=_examples(
        "export runs/lenet5_digits",
        "export runs/yolov3_bccd --format openvino --out cells.xml",
        "export resnet50:imagenet1k --format torch",
    )
)
def export(
    run: Trained,
    format: Annotated[
        str, typer.Option("--format", "-f", metavar="onnx|openvino|torch", help="For which runtime.")
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file; model.onnx, model.xml or model.pt2 in the run if not given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained model as a file for other runtimes, if it gives the same answers there as here.

    Preprocessing and class names travel in the file. It is compared with the model on images of the run's own data.
    """
    from opsin.engine.export import export as write

    written = write(run, format, out)
    if as_json:
        _print_json(written.to_dict())
    else:
        print(written.describe())


@app.command(epilog=_examples("models", "models 'resnet*'", "models vgg --json"))
def models(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a shell pattern.")] = "*",
    task: Annotated[str | None, typer.Option(help="Only models for this task.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the models there are, with their published facts."""
    from opsin import registry

    names = registry.list_models(pattern, task)
    if not names:
        raise InputError(f"no model matches {pattern!r}; `opsin models` lists them all")
    entries = [registry.find_model(name) for name in names]
    if as_json:
        _print_json([entry.to_dict() for entry in entries])
        return
    rows = [
        (e.name, e.task, f"{e.published.params:,}", f"{e.published.macs:,}" if e.published.macs else "-",
         "x".join(map(str, e.published.input)), str(e.published.year), e.published.paper, " ".join(e.weights) or "-",
         e.published.idea)
        for e in entries
    ]  # fmt: skip
    _table(("name", "task", "params", "macs", "input", "year", "paper", "weights", "idea"), rows, right=(2, 3))


@app.command(
    epilog=_examples(
        "explain resnet50",
        "explain runs/lenet5_digits --html lenet5.html --images seven.png",
        "explain resnet50 mobilenet_v2 shufflenet_v2_x1_0 --measure",
        "explain lenet5_digits --json",
    )
)
def explain(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|RUN|RECIPE...",
            help="A model, a run, published weights (resnet50:imagenet1k) or a recipe; several are compared.",
            show_default=False,
        ),
    ],
    size: Annotated[
        str | None, typer.Option("--input", metavar="C,H,W", help="Channels, height and width of one image.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once, for memory.")] = 32,
    optimizer: Annotated[
        str | None,
        typer.Option(help="Whose state training holds: sgd, plain_sgd or adamw; the recipe's if it has one."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run it too: latency of one image, and peak memory at the batch.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write one page with images here.", show_default=False)] = None,
    images: Annotated[
        list[Path] | None, typer.Option(help="For a run's page: images to look at. Repeatable.", show_default=False)
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layer", help="For a run's page: layers to show. Repeatable.")
    ] = None,
    units: Annotated[
        list[int] | None, typer.Option("--unit", help="For a run's page: units to project back. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What a network is, costs, sees and needs, and what the literature would change. Several are compared."""
    seen = {"--images": images, "--layer": layers, "--unit": units}
    if html is None and (given := next((flag for flag, value in seen.items() if value), None)):
        raise InputError(f"{given} belongs to a page; add --html FILE")
    from opsin.analyze.explain import explain as find_out

    asked = None if size is None else _numbers("--input", "C,H,W", "3,224,224", size)
    found = [find_out(one, input_size=asked, batch=batch, optimizer=optimizer, measure=measure) for one in what]
    if html is not None:
        from opsin.analyze.page import write_page

        write_page(html, found, images=images or (), layers=layers, units=units)
    if len(found) == 1:
        if as_json:
            _print_json(found[0].to_dict())
        else:
            from opsin.analyze.terminal import show

            show(found[0])
        return
    from opsin.analyze.compare import compare
    from opsin.analyze.terminal import show_comparison

    compared = compare(found)
    if as_json:
        _print_json(compared)
    else:
        show_comparison(compared)


def _numbers(option: str, form: str, example: str, given: str) -> tuple[int, ...]:
    """`3x224x224` and `3,224,224` as whole numbers."""
    try:
        return tuple(int(part) for part in given.replace("x", ",").split(","))
    except ValueError:
        raise InputError(f"{option} takes {form}, for example {example}; got {given!r}") from None


@app.command(
    epilog=_examples(
        "data digits",
        "data photos/ --sheet sheet.png",
        "data annotated/ --sheet boxes.png",
        "data annotated/ --model yolov3 --set data.size=320",
        "data annotated/ --proposals sliding_windows --set limit=500 --sheet recall.png",
        "data digits --export images/ --split test --limit 8",
    )
)
def data(
    source: Annotated[str, typer.Argument(help=_SOURCES, show_default=False)],
    task: Annotated[
        str | None, typer.Option(help="classify or detect; detect where there are boxes, if not given.")
    ] = None,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="An image may have any number of classes.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL|RECIPE",
            help="A detector, or a recipe of one: find the objects that none of its anchors or cells answers for.",
        ),
    ] = None,
    proposals: Annotated[
        str | None,
        typer.Option(
            "--proposals",
            "-p",
            metavar="METHOD|RUN",
            help="selective_search_fast, selective_search_quality, sliding_windows, or a trained detector that looks "
            "at regions: how many objects of a split its proposals find. They are kept for trainings.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="With --model any key of the recipe, for example data.size=320; with --proposals an option of the "
            "method, for example limit=500. Repeatable.",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Write a contact sheet of the classes, with their boxes, to this image; and how many objects the "
            "proposals find."
        ),
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write images as PNG files into class folders here.")] = None,
    split: Annotated[
        str | None, typer.Option(help="The split to export; with --proposals that to evaluate, test if there is one.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many images to export.")] = None,
    as_json: AsJson = False,
) -> None:
    """The doctor: what a data set is, how it is balanced, and everything that is wrong with it."""
    from opsin import data as room
    from opsin.engine.recipe import parse_setting

    task = task or ("classify" if multi_label else room.recognize_task(source))
    if settings and (model is None) == (proposals is None):
        raise InputError("--set belongs to either --model NAME or --proposals NAME: give one of them")
    opened = room.open(source, task, multi_label=multi_label)
    matches = proposed = None
    options = dict(map(parse_setting, settings or []))
    if model is not None:
        from opsin.detect.anchor_coverage import match_named

        matches = match_named(opened, source, model, options)
    diagnosis = room.inspect(opened, task)
    if proposals is not None:
        from opsin.detect.recall import measure_recall

        proposed = measure_recall(opened.without(diagnosis.problems), proposals, options, split)
    if sheet is not None:
        room.contact_sheet(opened, sheet, below=None if proposed is None else proposed.draw())
    if export is not None:
        _make_folder(export)
        room.export(opened, export, split=split, limit=limit)
    if matches is not None:
        diagnosis.problems += matches.problems
    if as_json:
        found = {"matches": matches, "proposals": proposed}
        _print_json(diagnosis.to_dict() | {key: one.to_dict() for key, one in found.items() if one is not None})
    else:
        print(room.render(diagnosis))
        for found in filter(None, (matches, proposed)):
            print(found.render())
    if any(problem.severity == "error" for problem in diagnosis.problems):
        raise typer.Exit(1)


def _target(given: Path, out: Path, inputs: Sequence[Path], suffix: str) -> Path:
    """Where the annotated form of a file goes: under the folder structure it was found in."""
    root = next((folder for folder in inputs if folder.is_dir() and given.is_relative_to(folder)), given.parent)
    target = (out / given.relative_to(root)).with_suffix(suffix)
    if target.exists() and target.resolve() == given.resolve():
        raise InputError(f"--out {out} would overwrite {given}; choose another folder")
    _make_folder(target.parent)
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

    target = _target(image, out, inputs, ".png")
    return save_image(predictor.annotate(image, answer), target)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror}") from None


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """A table that fits the terminal, each row one line; plain aligned text where nobody watches."""
    if not sys.stdout.isatty():
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        for row in [columns, *rows]:
            cells = [
                f"{c:>{w}}" if i in right else f"{c:{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ]
            print("  ".join(cells).rstrip())
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    shown = [i for i, name in enumerate(columns) if console.width >= 120 or name not in ("task", "paper")]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place in shown:
        width = None if place == len(columns) - 1 else min(30, max(len(row[place]) for row in [columns, *rows]))
        justify = "right" if place in right else "left"
        table.add_column(columns[place], justify=justify, no_wrap=True, min_width=width, max_width=width)
    for row in rows:
        table.add_row(*(row[place] for place in shown))
    console.print(table)


def main() -> NoReturn:
    """The entry point: turns errors into one line and an exit status."""
    try:
        status = app(standalone_mode=False) or 0
    except InputError as error:
        status = _fail(str(error), 2)
    except _UsageError as error:
        status = _fail(error.format_message(), 2) if error.format_message() else 2
    except JobError as error:
        status = _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        status = _fail("stopped", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except Exception as error:
        status = _fail(f"unexpected {type(error).__name__}: {error} (opsin --debug ... shows where)", 1)
    sys.exit(status)


def _fail(message: str, status: int) -> int:
    if os.environ.get("OPSIN_DEBUG"):
        import traceback

        traceback.print_exc()
    print(f"opsin: {' '.join(message.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()

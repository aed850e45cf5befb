"""`opsin design`: networks drawn from spaces, each trained briefly, and what their errors say of the spaces."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from opsin import errors, registry, rooms
from opsin.analyze.design_report import write_design_report
from opsin.analyze.design_results import MODEL, Design, Network, Settings
from opsin.analyze.design_space import Limit, Sample, cost_of, draw, fit_line, read_limit
from opsin.engine.callbacks import StoppedError
from opsin.engine.own_metrics import monitored
from opsin.engine.recipe import Recipe, parse_yaml
from opsin.engine.search import read_values
from opsin.engine.trainings import Say, Trained, Wanted, make_home, run_all
from opsin.errors import InputError, JobError
from opsin.files import atomic, load_json, read_regular
from opsin.schemes import naming

RECIPE = "regnety_200mf_digits"  # whose data, augmentation and optimizer all have, unless another is given
_FILE = "design.yaml"
_BATCH = 16  # images of the forward pass that is timed


def design(
    spaces: Sequence[str] = (),
    *,
    limits: Sequence[str] = (),
    samples: int = 50,
    epochs: int = 10,
    block: str = "bottleneck",
    recipe: str | Path | Mapping[str, Any] = RECIPE,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    parallel: int = 1,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    cache: str | Path | None = None,
    say: Say = errors.say,
) -> Design:
    """Draw networks from design spaces, train each briefly, and compare how their errors are distributed.

    spaces: of `opsin.analyze.design_space.SPACES`. limits: "macs=4M", "params=1M..2M", "activations=..."; all networks
    are within. samples: of each space. epochs: of each training. block: of all networks, "bottleneck", "vgg" or
    "inverted_residual". recipe, overrides: what all are trained by; its model is replaced, and its small_images kept.
    seed: decides which networks are drawn. parallel: trainings at once, in processes of their own. out: the folder to
    make, design/<spaces> if None. resume: one to go on with; samples then raises their number. cache: the folder of
    trainings. Raises InputError before anything is trained, JobError after.
    """
    if parallel < 1:
        raise InputError(f"parallel is {parallel}; take 1 or more")
    if resume is None:
        settings = Settings(
            list(spaces), read_values(recipe), dict(overrides or {}), list(limits), samples, epochs, block, seed,
            None if cache is None else str(cache),
        )  # fmt: skip
        settings.check()
        path = make_home(Path("design"), "-".join(settings.spaces)[:60], out, _FILE, "a design")
    else:
        path, settings = _open(resume)
        if spaces or limits or overrides or out is not None:
            raise InputError("what is resumed has its spaces already; give --samples alone, if anything")
        settings.samples = max(settings.samples, samples)
        settings.check()
    with atomic(path / _FILE) as temporary:
        temporary.write_text(yaml.safe_dump(asdict(settings), sort_keys=False, width=120), encoding="utf-8")
    return _run(path, settings, parallel, say)


def _open(path: str | Path) -> tuple[Path, Settings]:
    file = Path(path) / _FILE
    if not file.is_file():
        raise InputError(f"no design at {path}: there is no {file}; begin one with: opsin design anynetx_a regnetx")
    values = parse_yaml(read_regular(file).decode("utf-8", "replace"), str(file))
    try:
        return Path(path), Settings(**values)
    except TypeError:
        raise InputError(f"{file} does not hold the settings of a design") from None


def _run(path: Path, settings: Settings, parallel: int, say: Say) -> Design:
    """Draw, train what is left, time, and write the page."""
    loaded = settings.check()
    with naming(settings.overrides, settings.recipe):
        shape, num_classes = _input(loaded)
    small = bool(loaded.model.options["small_images"])
    limits: list[Limit] = [read_limit(one) for one in settings.limits]
    name, mode = monitored(loaded)
    metric = name.removeprefix("val_")
    kind: Any = settings.block
    limited = {"seed": settings.seed, "block": kind, "input_size": shape, "num_classes": num_classes}
    drawn = [
        one for space in settings.spaces for one in draw(space, settings.samples, limits, small_images=small, **limited)
    ]
    say(f"{len(drawn)} networks of {', '.join(settings.spaces)} with {' and '.join(map(str, limits))} in {path}")
    done = _train(path, settings, drawn, (metric, mode), parallel, say)
    costs = [cost_of(one, shape, num_classes, small_images=small) for one in drawn]
    networks = [
        Network(sample, cost, fit_line(sample.stages), one, _error(one, mode))
        for sample, cost, one in zip(drawn, costs, done, strict=True)
    ]
    found = Design(path, settings, metric, networks, shape)
    if not any(one.error is not None for one in networks):
        raise JobError(f"none of the trainings ended well; the last one: {done[-1].error}")
    _time(found, num_classes, small)
    found.report = write_design_report(found)
    with atomic(path / "design.json") as temporary:
        temporary.write_text(json.dumps(found.to_dict(), indent=1), encoding="utf-8")
    for line in found.lines():
        say(line)
    say(f"report: {found.report}")
    return found


def _train(
    path: Path, settings: Settings, drawn: Sequence[Sample], compared: tuple[str, str], parallel: int, say: Say
) -> list[Trained]:
    """Every sample's training. compared: the metric, and which way is up."""
    wanted = [
        Wanted(
            f"{sample.space} {number % settings.samples}",
            settings.values(),
            {**settings.keys(), **{f"model.{key}": value for key, value in sample.options().items()}},
            *compared,
        )
        for number, sample in enumerate(drawn)
    ]

    def ended(place: int, done: Trained) -> None:
        shown = f"failed: {done.error}" if done.error else f"{compared[0]} {done.value:.4f}"
        say(f"{done.name}: {shown}, {done.seconds:.0f} s{' (from the cache)' if done.cached else ''}")
        if done.wrong and place == 0:
            raise InputError(done.error)

    cache = Path(settings.cache) if settings.cache is not None else path / "trainings"
    try:
        return run_all(wanted, cache, parallel=parallel, say=say, ended=ended)
    except (KeyboardInterrupt, StoppedError):
        raise StoppedError(f"stopped; nothing is lost: opsin design --resume {path}") from None


def _error(one: Trained, mode: str) -> float | None:
    """What a metric lacks to 1, or the metric itself where less is better."""
    return None if one.value is None else 1 - one.value if mode == "max" else one.value


def _input(recipe: Recipe) -> tuple[tuple[int, int, int], int]:
    """(C, H, W) of the recipe's input, and its classes."""
    kind = rooms.load(rooms.find_room(recipe.task).trains or "")
    source = kind.open(recipe, lambda line: None)
    prepared = kind.create_preprocessing(recipe, source)
    return (prepared.channels, *prepared.size), len(source.classes)


def _time(found: Design, num_classes: int, small: bool) -> None:
    """Seconds of a forward pass of every network, one after the other, the least of three; once for a folder."""
    file = found.path / "seconds.json"
    known: dict[str, float] = {}
    if file.is_file():
        known = {str(name): float(value) for name, value in load_json(file.read_bytes()).items()}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.rand(_BATCH, *found.shape, device=device)
    for one in found.networks:
        name = one.trained.path.name
        if name not in known:
            options = {**one.sample.options(), "small_images": small, "in_channels": found.shape[0]}
            model = registry.create_model(MODEL, num_classes=num_classes, **options).to(device).eval()
            known[name] = _seconds(model, images)
        one.seconds = known[name]
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")


@torch.no_grad()
def _seconds(model: Any, images: torch.Tensor) -> float:
    times = []
    for _ in range(4):  # the first warms up
        begun = time.perf_counter()
        model(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return round(min(times[1:]), 6)

"""Gathers everything about a model, a recipe or a run into one `Explanation`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from opsin import data, objects, registry, rooms
from opsin.analyze.advice import advise
from opsin.analyze.explain_schema import Explanation, Identity, Result, Training
from opsin.analyze.families import place
from opsin.analyze.memory import estimate_memory, measure_latency, with_measurement
from opsin.analyze.profile import Profile, profile
from opsin.engine.automatic import set_aside
from opsin.engine.checkpoint import Saved, read_model
from opsin.engine.own_networks import check_copies, opened_with, twin_of
from opsin.engine.recipe import Recipe, list_recipes, load_recipe
from opsin.engine.recipe_data import create_preprocessing, open_data
from opsin.errors import InputError, unknown
from opsin.nn.capabilities import names_input
from opsin.nn.counting import meta_twin
from opsin.optim import trace_rates
from opsin.schemes import split_scheme

_STEPS = 100  # of an epoch, for the schedule: the rates over epochs are the same for any
_RATES = 200  # points of the schedule at most


@dataclass
class _Subject:
    """What was asked for, resolved. model: on the meta device unless it will be run. results: beyond the published."""

    kind: str
    source: str
    name: str
    model: nn.Module
    input_size: tuple[int, int, int] | None  # None: no images, but the network's own example
    options: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    results: list[Result] = field(default_factory=list)


def explain(
    source: str | Path | nn.Module,
    *,
    input_size: Sequence[int] | None = None,
    batch: int = 32,
    optimizer: str | None = None,
    measure: bool = False,
    model: nn.Module | None = None,
) -> Explanation:
    """Everything about a network: a registered model's name, a run, published weights (resnet50:imagenet1k), a recipe.

    Or about a network of your own, an nn.Module, of which input_size must be given, see `explain_model`.
    input_size: (C, H, W); the published one, or the recipe's or run's, if None. What takes no images is counted by its
    own `example(batch, size=None)`, and has no receptive field. batch: images at once, for memory.
    optimizer: whose state training holds: "sgd", "plain_sgd", "adamw"; the recipe's, else "sgd", if None. measure: run
    it as well, and add the measured peaks and the latency of one image. model: of a run that was given its network as
    an object, one of the same class, which stays as it is.

    Raises InputError for an unknown name, a missing or damaged file, and an input that the network refuses.
    """
    size = None if input_size is None else check_input(input_size)
    if isinstance(source, nn.Module):
        return _explain_own(source, size, model, batch=batch, optimizer=optimizer or "sgd", measure=measure)
    subject = _open(str(source), size, real=measure) if model is None else _from_run_of(model, str(source), size)
    optimizer = optimizer or _optimizer(subject.recipe)
    found = _profile(subject)
    memory = estimate_memory(subject.model, subject.input_size, batch, optimizer)
    latency = None
    if measure:
        memory = with_measurement(memory, subject.model, subject.input_size)
        latency = measure_latency(subject.model, subject.input_size)
    return Explanation(
        identity=_identity(subject),
        results=(*_published(subject.name), *_shipped(subject.name), *subject.results),
        totals=found.totals,
        stages=found.stages,
        layers=found.layers,
        uncounted=found.uncounted,
        memory=memory,
        advice=advise(subject.model, found),
        training=None if subject.recipe is None else _training(subject.recipe),
        latency=latency,
    )


def _explain_own(
    source: nn.Module, size: tuple[int, int, int] | None, model: nn.Module | None, *, measure: bool, **options: Any
) -> Explanation:
    if size is None:
        raise InputError(f"give the input of {type(source).__name__}: input_size=(channels, height, width)")
    if model is not None or measure:
        raise InputError(
            f"{'model=' if model is not None else 'measure='} belongs to a run or a name, not to a network"
        )
    check_copies(source)
    return explain_model(source, size, **options)


def explain_model(
    model: nn.Module, input_size: Sequence[int], *, name: str = "", batch: int = 32, optimizer: str = "sgd"
) -> Explanation:
    """The same for any module that takes (B, C, H, W), registered or not. The model stays as it is."""
    size = check_input(input_size)
    found = profile(model, size)
    return Explanation(
        identity=Identity(name or type(model).__name__, "model", "", "", "", (), "", "", 0, "", size),
        results=(),
        totals=found.totals,
        stages=found.stages,
        layers=found.layers,
        uncounted=found.uncounted,
        memory=estimate_memory(model, size, batch, optimizer),
        advice=advise(model, found),
    )


def check_input(values: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) of whole numbers of at least 1. Raises InputError for anything else."""
    if len(values) != 3 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        given = ",".join(map(str, values))
        raise InputError(f"the input is channels, height and width, for example 3,224,224; got {given}")
    return values[0], values[1], values[2]


def _open(source: str, size: tuple[int, int, int] | None, real: bool) -> _Subject:
    path = Path(source)
    model, named = registry.split_weights(source)
    weights = not path.exists() and named is not None and registry.is_model(model)
    if path.suffix in (".yaml", ".yml") or (not path.exists() and source in list_recipes()):
        return _from_recipe(source, size, real)
    scheme = split_scheme(source)
    if weights or path.is_dir() or path.suffix == ".safetensors" or (scheme is not None and scheme[0].runs is not None):
        return _from_run(source, size)
    if registry.is_model(source):
        return _from_model(source, size, real)
    if path.exists():
        raise InputError(f"{source} is no run, recipe (.yaml) or model.safetensors")
    if len(path.parts) > 1:
        raise InputError(f"no run or recipe at {source}")
    registry.check_library(source)
    if (place := registry.elsewhere(source)) is not None:
        raise InputError(f"unknown model {source!r}: {place}")
    error = unknown("model or recipe", source, [*registry.list_models(), *list_recipes()])
    raise InputError(f"{error} (`opsin models` lists the models)")


def _from_model(name: str, size: tuple[int, int, int] | None, real: bool) -> _Subject:
    published = registry.find_model(name).input_size or size
    if published is None:
        model = _with_example(_build(name, {}, real), name, otherwise="give it with --input C,H,W, or ")
        return _Subject("model", name, name, model, None)
    size = published if size is None else size
    options = {} if size[0] == published[0] else {"in_channels": size[0]}
    return _Subject("model", name, name, _build(name, options, real), size, options)


def _from_run_of(model: nn.Module, source: str, size: tuple[int, int, int] | None) -> _Subject:
    """A run whose network was given as an object, in a copy of a network of the same class."""
    with opened_with(twin_of(model), source) as saved:
        return _from_saved(saved, source, size)


def _from_run(source: str, size: tuple[int, int, int] | None) -> _Subject:
    return _from_saved(read_model(source), source, size)


def _from_saved(saved: Saved, source: str, size: tuple[int, int, int] | None) -> _Subject:
    options = {**saved.recipe.model.options, **saved.options}
    results = _measured(saved, source)
    name = saved.recipe.model.name
    recipe = saved.recipe if saved.recipe.data.source else None  # published weights come without one
    model, prepared = saved.build(), saved.preprocessing
    if prepared is not None:
        size = size or (prepared.channels, *prepared.size)
    else:
        model, size = _with_example(model, source, size), None
    return _Subject("run", source, name, model, size, options, recipe, results)


def _with_example(
    model: nn.Module, name: str, size: tuple[int, int, int] | None = None, otherwise: str = ""
) -> nn.Module:
    """A network that names its own input. Raises InputError, with the way out, for one that does not.

    size: of images, as it was asked for. otherwise: another way out.
    """
    if size is not None:
        raise InputError(f"{name} takes no images of C,H,W; leave --input out")
    if not names_input(model):
        kind = type(model).__name__
        raise InputError(
            f"{name} states no size of its input; {otherwise}add to {kind} a method `example(batch, size=None)` that "
            "returns so many inputs as one tensor"
        )
    return model


def _measured(saved: Saved, source: str) -> list[Result]:
    """The scores of a run, on its test split where it has one: its shares, of which more is better."""
    room = rooms.evaluating_room(rooms.find_room(saved.recipe.task))
    by_split: dict[str, dict[str, float]] = {split: {} for split in ("test", "val")}
    for key, value in saved.metrics.items():
        split, _, name = key.partition("_")
        metric = room.metric(name)
        if split in by_split and metric is not None and metric.unit == "%" and metric.better == "higher":
            by_split[split][name.replace("_", " ")] = value
    chosen = next((split for split, scores in by_split.items() if scores), "test")
    return [
        Result(f"{saved.recipe.data.source} {k}", 100 * v, "run", f"{source}, {chosen}")
        for k, v in by_split[chosen].items()
    ]


def _from_recipe(source: str, size: tuple[int, int, int] | None, real: bool) -> _Subject:
    recipe = load_recipe(source)
    name = recipe.model.name
    entry = registry.find_model(name)
    options = dict(recipe.model.options)
    channels: int | None = recipe.data.channels or (None if entry.input_size is None else entry.input_size[0])
    images = True
    try:
        opened = open_data(recipe)
        first = next(iter(opened.splits.values()))
        options |= {"num_classes": len(opened.classes)} if "num_classes" in entry.options else {}
        images = first.inputs.key == "image"
        if images and recipe.data.channels is None and recipe.model.weights is None:
            channels = data.find_channels(first)
    except InputError:
        pass  # the data is not here: the builder's own number of classes
    if not images:
        model = _with_example(_build(name, options, real), name, size)
        return _Subject("recipe", source, name, model, None, options, recipe)
    preprocessing = create_preprocessing(recipe, channels)
    own = (preprocessing.channels, *preprocessing.size)
    size = own if size is None else size
    if entry.input_size is None or size[0] != entry.input_size[0]:
        options["in_channels"] = size[0]
    return _Subject("recipe", source, name, _build(name, options, real), size, options, recipe)


def _build(name: str, options: Mapping[str, Any], real: bool) -> nn.Module:
    if real:
        return registry.create_model(name, **options).eval()
    with torch.device("meta"):
        return registry.create_model(name, **options).eval()


def _profile(subject: _Subject) -> Profile:
    try:
        return profile(subject.model, subject.input_size)
    except RuntimeError as error:  # a network that does not check its input itself
        what = (
            "its own example" if subject.input_size is None else f"an input of {'x'.join(map(str, subject.input_size))}"
        )
        raise InputError(f"{subject.name} cannot take {what}: {str(error).splitlines()[0]}") from error


def _identity(subject: _Subject) -> Identity:
    entry = registry.find_model(subject.name)
    facts = entry.facts
    number = re.search(r"arXiv:(\d{4}\.\d{4,5})", facts.paper) if facts is not None else None
    return Identity(
        name=objects.short_name(subject.name),
        kind=subject.kind,
        source=subject.source,
        task=entry.task,
        family=entry.family,
        place=place(entry.family),
        paper=facts.paper if facts is not None else "",
        paper_url=f"https://arxiv.org/abs/{number[1]}" if number else "",
        year=facts.year if facts is not None else 0,
        idea=facts.idea if facts is not None else "",
        input=subject.input_size or tuple(meta_twin(subject.model, None)[1].shape[1:]),
        options=subject.options,
        images=subject.input_size is not None,
    )


def _published(name: str) -> list[Result]:
    entry = registry.find_model(name)
    facts = entry.facts
    found = [Result(k, v, "published", facts.paper) for k, v in facts.metrics.items()] if facts is not None else []
    for title, weights in entry.weights.items():
        found += [Result(k, v, "weights", f"{name}:{title}") for k, v in weights.metrics.items()]
    return found


def _shipped(name: str) -> list[Result]:
    """What the shipped recipes of a model state in their header: `Reaches 98.9 % on ...`."""
    found = []
    for title, path in list_recipes().items():
        text = path.read_text(encoding="utf-8")
        if not re.search(rf"^  name: {re.escape(name)}\s*$", text, re.MULTILINE):
            continue
        header = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
        score = re.search(r"Reaches (\d+(?:\.\d+)?) %", header)
        recipe = load_recipe(title)
        if score is not None and recipe.model.name == name:
            found.append(Result(f"{recipe.data.source} accuracy", float(score[1]), "recipe", title))
    return found


def _optimizer(recipe: Recipe | None) -> str:
    """The estimate's optimizer that keeps as much as the recipe's."""
    if recipe is None:
        return "sgd"
    if recipe.optim.name == "sgd":
        return "sgd" if recipe.optim.options.get("momentum", 0.9) else "plain_sgd"
    return "adamw" if "adam" in recipe.optim.name else "sgd"


def _training(recipe: Recipe) -> Training:
    recipe, _ = set_aside(recipe)
    train, schedule = recipe.train, recipe.schedule
    rates = trace_rates(
        recipe.optim.lr,
        schedule.name,
        steps=_STEPS * train.epochs,
        steps_per_epoch=_STEPS,
        warmup_epochs=schedule.warmup_epochs,
        **schedule.options,
    )
    stride = max(1, -(-len(rates) // _RATES))
    shown = [*rates[::stride], rates[-1]] if (len(rates) - 1) % stride else rates[::stride]
    return Training(
        data=recipe.data.source,
        epochs=train.epochs,
        batch_size=train.batch_size,
        optimizer=recipe.optim.name,
        lr=recipe.optim.lr,
        weight_decay=recipe.optim.weight_decay,
        loss=recipe.loss.name,
        schedule=schedule.name,
        warmup_epochs=schedule.warmup_epochs,
        rates=tuple((step / _STEPS, rate) for step, rate in shown),
        recipe=recipe.to_yaml(),
    )

"""Evaluate a trained model on a split, and write down what was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from opsin import data, objects, rooms
from opsin.data import Split
from opsin.engine.checkpoint import save_tile, save_values
from opsin.engine.evaluator import Evaluated, Evaluator, Result, create_evaluator
from opsin.engine.exported import refuse_exported
from opsin.engine.membership import describe_known, divide_as_trained
from opsin.engine.own_metrics import check_metric
from opsin.engine.predict import Predictor, load
from opsin.engine.recipe_data import open_data
from opsin.engine.run import RunFolder
from opsin.engine.tiles import TileCount, Tiles, read_tile
from opsin.errors import InputError, say
from opsin.files import atomic
from opsin.progress import follow
from opsin.schemes import naming


@torch.no_grad()
def evaluate_split(
    evaluator: Evaluator,
    split: Split,
    *,
    calibrate: bool = False,
    batch_size: int | None = None,
    digests: bool = False,
) -> Evaluated:
    """Run the evaluator's model over a split. calibrate: fit the model's calibration on this split first.

    digests: see on the way which images the model was trained on.
    """
    predictor = evaluator.predictor
    train = predictor.recipe.train
    if predictor.has_network:
        predictor.model.eval()
    size = batch_size or train.batch_size
    options = {"tile": "off", "batch_size": size, **evaluator.answer_options()} if evaluator.takes_answers else {}
    loader = data.create_loader(
        predictor.prepare_split(split),
        None if evaluator.takes_answers else predictor.preprocessing,
        batch_size=size,
        workers=train.workers,
        digests=digests,
    )
    pixels: list[int] = []
    evaluator.begin(split)
    for batch in follow(loader, "evaluating", "batches"):
        pixels += batch.get("digest", [])
        if evaluator.takes_answers:
            evaluator.update_answers(list(predictor.stream(list(batch[predictor.key]), **options)), batch)
        else:
            evaluator.update(predictor.outputs(batch), batch)
    if calibrate:
        evaluator.calibrate()
    result = _result(evaluator)
    result.known = describe_known(predictor.facts.members, pixels, split.inputs.noun)
    return Evaluated(split, result)


@torch.no_grad()
def evaluate_tiled(evaluator: Evaluator, split: Split, tiles: Tiles, tile: str | int | None = None) -> Result:
    """The same of the answers that `predict` gives with tiles, image by image, held against the truth as it was read.

    tiles: what `Predictor.tiles` made of `tile`.
    """
    predictor, count = evaluator.predictor, TileCount(tiles.tiling)
    predictor.model.eval()
    workers = predictor.recipe.train.workers
    options = {"tile": tile, "batch_size": tiles.batch_size, **evaluator.answer_options()}
    known, pixels = predictor.facts.members, list[int]()
    split = predictor.prepare_split(split)
    evaluator.begin(split)
    for batch in data.create_loader(split, None, batch_size=1, workers=workers, digests=known is not None):
        pixels += batch.get("digest", [])
        images = list(batch["image"])
        evaluator.update_answers(list(predictor.stream(images, **options)), batch)
        count.add(images[0])
    result = _result(evaluator)
    result.tiles, result.known = count, describe_known(known, pixels, split.inputs.noun)
    return result


def _result(evaluator: Evaluator) -> Result:
    result = evaluator.result()
    result.metrics = {**result.metrics, **evaluator.measure_own(result.metrics)}
    result.shown = {name: evaluator.room.format(name, value) for name, value in result.metrics.items()}
    return result


def evaluate(
    run: str | Path | Predictor,
    data: Any = None,
    split: str | None = None,
    *,
    device: str | None = None,
    model: nn.Module | None = None,
    metrics: Mapping[str, Any] | None = None,
    change: Callable[[Any], nn.Module] | None = None,
    tile: str | int | None = None,
    save: bool = False,
    **options: Any,
) -> dict[str, float]:
    """The metrics of a run's model on a split of its own data, or of another source with the same classes.

    run: a run folder, a model.safetensors or published weights by name ("resnet50:imagenet1k"), which need data and
    know ImageNet's folder names; or a task without a network by its name, which needs data too; or what `opsin.load`
    gave. data: a name or a path, or a data set of Python, see `opsin.data.source_of`, in which numbers are those of the
    model's classes. split: "train", "val" or "test"; None takes test, else val, else all there is.
    model: the network of a run that was given it as an object, see `opsin.load`. metrics: of your own, beside the
    run's, see `opsin.train`.
    change: what to evaluate in the place of the model. tile: "auto" or pixels, to look at large images in tiles, or
    "off"; as was saved with the model if None. save: keep `tile` with the model, so that its predictions use it from
    now on; refused on test data, which no choice may be made by. options: the task's, as `truncated_svd` of Fast R-CNN.
    A run evaluated on its own data, with none of these, gets evaluation_<split>.json with everything that was found.
    """
    return evaluate_run(
        run,
        data,
        split,
        device=device,
        model=model,
        metrics=metrics,
        change=change,
        tile=tile,
        save=save,
        **options,
    ).metrics


def evaluate_run(
    run: str | Path | Predictor,
    data: Any = None,
    split: str | None = None,
    *,
    device: str | None = None,
    model: nn.Module | None = None,
    metrics: Mapping[str, Any] | None = None,
    change: Callable[[Any], nn.Module] | None = None,
    tile: str | int | None = None,
    save: bool = False,
    **options: Any,
) -> Result:
    """`evaluate`, with everything that was found."""
    if isinstance(run, Predictor):
        predictor, run = run, ""
    else:
        refuse_exported(run, "evaluate")
        predictor = load(run, device, model=model)
    if change is not None:
        predictor.model = change(predictor.model)
    tiles = predictor.tiles(tile, predictor.recipe.train.batch_size)
    for key, metric in (metrics or {}).items():
        check_metric(key, metric)
    with objects.lending({f"metrics.{key}": metric for key, metric in (metrics or {}).items()}):
        evaluator = create_evaluator(predictor, **options)
    evaluator.own_metrics |= metrics or {}
    fits = _fitted_by(predictor, options)
    chosen, name, source = _choose_split(predictor, data, split, fitting=bool(fits))
    if fits:
        _check_fitting(run, fits[0], name, data)
    if save:
        _check_saving(run, tile, name)
    if tiles is None:
        known = predictor.facts.members is not None
        result = evaluate_split(evaluator, chosen, calibrate=bool(fits), digests=known).result
    else:
        result = evaluate_tiled(evaluator, chosen, tiles, tile)
    if save:
        save_tile(run, read_tile(tile))
    if fits and str(run):
        say(f"kept with the model: {save_values(run, predictor.model)}")
    if result.known:
        say(result.known)
    result.data = f"{source}, {name}: {len(chosen):,} {chosen.inputs.noun}s"
    if predictor.classes:
        result.data += f", {len(predictor.classes):,} classes"
    if str(run) and data is None and change is None and tile is None and not options and not metrics:
        _write(Path(run), name, result)
    return result


def _write(run: Path, split: str, result: Result) -> None:
    """Keep what was found in the folder of a run."""
    if not run.is_dir():
        return
    found = {"split": split, "metrics": result.metrics, **result.details}
    if result.tiles is not None:
        found["tile"] = result.tiles.to_dict()
    with atomic(RunFolder(run).path / f"evaluation_{split}.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1))


def _fitted_by(predictor: Predictor, options: Mapping[str, Any]) -> list[str]:
    """The options given by which something is fitted and kept."""
    known = rooms.evaluating_room(predictor.room).options.get("eval", ())
    return [option.name for option in known if option.fits and options.get(option.name) is not None]


def _check_fitting(run: str | Path, option: str, split: str, data: Any) -> None:
    """Refuse to fit on test data, on what the run was trained on, and where there is no place to keep it."""
    flag = f"--{option.replace('_', '-')}"
    if split == "test" or (split == "train" and data is None):
        why = "which makes its scores too good" if split == "test" else "which the model was trained on"
        raise InputError(f"{flag} would be fitted on the {split} split, {why}; give --split val, or other --data")
    if str(run) and not Path(run).exists():
        raise InputError(f"{run} is no file here in which could be kept what {flag} fits; give a run")


def _check_saving(run: str | Path, tile: str | int | None, split: str) -> None:
    """Refuse to save a choice that was not made, has no place, or was made by test data."""
    if tile is None:
        raise InputError("--save keeps what --tile says with the model; give --tile too")
    if split == "test":
        raise InputError("--save on test data: what is chosen by it makes its scores too good; give --split val")
    if not Path(run).exists():
        raise InputError(f"{run} is no file here that a choice could be saved in; give a run or a model.safetensors")


def known_classes(predictor: Predictor) -> list[str]:
    """The classes of a model by their names; none of a file of weights of which nothing says them."""
    numbers = [str(place) for place in range(len(predictor.classes))]
    unnamed = "file" in predictor.facts.first_weights and not predictor.recipe.data.source
    return [] if unnamed and predictor.classes == numbers else predictor.classes


def _choose_split(
    predictor: Predictor, source_name: Any, split: str | None, *, fitting: bool = False
) -> tuple[Split, str, str]:
    """The split to evaluate on, or to fit on, its truth in the model's terms, its name and that of its source."""
    recipe = predictor.recipe
    if source_name is None and not recipe.data.source:
        what = "published weights come" if predictor.has_network else f"{recipe.task} comes"
        raise InputError(f"{what} without data; say on which to evaluate, with --data")
    with naming(source_name):
        source = open_data(recipe, source_name, known_classes(predictor) or None)
    if predictor.classes and not known_classes(predictor) and len(source.classes) == len(predictor.classes):
        predictor.facts.meaning = {**predictor.facts.meaning, "classes": list(source.classes)}
        say(f"the weights do not say what their classes are called: those of {source.name} are taken, in their order")
    if recipe.data.skip_bad:
        source = source.without(data.verify(source))
    members = predictor.facts.members
    splits = divide_as_trained(recipe, source, members, say) if source_name is None else source.splits
    wanted = ("val", "all", "train", "test") if fitting else ("test", "val", "all")
    name = split or next((n for n in wanted if n in splits), "train")
    if name not in splits:
        raise InputError(f"{source.name} has no split {name!r}; it has {', '.join(splits)}")
    source = predictor.relabel(recipe, source.with_splits({name: splits[name]}))
    chosen = source.splits[name]
    # What has no network was trained on nothing: where it says no meaning of its own, it takes that of the data.
    if chosen.truth is not None and (predictor.has_network or predictor.facts.meaning):
        chosen = chosen.with_truth(chosen.truth.match(predictor.facts.meaning))
    return chosen, name, source.name

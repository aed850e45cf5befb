"""The first weights of a model: of another training, with the rows of the classes that both know, or published ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from opsin import objects, registry, rooms
from opsin.backbones.fitting import fit_file, fit_weights
from opsin.backbones.weight_files import WeightFile, check_numbers, read_weights, without_prefixes
from opsin.backbones.weights import load_published
from opsin.engine.checkpoint import CRITERION, Facts, read_model, read_tensors
from opsin.engine.recipe import ModelSection
from opsin.engine.task import Task, average_state
from opsin.errors import InputError, JobError
from opsin.files import load_json
from opsin.nn.capabilities import ClassRows, class_rows, initialize
from opsin.schemes import find_local, is_named

_NAMED = 5  # classes that a line names before it counts


@dataclass(frozen=True)
class FirstWeights:
    """Tensors of another training. task, classes: what they were trained for; "" and none where nothing says so.

    classes: what the rows of its last layers stand for, see `opsin.engine.predict.Predictor.labels_of`.

    file: the file as others wrote it, where it is none of ours.
    """

    state: dict[str, Tensor]
    task: str = ""
    classes: list[str] = field(default_factory=list)
    file: WeightFile | None = None


def read_first_weights(path: str) -> FirstWeights:
    """Of a run folder, a model.safetensors, or any file of weights, here or of a hub. InputError for anything else.

    That of a hub is downloaded where the call under way names it, and otherwise used if it is here.
    """
    if not Path(path).exists():
        path = str(find_local(path, fetch=is_named(path), how=f"--set train.init={path}") or path)
    if Path(path).is_dir():
        return _of_run(path)
    try:
        if Path(path).suffix.lower() == ".safetensors" and "opsin" in read_tensors(Path(path))[1]:
            return _of_run(path)
    except InputError:  # its tensors are all that is wanted
        pass
    file = read_weights(Path(path))
    return FirstWeights(file.tensors, file=file)


def _of_run(path: str) -> FirstWeights:
    saved = read_model(path)
    return FirstWeights(saved.state, saved.recipe.task, labels_of(saved))


def labels_of(facts: Facts) -> list[str]:
    """What the rows of a model's last layers stand for, as its task says."""
    predicts = rooms.find_room(facts.recipe.task).predicts
    return facts.classes if predicts is None else rooms.load(predicts).labels_of(facts.meaning)


def described_recipe(path: str) -> Mapping[str, object]:
    """The recipe of a run or a model.safetensors, as its file says it, without its tensors; nothing where none does."""
    try:
        path = path if Path(path).exists() else str(find_local(path, fetch=is_named(path)) or path)
    except (InputError, JobError):
        return {}
    file = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
    try:
        with safe_open(file, framework="pt") as opened:
            text = load_json((opened.metadata() or {}).get("opsin", "{}"))
    except (OSError, ValueError, SafetensorError):
        return {}  # what is wrong with it is said when it is read
    recipe = text.get("recipe", {}) if isinstance(text, dict) else {}
    return recipe if isinstance(recipe, dict) else {}


def load_first_weights(task: Task, path: str) -> list[str]:
    """First weights from another training. Returns what was kept and what starts fresh, in lines."""
    first = read_first_weights(path)
    state, lines = first.state, []
    classes = labels_of(task.facts)
    if first.task == task.recipe.task and first.classes and first.classes != classes:
        state, lines = _keep_classes(task.model, first, classes, path)
    fresh = initialize(task.model, state) if first.file is None else _fill(task, first.file, path)
    own = list(average_state(task.model))
    fresh = [k for k in fresh if k in own]
    if len(fresh) == len(own):
        raise InputError(f"train.init: no tensor of {path} fits {task.recipe.model.name}; it is another architecture's")
    task.facts.first_weights = _record(path, len(own) - len(fresh), fresh)
    shown = ", ".join(fresh[:4]) + (f" and {len(fresh) - 4} more" if len(fresh) > 4 else "")
    counts = f"initialized {len(own) - len(fresh)} of {len(own)} tensors from {path}"
    return [counts + (f"; fresh: {shown}" if fresh else ""), *lines]


def _fill(task: Task, file: WeightFile, path: str) -> list[str]:
    """Fill a model with somebody's file: all of it by `opsin.load_weights`, else what fits by name and shape."""
    check_numbers(path, file.tensors)
    section, fresh = task.recipe.model, list(average_state(task.model))
    name = "" if objects.is_object(section.name) else section.name
    try:
        return list(fit_weights(task.model, name, file, {**section.options, **task.facts.options}, shown=path).fresh)
    except InputError:
        for tensors in without_prefixes(file.tensors):
            fresh = initialize(task.model, tensors)
            if len(fresh) < len(average_state(task.model)):
                break
    return fresh


def _record(path: str, kept: int, fresh: Sequence[str]) -> dict[str, Any]:
    """What a saved model says of the weights that its training began with: whose name alone, not whose folder."""
    found: dict[str, Any] = {"run" if Path(path).is_dir() else "file": Path(path).name, "kept": kept, "fresh": [*fresh]}
    if Path(path).is_file():
        with Path(path).open("rb") as opened:
            digest = hashlib.sha256()
            while block := opened.read(1 << 20):
                digest.update(block)
        found["sha256"] = digest.hexdigest()
    return found


def load_published_weights(task: Task, section: ModelSection, say: Callable[[str], None]) -> None:
    """First weights from a published file; says what starts fresh, and under what terms the rest was published."""
    assert section.weights is not None
    published = registry.find_weights(section.name, section.weights)
    if registry.is_weight_file(section.name, section.weights):
        options, path = {**section.options, **task.facts.options}, Path(section.weights)
        fitted = fit_file(task.model, section.name, path, options, shown=section.weights)
        task.facts.first_weights = _record(section.weights, len(fitted.kept), fitted.fresh)
        say(f"first weights: {fitted.describe()}")
        return
    find_local(section.weights, fetch=is_named(section.weights), how=f"--weights {section.weights}")
    options = {**section.options, **task.facts.options}
    load_published(task.model, section.name, section.weights, options, say=say)
    task.facts.first_weights = {"weights": section.weights, "source": published.source, "licence": published.licence}
    say(f"first weights: {section.weights} of {published.source} ({published.licence})")


def _keep_classes(
    model: nn.Module, first: FirstWeights, classes: Sequence[str], path: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors with those of the head rearranged for other classes, and what became of the classes, in words."""
    rows = {name: own for name, own in class_rows(model).items() if name in first.state}
    kept = [name for name in classes if name in first.classes]
    new = [name for name in classes if name not in first.classes]
    lost = [name for name in first.classes if name not in classes]
    state = {name: tensor for name, tensor in first.state.items() if not name.startswith(CRITERION)}
    own = model.state_dict()
    places = [(classes.index(name), first.classes.index(name)) for name in kept]
    moved = {name: _move(own[name], state[name], layout, places) for name, layout in rows.items()}
    told = bool(moved) and all(tensor is not None for tensor in moved.values())
    for name in rows:
        tensor = moved[name] if told and kept else None
        if tensor is None:
            del state[name]  # of the same shape it would fit, class by class the wrong ones
        else:
            state[name] = tensor
    parts = {"kept": kept, "new": new, "lost": lost}
    words = "; ".join(f"{len(names)} {word}{_listed(names)}" for word, names in parts.items())
    if not rows:
        return state, [f"classes of {path}: {words}; what tells them apart starts fresh: its rows are not known"]
    end = "" if told or not kept else "; the head has another form and starts fresh"
    return state, [f"classes of {path}: {words}{end}"]


def _move(own: Tensor, other: Tensor, layout: ClassRows, places: Sequence[tuple[int, int]]) -> Tensor | None:
    """`own` with the rows of classes, (own place, other place), taken from `other`, and those of no class.

    None where the tensors differ in more than the number of classes.
    """
    if own.ndim != other.ndim or own.shape[1:] != other.shape[1:]:
        return None
    fixed = layout.before + layout.after
    mine, others = own.clone().unflatten(0, (layout.groups, -1)), None
    if other.shape[0] % layout.groups:
        return None
    others = other.unflatten(0, (layout.groups, -1)).to(own)
    if (others.shape[1] - fixed) % layout.width or others.shape[1] <= fixed:
        return None
    mine[:, : layout.before] = others[:, : layout.before]
    if layout.after:
        mine[:, -layout.after :] = others[:, -layout.after :]
    for to, of in places:
        here, there = (layout.before + layout.width * place for place in (to, of))
        mine[:, here : here + layout.width] = others[:, there : there + layout.width]
    return mine.flatten(0, 1)


def _listed(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f" ({', '.join(names[:_NAMED])}{more})"

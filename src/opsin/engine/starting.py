"""How a training begins that no recipe describes: what the flags leave open is chosen by the task, for the data.

A recipe, shipped or saved or a file, is complete: what it leaves out has the default of `opsin.engine.recipe`, always.
A training begun by flags names a model, data and perhaps more; what it leaves open is chosen by the function that its
room declares as `starts`. What was chosen stands in the run's recipe like anything else, and is printed in one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from opsin import errors, registry, rooms
from opsin.data import Preprocessing, Source
from opsin.engine.recipe import Recipe, list_recipes, load_recipe
from opsin.errors import InputError, unknown


@dataclass(frozen=True)
class Start:
    """What a task chooses for a training begun by flags. values: key of the recipe -> value. line: says it; or ""."""

    values: Mapping[str, Any] = field(default_factory=dict)
    line: str = ""


Choose: TypeAlias = Callable[[Recipe, Source, Preprocessing | None, Collection[str]], Start]
"""(recipe, its divided source, the network's input, keys given) -> the values of keys that were not given."""

# What says how to train: a mapping that has any of it is a recipe, and so is every saved one, by its version.
_DECIDING = ("version", "augment", "mixing", "loss", "optim", "schedule")
_STEPS = 20  # of an epoch, at least
_SIDED = re.compile(r"(?i)(?<![a-z])(left|right|east|west)(?![a-z])")


def given_keys(recipe: Any, overrides: Mapping[str, Any] | None) -> frozenset[str] | None:
    """The keys that the flags of a training give, as "optim.lr"; None where it is a recipe that describes it.

    recipe: as `opsin.train` takes it. A mapping of task, model, data and train alone is what flags are: the overrides
    beside it are `--set`. One that says how to train, by a section of optim, say, is a recipe; `--set version=2` makes
    one of flags.
    """
    if not isinstance(recipe, Mapping) or any(key in recipe for key in _DECIDING) or "version" in (overrides or {}):
        return None
    found = set(overrides or {})
    for section, values in recipe.items():
        found |= {f"{section}.{key}" for key in values} if isinstance(values, Mapping) else {str(section)}
    for key, value in (overrides or {}).items():  # --set optim='{lr: 0.1}'
        found |= {f"{key}.{inner}" for inner in value} if isinstance(value, Mapping) else set()
    return frozenset(found)


def choose_batch(images: int, sizes: Sequence[int]) -> int:
    """The largest of some sizes, in ascending order, by which an epoch of so many images has 20 steps; else the least.

    Images that are few are worth more steps in smaller batches.
    """
    return next((size for size in reversed(sizes) if images >= _STEPS * size), sizes[0])


def choose_open(values: Mapping[str, Any], given: Collection[str]) -> Start:
    """The choices for keys that were not given; its line has the rate, the batch and the augmentation among them."""
    values = {key: value for key, value in values.items() if key not in given}
    if not values:
        return Start()
    parts = [f"lr {values['optim.lr']:g}"] if "optim.lr" in values else []
    if "train.batch_size" in values:
        parts.append(f"batches of {values['train.batch_size']}")
    if steps := values.get("augment"):
        parts.append("augment " + " + ".join(name for step in steps for name in step))
    return Start(values, f"training: {', '.join(parts)}; a recipe or --set overrides")


def have_sides(classes: Iterable[str]) -> bool:
    """Whether a class has a side in its name, so that what is of it is of another where the image is mirrored."""
    return any(_SIDED.search(name) for name in classes)


def start(
    recipe: Recipe, source: Source, preprocessing: Preprocessing | None, given: Collection[str]
) -> tuple[Recipe, list[str]]:
    """The recipe with what its task chooses for the keys that were not given, and the line that says so."""
    room = rooms.find_room(recipe.task)
    if room.starts is None:
        return recipe, []
    choose: Choose = rooms.load(room.starts)
    chosen = choose(recipe, source, preprocessing, given)
    values = {key: value for key, value in chosen.values.items() if key not in given}
    if not values:
        return recipe, []
    made = load_recipe(recipe.model_dump(), values)
    return made, [chosen.line] if chosen.line else []


def recipe_of(what: str | None, overrides: Mapping[str, Any]) -> str | dict[str, Any]:
    """What to train by: a task's name before a recipe's, a recipe's before a model's. A name of two gets a line.

    what: None where overrides name a model. Raises InputError for a name that is none of them, and for a model
    without data.
    """
    named = str(overrides.get("model.name", ""))
    if what is None:
        known = registry.split_weights(named)[0]
        return {} if "task" in overrides or not named else {"task": registry.find_model(known).task}
    tasks, recipes = rooms.list_tasks(), list_recipes()
    if Path(what).suffix in (".yaml", ".yml"):
        return what
    kinds = [kind for kind, names in (("task", tasks), ("recipe", recipes)) if what in names]
    model, weights = registry.split_weights(what)
    if registry.is_model(model):
        kinds.append("model")
    if not kinds:
        raise _unknown(what, [*tasks, *recipes])
    if len(kinds) > 1:
        errors.say(f"{what} is a {' and a '.join(kinds)}; this trains the {kinds[0]}")
    if kinds[0] != "model":
        return {"task": what} if kinds[0] == "task" else what
    entry = registry.find_model(model)
    if named and registry.find_model(registry.split_weights(named)[0]) is not entry:
        raise InputError(f"{what} and --model {named} are two models; leave one of them out")
    if not {"data", "data.source"} & overrides.keys():
        raise InputError(f"{what} is a model; say what to train it on: opsin train {what} --data SOURCE")
    return {"task": entry.task, "model": {"name": entry.name} | ({"weights": weights} if weights else {})}


def _unknown(what: str, tasks_and_recipes: Sequence[str]) -> InputError:
    """The error for what is neither a task, nor a recipe, nor a model."""
    path = Path(what)
    if (path / "recipe.yaml").is_file():
        return InputError(f"{what} is a run; to go on with it: opsin train --resume {what}")
    if path.exists():
        return InputError(f"{what} is no recipe (.yaml); to train on it: opsin train MODEL --data {what}")
    registry.check_library(what)
    if (elsewhere := registry.elsewhere(what)) is not None:
        return InputError(f"unknown model {what!r}: {elsewhere}")
    error = unknown("task, recipe or model", what, [*tasks_and_recipes, *registry.list_models()])
    return InputError(f"{error} (`opsin models` lists the models; the tasks are {', '.join(rooms.list_tasks())})")

"""A recipe: everything that decides the result of a training, on one screen.

From YAML (a file, or a name of one shipped with opsin), from flags, or from a dict; `--set optim.lr=0.01` reaches every
key. A default stands here and nowhere else. Model options are not listed: they are checked against the builder. What
one task alone has stands in its own section, under its name; see `opsin.rooms.Room.section`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from opsin import registry, rooms
from opsin.engine.recipe_versions import (
    TENSORBOARD,
    VERSION,
    current_logger,
    pin_built_in,
    pin_division,
    version_of,
)
from opsin.errors import InputError, unknown
from opsin.files import read_regular
from opsin.rooms import Room
from opsin.schemes import split_scheme
from opsin.yaml_text import load_yaml

RECIPES = Path(__file__).parents[1] / "recipes"

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
# "auto" stands in a recipe until its training begins, which replaces it; what reads a recipe meets numbers alone.
if TYPE_CHECKING:
    AutoPositive: TypeAlias = int
    AutoRate: TypeAlias = float
    AutoCount: TypeAlias = int
else:
    AutoPositive, AutoRate, AutoCount = Positive | Literal["auto"], Rate | Literal["auto"], Count | Literal["auto"]

Logger = Literal["csv", "tensorboard", "wandb", "mlflow", "comet"]
Loggers = Annotated[
    list[Logger],
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
    AfterValidator(lambda names: list(dict.fromkeys(names))),
]


class RecipeSection(BaseModel):
    """A part of a recipe: its keys, their types and defaults. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    def opening(self) -> dict[str, Any]:
        """Of a task's own section: the keywords with which `opsin.data.open` opens the recipe's data."""
        return {}


class _Named(RecipeSection):
    """A section of a name and of options that the named thing's own signature checks."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The keys beyond those that the section itself declares."""
        return dict(self.model_extra or {})


class ModelSection(_Named):
    """A registered model and its builder's options."""

    name: str = Field(description="A name from `opsin models`.")
    weights: str | None = Field(
        default=None,
        description="Published weights to start from, such as imagenet1k, or a file; random numbers if null.",
    )
    backbone_weights: str | None = Field(
        default=None, description="Of a detector or segmenter: published weights of the classification network inside."
    )

    @model_validator(mode="before")
    @classmethod
    def _split_names(cls, values: Any) -> Any:
        """`timm:NAME.TAG` is a name and its weights, so that what was trained is built again without them."""
        if not isinstance(values, Mapping):
            return values
        found = dict(values)
        for key, weights in (("name", "weights"), ("backbone", "backbone_weights")):
            given = found.get(key)
            if not isinstance(given, str) or split_scheme(given) is None:
                continue
            name, named = registry.split_weights(given)
            if named is not None and found.get(weights) not in (None, named):
                raise ValueError(f"{key} names the weights {named} and {weights} others; leave one of them out")
            if named is not None:
                found |= {key: name, weights: named}
        return found


class DataSection(RecipeSection):
    """What to learn from, how it is split, and how an image becomes the network's input.

    What says so and is null is as the published weights of `model.weights` expect it, where there are some.
    """

    source: str = Field(description="A built-in name (digits, scenes), a folder or a file; see the page on data.")
    val_fraction: Fraction = Field(default=0.1, description="Share for validation, where the data has no such split.")
    test_fraction: Fraction = Field(default=0.2, description="Share for the test, where the data has no such split.")
    split: Literal["hash", "stratified"] = Field(
        default="hash",
        description="How data without splits is divided: hash, by each image's name, so that another file moves no "
        "other; stratified, with classes in proportion, the default of built-in data.",
    )
    split_seed: Annotated[int, Field(ge=0, lt=1 << 32)] = Field(
        default=0, description="Decides which examples go into which split."
    )
    size: Positive | tuple[Positive, Positive] | Literal["auto"] | None = Field(
        default=None,
        description="Of the input: pixels of a side, [height, width], or auto for one that fits the images and what "
        "they show; the model's published one if null.",
    )
    channels: Literal[1, 3] | None = Field(
        default=None, description="Of the input; if null 1 if every image is grey, else 3."
    )
    fit: Literal["squash", "crop", "pad"] | None = Field(
        default=None, description="How an image of another shape becomes the input; squash if null."
    )
    crop_ratio: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Share of each side that fit: crop keeps; 0.875 if null."
    )
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = Field(
        default=None, description="How images are resized; bilinear if null."
    )
    mean: list[float] | None = Field(
        default=None,
        description="Of images scaled to [0, 1], a number a channel, subtracted; ImageNet's, or 0.5 for grey, if null.",
    )
    std: list[Annotated[float, Field(gt=0)]] | None = Field(
        default=None, description="Divides what the mean was subtracted from; ImageNet's, or 0.5 for grey, if null."
    )
    allow: list[str] | str = Field(
        default=[],
        description="Folders besides the data's own whose files its lists and annotations may name.",
    )
    skip_bad: bool = Field(default=False, description="Leave unreadable images out instead of refusing.")
    changes: Literal["refuse", "accept"] = Field(
        default="refuse",
        description="What a resumed run does where its data has changed since it was begun; accept holds for once.",
    )
    limit: Positive | None = Field(
        default=None, description="Use only that many examples of each split, for a quick look; all if null."
    )


class MixingSection(RecipeSection):
    """Batch mixing, after collate. The value is the Beta distribution's alpha; 0 is off."""

    mixup: NotNegative = Field(default=0.0, description="Alpha of MixUp, which blends two images; 0 is off.")
    cutmix: NotNegative = Field(default=0.0, description="Alpha of CutMix, which pastes a part of an image; 0 is off.")
    by: Literal["labels", "losses"] = Field(default="labels", description="What MixUp mixes beside the images.")
    partners: Literal["neighbour", "permutation"] = Field(
        default="neighbour", description="What MixUp mixes an image with: the one before it, or one of a random order."
    )


class LossSection(_Named):
    """The criterion. `null`: the model's own, which is cross-entropy unless its paper says otherwise."""

    name: str | None = Field(default=None, description="A loss by name; the model's own if null.")  # type: ignore[assignment]
    class_weights: Literal["balanced", "median_frequency"] | list[Annotated[float, Field(ge=0)]] | None = Field(
        default=None,
        description="A weight a class; or balanced or, of pixels, median_frequency: rare classes count more; all equal "
        "if null.",
    )


class OptimSection(_Named):
    """The optimizer."""

    name: str = Field(default="sgd", description="An optimizer by name, such as sgd or adamw, or its dotted path.")
    lr: AutoRate = Field(
        default=0.1,
        description="The highest learning rate, reached after the warm-up; auto for what a range test suggests.",
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="How strongly weights are drawn to zero."
    )
    decay_norm_and_bias: bool = Field(
        default=True, description="Whether weight decay takes biases and the parameters of norms too."
    )


class ScheduleSection(_Named):
    """The learning rate over the training, after a linear warm-up."""

    name: str = Field(default="cosine", description="A schedule of the learning rate by name.")
    warmup_epochs: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="Epochs, or a part of one, in which the learning rate rises from zero."
    )


class TrainSection(RecipeSection):
    """How long, how fast, on what; passed on to Lightning where it has the same option."""

    epochs: Positive = Field(default=30, description="Passes over the training images.")
    max_steps: Positive | None = Field(default=None, description="Ends the training after so many optimizer steps.")
    batch_size: AutoPositive = Field(
        default=64, description="Images in a step of one process; auto for as many as fit into memory, accumulated."
    )
    sampling: Literal["shuffled", "balanced"] = Field(
        default="shuffled", description="balanced: every class comes equally often in training, rare ones repeated."
    )
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = Field(
        default=0, description="Decides the first weights, the order and every random choice."
    )
    workers: AutoCount = Field(
        default=0, description="Processes that read images, auto by cores and data; does not change the result."
    )
    accelerator: str = Field(default="auto", description="What computes: cpu, cuda, mps; auto takes the best there is.")
    devices: int | str | list[int] = Field(default=1, description="How many of them on a machine, or which, as [0, 2].")
    num_nodes: Positive = Field(default=1, description="Machines that train together.")
    strategy: str = Field(
        default="auto", description="How several devices share the work: ddp, fsdp; Lightning's names."
    )
    precision: str = Field(
        default="32-true",
        description="Numbers of the computation: 32-true, bf16-mixed, 16-mixed; auto for bf16 where there is hardware.",
    )
    accumulate: Positive = Field(
        default=1, description="Batches whose gradients are added up before the optimizer steps."
    )
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Largest norm of the gradient, above which it is scaled down; no limit if null."
    )
    sync_batchnorm: bool = Field(default=False, description="Batch norms take their statistics over all devices.")
    channels_last: bool = Field(default=False, description="Memory format that convolutions on GPUs are faster with.")
    deterministic: bool = Field(
        default=False, description="Only operations that repeat exactly, at some cost of speed."
    )
    freeze_epochs: Positive | None = Field(
        default=None, description="First epochs in which what an earlier training taught stays as it is; none if null."
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Decay of a moving average of the weights, which is what is saved; none if null.",
    )
    early_stopping_patience: Positive | None = Field(
        default=None, description="Stops after so many epochs without a better monitored metric; never if null."
    )
    monitor: str | None = Field(
        default=None, description="The val_ column of metrics.csv that chooses the best epoch; the task's own if null."
    )
    keep: Literal["best", "last"] = Field(default="best", description="Which epoch's weights become model.safetensors.")
    save_every_steps: Positive | None = Field(
        default=None, description="last.ckpt is written at each epoch's end, and this often in between."
    )
    init: str | None = Field(
        default=None, description="A run or a file of weights whose fitting tensors are the first weights."
    )
    logger: Loggers = Field(
        default=["csv"],
        description="Experiment trackers: tensorboard, wandb, mlflow, comet; csv is always written.",
    )
    callbacks: list[str] = Field(
        default=[], description="Lightning's, by dotted paths into torch or modules that --import named."
    )


class Recipe(RecipeSection):
    """One training, completely. A recipe of a task with a section of its own has that too, under the task's name."""

    version: Literal[3] = Field(default=VERSION, description="Of what a recipe holds; older ones are brought to this.")
    task: str = Field(default=rooms.DEFAULT_TASK, description="The task that is learned, by name.")
    # Named for who reads the recipe; never imported from here.
    imports: list[str] = Field(
        default=[], description="Modules of other packages that the command imported by --import."
    )
    model: ModelSection = Field(description="The network.")
    data: DataSection = Field(description="What to learn from, its splits, and the network's input.")
    augment: list[str | dict[str, dict[str, Any] | None]] | str | None = Field(
        default=None, description="Steps of augmentation in order, or a preset by name; none if null."
    )
    mixing: MixingSection = Field(default=MixingSection(), description="Mixing of the images of a batch.")
    loss: LossSection = Field(default=LossSection(), description="What is minimised.")
    optim: OptimSection = Field(default=OptimSection(), description="The optimizer.")
    schedule: ScheduleSection = Field(default=ScheduleSection(), description="The learning rate over the training.")
    train: TrainSection = Field(default=TrainSection(), description="How long, how fast, on what.")
    metrics: dict[str, str] = Field(
        default={}, description="Metrics beside the task's own: name to dotted path into modules that --import named."
    )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its values: the class has the task's own section, and is made when it is loaded."""
        return load_recipe, (self.model_dump(mode="json"),)

    def to_yaml(self) -> str:
        """The recipe as YAML with every key written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def load_recipe(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    say: Callable[[str], None] | None = None,
) -> Recipe:
    """Read, override and check a recipe. Raises InputError that names the key, and the nearest one if it is unknown.

    source: a shipped recipe's name, a YAML file, or a mapping; of an earlier version, too. overrides: {"optim.lr":
    0.01, ...}. say: gets a line on keys that have moved and do not have their default; None for nobody.
    """
    values = read_recipe(source) if isinstance(source, str | Path) else _copy(source)
    task = (overrides or {}).get("task", values.get("task", rooms.DEFAULT_TASK))
    room = _find_room(task, values)
    overrides = dict(overrides or {})
    if "version" in overrides:
        values["version"] = overrides.pop("version")
    _migrate(values, room, say)
    for key, value in overrides.items():
        key, value = current_logger(key, value)
        _assign(values, _current_key(key, room, value, say), value)
    _complete(values, room)
    pin_built_in(values, room.task)
    try:
        recipe = recipe_class(room).model_validate(values)
    except ValidationError as error:
        raise _explain(error, values, room) from None
    if room.networks is not None:
        _check_model(recipe)
    _check_monitor(recipe, room)
    for section in ("loss", "optim", "schedule"):
        _check_slips(section, getattr(recipe, section))
    return recipe


@cache
def recipe_class(room: Room) -> type[Recipe]:
    """Recipes of a task: with its own section, where it has one."""
    if room.section is None:
        return Recipe
    section: Any = rooms.load(room.section)
    fields: Any = {room.task: (section, section())}
    return create_model("Recipe", __base__=Recipe, __module__=__name__, **fields)


def own_section(recipe: Recipe) -> Any:
    """The section of a recipe that is its task's own; an empty one where the task has none."""
    return getattr(recipe, recipe.task) if recipe.task in type(recipe).model_fields else RecipeSection()


def read_recipe(source: str | Path) -> dict[str, Any]:
    """The values of a recipe file, or of a shipped recipe by name."""
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        shipped = list_recipes()
        if str(source) not in shipped and registry.is_model(str(source)):
            raise InputError(f"{source} is a model, not a recipe; to train it: opsin train {source} --data SOURCE")
        if str(source) not in shipped:
            raise unknown("recipe", source, [*shipped, *rooms.list_tasks()])
        path = shipped[str(source)]
    try:
        return parse_yaml(read_regular(path).decode("utf-8"), str(path))
    except OSError as error:
        raise InputError(f"recipe {source} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"recipe {source} is not UTF-8 text") from None


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """A mapping from YAML text; `name` says in errors where the text came from."""
    try:
        values = load_yaml(text)
    except InputError as error:
        raise InputError(f"{name} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise InputError(
            f"{name} must hold a mapping of sections (task, model, data, ...), got {type(values).__name__}"
        )
    return values


def parse_setting(setting: str) -> tuple[str, Any]:
    """`"optim.lr=1e-3"` -> `("optim.lr", 0.001)`. The value is read as YAML."""
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set takes key=value, for example optim.lr=0.01; got {setting!r}")
    try:
        return key.strip(), load_yaml(value)
    except InputError as error:
        shown = value if len(value) <= 40 else f"{value[:40]}..."
        raise InputError(f"--set {key}: {shown!r} is not a valid YAML value: {error}") from None


def list_recipes() -> dict[str, Path]:
    """The recipes shipped with opsin, by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*/*.yaml"))}


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place = values
    for part in parents:
        inner = place.get(part)
        if inner is None:
            inner = place[part] = {}
        if not isinstance(inner, dict):
            raise InputError(f"cannot set {key}: {part} is {inner!r}, not a section")
        place = inner
    place[last] = value


def _find_room(task: Any, values: Mapping[str, Any]) -> Room:
    try:
        return rooms.find_room(str(task))
    except InputError as error:
        raise _made_with(error, values.get("imports")) from None


def _made_with(error: InputError, packages: Any) -> InputError:
    """An error about a name, with the modules that the recipe's training had imported, where some are lacking now."""
    names = packages if isinstance(packages, list) else []
    flags = " ".join(f"--import {name}" for name in names if name not in rooms.imported_packages())
    return InputError(f"{error}; it was made with {flags}: give that again") if flags else error


def _migrate(values: dict[str, Any], room: Room, say: Callable[[str], None] | None) -> None:
    """Bring the values of a recipe of an earlier version to this one, in place.

    Version 1 had what belongs to one task among the keys of all, and every saved recipe holds them. Before version 3
    data was always divided stratified.
    """
    version = version_of(values)
    if isinstance(version, int) and version > VERSION:
        raise InputError(f"the recipe is of version {version}, and this opsin knows {VERSION}: a newer one made it")
    for old in _moved_keys():
        section, _, key = old.partition(".")
        inside = values.get(section)
        if not isinstance(inside, dict) or key not in inside:
            continue
        value = inside.pop(key)
        new = _current_key(old, room, value, say)
        if new != old:
            place = values.setdefault(room.task, {})
            if isinstance(place, dict):
                place.setdefault(new.partition(".")[2], value)
    train = values.get("train")
    if isinstance(train, dict) and TENSORBOARD in train:
        key, value = current_logger(f"train.{TENSORBOARD}", train.pop(TENSORBOARD))
        train.setdefault(key.partition(".")[2], value)
    pin_division(values, version)
    values["version"] = VERSION


def _current_key(key: str, room: Room, value: Any, say: Callable[[str], None] | None) -> str:
    """A key of a recipe as it is called now; the key itself where it belongs to another task and says nothing.

    Raises InputError for a key of another task that has a value of its own.
    """
    owner = room if key in room.moved else _moved_keys().get(key)
    if owner is None:
        return key
    new = owner.moved[key]
    plain = value == _default_of(owner, new)
    if owner is not room:
        if not plain:
            raise InputError(f"{key} belongs to recipes for {owner.task}, not for {room.task}; remove it")
        return key
    if not plain and say is not None:
        say(f"{key} is called {room.task}.{new} now")
    return f"{room.task}.{new}"


def _moved_keys() -> dict[str, Room]:
    return {old: room for room in reversed(rooms.built_in_rooms()) for old in room.moved}


def _default_of(room: Room, key: str) -> Any:
    return recipe_class(room).model_fields[room.task].default.model_dump()[key] if room.section else None


def migrate_flat(flat: Mapping[str, Any], task: str) -> dict[str, Any]:
    """A flat recipe, "section.key" -> value, of any earlier version as one of this."""
    room = rooms.find_room(task)
    found: dict[str, Any] = {}
    for key, value in flat.items():
        new = _current_key(key, room, value, None)
        if new != key or key not in _moved_keys():
            found[new] = value
    found.setdefault("data.split", "stratified")
    found.setdefault("data.changes", "refuse")
    return found


def _complete(values: dict[str, Any], room: Room) -> None:
    """Add the task's own defaults where they differ from those that stand here.

    An optimizer or a schedule that is named keeps none of them, since they belong to another. What trains
    nothing needs neither a model nor data.
    """
    if room.trains is None:
        values.setdefault("model", {"name": ""})
        values.setdefault("data", {"source": ""})
    for section, defaults in room.defaults.items():
        given = values.get(section)
        if given is None:
            values[section] = dict(defaults)
        elif isinstance(given, dict) and given.get("name", defaults.get("name")) == defaults.get("name"):
            values[section] = {**defaults, **given}


def _explain(error: ValidationError, values: Mapping[str, Any], room: Room) -> InputError:
    """The first problem of a recipe, in one line."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    whole = recipe_class(room)
    if first["type"] == "extra_forbidden":
        section = whole.model_fields.get(place[0]) if len(place) > 1 else None
        model: Any = section.annotation if section is not None else whole
        known = [".".join([*place[:-1], name]) for name in model.model_fields]
        return unknown("recipe key", ".".join(place), known)
    if first["type"] == "missing":
        flag = {"data": " (--data)", "data.source": " (--data)", "model": " (--model)", "model.name": " (--model)"}
        key = ".".join(place)
        return InputError(f"the recipe lacks {key}{flag.get(key, '')}")
    # Pydantic names the branch of a union behind the key; users know only the key.
    key = ".".join(place[:2])
    given: Any = values
    for part in place[:2]:
        given = given.get(part) if isinstance(given, Mapping) else given
    return InputError(f"recipe key {key}: {first['msg'][0].lower()}{first['msg'][1:]}, got {given!r}")


_GIVEN = {"optim": ("model",), "schedule": ("optimizer", "steps", "steps_per_epoch")}  # what the engine passes itself


def _check_slips(section: str, values: _Named) -> None:
    """Refuse an option that is a slip of a key of the section itself; the named thing checks all others."""
    declared = type(values).model_fields
    for option in values.options:
        if option in _GIVEN.get(section, ()):
            raise InputError(f"recipe key {section}.{option} follows from the training; remove it")
        if difflib.get_close_matches(option, declared, cutoff=0.8):
            raise unknown("recipe key", f"{section}.{option}", [f"{section}.{key}" for key in declared])


def _check_model(recipe: Recipe) -> None:
    model = recipe.model
    try:
        entry = registry.find_model(model.name)
    except InputError as error:
        raise _made_with(error, recipe.imports) from None
    if model.weights is not None:
        registry.find_weights(entry.name, model.weights)
        if recipe.train.init is not None:
            raise InputError("model.weights and train.init both give the first weights; leave one of them out")
    if entry.task not in (recipe.task, ""):  # none yet of an object that a run is loaded into
        raise InputError(f"{entry.name} is a model for {entry.task}, not for {recipe.task}")
    if model.backbone_weights is not None and (model.weights is not None or recipe.train.init is not None):
        raise InputError("model.weights and train.init fill the backbone too; leave them or model.backbone_weights out")
    for option in model.options:
        if option in ("num_classes", "in_channels"):
            raise InputError(f"model.{option} follows from the data; remove it (data.channels sets the channels)")
        if option not in entry.options:
            raise unknown(f"option of {entry.name}", option, set(entry.options) - {"num_classes", "in_channels"})


def _check_monitor(recipe: Recipe, room: Room) -> None:
    """Refuse a metric to choose the best epoch by that the task does not give, before any data is read."""
    named = recipe.train.monitor
    evaluation = rooms.evaluating_room(room)
    if named is None or (named.startswith("val_") and evaluation.metric(named) is not None):
        return
    own = [f"val_{name}" for name in recipe.metrics]
    if any(named == name or named.startswith(f"{name}_") for name in own):  # one may give several values
        return
    known = [*(f"val_{metric.name}" for metric in evaluation.metrics), *own]
    raise unknown("train.monitor", named, known)

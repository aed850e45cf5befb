"""Names of models, with their builders and published facts.

A task's networks register with `@register` when they are imported; `opsin.rooms` says where they are. Losses,
optimizers and transforms are not registered: they are plain functions with a small table beside them.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from opsin import errors, objects, rooms
from opsin.errors import InputError, unknown
from opsin.rooms import Room
from opsin.schemes import SCHEMES, Scheme, split_scheme

if TYPE_CHECKING:
    from torch import Tensor, nn


Builder = TypeVar("Builder", bound=Callable[..., Any])
WEIGHT_FILES = (".pth", ".pt", ".th", ".ckpt", ".bin", ".safetensors")  # how files of weights end
NO_IMAGES: Any = ()  # the `input` of a network that takes none, but tokens or rows


@dataclass(frozen=True)
class Published:
    """What the paper (or the named port) states of a network, in its default form. The contract tests hold us to it.

    paper: arXiv id or citation. input: (channels, height, width), or `NO_IMAGES`. params: all learnable tensors. macs:
    multiply-adds of convolutions and linear layers for one input, None where nobody published or counted them. metrics:
    published results, keyed "data set metric", in percent. source: where params, macs and metrics were counted or read.
    """

    paper: str
    year: int
    input: tuple[int, int, int]
    params: int
    macs: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    idea: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", MappingProxyType(dict(self.metrics)))


@dataclass(frozen=True)
class Weights:
    """A published file of weights of a registered model, in its default form, as data.

    url: of a .pth or .safetensors state dict. sha256: hexadecimal, whole or as many leading digits as the publisher
    states, at least 8; "" where it is only known when the file is fetched. licence: SPDX name where there is one, and
    what else binds. source: whose they are. preprocessing: what their network expects, keys of
    `opsin.data.Preprocessing`. metrics: what the publisher measured with them, keyed "data set metric", in percent.
    num_classes: of the file, 0 if it has no layer of classes. classes: the list of `opsin.data.class_names` that names
    them, "" if there is none. arrange: puts their state dict into the order of our tensors where walking both in order
    is not enough, as in .safetensors files, which are sorted by name.

    Of other libraries' networks: fetch: (offline, say) -> the file, where it does not come from the URL by itself.
    read: (file, options of the builder) -> its tensors by our names, for a network with these options. options: of the
    builder, without which the file does not fit.
    """

    url: str
    sha256: str
    licence: str
    source: str
    preprocessing: Mapping[str, Any]
    metrics: Mapping[str, float] = field(default_factory=dict)
    num_classes: int = 1000
    classes: str = "imagenet1k"
    arrange: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    fetch: Callable[[bool | None, Callable[[str], None]], Path] | None = None
    read: Callable[[Path, Mapping[str, Any]], Mapping[str, Tensor]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        hidden = ("classes", "arrange", "fetch", "read", "options")
        own = {name: value for name, value in vars(self).items() if name not in hidden}
        return own | {"preprocessing": dict(self.preprocessing), "metrics": dict(self.metrics)}


@dataclass(frozen=True)
class Entry:
    """A registered model, or one of another library.

    facts: what is published of it, None if nothing. network: see `register`. input: (channels, height, width) that it
    takes where nothing is published; `input_size` gives the one or the other. counted: its parameters where nothing is
    published and somebody counted them, see `count`.
    """

    name: str
    task: str
    builder: Callable[..., nn.Module]
    facts: Published | None = None
    weights: Mapping[str, Weights] = field(default_factory=dict)
    network: type[nn.Module] | None = None
    input: tuple[int, int, int] | None = None
    counted: int | None = None

    @property
    def input_size(self) -> tuple[int, int, int] | None:
        """The (channels, height, width) that it is for; None where nothing says so."""
        return (self.facts.input or None) if self.facts is not None else self.input

    @property
    def params(self) -> int | None:
        """All learnable tensors: as published, else as counted; None where nobody did."""
        return self.facts.params if self.facts is not None else self.counted

    @property
    def published(self) -> Published:
        """The published facts, for what cannot do without. Raises InputError where there are none."""
        if self.facts is None:
            raise InputError(f"nothing is published of {self.name}; register it with published=Published(...)")
        return self.facts

    @property
    def family(self) -> str:
        """The file that holds the network: `resnet` for resnet50; "" of a network given as an object."""
        return "" if objects.is_object(self.name) else self.builder.__module__.rpartition(".")[2]

    @property
    def options(self) -> Mapping[str, inspect.Parameter]:
        """Every keyword that the builder accepts, found in its signature and the network's constructor."""
        return _options(self.builder, self.network)

    @property
    def summary(self) -> dict[str, str]:
        """A row of a table of models, heading -> text; "-" where nothing is known."""
        facts = self.facts
        known = {
            "params": self.params and f"{self.params:,}",
            "macs": facts and facts.macs and f"{facts.macs:,}",
            "input": self.input_size and "x".join(map(str, self.input_size)),
            "year": facts and str(facts.year),
            "paper": facts and facts.paper,
            "weights": " ".join(self.weights),
            "idea": facts and facts.idea,
        }
        return {"name": self.name, "task": self.task} | {key: str(value or "-") for key, value in known.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None where nothing is published."""
        facts = self.facts
        return {
            "name": self.name,
            "task": self.task,
            "family": self.family,
            "params": self.params,
            "macs": facts and facts.macs,
            "input": self.input_size and list(self.input_size),
            "paper": facts and facts.paper,
            "year": facts and facts.year,
            "metrics": dict(facts.metrics) if facts else {},
            "idea": facts.idea if facts else "",
            "source": facts.source if facts else "",
            "options": sorted(self.options),
            "weights": {name: weights.to_dict() for name, weights in self.weights.items()},
        }


_models: dict[str, Entry] = {}
_aliases: dict[str, str] = {}
_objects: dict[str, Entry] = {}  # networks that calls were given as objects
_loaders: list[Callable[..., Any]] = []  # what fills a model with published weights
_tried: set[str] = set()  # modules of networks
_built: WeakKeyDictionary[Any, tuple[str, dict[str, Any]]] = WeakKeyDictionary()  # by `create_model`: name and options


def register(
    name: str,
    *,
    task: str,
    network: type[nn.Module] | None = None,
    published: Published | None = None,
    weights: Mapping[str, Weights] | None = None,
    alias: str | None = None,
) -> Callable[[Builder], Builder]:
    """Enter a builder under a name, with its published weights by theirs. A second builder of a name is an error.

    network: the class of what it builds, whose constructor says what a builder that ends in `**options` takes; the
    builder itself where that is a class. published: what the contract tests hold it to. alias: what its paper calls
    it, where our name says more: ssd300 for ssd300_vgg16.
    """

    def enter(builder: Builder) -> Builder:
        for key in filter(None, (name, alias)):
            if (other := _models.get(_aliases.get(key, key))) is not None:
                raise ValueError(
                    f"model {key!r} is registered twice: {other.builder.__module__} and {builder.__module__}"
                )
        given: Any = builder
        kind: Any = given if network is None and inspect.isclass(given) else network
        if kind is None and any(p.kind is p.VAR_KEYWORD for p in inspect.signature(builder).parameters.values()):
            raise ValueError(f"the builder of {name!r} takes **options; say of which class: network=...")
        _models[name] = Entry(name, task, builder, published, MappingProxyType(dict(weights or {})), kind)
        if alias is not None:
            _aliases[alias] = name
        return builder

    return enter


def loads_weights(loader: Builder) -> Builder:
    """Name the function that `create_model` fills models with published weights by, of a floor above this."""
    _loaders[:] = [loader]
    return loader


def find_model(name: str) -> Entry:
    """The entry of a model, by its name or alias. Raises InputError with the nearest names when there is none.

    Of an object that a call was given in the place of a name, what `remember_object` keeps.
    """
    if objects.is_object(name):
        return _find_object(name)
    if (given := _of_library(name)) is not None:
        scheme, rest = given
        return scheme.load("models")(rest)
    if not is_model(name):
        if (place := elsewhere(name)) is not None:
            raise InputError(f"unknown model {name!r}: {place}")
        raise InputError(f"{unknown('model', name, [*_models, *_aliases])} (`opsin models` lists them all)")
    return _models[_aliases.get(name, name)]


def remember_object(entry: Entry) -> None:
    """Keep what is known of a network that a call was given as an object, by its name in recipes, for this process."""
    _objects[entry.name] = entry


def _find_object(name: str) -> Entry:
    """Of a network given as an object: while it is lent its own entry, later what is remembered of it."""
    lent: Entry | None = objects.lent("model.name")
    if lent is not None:  # its class may be in another module now
        return replace(lent, name=name)
    if name not in _objects:
        raise objects.missing("model.name", name)
    return _objects[name]


def is_model(name: str) -> bool:
    """Whether a model has this name or alias. Other packages' networks are imported where none of ours has it.

    Raises InputError for the name of a library's network where that library is not installed.
    """
    if (given := _of_library(name)) is not None:
        scheme, rest = given
        return rest in scheme.load("names")(None)
    for room in rooms.built_in_rooms():  # one by one: a network is found without those of the tasks after its own
        _import_networks([room])
        if _aliases.get(name, name) in _models:
            return True
    _import_networks(rooms.all_rooms())
    return _aliases.get(name, name) in _models


def _of_library(name: str) -> tuple[Scheme, str] | None:
    """The scheme and the rest of a name such as `timm:convnext_tiny`, where models have that scheme."""
    found = split_scheme(name)
    return found if found is not None and found[0].models is not None else None


def split_weights(name: str) -> tuple[str, str | None]:
    """The model and the weights that a name such as `resnet50:imagenet1k` names; None where it names no weights.

    `timm:convnext_tiny:fb_in1k` and, as timm writes it, `timm:convnext_tiny.fb_in1k` name the weights `fb_in1k` of
    `timm:convnext_tiny`.
    """
    found = _of_library(name)
    if found is None and split_scheme(name) is not None:
        return name, None
    prefix, rest = ("", str(name)) if found is None else (f"{found[0].name}:", found[1])
    model, sign, weights = rest.partition(":")
    if found is not None and not sign:
        model, sign, weights = rest.partition(".")
    return prefix + model, weights if sign else None


def check_library(name: str) -> None:
    """Raise InputError, with the nearest, for a name with a library's scheme that this library does not have."""
    if _of_library(name) is not None:
        find_model(split_weights(name)[0])


def count(entry: Entry) -> Entry:
    """The entry of a model of which nothing is published, with its parameters counted, without memory for them."""
    if entry.facts is not None:
        return entry
    import torch

    with torch.device("meta"):
        return replace(entry, counted=sum(p.numel() for p in entry.builder().parameters()))


# Families that many look for, by patterns of their names elsewhere: who has them.
_ELSEWHERE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("convnextv2*", "ConvNeXt V2", ("timm",)),
    ("convnext*", "ConvNeXt", ("timm", "torchvision")),
    ("vit_*", "the vision transformer", ("timm", "torchvision")),
    ("swin_*", "Swin", ("timm", "torchvision")),
    ("swinv2_*", "Swin V2", ("timm",)),
    ("maxvit_*", "MaxViT", ("timm", "torchvision")),
    ("mvit*", "MViT", ("timm", "torchvision")),
    ("mnasnet*", "MNASNet", ("timm", "torchvision")),
    ("efficientnetv2_*", "EfficientNetV2", ("timm",)),
    ("tf_efficientnetv2_*", "EfficientNetV2", ("timm",)),
    ("efficientnet_v2_*", "EfficientNetV2", ("torchvision",)),
    ("squeezenet*", "SqueezeNet", ("torchvision",)),
    ("beit*", "BEiT", ("timm",)),
    ("cait_*", "CaiT", ("timm",)),
    ("coatnet_*", "CoAtNet", ("timm",)),
    ("deit*", "DeiT", ("timm",)),
    ("dla*", "DLA", ("timm",)),
    ("dpn*", "DPN", ("timm",)),
    ("edgenext_*", "EdgeNeXt", ("timm",)),
    ("efficientformer*", "EfficientFormer", ("timm",)),
    ("eva*", "EVA", ("timm",)),
    ("fastvit_*", "FastViT", ("timm",)),
    ("ghostnet*", "GhostNet", ("timm",)),
    ("hrnet_*", "HRNet", ("timm",)),
    ("levit_*", "LeViT", ("timm",)),
    ("mixer_*", "MLP-Mixer", ("timm",)),
    ("mobilenetv4_*", "MobileNetV4", ("timm",)),
    ("mobileone_*", "MobileOne", ("timm",)),
    ("mobilevit*", "MobileViT", ("timm",)),
    ("*nfnet_*", "NFNet", ("timm",)),
    ("pvt_*", "PVT", ("timm",)),
    ("repvgg_*", "RepVGG", ("timm",)),
    ("res2net*", "Res2Net", ("timm",)),
    ("resnest*", "ResNeSt", ("timm",)),
    ("xcit_*", "XCiT", ("timm",)),
)


# The same of networks for tasks whose networks cannot be taken from another library.
_OF_OTHER_TASKS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("deeplabv3_mobilenet*", "DeepLabV3 on a MobileNet", ("torchvision",)),
    ("fcn_*", "FCN on a dilated ResNet", ("torchvision",)),
    ("fcos_*", "FCOS", ("torchvision",)),
    ("keypointrcnn_*", "Keypoint R-CNN", ("torchvision",)),
    ("lraspp_*", "LR-ASPP", ("torchvision",)),
)


def elsewhere(name: str) -> str | None:
    """Of a well-known network that is not built in, how to have it, in words; None of any other name.

    The name of a library alone is answered too. Nothing of a library is imported for it.
    """
    if name in SCHEMES and SCHEMES[name].names is not None:
        return f"the networks of {name} are `{name}:NAME`, and `opsin models '{name}:*'` lists them"
    if (place := not_built(name)) is not None:
        return place
    for pattern, family, libraries in _ELSEWHERE:
        if fnmatchcase(name.casefold(), pattern) and not is_model(name):
            named = " or ".join(f"`{library}:{name.casefold()}`" for library in libraries)
            have = "has" if len(libraries) == 1 else "have"
            listing = f"`opsin models '{libraries[0]}:{pattern}'` lists the names there"
            return f"{family} is not built in; {' and '.join(libraries)} {have} it: try {named} ({listing})"
    for pattern, family, libraries in _OF_OTHER_TASKS:
        if fnmatchcase(name.casefold(), pattern) and not is_model(name):
            return f"{family} is not in opsin; {' and '.join(libraries)} has it"
    return None


def not_built(file: str) -> str | None:
    """What there is in place of a network that a file describes and opsin never builds; None of any other name."""
    for room in rooms.built_in_rooms():
        for pattern, place in room.not_built.items():
            if fnmatchcase(file.casefold(), pattern):
                return rooms.load(place)(file)
    return None


def list_models(pattern: str = "*", task: str | None = None) -> list[str]:
    """Names of models that match a shell pattern and serve a task, sorted. Without `*` or `?` it matches inside.

    Upper and lower case are one. A pattern with a scheme, `timm:*convnext*`, matches that library's names, and no other
    does.
    """
    pattern = pattern.casefold()
    given = _of_library(pattern)
    prefix, pattern = ("", pattern) if given is None else (f"{given[0].name}:", given[1])
    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    if task is not None:
        rooms.find_room(task)
    if given is not None:
        return sorted(prefix + n for n in given[0].load("names")(task) if fnmatchcase(n.casefold(), pattern))
    _import_networks(rooms.all_rooms())
    return sorted(n for n, e in _models.items() if fnmatchcase(n.casefold(), pattern) and task in (None, e.task))


def find_weights(name: str, weights: str) -> Weights:
    """Published weights of a model. Raises InputError with the nearest names when there are none of that name.

    Of a file, here or of the hub (`hf:owner/name`), nothing is known but what the model says of itself.
    """
    entry = find_model(name)
    known = entry.weights
    channels = {} if entry.input_size is None else {"channels": entry.input_size[0]}
    if (found := split_scheme(weights)) is not None and found[0].runs is not None:
        return Weights(weights, "", "the terms of its repository", "the Hugging Face hub", channels, classes="")
    if is_weight_file(name, weights):
        return Weights(weights, "", "the terms of its author", "a file", channels, classes="")
    if not known and _of_library(name) is not None:
        raise InputError(f"{name} has no published weights; build it without weights and train it")
    if not known:
        others = [n for n in list_models() if _models[n].weights]
        near = difflib.get_close_matches(name, others, n=3)
        hint = f"; others have: {', '.join(near)}" if near else ""
        raise InputError(f"no published weights of {name} are known{hint}; build it without weights and train it")
    if weights not in known:
        raise unknown(f"weights of {name}", weights, known)
    return known[weights]


def is_weight_file(name: str, weights: str | Path) -> bool:
    """Whether the weights of a model are the path of a file, there or not, and no name of published ones."""
    if str(weights) in find_model(name).weights or split_scheme(weights) is not None:
        return False
    path = Path(weights)
    return path.suffix.lower() in WEIGHT_FILES or len(path.parts) > 1 or path.is_file()


def built_as(model: nn.Module) -> tuple[str, dict[str, Any]] | None:
    """The name and the options by which `create_model` built a network; None of any other."""
    return _built.get(model)


def create_model(
    name: str,
    *,
    weights: str | Path | None = None,
    offline: bool | None = None,
    say: Callable[[str], None] = errors.say,
    **options: Any,
) -> nn.Module:
    """Build a model by name, with its builder's options: for classifiers `num_classes` and `in_channels` among them.

    weights: a name of published ones, downloaded once into OPSIN_HOME and verified, a file of your own, "x.pth", see
    `opsin.load_weights`, or one of the hub, "hf:owner/name"; None starts from random numbers. Names of published ones
    may stand behind the model's too: resnet50:imagenet1k, timm:convnext_tiny.fb_in1k.
    With another `num_classes` the last layer starts fresh, with another `in_channels` the first; `say` gets a line on
    it, standard error by default. offline: only what was downloaded before; OPSIN_OFFLINE decides if None.

    Raises InputError for an unknown name or option, with the nearest known ones, and for weights that do not fit.
    """
    if _of_library(name) is not None:
        name, named = split_weights(name)
        weights = named if weights is None else weights
    entry = find_model(name)
    known = entry.options
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    if weights is not None:
        weights = str(weights)
        options = {**find_weights(name, weights).options, **options}
    try:
        model = entry.builder(**options)
    except (TypeError, ValueError) as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]  # torch's have a trace of C++ behind it
        raise InputError(f"{name} cannot be built with {options}: {reason}") from error
    _built[model] = name, options
    if weights is not None:
        _loaders[0](model, name, weights, options, offline=offline, say=say)
    return model


def _import_networks(known: Iterable[Room]) -> None:
    """Import the networks of rooms, which registers them. A failure of another package's is one line, once."""
    for room in known:
        if room.networks is None or room.networks in _tried:
            continue
        _tried.add(room.networks)
        if room.task in rooms.BUILT_IN:
            importlib.import_module(room.networks)
            continue
        try:
            importlib.import_module(room.networks)
        except (Exception, SystemExit) as error:  # whatever its own code raises
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            errors.say(f"the networks of {room.task} ({room.networks}) cannot be used: {cause}")


def _options(builder: Callable[..., Any], network: type | None) -> dict[str, inspect.Parameter]:
    """Keywords of a builder; where it ends in `**options`, those of its network's constructor are added.

    Where that ends in `**options` too, those of the class that it inherits from, and so on.
    """
    signature = inspect.signature(builder).parameters
    found = {n: p for n, p in signature.items() if p.kind is not p.VAR_KEYWORD}
    if len(found) == len(signature) or network is None:
        return found
    for kind in network.__mro__:
        if "__init__" in vars(kind):
            inside = inspect.signature(kind.__init__).parameters
            found |= {n: p for n, p in inside.items() if p.kind is p.KEYWORD_ONLY and n not in found}
            if all(p.kind is not p.VAR_KEYWORD for p in inside.values()):
                break
    return found

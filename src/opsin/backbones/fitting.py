"""Somebody's tensors, fitted to the modules of a network of ours: by name, or in order with every shape checked."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from opsin import errors, registry
from opsin.backbones.backbone import Backbone, training_options
from opsin.backbones.weight_files import WeightFile, check_numbers, in_natural_order, read_weights, without_prefixes
from opsin.errors import InputError
from opsin.nn.capabilities import class_rows
from opsin.schemes import find_local

_SORTED = (
    "A safetensors file is sorted by name: its names must be opsin's, or those of this network in torchvision, or in "
    "timm if installed"
)
_SHOWN = 6  # names that a line shows before it counts


@dataclass(frozen=True)
class Fitted:
    """What became of a file of weights: the model's tensors that it filled, those that stay fresh, and what is left.

    file: what it was called. kept, fresh: by the model's names. left: by the file's, what nothing took. source: the
    classes and channels that the file is for, as {"num_classes": 1000, "in_channels": 3}. note: what of it was taken.
    """

    file: str
    kept: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    source: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    def describe(self) -> str:
        """All of it in a line."""
        line = f"{len(self.kept)} of {len(self.kept) + len(self.fresh)} tensors are from {self.file}"
        line += f" ({self.note})" if self.note else ""
        line += f"; fresh: {_listed(self.fresh)}" if self.fresh else ""
        return line + (f"; left in the file: {_listed(self.left)}" if self.left else "")


def load_weights(
    model: nn.Module, file: str | Path, *, offline: bool | None = None, say: Callable[[str], None] = errors.say
) -> Fitted:
    """Fill a model with a file of weights of anybody's. Returns what fitted, what is fresh and what was left over.

    model: of `create_model`, by whose name the file's may be known, or any module. file: what torch saved (.pth, .pt,
    .th, .ckpt), read without running code of it, or .safetensors, here or on the hub ("hf:owner/name"). The state dict
    may lie within a training's file, and its names behind prefixes. They are the model's own, or those of the same
    network in torchvision or timm; else the tensors are walked in order. Every shape is checked before anything is
    copied. Another number of classes leaves the last layer fresh, another of channels the first; `say` is told all of
    it. Raises InputError with the first tensor that does not fit.
    """
    path = Path(file) if Path(file).exists() else find_local(str(file), offline=offline) or Path(file)
    name, options = registry.built_as(model) or ("", {})
    fitted = fit_file(model, name, path, options, shown=str(file))
    say(fitted.describe())
    return fitted


def fit_file(model: nn.Module, name: str, path: Path, options: Mapping[str, Any], *, shown: str = "") -> Fitted:
    """`load_weights`, of a model that was built as `name` with these options; "" where nobody knows how."""
    return fit_weights(model, name, read_weights(path), options, shown=shown or str(path))


def fit_weights(model: nn.Module, name: str, file: WeightFile, options: Mapping[str, Any], *, shown: str) -> Fitted:
    """`fit_file`, of a file that was read."""
    check_numbers(shown, file.tensors)
    given, source = _Search(model, name, options, file).find(shown)
    kept, fresh = copy_fitting(model, given)
    used = {id(given[key]) for key in (*kept, *fresh) if key in given}  # heads that only training needs are not
    whole = used <= {id(tensor) for tensor in file.tensors.values()}  # else some are made of several of the file
    left = [key for key, tensor in weights_of(file.tensors) if id(tensor) not in used] if whole else []
    return Fitted(shown, tuple(kept), tuple(fresh), tuple(left), source, file.note)


def copy_fitting(model: nn.Module, given: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Fill a model with tensors by its own names. Returns what was filled, and what is of another shape or missing."""
    own = dict(weights_of(model.state_dict()))
    fresh = [key for key, tensor in own.items() if key not in given or given[key].shape != tensor.shape]
    kept = [key for key in own if key not in set(fresh)]
    with torch.no_grad():
        for key in kept:
            own[key].copy_(given[key])
    return kept, fresh


def describe_fresh(model: nn.Module, name: str, fitted: Fitted) -> str:
    """What a file leaves fresh and why, in a line; "" where nothing is."""
    if not fitted.fresh:
        return ""
    differ = [f"{v} {k.partition('_')[2] if k == 'num_classes' else 'input channels'}" for k, v in fitted.source.items()
              if getattr(model, k, v) != v]  # fmt: skip
    line = f"{name} keeps {len(fitted.kept)} of {len(fitted.kept) + len(fitted.fresh)} tensors of {fitted.file}"
    why = f", which is for {' and '.join(differ)}" if differ else ", which has no others"
    return f"{line}{why}; fresh: {', '.join(fitted.fresh)}"


class _Search:
    """The tensors of a file by the names of a model, in whichever order they may fit it."""

    def __init__(self, model: nn.Module, name: str, options: Mapping[str, Any], file: WeightFile) -> None:
        self.model, self.options, self.file = model, options, file
        self.label = name or type(model).__name__
        self.entry = registry.find_model(name) if name else None
        self.tried: list[Exception] = []
        # With what only training needs too: a file may have it where the model has not.
        self.extras: list[dict[str, Any]] = [{}]
        if self.entry is not None and (extra := training_options(self.entry.options)):
            self.extras.append(extra)
        self.own = [list(dict(weights_of(form.state_dict()))) for form in self._forms({})]
        self.orders = [order for own in self.own for order in (own, _without_first(own)) if order]
        if self.entry is not None:
            for find in (_torchvision_order, _timm_order):
                names = [key for key, _ in weights_of(find(self.entry.name))]
                plain = [key for key in names if not key.startswith(("aux", "AuxLogits"))]
                self.orders += [order for order in (names, plain) if order]

    def find(self, shown: str) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Tensors by our names, and the classes and channels that the file is for. Raises InputError where none fit."""
        for tensors in without_prefixes(self.file.tensors):
            for arranged in self._arrangements(dict(weights_of(tensors))):
                for shape in self._shapes(arranged):
                    for form in self._forms(shape):
                        try:
                            return dict(_pair(form, arranged, loose=self.entry is None)), shape
                        except InputError as error:
                            self.tried.append(error)
            if (found := self._same_names(tensors)) is not None:
                return found, {}
        why = self.tried[0] if self.tried else "its tensors have other names"
        how = _SORTED if self.file.is_sorted else "Its tensors were tried by name and in their order"
        raise InputError(f"{shown} does not fit {self.label}: {why}. {how}")

    def _forms(self, shape: Mapping[str, int]) -> Iterator[nn.Module]:
        """Networks of the model's kind, for so many classes and channels; the model itself where nobody knows how."""
        if self.entry is None:
            yield self.model
            return
        for extra in self.extras:
            try:
                with torch.device("meta"):
                    yield self.entry.builder(**{**self.options, **shape, **extra})
            except (TypeError, ValueError, RuntimeError) as error:
                self.tried.append(error)

    def _shapes(self, state: Mapping[str, Tensor]) -> list[dict[str, int]]:
        """The classes and channels that a file may be for: by its last and its first tensor, or those of the model."""
        if self.entry is None:
            return [{}]
        tensors = list(state.values())
        found = {"num_classes": tensors[-1].shape[0]} if tensors and tensors[-1].ndim else {}
        if tensors and tensors[0].ndim == 4:
            found["in_channels"] = tensors[0].shape[1]
        found = {key: n for key, n in found.items() if key in self.entry.options and n > 0}
        channels = {key: n for key, n in found.items() if key == "in_channels"}
        return [one for place, one in enumerate((found, channels, {})) if one not in (found, channels, {})[:place]]

    def _arrangements(self, weights: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """A file's tensors in the orders that may be ours: by our names, by other libraries', as they stand."""
        for order in self.orders:
            missing = set(order) - weights.keys()
            if not _is_beside(weights.keys() - set(order), order):
                continue
            if not missing or (missing == set(order[-_tail(order) :]) and len(missing) < len(order)):
                yield {key: weights[key] for key in order if key in weights}
        for published in self.entry.weights.values() if self.entry is not None else ():
            if published.arrange is not None:
                with contextlib.suppress(KeyError, ValueError, IndexError, InputError):  # it is for another's names
                    yield dict(published.arrange(weights))
        yield from self._as_they_stand(weights)

    def _as_they_stand(self, weights: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """In their order, where it can be that of the layers.

        Sorted by name, a norm's bias would be taken for its weight, which has the same shape, and layer 10 for layer 2.
        """
        kinds = [key.rpartition(".")[2] for key in weights]
        for own in self.own:
            expected = [key.rpartition(".")[2] for key in own]
            if kinds not in (expected, expected[: -_tail(own)]):
                continue
            if self.file.is_sorted:
                natural = in_natural_order(list(weights))
                if natural is not None:
                    yield {key: weights[key] for key in natural}
                    continue
                if len({tensor.shape for tensor in weights.values()}) < len(weights):
                    continue
            yield weights

    def _same_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Those of the model's own names, where they differ in its classes alone; of detectors, of any number."""
        own, given = dict(weights_of(self.model.state_dict())), dict(weights_of(tensors))
        rows = class_rows(self.model)
        odd = [key for key in own if key not in given or given[key].shape != own[key].shape]
        if len(odd) == len(own) or not _is_beside(given.keys() - own.keys(), list(own)):
            return None
        return {key: given[key] for key in own if key in given} if set(odd) <= rows.keys() else None


def _pair(form: nn.Module, state: Mapping[str, Tensor], *, loose: bool) -> list[tuple[str, Tensor]]:
    """Our names with their tensors, in order; of a file without the last layer, all but that.

    loose: the first layer may be for other channels and the last for other classes.
    """
    ours, theirs = weights_of(form.state_dict()), weights_of(state)
    tail = _tail([key for key, _ in ours])
    if 0 < len(theirs) == len(ours) - tail:
        ours, tail = ours[:-tail], 0
    if loose and len(ours) == len(theirs):
        wrong = [
            place for place, (own, one) in enumerate(zip(ours, theirs, strict=True)) if own[1].shape != one[1].shape
        ]
        if all(_differs_in_size(ours[place][1], theirs[place][1], place, len(ours) - tail) for place in wrong):
            return [(own[0], one[1]) for own, one in zip(ours, theirs, strict=True)]
    return [(own[0], one[1]) for own, one in _checked(form, state, ours, theirs)]


def _differs_in_size(own: Tensor, other: Tensor, place: int, head: int) -> bool:
    """Whether the first tensor differs in its channels alone, or one from place `head` on in its classes."""
    if own.ndim != other.ndim:
        return False
    if place == 0 and own.ndim == 4:
        return own.shape[:1] + own.shape[2:] == other.shape[:1] + other.shape[2:]
    return place >= head and own.shape[1:] == other.shape[1:]


def copy_in_order(model: nn.Module, reference_state: Mapping[str, Tensor]) -> None:
    """Fill a model from another implementation's state dict, tensor by tensor in order, so that names may differ.

    Every shape is checked before anything is copied. The criterion's tensors, which are the task's, stay as they are,
    and so do the batch counters of batch norm, which change no output and which old files lack.
    Raises InputError that names the first tensor that does not fit.
    """
    pairs = pair_in_order(model, reference_state)
    with torch.no_grad():
        for ours, theirs in pairs:
            ours[1].copy_(theirs[1])


Named = tuple[str, Tensor]


def pair_in_order(model: nn.Module, reference_state: Mapping[str, Tensor]) -> list[tuple[Named, Named]]:
    """Our tensors with theirs, in order, every shape checked."""
    return _checked(model, reference_state, weights_of(model.state_dict()), weights_of(reference_state))


def _checked(
    model: nn.Module, state: Mapping[str, Tensor], own: Sequence[Named], others: Sequence[Named]
) -> list[tuple[Named, Named]]:
    pairs = []
    for place, (ours, theirs) in enumerate(zip_longest(own, others)):
        if ours is None or theirs is None or ours[1].shape != theirs[1].shape:
            raise InputError(
                f"weights do not fit {type(model).__name__}: tensor {place} is {_describe(theirs)} in the file, "
                f"{_describe(ours)} in the model; they are of another architecture or other options"
                f"{_suggestion(model, state)}"
            )
        pairs.append((ours, theirs))
    return pairs


def _torchvision_order(name: str) -> Mapping[str, Tensor]:
    from torchvision import models

    name = name.removeprefix("torchvision:")
    if name not in models.list_models():
        return {}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how it will be initialised in future
        takes_backbone = "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters
        without: dict[str, Any] = {"weights_backbone": None} if takes_backbone else {}  # else they are downloaded
        return models.get_model(name, weights=None, **without).state_dict()


def _timm_order(name: str) -> Mapping[str, Tensor]:
    if find_spec("timm") is None:
        return {}
    import timm

    if not timm.is_model(name.removeprefix("timm:")):
        return {}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that have changed there
        return timm.create_model(name.removeprefix("timm:")).state_dict()


def _without_first(names: Sequence[str]) -> list[str]:
    """Names without the first part that all have; none where they have no such part."""
    firsts = {name.partition(".")[0] for name in names}
    return [name.partition(".")[2] for name in names] if len(firsts) == 1 and all("." in n for n in names) else []


def _is_beside(others: Iterator[str] | set[str], order: Sequence[str]) -> bool:
    """Whether names are of other parts than those of a network: a deeper network has more layers in the same parts."""
    parts = {name.partition(".")[0] for name in order}
    return all(name.partition(".")[0] not in parts for name in others)


def _tail(names: Sequence[str]) -> int:
    """How many of the names are of the last module."""
    last = names[-1].rpartition(".")[0]
    return sum(name.rpartition(".")[0] == last for name in names)


def _suggestion(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    said = type(model).suggest(state) if isinstance(model, Backbone) else ""
    return f"; {said}" if said else ""


def weights_of(state: Mapping[str, Tensor]) -> list[Named]:
    """The tensors of a state dict that are a network's own, with their names, in order."""
    return [
        (k, v) for k, v in state.items() if not k.endswith("num_batches_tracked") and not k.startswith("criterion.")
    ]


def _describe(entry: Named | None) -> str:
    return "missing" if entry is None else f"{entry[0]} {tuple(entry[1].shape)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")

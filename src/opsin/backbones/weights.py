"""Weights from elsewhere, into our modules."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file as read_safetensors
from torch import Tensor, nn

from opsin import errors, registry
from opsin.backbones.backbone import Backbone, training_options
from opsin.downloading import fetch
from opsin.errors import InputError
from opsin.registry import Weights
from opsin.schemes import find_local

Arrange: TypeAlias = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

_AUXILIARY = "aux_heads."  # what only training needs: a model may leave it out, and takes the rest of the file


def imagenet_weights(
    url: str,
    licence: str,
    source: str,
    top1: float,
    top5: float,
    *,
    size: int = 224,
    crop_ratio: float = 0.875,
    interpolation: str = "bilinear",
    symmetric: bool = False,
    data: str = "ImageNet-1k",
    arrange: Arrange | None = None,
) -> Weights:
    """A file whose name ends in its hash, of a network that looks at the middle of a resized image.

    crop_ratio: the side of that middle as a share of the shorter side. symmetric: it expects values in [-1, 1], as
    TensorFlow's do, instead of ImageNet's mean and deviation taken out. data: what it was trained on.
    """
    return Weights(
        url=url,
        sha256=url.rpartition("-")[2].partition(".")[0],
        licence=f"{licence}; trained on {data} (non-commercial research terms of the data)",
        source=source,
        preprocessing={
            "size": [size, size],
            "channels": 3,
            "mean": [0.5, 0.5, 0.5] if symmetric else [0.485, 0.456, 0.406],
            "std": [0.5, 0.5, 0.5] if symmetric else [0.229, 0.224, 0.225],
            "fit": "crop",
            "crop_ratio": crop_ratio,
            "interpolation": interpolation,
        },
        metrics={"imagenet1k top-1": top1, "imagenet1k top-5": top5},
        arrange=arrange,
    )


def torchvision_weights(
    v1: tuple[str, float, float] | None, v2: tuple[str, float, float] | None = None
) -> dict[str, Weights]:
    """torchvision's files, each with its top-1 and top-5: of the first recipe, and of the long one of 2021."""
    found = {"imagenet1k": (v1, "IMAGENET1K_V1", 256), "imagenet1k_v2": (v2, "IMAGENET1K_V2", 232)}
    return {
        name: imagenet_weights(
            f"https://download.pytorch.org/models/{facts[0]}.pth",
            "BSD-3-Clause",
            f"torchvision, {recipe}",
            *facts[1:],
            crop_ratio=224 / resized,
        )
        for name, (facts, recipe, resized) in found.items()
        if facts is not None
    }


def coco_weights(
    file: str, ap: float, *, num_classes: int, preprocessing: Mapping[str, Any], arrange: Arrange | None = None
) -> Weights:
    """torchvision's file of a detector for COCO. num_classes: 91 with the background, 90 without."""
    return Weights(
        url=f"https://download.pytorch.org/models/{file}.pth",
        sha256=file.rpartition("-")[2],
        licence="BSD-3-Clause; trained on COCO (annotations CC-BY-4.0, images under their owners' terms)",
        source="torchvision, COCO_V1",
        preprocessing={"channels": 3, **preprocessing},
        metrics={"coco val2017 AP": ap},
        num_classes=num_classes,
        classes="coco",
        arrange=arrange,
    )


def add_no_eps(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file trained with norms that added nothing to the variance; ours add 1e-5, so that much is taken off."""
    return {name: t - 1e-5 if name.endswith("running_var") else t for name, t in state.items()}


@registry.loads_weights
def load_published(
    model: nn.Module,
    name: str,
    weights: str,
    options: Mapping[str, Any],
    *,
    offline: bool | None = None,
    say: Callable[[str], None] = errors.say,
) -> list[str]:
    """Fill a model, built as `name` with these options, with published weights. Returns what did not fit and is fresh.

    Another number of classes leaves the last layer fresh, and of input channels the first; `say` gets a line.
    Options that change anything else are refused: InputError names the first tensor that does not fit.
    Auxiliary heads that the model leaves out are left in the file. The file is fetched unless it is there.
    """
    if (path := find_local(weights, offline=offline)) is not None:
        return load_file(model, name, path, options, shown=weights, say=say)
    entry, published = registry.find_model(name), registry.find_weights(name, weights)
    if published.fetch is None:
        path = fetch(published.url, published.sha256, offline=offline, say=say)
    else:
        path = published.fetch(offline, say)
    shape = {"num_classes": published.num_classes, "in_channels": (entry.input_size or (3,))[0]}
    shape["num_classes"] = shape["num_classes"] or getattr(model, "num_classes", 1)  # of a file without such a layer
    with torch.device("meta"):
        asked = entry.builder(**{**options, **shape})
    if published.read is None:
        given = _read_in_order(path, published, entry, shape)
    else:
        given = dict(published.read(path, {**options, **shape}))
    _check_form(asked, given, f"weights {weights!r} of {name}", {k: v for k, v in options.items() if k not in shape})
    fresh = _copy(model, name, given, shape, path.name, say)
    if getattr(model, "in_channels", None) == shape["in_channels"]:
        model.preprocessing = dict(published.preprocessing)  # type: ignore[assignment]
    return fresh


def _copy(
    model: nn.Module,
    name: str,
    given: Mapping[str, Tensor],
    shape: Mapping[str, int],
    file: str,
    say: Callable[[str], None],
) -> list[str]:
    """Fill a model with tensors by its own names. Returns what has another shape and stays fresh; `say` gets a line."""
    own = dict(_weights(model.state_dict()))
    fresh = [key for key, tensor in own.items() if given[key].shape != tensor.shape]
    with torch.no_grad():
        for key in own.keys() - set(fresh):
            own[key].copy_(given[key])
    if fresh:
        differ = [f"{v} {k.partition('_')[2] if k == 'num_classes' else 'input channels'}" for k, v in shape.items()
                  if getattr(model, k) != v]  # fmt: skip
        line = f"{name} keeps {len(own) - len(fresh)} of {len(own)} tensors of {file}, which is for "
        say(f"{line}{' and '.join(differ)}; fresh: {', '.join(fresh)}")
    return fresh


def load_file(
    model: nn.Module,
    name: str,
    path: Path,
    options: Mapping[str, Any],
    *,
    shown: str = "",
    say: Callable[[str], None] = errors.say,
) -> list[str]:
    """Fill a model, built as `name` with these options, from a safetensors file. Returns what is fresh.

    The file's tensors have our names, or stand in our order, or have the names of the network `name` in torchvision or
    timm, whose order they are then walked in; every shape is checked. Another number of classes leaves the last layer
    fresh, another of channels the first; `say` gets a line. shown: what messages call the file. Raises InputError.
    """
    shown = shown or str(path)
    state = {key: tensor for key, tensor in read_state(path).items() if not key.startswith("opsin.state/")}
    entry = registry.find_model(name)
    tried: list[Exception] = []
    for arranged in _arrangements(entry, state):
        shape = _shape_of(arranged, entry)
        try:
            with torch.device("meta"):
                form = entry.builder(**{**options, **{key: n for key, n in shape.items() if key in entry.options}})
            pairs = pair_in_order(form, arranged)
        except (TypeError, ValueError, InputError) as error:
            tried.append(error)
            continue
        return _copy(model, name, {ours[0]: theirs[1] for ours, theirs in pairs}, shape, shown, say)
    raise InputError(
        f"{shown} does not fit {name}: {tried[0] if tried else 'its tensors have other names'}. A safetensors file is "
        "sorted by name: its names must be opsin's, or those of this network in torchvision, or in timm if installed"
    )


def _shape_of(state: Mapping[str, Tensor], entry: registry.Entry) -> dict[str, int]:
    """The classes and channels that a file is for, by its last and its first tensor."""
    tensors = [tensor for _, tensor in _weights(state)]
    found = {"num_classes": tensors[-1].shape[0]} if tensors and tensors[-1].ndim else {}
    if tensors and tensors[0].ndim == 4:
        found["in_channels"] = tensors[0].shape[1]
    return {key: n for key, n in found.items() if key in entry.options}


def _arrangements(entry: registry.Entry, state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """A file's tensors in the orders that may be ours: by our own names, by those of other libraries, as they stand."""
    weights = dict(_weights(state))
    with torch.device("meta"):
        own = [key for key, _ in _weights(entry.builder().state_dict())]
    if set(own) == weights.keys():
        yield {key: weights[key] for key in own}
    for order in (_torchvision_order, _timm_order):
        names = [key for key, _ in _weights(order(entry.name))]
        if names and set(names) == weights.keys():
            yield {key: weights[key] for key in names}
    for published in entry.weights.values():
        if published.arrange is not None:
            with contextlib.suppress(KeyError, ValueError, IndexError, InputError):  # it is for another file's names
                yield dict(published.arrange(weights))
    # Sorted by name, a norm's bias would be taken for its weight, which has the same shape.
    if [key.rpartition(".")[2] for key in weights] == [key.rpartition(".")[2] for key in own]:
        yield weights


def _torchvision_order(name: str) -> Mapping[str, Tensor]:
    from torchvision import models

    if name not in models.list_models():
        return {}
    with torch.device("meta"):
        return models.get_model(name, weights=None).state_dict()


def _timm_order(name: str) -> Mapping[str, Tensor]:
    if find_spec("timm") is None:
        return {}
    import timm

    if not timm.is_model(name):
        return {}
    with torch.device("meta"):
        return timm.create_model(name).state_dict()


def _read_in_order(
    path: Path, published: Weights, entry: registry.Entry, shape: Mapping[str, int]
) -> dict[str, Tensor]:
    """The tensors of a file by our names, in the order of a network of the published form."""
    state = read_state(path)
    if published.arrange is not None:
        state = published.arrange(state)
    with torch.device("meta"):
        form = entry.builder(**shape, **training_options(entry.options))
    try:
        return {ours[0]: theirs[1] for ours, theirs in pair_in_order(form, state)}
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None


def _check_form(asked: nn.Module, given: Mapping[str, Tensor], what: str, options: Mapping[str, Any]) -> None:
    """Refuse a form of the network that is not the published one, but for auxiliary heads left out."""
    own = dict(_weights(asked.state_dict()))
    for key in [*own, *given]:
        mine, theirs = own.get(key), given.get(key)
        if mine is None and key.startswith(_AUXILIARY):
            continue
        if mine is None or theirs is None or mine.shape != theirs.shape:
            shown = ", ".join(f"{k}={v!r}" for k, v in options.items())
            raise InputError(
                f"{what} do not fit {shown}: {key} is {_shape(theirs)} in the file and {_shape(mine)} in the model; "
                "leave that option out, or train without weights"
            )


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file by name. Runs no code of the file. Raises InputError if it is neither.

    A state dict that lies under "state_dict" or "model", beside what else a training saves, is found.
    """
    try:
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"{path} holds objects that only code can rebuild; it was not loaded") from None
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is not a readable file of weights: {reason}; delete it to have it again") from None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} holds no state dict, a mapping of names to tensors")
    return dict(content)


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


def pair_in_order(
    model: nn.Module, reference_state: Mapping[str, Tensor]
) -> list[tuple[tuple[str, Tensor], tuple[str, Tensor]]]:
    """Our tensors with theirs, in order, every shape checked."""
    pairs = []
    for place, (ours, theirs) in enumerate(zip_longest(_weights(model.state_dict()), _weights(reference_state))):
        if ours is None or theirs is None or ours[1].shape != theirs[1].shape:
            raise InputError(
                f"weights do not fit {type(model).__name__}: tensor {place} is {_describe(theirs)} in the file, "
                f"{_describe(ours)} in the model; they are of another architecture or other options"
                f"{_suggestion(model, reference_state)}"
            )
        pairs.append((ours, theirs))
    return pairs


def _suggestion(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    said = type(model).suggest(state) if isinstance(model, Backbone) else ""
    return f"; {said}" if said else ""


def _weights(state: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [
        (k, v) for k, v in state.items() if not k.endswith("num_batches_tracked") and not k.startswith("criterion.")
    ]


def _describe(entry: tuple[str, Tensor] | None) -> str:
    return "missing" if entry is None else f"{entry[0]} {tuple(entry[1].shape)}"


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(tuple(tensor.shape))

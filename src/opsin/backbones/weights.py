"""Weights from elsewhere, into our modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from opsin import errors, registry
from opsin.backbones.backbone import training_options
from opsin.backbones.fitting import Fitted, copy_fitting, describe_fresh, fit_file, pair_in_order, weights_of
from opsin.backbones.weight_files import read_state
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
    path = Path(weights) if registry.is_weight_file(name, weights) else find_local(weights, offline=offline)
    if path is not None:
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
    kept, fresh = copy_fitting(model, given)
    if line := describe_fresh(model, name, Fitted(path.name, tuple(kept), tuple(fresh), source=shape)):
        say(line)
    if getattr(model, "in_channels", None) == shape["in_channels"]:
        model.preprocessing = dict(published.preprocessing)  # type: ignore[assignment]
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
    """`fit_file` for a model of which only what is not as it seems is said: fresh layers, and parts left in the file.

    Returns what is fresh. Raises InputError where the file is of another network.
    """
    fitted = fit_file(model, name, path, options, shown=shown)
    line = describe_fresh(model, name, fitted)
    if not line and (fitted.left or fitted.note):
        line = fitted.describe()
    if line:
        say(line)
    return list(fitted.fresh)


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
    own = dict(weights_of(asked.state_dict()))
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


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(tuple(tensor.shape))

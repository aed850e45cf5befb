"""timm's networks, `timm:NAME`, with its published weights: Wightman 2019, github.com/huggingface/pytorch-image-models.

timm builds them, runs them and reads their weights; this file says how they are asked. Maps are those of timm's
`features_only`: the outputs of its `forward_intermediates`, without a last norm. Files of weights come from the hub of
Hugging Face, into the cache that huggingface_hub keeps for all programs.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from opsin.backbones.backbone import OUTPUT_STRIDES, Backbone
from opsin.backbones.foreign import Access, Builder, WholeNetwork, create, options_of
from opsin.backbones.weights import read_state
from opsin.downloading import fetch, is_offline
from opsin.errors import InputError, JobError, unknown
from opsin.registry import Entry, Weights

Say = Callable[[str], None]

_HIDDEN = ("self", "num_classes", "in_chans", "output_stride", "device", "dtype", "args", "kwargs")
_INTERPOLATIONS = {"nearest": "nearest", "bilinear": "bilinear"}  # all others are near to bicubic
_FITS = {"center": "crop", "squash": "squash", "border": "pad"}
_FILES = ("model.safetensors", "pytorch_model.bin")  # in a repository of the hub, the one that runs no code first


@cache
def _names() -> frozenset[str]:
    return frozenset(timm.list_models())


def names(task: str | None = None) -> Sequence[str]:
    """The networks that timm has; they all classify."""
    return sorted(_names()) if task in (None, "classify") else []


@cache
def find(name: str) -> Entry:
    """The entry of a network of timm. Raises InputError with the nearest names where there is none of that name."""
    if name not in _names():
        if name.partition(".")[0] in _names():
            model, _, tag = name.partition(".")
            raise InputError(f"timm:{name} is timm:{model} with the weights {tag}; give them as its weights")
        raise InputError(f"{unknown('network of timm', name, _names())} (`opsin models 'timm:*'` lists them all)")
    config = _config(name)
    title, family = f"timm:{name}", timm.models.model_entrypoint(name).__module__
    builder = Builder(title, family, config["num_classes"] or 1000, partial(_build, name), partial(_options, name))
    return Entry(title, "classify", builder, weights=_weights(name), input=tuple(config["input_size"]))


def _config(name: str) -> dict[str, Any]:
    """timm's `pretrained_cfg` of a network, or of one with a tag."""
    found = timm.get_pretrained_cfg(name)
    if found is None:  # a network of which timm states nothing
        return {"num_classes": 1000, "input_size": (3, 224, 224)}
    return found.to_dict(remove_null=False)


@cache
def _kind(name: str) -> type[nn.Module]:
    """The class of a network, which is known when it is built."""
    with torch.device("meta"):
        return type(create(f"timm:{name}", {}, lambda: timm.create_model(name)))


def _options(name: str) -> dict[str, Any]:
    return options_of(_kind(name), _HIDDEN)


def _maps(network: Any, images: Tensor, count: int | None) -> list[Tensor]:
    indices = None if count is None else list(range(count))
    return network.forward_intermediates(images, indices=indices, output_fmt="NCHW", intermediates_only=True)


def _prune(network: Any, count: int) -> None:
    network.prune_intermediate_layers([count - 1], prune_norm=True, prune_head=True)


def _classifiers(network: Any, num_classes: int) -> list[nn.Module]:
    found = network.get_classifier()
    layers = [layer for part in _listed(found) for layer in part.modules()]
    return [
        layer
        for layer in layers
        if (isinstance(layer, nn.Linear) and layer.out_features == num_classes)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == num_classes)
    ]


def _listed(found: Any) -> list[nn.Module]:
    parts = found if isinstance(found, tuple | list) else [found]
    return [part for part in parts if isinstance(part, nn.Module)]


def _reset(network: Any, num_classes: int) -> None:
    network.reset_classifier(num_classes)


def _stated(network: Any) -> list[tuple[int, int]]:
    info = network.feature_info
    listed = info if isinstance(info, list) else info.info
    return [(one["num_chs"], one["reduction"]) for one in listed]


ACCESS = Access(_maps, _prune, _classifiers, _reset, _stated)


def _build(
    name: str, *, num_classes: int, in_channels: int, output_stride: int | None = None, **options: Any
) -> Backbone:
    """The network, which timm makes. Options are those of its constructor there."""
    title, config, given = f"timm:{name}", _config(name), dict(options)
    if output_stride is not None:
        given["output_stride"] = _check_stride(title, name, output_stride)
    network = create(title, given, lambda: _create(name, num_classes, in_channels, given))
    if not hasattr(network, "forward_intermediates"):
        raise InputError(f"{title} gives no maps in timm {timm.__version__}; update it: pip install -U timm")
    size = options.get("img_size") or config["input_size"][1:]
    height, width = (size, size) if isinstance(size, int) else size
    fixed = bool(config.get("fixed_input_size"))
    model = WholeNetwork(
        title, network, ACCESS, (height, width), given, num_classes=num_classes, in_channels=in_channels, fixed=fixed
    )
    least = config.get("min_input_size")
    model.min_size = max(least[1:]) if least else 1
    if output_stride is not None and max(model.strides) > output_stride:
        raise InputError(f"{title} does not hold output_stride={output_stride} in timm; leave it out")
    return model


def _create(name: str, num_classes: int, in_channels: int, options: Mapping[str, Any]) -> nn.Module:
    # A network of one channel or of three is the same to timm; options that are left alone keep what the name decides.
    return timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **options)


def _check_stride(title: str, name: str, output_stride: object) -> int:
    if output_stride not in OUTPUT_STRIDES:
        raise InputError(f"output_stride must be one of {', '.join(map(str, OUTPUT_STRIDES))}, got {output_stride!r}")
    if "output_stride" not in inspect.signature(_kind(name).__init__).parameters:
        raise InputError(f"{title} has no output_stride in timm; leave it out, or take another network")
    return cast(int, output_stride)


@cache
def _tags() -> dict[str, list[str]]:
    """The tags of the weights of each network, as timm lists them."""
    found: dict[str, list[str]] = {}
    for full in timm.list_pretrained():
        model, _, tag = full.partition(".")
        found.setdefault(model, []).append(tag)
    return found


def _weights(name: str) -> dict[str, Weights]:
    """The published weights of a network by their tags, timm's default first.

    "imagenet1k" is the first of them for ImageNet's 1000 classes; weights without a tag are called "pretrained".
    """
    default = getattr(timm.get_pretrained_cfg(name), "tag", None) or ""
    tags = sorted(_tags().get(name, ()), key=lambda tag: tag != default)
    own = _config(name)
    only = own["input_size"] if own.get("fixed_input_size") else None
    found = {tag or "pretrained": _published(name, tag, only) for tag in tags}
    first = next((weights for weights in found.values() if weights.num_classes == 1000), None)
    return found if first is None else {"imagenet1k": first, **found}


def _published(name: str, tag: str, only: Sequence[int] | None) -> Weights:
    """Weights of a tag. only: the one size of image that the network takes, whatever these were trained on."""
    full = f"{name}.{tag}" if tag else name
    config = _config(full)
    config["input_size"] = only or config["input_size"]
    repository, _, revision = (config.get("hf_hub_id") or "").partition("@")
    file = config.get("hf_hub_filename") or _FILES[0]
    url = f"https://huggingface.co/{repository}/resolve/{revision or 'main'}/{file}" if repository else config["url"]
    stated = config.get("license") or "no licence stated"
    about = f"https://huggingface.co/{repository}" if repository else str(url)
    number = config["num_classes"] or 0
    return Weights(
        url=str(url),
        sha256="",
        licence=f"{stated} (as timm states it; see {about})",
        source=f"timm, {full}",
        preprocessing=_preprocessing(config),
        num_classes=number,
        classes="imagenet1k" if number == 1000 else "",
        fetch=partial(_fetch, full, repository, revision or None, config.get("hf_hub_filename"), config.get("url")),
        read=partial(_read, full),
    )


def _preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    channels, height, width = config["input_size"]
    interpolation = config.get("interpolation") or "bicubic"
    return {
        "size": [height, width],
        "channels": channels,
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "fit": _FITS.get(config.get("crop_mode") or "center", "crop"),
        "crop_ratio": min(1.0, config.get("crop_pct") or 0.875),
        "interpolation": _INTERPOLATIONS.get(interpolation, "bicubic"),
    }


def _read(full: str, path: Path, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """A file's tensors by our names, for a network with these options: timm renames and resizes them as it does."""
    given = {name: value for name, value in options.items() if name not in ("num_classes", "in_channels")}
    if given.get("output_stride") is None:
        given.pop("output_stride", None)
    name = full.partition(".")[0]
    if "img_size" in inspect.signature(_kind(name).__init__).parameters:
        given.setdefault("img_size", _config(name)["input_size"][1:])  # that of these weights may be another
    overlay = {"state_dict": read_state(path), "custom_load": False}
    try:
        network = timm.create_model(
            full,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            num_classes=options["num_classes"],
            in_chans=options["in_channels"],
            **given,
        )
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in given.items())
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{path.name} does not fit timm:{name}{' with ' + shown if shown else ''}: {reason}"
        ) from error
    return {f"network.{key}": tensor for key, tensor in network.state_dict().items()}


# Files of the hub


def _fetch(
    full: str, repository: str, revision: str | None, file: str | None, url: str | None, offline: bool | None, say: Say
) -> Path:
    """The file of published weights: of the hub's cache if it is there, else downloaded into it.

    It is verified where the hub states a SHA-256, which it does of all large files: its name in the cache. A file that
    has no place in the hub is fetched from its URL, and verified by the hash in its name. Raises InputError when it is
    missing offline, JobError when the transfer fails.
    """
    if not repository:
        found = re.search(r"-([0-9a-f]{8,64})\.", str(url))
        if found is None:
            raise InputError(f"timm:{full} has weights at {url} without a hash; fetch them by hand, and use train.init")
        return fetch(str(url), found[1], offline=offline, say=say)
    candidates = (file,) if file else _FILES
    offline = is_offline() if offline is None else offline
    for candidate in candidates:
        if (path := _from_hub(repository, candidate, revision, local=True)) is not None:
            return _verified(path, say)
    if offline:
        raise InputError(
            f"offline, and {candidates[0]} of {repository} is not in the cache of huggingface_hub: fetch it where "
            f"there is a network (hf download {repository} {candidates[0]}) and copy the cache, or allow the network"
        )
    say(f"downloading https://huggingface.co/{repository}/{candidates[0]}")
    for candidate in candidates:
        if (path := _from_hub(repository, candidate, revision, local=False)) is not None:
            return _verified(path, say)
    raise JobError(f"https://huggingface.co/{repository} has no {' or '.join(candidates)}")


def _from_hub(repository: str, file: str, revision: str | None, *, local: bool) -> Path | None:
    """A file of the hub in its cache; None where it is not there. local: look into the cache only."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        path = huggingface_hub.hf_hub_download(repository, file, revision=revision, local_files_only=local)
    except LocalEntryNotFoundError as error:
        if local:
            return None
        raise JobError(f"cannot reach the hub for {repository}: {' '.join(str(error).split())}") from None
    except EntryNotFoundError:
        return None
    except Exception as error:  # of the network, the disk, or the hub's own
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise JobError(f"cannot fetch {file} of {repository} from the hub: {reason}; check the network") from None
    return Path(path)


def _verified(path: Path, say: Say) -> Path:
    """A file of the cache, whose name there is its SHA-256 if the hub states one. Raises JobError for another file."""
    stated = path.resolve().name
    if not re.fullmatch("[0-9a-f]{64}", stated):
        say(f"{path.name}: the hub states no SHA-256 of it, so it was not verified")
        return path
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != stated:
        raise JobError(f"{path} is damaged: its SHA-256 is {digest.hexdigest()}, expected {stated}; delete it")
    return path

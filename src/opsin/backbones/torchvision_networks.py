"""torchvision's networks, `torchvision:NAME`, with its published weights.

A network is taken apart into stem, stages and head as torchvision's own `forward` runs it, so that all that is done to
ours can be done to it. Where a stage begins is measured: where the map becomes coarser. The vision transformer, whose
class token runs beside the map, stays whole.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import Permute

from opsin.backbones.backbone import Backbone
from opsin.backbones.foreign import GROWTH, Access, Builder, WholeNetwork, create, options_of
from opsin.backbones.weights import pair_in_order, read_state
from opsin.errors import InputError, unknown
from opsin.nn.counting import meta_twin
from opsin.registry import Entry, Weights

_HIDDEN = ("self", "num_classes", "init_weights", "aux_logits", "transform_input", "args", "kwargs")
_ONE_SIZE = {
    "vit_": "image_size",
    "maxvit_": "input_size",
}  # networks for one size of image, and the option that sets it
_SIDE = 224  # of these, where the option is left alone
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # side heads for training, left out
_CONTAINERS = ("features", "layers", "trunk_output", "blocks")  # whose children run one by one
_TURN, _BACK = (0, 2, 3, 1), (0, 3, 1, 2)  # (B, C, H, W) -> (B, H, W, C), and back

# What follows the last map, by torchvision's classes: its own children, and between them what its forward does itself.
_POOLED = ("avgpool", "flatten", "classifier")
_HEADS: Mapping[str, tuple[str, ...]] = {
    "AlexNet": _POOLED,
    "ConvNeXt": ("avgpool", "classifier"),
    "DenseNet": ("relu", "pool", "flatten", "classifier"),
    "EfficientNet": _POOLED,
    "GoogLeNet": ("avgpool", "flatten", "dropout", "fc"),
    "Inception3": ("avgpool", "dropout", "flatten", "fc"),
    "MNASNet": ("pool", "flatten", "classifier"),
    "MaxVit": ("classifier",),
    "MobileNetV2": ("pool", "flatten", "classifier"),
    "MobileNetV3": _POOLED,
    "RegNet": ("avgpool", "flatten", "fc"),
    "ResNet": ("avgpool", "flatten", "fc"),
    "ShuffleNetV2": ("pool", "flatten", "fc"),
    "SqueezeNet": ("classifier", "flatten"),
    "SwinTransformer": ("turn", "norm", "back", "avgpool", "flatten", "head"),
    "VGG": _POOLED,
}
_OWN: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "pool": lambda: nn.AdaptiveAvgPool2d(1),
    "flatten": nn.Flatten,
    "turn": lambda: Permute(list(_TURN)),
    "back": lambda: Permute(list(_BACK)),
}
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish)


def names(task: str | None = None) -> Sequence[str]:
    """The classification networks that torchvision has."""
    return _names() if task in (None, "classify") else []


@cache
def _names() -> list[str]:
    return sorted(models.list_models(module=models, exclude="quantized_*"))


@cache
def find(name: str) -> Entry:
    """The entry of a network of torchvision. Raises InputError with the nearest names where there is none so called."""
    if name not in _names():
        raise InputError(
            f"{unknown('network of torchvision', name, _names())} (`opsin models 'torchvision:*'` lists them all)"
        )
    weights = {_weights_name(member.name): _published(name, member) for member in models.get_model_weights(name)}
    first = next(iter(weights.values()), None)
    side = _SIDE if first is None or _size_option(name) else first.preprocessing["size"][0]
    title, family = f"torchvision:{name}", models.get_model_builder(name).__module__
    builder = Builder(title, family, 1000, partial(_build, name), partial(_options, name))
    return Entry(title, "classify", builder, weights=weights, input=(3, side, side))


def _size_option(name: str) -> str | None:
    """The option that sets the only size of image a network takes; None for those that take any."""
    return next((option for start, option in _ONE_SIZE.items() if name.startswith(start)), None)


def _weights_name(member: str) -> str:
    """IMAGENET1K_V1 is imagenet1k, as with ours; all others are their own in small letters."""
    return "imagenet1k" if member == "IMAGENET1K_V1" else member.lower()


def _published(name: str, member: Any) -> Weights:
    found = re.search(r"-([0-9a-f]{8,64})\.", member.url)
    assert found is not None, f"{member.url} has no hash"
    network = type(member).__name__.removesuffix("_Weights")
    transform, meta = member.transforms(), member.meta
    crop, resized = (side[0] if isinstance(side, list | tuple) else side
                     for side in (transform.crop_size, transform.resize_size))  # fmt: skip
    # These two were trained by TensorFlow on [-1, 1]; torchvision turns ImageNet's statistics into that inside them.
    symmetric = network in ("GoogLeNet", "Inception_V3")
    licence = f"{meta['license']} (CC-BY-NC 4.0)" if "license" in meta else "BSD-3-Clause"
    scores = meta.get("_metrics", {}).get("ImageNet-1K", {})
    number, option = len(meta["categories"]), _size_option(name)
    return Weights(
        url=member.url,
        sha256=found[1],
        licence=f"{licence}; trained on ImageNet-1k (non-commercial research terms of the data)",
        source=f"torchvision, {type(member).__name__}.{member.name}",
        preprocessing={
            "size": [crop, crop],
            "channels": 3,
            "mean": [0.5] * 3 if symmetric else list(transform.mean),
            "std": [0.5] * 3 if symmetric else list(transform.std),
            "fit": "crop",
            "crop_ratio": min(1.0, crop / resized),
            "interpolation": transform.interpolation.value,
        },
        metrics={f"imagenet1k top-{k}": scores[f"acc@{k}"] for k in (1, 5) if f"acc@{k}" in scores},
        num_classes=number,
        classes="imagenet1k" if number == 1000 else "",
        options={option: crop} if option is not None and crop != _SIDE else {},
        read=partial(_read, name, crop),
    )


# The network


@cache
def _kind(name: str) -> type[nn.Module]:
    """The class of a network, which is known when it is built."""
    with torch.device("meta"):
        return type(create(f"torchvision:{name}", {}, lambda: _create(name, 1000, {})))


def _options(name: str) -> dict[str, Any]:
    option = _size_option(name)
    return options_of(_kind(name), _HIDDEN) | ({} if option is None else {option: _SIDE})


def _create(name: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """torchvision's network, without what only training needs beside its head."""
    given = dict(options)
    if given.get("input_size") is not None and isinstance(given["input_size"], int):
        given["input_size"] = (given["input_size"], given["input_size"])
    if name in ("googlenet", "inception_v3"):
        given |= {"aux_logits": False, "init_weights": True}
    return models.get_model(name, weights=None, num_classes=num_classes, **given)


def _build(
    name: str, *, num_classes: int, in_channels: int, output_stride: int | None = None, **options: Any
) -> Backbone:
    """The network, which torchvision makes. Options are those of its constructor there."""
    title = f"torchvision:{name}"
    network = create(title, options, lambda: _create(name, num_classes, options))
    if in_channels != 3:
        _take_channels(network, in_channels)
    return _wrap(name, network, num_classes, in_channels, output_stride, options)


def _wrap(
    name: str,
    network: nn.Module,
    num_classes: int,
    in_channels: int,
    output_stride: int | None,
    options: Mapping[str, Any],
) -> Backbone:
    title, option = f"torchvision:{name}", _size_option(name)
    asked = options.get(option, _SIDE) if option is not None else None
    side = None if asked is None else _first(asked)
    shape: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels, "output_stride": output_stride}
    if name.startswith("vit_"):
        assert side is not None
        return WholeNetwork(title, network, TRANSFORMER, (side, side), options, fixed=True, **shape)
    least = [max(member.meta.get("min_size", (1, 1))) for member in models.get_model_weights(name)]
    any_size = side is not None or name.startswith(
        "swin_"
    )  # it pads; what torchvision states is what it was trained on
    return TorchvisionNetwork(title, network, side, 1 if any_size else min(least, default=1), **shape)


def _take_channels(network: nn.Module, in_channels: int) -> None:
    """A fresh first convolution, for images of other channels."""
    name, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    fresh = nn.Conv2d(
        in_channels,
        first.out_channels,
        cast(Any, first.kernel_size),
        cast(Any, first.stride),
        cast(Any, first.padding),
        bias=first.bias is not None,
        device=first.weight.device,
    )
    network.set_submodule(name, fresh)


class TorchvisionNetwork(Backbone):
    """A network of torchvision, taken apart. side: the only one of its images; None if it takes any.

    A stage is what makes the maps of one stride. What comes before the first activation, or the first block where the
    network begins with one, is the stem.
    """

    def __init__(
        self,
        title: str,
        network: nn.Module,
        side: int | None,
        min_size: int,
        *,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__(num_classes, in_channels)
        self.title, self.fixed_size, self.min_size = title, side, min_size
        kind = type(network).__name__
        channels_last = kind == "SwinTransformer"
        layers = list(_body(network))
        seen = _shapes(network, in_channels, side, channels_last)
        start = _stem_length(layers)
        stem, stages = layers[:start], [layers[start : start + 1]]
        self.channels, self.strides = (), ()
        for place in range(start, len(layers)):
            channels, stride = seen[place]
            if self.strides and stride != self.strides[-1]:
                stages.append([])
            if not self.strides or stride != self.strides[-1]:
                self.channels, self.strides = (*self.channels, channels), (*self.strides, stride)
            self.channels = (*self.channels[:-1], channels)
            if place > start:
                stages[-1].append(layers[place])
        self.stem = _chain(stem, last=channels_last)
        self.stages = nn.ModuleList(_chain(stage, first=channels_last, last=channels_last) for stage in stages)
        children = dict(network.named_children())
        self.head = nn.Sequential(
            OrderedDict((name, children[name] if name in children else _OWN[name]()) for name in _HEADS[kind])
        )

    @property
    def label(self) -> str:
        return self.title

    def _replace_output(self) -> None:
        """A fresh last layer: linear, or of SqueezeNet the last convolution."""
        layers = [(n, m) for n, m in self.head.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        name, last = layers[-1]
        given: dict[str, Any] = {"device": last.weight.device, "dtype": last.weight.dtype}
        if isinstance(last, nn.Linear):
            fresh: nn.Module = nn.Linear(last.in_features, self.num_classes, last.bias is not None, **given)
        else:
            fresh = nn.Conv2d(last.in_channels, self.num_classes, 1, bias=last.bias is not None, **given)
        self.head.set_submodule(name, fresh)


def _body(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that make the maps, in the order in which they run, by names of their own."""
    head = _HEADS[type(network).__name__]
    for name, child in network.named_children():
        if name in _CONTAINERS:
            yield from child.named_children()
        elif name in head:
            return
        else:
            yield name, child


def _stem_length(layers: Sequence[tuple[str, nn.Module]]) -> int:
    if any(layers[0][1].children()):
        return 1
    return 1 + next(place for place, (_, layer) in enumerate(layers) if isinstance(layer, _ACTIVATIONS))


def _chain(layers: Sequence[tuple[str, nn.Module]], *, first: bool = False, last: bool = False) -> nn.Sequential:
    """Layers one after another; with those that want channels last, turned before the first and after the last."""
    before = [("turn", Permute(list(_TURN)))] if first else []
    after = [("back", Permute(list(_BACK)))] if last else []
    return nn.Sequential(OrderedDict([*before, *layers, *after]))


def _shapes(network: nn.Module, in_channels: int, side: int | None, channels_last: bool) -> list[tuple[int, int]]:
    """(channels, stride) of what each module of the body makes, measured on the meta device.

    The stride is by how much an image must grow for the map to grow by one; of a network for one size of image the
    side of that over the map's.
    """
    small = _SIDE if side is None else side
    runs = []
    for size in (small,) if side is not None else (small, small + GROWTH):
        twin, x = meta_twin(network, (in_channels, size, size))
        found = []
        with torch.no_grad():
            for _, layer in _body(twin):
                x = layer(x)
                found.append((x.shape[-1], x.shape[1]) if channels_last else (x.shape[1], x.shape[2]))
        runs.append(found)
    if side is not None:
        return [(channels, round(side / height)) for channels, height in runs[0]]
    return [(c, round(GROWTH / (after - before))) for (c, before), (_, after) in zip(*runs, strict=True)]


# The vision transformer


def _maps(network: Any, images: Tensor, count: int | None) -> list[Tensor]:
    """The outputs of the encoder's layers, each place of a map a patch; the class token is left out."""
    x = network._process_input(images)
    x = torch.cat([network.class_token.expand(len(x), -1, -1), x], dim=1)
    x = network.encoder.dropout(x + network.encoder.pos_embedding)
    rows = images.shape[-2] // network.patch_size
    maps = []
    for layer in network.encoder.layers[:count]:
        x = layer(x)
        maps.append(x[:, 1:].transpose(1, 2).unflatten(2, (rows, -1)))
    return maps


def _prune(network: Any, count: int) -> None:
    del network.encoder.layers[count:]
    network.encoder.ln, network.heads = nn.Identity(), nn.Identity()


def _classifiers(network: Any, num_classes: int) -> Sequence[nn.Module]:
    return [layer for layer in network.heads.modules() if isinstance(layer, nn.Linear)][-1:]


def _reset(network: Any, num_classes: int) -> None:
    name, last = [(n, m) for n, m in network.heads.named_modules() if isinstance(m, nn.Linear)][-1]
    network.heads.set_submodule(name, nn.Linear(last.in_features, num_classes))


TRANSFORMER = Access(_maps, _prune, _classifiers, _reset)


# Its files


def _read(name: str, side: int, path: Path, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """A file's tensors by our names: in the order of torchvision's network, some of whose names have changed since."""
    option = _size_option(name)
    if option is not None and _first(options.get(option, _SIDE)) != side:
        raise InputError(
            f"{path.name} is for images of {side}x{side}: set model.{option}={side}, with data.size={side}"
        )
    state = {key: tensor for key, tensor in read_state(path).items() if not key.startswith(_AUXILIARY)}
    own = {option: side} if option is not None else {}  # the published form: other options are held against it
    with torch.device("meta"):
        network = _create(name, options["num_classes"], own)
        places = {id(tensor): key for key, tensor in network.state_dict(keep_vars=True).items()}
        try:
            given = {theirs[0]: file[1] for theirs, file in pair_in_order(network, state)}
        except InputError as error:
            raise InputError(f"{path.name}: {error}") from None
        model = _wrap(name, network, options["num_classes"], 3, None, own)
    ours = {key: places[id(tensor)] for key, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in places}
    return {key: given[place] for key, place in ours.items() if place in given}


def _first(size: Any) -> int:
    return size if isinstance(size, int) else size[0]

"""LPIPS: how far two images are apart by the features of a network, weighted as people see differences.

Zhang, Isola, Efros, Shechtman and Wang 2018, arXiv:1801.03924. Features of five layers of AlexNet or VGG16 are made one
unit long over their channels; squared differences, weighted by a number for each channel, are averaged over places and
summed over layers. The paper's equation 1 has the weights within the square; its published weights, of version 0.1, are
outside of it, and so they are here. The weights are not shipped: they come from files that the user names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from opsin.backbones.fitting import copy_in_order
from opsin.backbones.weight_files import check_numbers, read_weights
from opsin.errors import InputError
from opsin.registry import create_model

_WIDTHS = {"alexnet": (64, 192, 384, 256, 256), "vgg16": (64, 128, 256, 512, 512)}
_LEAST = {"alexnet": 31, "vgg16": 16}  # pixels of a side, below which the last layer sees nothing
_LINEAR = re.compile(r"(?:.*\.)?lin(\d+)\.model\.1\.weight")
_FEATURES = re.compile(r"(?:.*\.)?(?:features|net\.slice\d+)\.(\d+)\.(weight|bias)")
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet; the published shift and scale in [0, 1]
_TINY = 1e-10  # added to lengths of features, as published


class LPIPS(nn.Module):
    """Two batches of images (N, 3, H, W) in [0, 1] -> (N,), 0 for equal ones.

    network: "alexnet" or "vgg16". layers: its convolutions, activations and poolings in a row; what is compared are the
    outputs of AlexNet's five activations, and of VGG's last one of each stage. weights: five of (C,), of the channels.
    """

    def __init__(self, network: str, layers: Sequence[nn.Module], weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.network = network
        self.layers = nn.ModuleList(layers)
        ends = [k + 1 == len(layers) or isinstance(layers[k + 1], nn.MaxPool2d) for k in range(len(layers))]
        active = [isinstance(layer, nn.ReLU) for layer in layers]
        self.compared = [k for k in range(len(layers)) if active[k] and (network == "alexnet" or ends[k])]
        self.weights = nn.ParameterList(nn.Parameter(one, requires_grad=False) for one in weights)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(3, 1, 1))

    def features(self, images: Tensor) -> list[Tensor]:
        """What is compared of images (N, 3, H, W), each (N, C, h, w), one unit long over its channels."""
        x, found = (images - self.mean) / self.deviation, []
        for k, layer in enumerate(self.layers):
            x = layer(x)
            if k in self.compared:
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + _TINY))
        return found

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Raises InputError for images that are too small for the network."""
        if min(images.shape[-2:]) < _LEAST[self.network]:
            shown, least = "x".join(map(str, images.shape[-2:])), _LEAST[self.network]
            raise InputError(f"images are {shown}; LPIPS by {self.network} needs at least {least} pixels a side")
        total = images.new_zeros(len(images))
        for one, other, weight in zip(self.features(images), self.features(others), self.weights, strict=True):
            total = total + ((one - other).square() * weight[:, None, None]).sum(1).mean((1, 2))
        return total


def load_lpips(files: Sequence[str | Path]) -> LPIPS:
    """LPIPS with the weights of files, .pth or .safetensors, of which no code is run.

    files: one holds the channels' weights as the package lpips names them, lin0.model.1.weight to lin4; by their number
    the network is known. The same file or another may hold its convolutions, as torchvision names them or that package;
    else they are the published ones of `alexnet:imagenet1k` or `vgg16:imagenet1k`. Raises InputError where none fit.
    """
    given = {}
    for file in files:
        tensors = read_weights(Path(file)).tensors
        check_numbers(file, tensors)
        given |= tensors
    shown = ", ".join(map(str, files))
    network, weights = _channel_weights(given, shown)
    found = sorted((int(name[1]), name[2] == "bias", key) for key in given if (name := _FEATURES.fullmatch(key)))
    if not found:
        layers = _layers(create_model(network, weights="imagenet1k"))
        return LPIPS(network, layers, weights).eval()
    with torch.device("meta"):
        layers = _layers(create_model(network))
    own = nn.Sequential(*layers).to_empty(device="cpu")
    try:
        copy_in_order(own, {key: given[key] for _, _, key in found})
    except InputError as error:
        raise InputError(f"{shown}: not the convolutions of {network}: {error}") from None
    return LPIPS(network, list(own), weights).eval()


def _channel_weights(given: Mapping[str, Tensor], shown: str) -> tuple[str, list[Tensor]]:
    """Which network weights of channels are for, and they, (C,) each."""
    named = {int(name[1]): tensor for key, tensor in given.items() if (name := _LINEAR.fullmatch(key))}
    if not named:
        raise InputError(f"{shown}: no weights of LPIPS, lin0.model.1.weight and so on, as the package lpips has them")
    widths = tuple(named[k].shape[1] if named[k].ndim == 4 else 0 for k in sorted(named))
    network = next((name for name, own in _WIDTHS.items() if own == widths), None)
    if network is None or any(tuple(named[k].shape) != (1, width, 1, 1) for k, width in enumerate(widths)):
        raise InputError(
            f"{shown}: weights of LPIPS for {', '.join(map(str, widths))} channels; expected those of AlexNet "
            f"({', '.join(map(str, _WIDTHS['alexnet']))}) or VGG16 ({', '.join(map(str, _WIDTHS['vgg16']))})"
        )
    return network, [named[k].flatten().float() for k in sorted(named)]


def _layers(backbone: Any) -> list[nn.Module]:
    """The convolutions, activations and poolings of a network in a row, without its head."""
    parts = [backbone.stem, *backbone.stages]
    return [one for part in parts for one in part.modules() if isinstance(one, (nn.Conv2d, nn.ReLU, nn.MaxPool2d))]

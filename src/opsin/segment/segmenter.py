"""What every segmenter is: images -> a score of each class for each pixel -> losses, or maps of classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opsin.backbones.backbone import check_images
from opsin.checks import check_count
from opsin.errors import InputError
from opsin.losses.pixels import PixelCrossEntropy
from opsin.losses.terms import full_precision
from opsin.nn.capabilities import ClassRows

Outputs = dict[str, Tensor]
Size = tuple[int, int]

_NETWORK = "backbone.backbone."  # what the names of the classification network's tensors begin with
_NETWORKS = ("", _NETWORK, "network.")  # alone, in a segmenter or most detectors, in R-CNN and SPP-Net


class Segmenter(nn.Module, ABC):
    """A network of images -> logits, as large as its input or, without padding, as large as the middle of it.

    A subclass sets, in its constructor: aux_weights, of further logits in its outputs, by their name there, what their
    loss weighs beside the main one; nothing for most. strides: of the maps it predicts on. divisor: what both sides of
    an input must be multiples of. min_size: the least side. preprocessing: what the published weights in it expect.
    criterion: (logits, labels, pixel weights or None) -> a loss, see `opsin.losses.pixels`; a recipe may set another.
    overlapping: each class is decided by itself, by a sigmoid, and a pixel may be of several or of none; a single thing
    to find is one such class. class_layers: names of the layers that make logits, with a row for each class. parts that
    an earlier training has taught: `learned`, names of modules.

    `forward` is pure: the same in train and eval, exportable, and never sees a target.
    """

    num_classes: int
    in_channels: int
    strides: tuple[int, ...] = (1,)
    divisor: int = 1
    min_size: int = 1
    aux_weights: Mapping[str, float]
    preprocessing: Mapping[str, Any] | None = None
    class_layers: tuple[str, ...] = ()
    learned: tuple[str, ...] = ("backbone",)

    def __init__(self, num_classes: int, in_channels: int, overlapping: bool | None = None) -> None:
        """overlapping: None where there is one class, which has no other to choose from."""
        super().__init__()
        self.num_classes = check_count("num_classes", num_classes)
        self.in_channels = check_count("in_channels", in_channels)
        self.aux_weights = {}
        if overlapping is False and num_classes == 1:
            raise InputError(
                "one class leaves nothing to choose between: leave out overlapping=False, and a pixel is of it or not, "
                "or make the rest a class of its own (num_classes=2)"
            )
        self.overlapping = num_classes == 1 if overlapping is None else bool(overlapping)
        self.criterion: nn.Module = PixelCrossEntropy()

    @abstractmethod
    def forward(self, images: Tensor) -> Outputs:
        """images: (B, in_channels, H, W) float, normalised -> {"logits": (B, num_classes, *output_size((H, W)))}.

        And the logits of auxiliary heads by their names, of the same shape.
        """

    def output_size(self, size: Size) -> Size:
        """The (height, width) of what it says of an input: of the input itself, but for networks without padding.

        Raises InputError for a size that the network cannot take, which names the next one that it can.
        """
        return size

    def loss(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named terms whose sum is minimised.

        targets: labels (B, H, W) int64, -1 ignored, or where classes overlap (B, K, H, W) bool; weights, where pixels
        count by other than one, (B, H, W) float. Both of the size of the input; of networks without padding the middle
        is held against what they say.
        """
        logits = outputs["logits"]
        labels = centre(targets["labels"], logits.shape[-2:])
        weights = targets.get("weights")
        if weights is not None:
            weights = centre(weights, logits.shape[-2:])
        losses = {"main" if self.aux_weights else "loss": self.criterion(logits, labels, weights)}
        for name, weight in self.aux_weights.items():
            losses[name] = weight * self.criterion(outputs[name], labels, weights)
        return losses

    def decode(self, outputs: Outputs) -> Tensor:
        """Probabilities (B, K, H, W) in [0, 1]: over the classes, or where these overlap of each by itself."""
        logits = full_precision(outputs["logits"])
        return logits.sigmoid() if self.overlapping else logits.softmax(dim=1)

    def reset_head(self, num_classes: int) -> None:
        """Replace the layers that make logits, of auxiliary heads too, by fresh ones for other classes."""
        self.num_classes = check_count("num_classes", num_classes)
        for name in self.class_layers:
            fresh = self._class_layer(self.get_submodule(name))
            self.set_submodule(name, fresh)

    def _class_layer(self, old: nn.Module) -> nn.Module:
        """A fresh one like it, for `num_classes`."""
        assert isinstance(old, nn.Conv2d)
        size, padding = (old.kernel_size[0], old.kernel_size[1]), old.padding
        fresh = nn.Conv2d(old.in_channels, self.num_classes, size, padding=padding, dilation=old.dilation)  # type: ignore[arg-type]
        return fresh.to(old.weight.device, old.weight.dtype)

    def class_rows(self) -> dict[str, ClassRows]:
        """Weights and biases of the layers that make logits, a row for each class."""
        return {
            f"{name}.{key}": ClassRows()
            for name in self.class_layers
            for key, _ in self.get_submodule(name).named_parameters(recurse=False)
        }

    def learned_parts(self) -> list[nn.Module]:
        """What an earlier training can have taught: the encoder."""
        return [self.get_submodule(name) for name in self.learned]

    def initialize_from(self, state: Mapping[str, Tensor]) -> list[str]:
        """Copy every tensor whose name and shape fit. Returns the names of our tensors that were not filled.

        The names are those of this network; or of a classification network, and go to the one inside: whichever reading
        fills more tensors.
        """
        own = self.state_dict()
        readings = [dict(state)]
        for prefix in _NETWORKS:
            inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            readings.append({f"{_NETWORK}{name}": tensor for name, tensor in inner.items()})
        readings.append(self._from_classifier(state))
        fitting = max((_fitting(own, reading) for reading in readings), key=len)
        self.load_state_dict(fitting, strict=False)
        return [k for k in own if k not in fitting]

    def _from_classifier(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a network makes of the tensors of a classification network, where it takes more than the encoder."""
        return {}

    def drop_aux_heads(self) -> None:
        """Leave out the auxiliary heads, where there are any: for use and export of a trained network.

        Its `aux_heads=False` builds one whose weights fit what is left.
        """
        if self.aux_weights:
            self.aux_weights = {}
            self.class_layers = tuple(name for name in self.class_layers if not name.startswith("aux_heads."))
            self.aux_heads = nn.ModuleDict()

    def size_warnings(self, size: Size) -> list[str]:
        """What of the network is wasted on inputs of a (height, width), a line each; nothing for most."""
        return []

    def _check(self, images: Tensor) -> None:
        if torch.compiler.is_compiling():
            return  # a comparison of sizes would fix in the exported program what it may leave open
        check_images(type(self).__name__, images, self.in_channels, None)
        self.output_size((images.shape[-2], images.shape[-1]))


def centre(values: Tensor, size: Size | torch.Size) -> Tensor:
    """The middle (..., height, width) of something (..., H, W)."""
    if values.shape[-2:] == tuple(size):
        return values
    top, left = (values.shape[-2] - size[0]) // 2, (values.shape[-1] - size[1]) // 2
    return values[..., top : top + size[0], left : left + size[1]]


def resize_logits(logits: Tensor, size: Size | torch.Size) -> Tensor:
    """Logits at another size, bilinear, pixel i spanning [i, i + 1) (corners not aligned)."""
    if not torch.compiler.is_compiling() and logits.shape[-2:] == tuple(size):
        return logits  # without a copy; in an exported program, whose sizes may be open, there is no such question
    return F.interpolate(logits, list(size), mode="bilinear")


def _fitting(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}

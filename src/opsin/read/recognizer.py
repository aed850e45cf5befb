"""What every recognizer is: images of a word or a line -> scores of characters, step by step -> losses, or texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from opsin.backbones.backbone import check_images
from opsin.checks import check_count
from opsin.errors import InputError

Outputs = dict[str, Tensor]
Size = tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """One text as labels of the alphabet. scores: of each label, in [0, 1]. steps: where along the outputs each was."""

    labels: Sequence[int]
    scores: Sequence[float]
    steps: Sequence[int]


class Recognizer(nn.Module, ABC):
    """A network of images -> outputs, of which `probabilities` makes (B, T, K) and `decode` texts.

    num_classes: K as it was published, with the blank or the start and the end. specials: how many of K are no
    characters. characters: K - specials. blank: the place of the blank among the K, None where there is none. min_size:
    the least (height, width). free_width: whether any width is taken, and steps follow it. preprocessing: what the
    published weights expect.

    `forward` is pure: the same in train and eval, exportable, and never sees a target. A decoder that is taught with
    the text itself runs in `loss`, and step by step in `probabilities`.
    """

    num_classes: int
    in_channels: int
    specials: int = 1
    blank: int | None = None
    min_size: Size = (1, 1)
    free_width: bool = False
    preprocessing: Mapping[str, Any] | None = None
    class_layers: tuple[str, ...] = ()
    learned: tuple[str, ...] = ("backbone",)

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.num_classes = check_count("num_classes", num_classes)
        self.in_channels = check_count("in_channels", in_channels)

    @property
    def characters(self) -> int:
        """How many characters it knows."""
        return self.num_classes - self.specials

    @abstractmethod
    def forward(self, images: Tensor) -> Outputs:
        """images: (B, in_channels, H, W) float, normalised -> tensors by name, such as {"logits": (B, T, K)}."""

    def check_images(self, images: Tensor) -> None:
        """Raise InputError for images that cannot be read; nothing is checked while a program is traced."""
        if not torch.compiler.is_compiling():
            check_images(type(self).__name__, images, self.in_channels, None)
            self.check_size((images.shape[-2], images.shape[-1]))

    def check_size(self, size: Size) -> None:
        """Raise InputError for a (height, width) below `min_size`."""
        if any(side < least for side, least in zip(size, self.min_size, strict=True)):
            height, width = self.min_size
            raise InputError(
                f"{type(self).__name__} takes images of at least {height} pixels height and {width} width, got "
                f"{size[0]}x{size[1]}; resize them (data.size=[32, 100] is the paper's)"
            )

    @abstractmethod
    def steps(self, size: Size) -> int:
        """T for an input of (height, width): how many characters, or characters and repeats, can be read at most."""

    @abstractmethod
    def loss_of_each(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
        """The loss of each image by itself, (B,), the same whatever else is in the batch; 0 of a text that cannot fit.

        targets: labels (B, L) int64 of characters, from 0, filled up with -1; lengths (B,) int64. The place of the
        blank, of start and end among the K is the network's own affair.
        """

    def loss(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named terms whose sum is minimised; the mean of `loss_of_each` where a network has no other."""
        terms = self.loss_of_each(outputs, targets)
        return {"loss": terms.sum() / max(len(terms), 1)}

    @abstractmethod
    def probabilities(self, outputs: Outputs) -> Tensor:
        """(B, T, K) in [0, 1], over K at every step. What an exported file gives."""

    @abstractmethod
    def read(self, outputs: Outputs) -> tuple[list[Reading], Tensor]:
        """The most probable text of each, greedily, and the `probabilities` that it is of: a decoder runs once."""

    def decode(self, outputs: Outputs) -> list[Reading]:
        """The most probable text of each, greedily. Other ways to decode take `probabilities`."""
        return self.read(outputs)[0]

    @abstractmethod
    def reset_head(self, num_classes: int) -> None:
        """Replace the layers that make scores by fresh ones for another alphabet."""

"""What every classification network is: stem, stages, head."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from opsin.errors import InputError
from opsin.losses import CrossEntropy


class Backbone(nn.Module):
    """A network of `stem -> stages -> head`, whatever its blocks, so that any head can stand on any of them.

    A subclass sets, in its constructor:

    stem: image -> first feature map. stages: one module per resolution or paper "stage". head: last feature map ->
    logits. channels, strides: of each stage's output, strides in input pixels. min_size: the smallest input height and
    width it can take. fixed_size: the only one, where its head allows no other.

    What the name of a network fixes is positional in that constructor, what its user may choose is keyword-only.
    `forward` is pure: the same in train and eval, exportable. `criterion` makes the loss; a recipe may set another.
    """

    stem: nn.Module
    stages: nn.ModuleList
    head: nn.Module
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    num_classes: int
    in_channels: int
    min_size: int = 1
    fixed_size: int | None = None

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.num_classes = positive("num_classes", num_classes)
        self.in_channels = positive("in_channels", in_channels)
        self.criterion: nn.Module = CrossEntropy()
        self.multi_label = False
        self.temperature = 1.0  # fitted on validation data after training; logits are divided by it in decode only

    def features(self, images: Tensor) -> list[Tensor]:
        """Every stage's output: [(B, channels[i], about H / strides[i], about W / strides[i])].

        An input that is `strides[i]` pixels larger gives a map that is exactly one larger. What it has less than
        H / strides[i] is the border that convolutions without padding lose.
        """
        self._check(images)
        x = self.stem(images)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, in_channels, H, W) float -> logits (B, num_classes)."""
        return self.head(self.features(images)[-1])

    def loss(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Named terms whose sum is minimised. targets: (B,) int64, or (B, num_classes) float in [0, 1] when soft."""
        return {"loss": self.criterion(outputs, targets)}

    def decode(self, outputs: Tensor) -> dict[str, Tensor]:
        """Logits (B, K) -> scores (B, K) in [0, 1], and labels: (B,) int64, if multi-label (B, K) of scores >= 0.5."""
        logits = outputs.float() / self.temperature
        if self.multi_label:
            scores = torch.sigmoid(logits)
            return {"scores": scores, "labels": scores >= 0.5}
        scores = torch.softmax(logits, dim=1)
        return {"scores": scores, "labels": scores.argmax(dim=1)}

    def reset_head(self, num_classes: int) -> None:
        """Replace the layer that makes the logits by a fresh one for another number of classes."""
        self.num_classes = positive("num_classes", num_classes)
        self._replace_output()

    def _replace_output(self) -> None:
        """A fresh last layer, for `num_classes`: here the last linear one of the head."""
        name, last = [(n, m) for n, m in self.head.named_modules() if isinstance(m, nn.Linear)][-1]
        fresh = nn.Linear(
            last.in_features, self.num_classes, last.bias is not None, last.weight.device, last.weight.dtype
        )
        self.head.set_submodule(name, fresh)

    def initialize_from(self, state: Mapping[str, Tensor]) -> list[str]:
        """Copy every tensor whose name and shape fit. Returns the names of our tensors that were not filled."""
        return self._fill({k: v for k, v in state.items() if not k.startswith("criterion.")})

    def _fill(self, state: Mapping[str, Tensor]) -> list[str]:
        own = self.state_dict()
        fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
        self.load_state_dict(fitting, strict=False)
        return [k for k in own if k not in fitting]

    def _check(self, images: Tensor) -> None:
        if torch.compiler.is_compiling():
            return  # a comparison of sizes would fix in the exported program what it may leave open
        name = type(self).__name__
        if images.ndim != 4:
            raise InputError(f"{name} takes images of shape (B, C, H, W), got {tuple(images.shape)}")
        if not images.is_floating_point():
            raise InputError(f"{name} takes normalised images of a floating-point type, got {images.dtype}")
        channels, height, width = images.shape[1:]
        if channels != self.in_channels:
            raise InputError(
                f"{name} was built for {self.in_channels} input channels, got {channels}; "
                f"convert the images or build it with in_channels={channels}"
            )
        if self.fixed_size is not None and (height, width) != (self.fixed_size, self.fixed_size):
            raise InputError(
                f"{name} takes images of {self.fixed_size}x{self.fixed_size} only, got {height}x{width}; "
                f"resize them (data.size={self.fixed_size})"
            )
        if min(height, width) < self.min_size:
            raise InputError(
                f"{name} needs images of at least {self.min_size}x{self.min_size}, got {height}x{width}; "
                f"enlarge them (data.size={self.min_size} or more)"
            )


def positive(option: str, value: int) -> int:
    """The value of an option that counts something. Raises InputError unless it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{option} must be a whole number of at least 1, got {value!r}")
    return value

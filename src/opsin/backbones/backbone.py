"""What every classification network is: stem, stages, head."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError
from opsin.losses import CrossEntropy
from opsin.nn.capabilities import ClassRows, rows_of_last
from opsin.nn.dilation import dilate

OUTPUT_STRIDES = (8, 16, 32)

Outputs: TypeAlias = Tensor | dict[str, Tensor]  # logits, or with auxiliary heads {"logits": ..., "aux1": ..., ...}


class Backbone(nn.Module):
    """A network of `stem -> stages -> head`, whatever its blocks, so that any head can stand on any of them.

    A subclass sets, in its constructor:

    stem: image -> first feature map. stages: one module per resolution or paper "stage". head: last feature map ->
    logits. channels, strides: of each stage's output, strides in input pixels. min_size: the smallest input height and
    width it can take. fixed_size: the only one, where its head allows no other.

    What the name of a network fixes is positional in that constructor, what its user may choose is keyword-only.
    Every subclass takes `output_stride` besides: 8, 16 or 32 is the largest stride that its maps may have. Layers that
    would stride further do not, and those behind them are dilated, so that weights keep their meaning and their names;
    see `opsin.nn.dilation`. A network whose maps are that fine stays as it is. Auxiliary heads do too.
    `preprocessing` is what the published weights in it expect of an image, keys of `opsin.data.Preprocessing`.
    `forward` is pure: the same in train and eval, exportable. `criterion` makes the loss; a recipe may set another.

    A network with auxiliary classifiers, which bring gradient to its middle in training, also sets `aux_heads` (between
    stages and head, as published files order them), where each one reads (`aux_taps`, name -> (stage, block), the stage
    being a Sequential of blocks) and what its loss weighs beside the main one (`aux_weight`). `drop_aux_heads` leaves
    them out for good. They are built where `aux_heads=True` asks for them; None, the default, leaves that to training.
    """

    stem: nn.Module
    stages: nn.ModuleList
    aux_heads: nn.ModuleDict
    head: nn.Module
    aux_taps: Mapping[str, tuple[int, int]]
    aux_weight: float = 0.0
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    num_classes: int
    in_channels: int
    min_size: int = 1
    fixed_size: int | None = None
    preprocessing: Mapping[str, Any] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _with_output_stride(cls.__init__)

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.num_classes = check_count("num_classes", num_classes)
        self.in_channels = check_count("in_channels", in_channels)
        self.criterion: nn.Module = CrossEntropy()
        self.aux_taps = {}
        self.multi_label = False
        self.temperature = 1.0  # fitted on validation data after training; logits are divided by it in decode only

    @property
    def label(self) -> str:
        """What messages call it."""
        return type(self).__name__

    def layers(self) -> list[nn.Module]:
        """What makes the last map, in order: stem and stages. Raises InputError for a network that runs as a whole."""
        return [self.stem, *self.stages]

    def keep_stages(self, count: int) -> None:
        """Leave out the head for good, and all stages but the first so many."""
        del self.stages[count:]
        self.head = nn.Identity()

    def features(self, images: Tensor) -> list[Tensor]:
        """Every stage's output: [(B, channels[i], about H / strides[i], about W / strides[i])].

        An input that is `strides[i]` pixels larger gives a map that is exactly one larger. What it has less than
        H / strides[i] is the border that convolutions without padding lose. Held at an output stride, a map grows by
        whole places of the network without it: with the stride of 32 at 8, an input 32 larger gives a map 4 larger.
        """
        self._check(images)
        x = self.stem(images)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs

    def forward(self, images: Tensor) -> Outputs:
        """images: (B, in_channels, H, W) float -> logits (B, num_classes).

        With auxiliary heads a dict: "logits", and what each of them makes by its name, (B, num_classes) all.
        """
        if not self.aux_taps:
            return self.head(self.features(images)[-1])
        self._check(images)
        reading = {place: name for name, place in self.aux_taps.items()}
        x, auxiliary = self.stem(images), {}
        for stage, blocks in enumerate(self.stages):
            assert isinstance(blocks, nn.Sequential)
            for place, block in enumerate(blocks):
                x = block(x)
                if name := reading.get((stage, place)):
                    auxiliary[name] = self.aux_heads[name](x)
        return {"logits": self.head(x), **auxiliary}

    def loss(self, outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
        """Named terms whose sum is minimised. targets: (B,) int64, or (B, num_classes) float in [0, 1] when soft.

        "loss" alone, or the terms of a criterion that gives several. With auxiliary heads "main", and one term for each
        head by its name, times `aux_weight`.
        """
        if isinstance(outputs, Tensor):
            found = self.criterion(outputs, targets)
            return dict(found) if isinstance(found, Mapping) else {"loss": found}
        losses = {"main": self.criterion(outputs["logits"], targets)}
        for name in self.aux_taps:
            losses[name] = self.aux_weight * self.criterion(outputs[name], targets)
        return losses

    def decode(self, outputs: Outputs) -> dict[str, Tensor]:
        """Logits (B, K) -> scores (B, K) in [0, 1], and labels: (B,) int64, if multi-label (B, K) of scores >= 0.5.

        Auxiliary heads have no say.
        """
        logits = logits_of(outputs).float() / self.temperature
        if self.multi_label:
            scores = torch.sigmoid(logits)
            return {"scores": scores, "labels": scores >= 0.5}
        scores = torch.softmax(logits, dim=1)
        return {"scores": scores, "labels": scores.argmax(dim=1)}

    @classmethod
    def suggest(cls, state: Mapping[str, Tensor]) -> str:
        """What somebody's file that does not fit may be instead, in words; "" where nothing is known."""
        return ""

    def example_loss(self, outputs: Outputs) -> Tensor:
        """The loss of what `forward` gives, were every image of the first class; with several labels, of none."""
        logits = logits_of(outputs)
        targets = torch.zeros_like(logits) if self.multi_label else logits.new_zeros(len(logits), dtype=torch.int64)
        return torch.stack(list(self.loss(outputs, targets).values())).sum()

    def saved_state(self) -> dict[str, Any]:
        """What `decode` follows beside the weights: `temperature` and `multi_label`."""
        return {"temperature": float(self.temperature), "multi_label": bool(self.multi_label)}

    def restore_state(self, values: Mapping[str, Any]) -> None:
        """Take what `saved_state` gave. Raises ValueError for a temperature that is not above 0."""
        self.temperature, self.multi_label = float(values.get("temperature", 1.0)), bool(values.get("multi_label"))
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; expected a number above 0")

    def reset_head(self, num_classes: int) -> None:
        """Replace the layers that make logits, of the head and of auxiliary ones, by fresh ones for other classes."""
        self.num_classes = check_count("num_classes", num_classes)
        self._replace_output()

    def drop_aux_heads(self) -> None:
        """Leave out the auxiliary heads, where there are any: `forward` gives the same logits, as a plain tensor.

        For use and export of a trained network. Its `aux_heads=False` builds one whose weights fit what is left.
        """
        if self.aux_taps:
            self.aux_taps, self.aux_heads = {}, nn.ModuleDict()

    def _replace_output(self) -> None:
        """A fresh last layer, for `num_classes`: here the last linear one of the head and of each auxiliary head."""
        for head in [self.head, *(self.aux_heads[name] for name in self.aux_taps)]:
            name, last = [(n, m) for n, m in head.named_modules() if isinstance(m, nn.Linear)][-1]
            fresh = nn.Linear(
                last.in_features, self.num_classes, last.bias is not None, last.weight.device, last.weight.dtype
            )
            head.set_submodule(name, fresh)

    def initialize_from(self, state: Mapping[str, Tensor]) -> list[str]:
        """Copy every tensor whose name and shape fit. Returns the names of our tensors that were not filled."""
        return self._fill({k: v for k, v in state.items() if not k.startswith("criterion.")})

    def class_rows(self) -> dict[str, ClassRows]:
        """The last layer of the head and of each auxiliary head, where it has a row for each class."""
        heads = {"head": self.head, **{f"aux_heads.{name}": self.aux_heads[name] for name in self.aux_taps}}
        found: dict[str, ClassRows] = {}
        for name, head in heads.items():
            rows = rows_of_last(name, head, ClassRows())
            found |= {key: layout for key, layout in rows.items() if len(self.get_parameter(key)) == self.num_classes}
        return found

    def learned_parts(self) -> list[nn.Module]:
        """Everything below the head."""
        return [self.stem, self.stages]

    def _fill(self, state: Mapping[str, Tensor]) -> list[str]:
        own = self.state_dict()
        fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
        self.load_state_dict(fitting, strict=False)
        return [k for k in own if k not in fitting]

    def _hold_stride(self, output_stride: int) -> None:
        """Take out strides, and dilate, so that no map of the stages is coarser."""
        if type(output_stride) is not int or output_stride not in OUTPUT_STRIDES:
            raise InputError(
                f"output_stride must be one of {', '.join(map(str, OUTPUT_STRIDES))}, got {output_stride!r}; "
                f"leave it out for the maps of {type(self).__name__} as it was published"
            )
        coarsest = max(self.strides)
        if coarsest <= output_stride:
            return
        if self.fixed_size is not None:
            raise InputError(
                f"{type(self).__name__} cannot have output_stride={output_stride}: its head takes the maps of one size "
                "of image only; take another network, or leave it out"
            )
        side = max(self.min_size, 2 * coarsest)
        dilate(self, output_stride, (self.in_channels, side, side), coarsest, tail="head", apart="aux_heads")
        self.strides = tuple(min(stride, output_stride) for stride in self.strides)

    def _check(self, images: Tensor) -> None:
        if torch.compiler.is_compiling():
            return  # a comparison of sizes would fix in the exported program what it may leave open
        name = self.label
        check_images(name, images, self.in_channels, self.fixed_size)
        height, width = images.shape[-2:]
        if min(height, width) < self.min_size:
            raise InputError(
                f"{name} needs images of at least {self.min_size}x{self.min_size}, got {height}x{width}; "
                f"enlarge them (data.size={self.min_size} or more)"
            )


def training_options(known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Options of a builder that a training sets: auxiliary heads, where the builder leaves them open.

    known: the builder's options. Without them a network answers with logits alone, as all others. Published files, and
    published counts of parameters, are of networks that have them.
    """
    heads = known.get("aux_heads")
    return {"aux_heads": True} if heads is not None and heads.default is None else {}


def _with_output_stride(init: Callable[..., None]) -> Callable[..., None]:
    """A network's constructor with one keyword more, found in its signature like any other, unless it has that."""
    signature = inspect.signature(init)
    if "output_stride" in signature.parameters:
        return init

    @wraps(init)
    def build(self: Backbone, *args: Any, output_stride: int | None = None, **options: Any) -> None:
        init(self, *args, **options)
        if output_stride is not None:
            self._hold_stride(output_stride)

    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    rest = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    added = inspect.Parameter("output_stride", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="int | None")
    build.__signature__ = signature.replace(parameters=[*own, added, *rest])  # type: ignore[attr-defined]
    return build


def check_images(name: str, images: Tensor, in_channels: int, fixed_size: int | None) -> None:
    """Raise InputError for a batch that is not float, (B, in_channels, H, W), and of this side where there is one."""
    if images.ndim != 4:
        raise InputError(f"{name} takes images of shape (B, C, H, W), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise InputError(f"{name} takes normalised images of a floating-point type, got {images.dtype}")
    channels, height, width = images.shape[1:]
    if channels != in_channels:
        raise InputError(
            f"{name} was built for {in_channels} input channels, got {channels}; "
            f"convert the images or build it with in_channels={channels}"
        )
    if fixed_size is not None and (height, width) != (fixed_size, fixed_size):
        raise InputError(
            f"{name} takes images of {fixed_size}x{fixed_size} only, got {height}x{width}; "
            f"resize them (data.size={fixed_size})"
        )


def logits_of(outputs: Outputs) -> Tensor:
    """The logits (B, K) of a classification network's outputs, whether it has auxiliary heads or not."""
    return outputs if isinstance(outputs, Tensor) else outputs["logits"]

"""What can be exported of a model, as its task declares it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from opsin.data import Preprocessing


@dataclass(frozen=True)
class FreeSides:
    """The heights and widths of images that a program takes: offset + k step, from least on, each by itself."""

    least: int = 1
    step: int = 1
    offset: int = 0

    def after(self, side: int) -> int:
        """The smallest that is larger than `side`."""
        steps = max(-(-(self.least - self.offset) // self.step), (side - self.offset) // self.step + 1)
        return self.offset + steps * self.step


@dataclass
class Program:
    """What can be exported of a model: a module that takes tensors, mostly one, and gives named ones, batch first.

    outputs: their names, in order. metadata: texts that travel in the file. units: of an output, the size from which on
    its error counts as relative; 1 for most. decode: from the outputs to the answers of a batch whose inputs have
    these (height, width), by which a file is compared too. name: of the input in the file. sides: which other sizes of
    images the file is to take; its example's alone if None. exact: from the outputs to what must be the same of each
    example in the file, without any difference. compared: on how many examples a file is compared. half: whether the
    file's weights are to have 16 bits.

    Of a program that takes more than inputs as they are read, such as one step of a decoder: names: of its inputs, in
    order. moments: of a batch of inputs what it is given, at one moment after another; the last is what it is traced
    with. free: of its k-th input which dimensions beside the batch are left open, with a name for each. part: what is
    added to the name of the file; a task may have several programs, the first without.
    """

    module: nn.Module
    outputs: list[str]
    metadata: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, float] = field(default_factory=dict)
    decode: Callable[[Mapping[str, Tensor]], list[dict[str, Any]]] | None = None
    name: str = "images"
    sides: FreeSides | None = None
    exact: Callable[[Mapping[str, Tensor]], list[Any]] | None = None
    compared: int = 8
    half: bool = False
    names: Sequence[str] = ()
    moments: Callable[[Tensor], Sequence[tuple[Tensor, ...]]] | None = None
    free: Mapping[int, Mapping[int, str]] = field(default_factory=dict)
    part: str = ""

    @property
    def input_names(self) -> list[str]:
        """Of all that it takes."""
        return list(self.names) or [self.name]

    def given(self, batch: Tensor) -> Sequence[tuple[Tensor, ...]]:
        """What it is given of a batch of inputs, at each moment."""
        return [(batch,)] if self.moments is None else self.moments(batch)


class NormalizedNetwork(nn.Module):
    """Normalisation, a network and what is given of its outputs: images, uint8 (B, channels, H, W) -> named tensors.

    The module of most programs. give: from the network's outputs to tensors by name.
    """

    def __init__(
        self, model: nn.Module, preprocessing: Preprocessing, give: Callable[[Any], Mapping[str, Tensor]]
    ) -> None:
        super().__init__()
        self.model, self.preprocessing, self.give = model, preprocessing, give

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return dict(self.give(self.model(self.preprocessing.normalize(images))))

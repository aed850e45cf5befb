"""What every network that finds named points is: images -> outputs -> losses, or points and how widely they scatter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from opsin.backbones.backbone import check_images
from opsin.checks import check_count
from opsin.errors import InputError
from opsin.losses import create_loss

Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Located:
    """points: (B, P, 2), in pixels of the input. spread: (B, P), in the same, how widely the network scatters a point;
    1 of a network that does not say.
    """

    points: Tensor
    spread: Tensor


class Localizer(nn.Module, ABC):
    """A network of images (B, in_channels, H, W) -> outputs, of which `decode` makes points.

    num_points: P. criterion: of the recipe, called with (found, wanted) and giving a term for each value, see
    `opsin.landmark.criterion`. expected_error: (P,), of each point the mean error that validation has shown, in pixels
    of the input where the spread is 1; None before that. It is carried beyond the weights.

    `forward` is pure: the same in train and eval, exportable, and never sees a target.
    """

    num_points: int
    in_channels: int
    fixed_size: int | None = None
    min_size: int = 1
    divisor: int = 1
    preprocessing: Mapping[str, Any] | None = None

    def __init__(self, num_points: int, in_channels: int) -> None:
        super().__init__()
        self.num_points = check_count("num_points", num_points)
        self.in_channels = check_count("in_channels", in_channels)
        self.criterion: nn.Module = create_loss("wing", reduction="none")
        self.expected_error: Tensor | None = None

    @abstractmethod
    def forward(self, images: Tensor) -> Outputs:
        """images: (B, in_channels, H, W) float, normalised -> tensors by name."""

    @abstractmethod
    def decode(self, outputs: Outputs) -> Located:
        """Where the points are."""

    @abstractmethod
    def loss_of_each(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
        """The loss of each image by itself, (B,), the same whatever else is in the batch; 0 of one without points.

        targets: points (B, P, 2) in pixels of the input, NaN where not known.
        """

    def loss(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named terms whose sum is minimised: the mean over the images that have a point."""
        known = (~targets["points"].isnan().any(dim=2)).any(dim=1)
        return {"loss": self.loss_of_each(outputs, targets).sum() / known.sum().clamp(min=1)}

    def start_at(self, shape: Tensor) -> None:
        """Begin with this shape (P, 2), in shares of the input's width and height, as the answer to every image."""

    def check_images(self, images: Tensor) -> None:
        """Raise InputError for images that it cannot take; nothing is checked while a program is traced."""
        if not torch.compiler.is_compiling():
            check_images(type(self).__name__, images, self.in_channels, self.fixed_size)
            height, width = images.shape[-2:]
            if height % self.divisor or width % self.divisor or min(height, width) < self.min_size:
                raise InputError(
                    f"{type(self).__name__} takes sides that are multiples of {self.divisor}, from {self.min_size} on; "
                    f"got {height}x{width}, resize them (data.size)"
                )

    def saved_state(self) -> dict[str, Any]:
        return {} if self.expected_error is None else {"expected_error": self.expected_error.tolist()}

    def restore_state(self, values: Mapping[str, Any]) -> None:
        given = values.get("expected_error")
        found = None if given is None else torch.tensor([float(one) for one in given])
        if found is not None and (len(found) != self.num_points or not bool(torch.isfinite(found).all())):
            raise ValueError(f"expected_error of {len(found)} numbers for {self.num_points} points")
        self.expected_error = found


class Regressor(Localizer):
    """A network whose output is the points themselves: {"points": (B, P, 2)} in pixels of the input."""

    def decode(self, outputs: Outputs) -> Located:
        points = outputs["points"]
        return Located(points, torch.ones_like(points[..., 0]))

    def loss_of_each(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
        return loss_of_points(self.criterion, outputs["points"], targets["points"])


def loss_of_points(criterion: nn.Module, found: Tensor, wanted: Tensor) -> Tensor:
    """The mean of a criterion's terms over the known points of each image, (B,). found, wanted: (B, P, 2) in pixels."""
    known = ~wanted.isnan().any(dim=2)
    terms = criterion(found.float(), torch.where(known[..., None], wanted.float(), found.detach().float()))
    terms = terms.mean(dim=2) * known
    return terms.sum(dim=1) / known.sum(dim=1).clamp(min=1)

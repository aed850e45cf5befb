"""Learn to Augment: Joint Data Augmentation and Network Optimization for Text Recognition.

Luo, Zhu, Jin and Wang 2020, arXiv:2003.06606. The idea: images of text are bent by moving points along their upper and
lower borders, and an agent, a small network beside the recognizer, learns in which direction to move each so that the
image becomes harder to read, as the recognizer is in its training. The distances stay random: an agent that chose them
too would move everything as far as it may (section 3.2).

A step: the agent gives to each point the probability of going left or right and up or down; the directions are drawn
from it, and the recognizer is trained on what they make of the image. One point is then turned the other way, and the
recognizer reads that too. The agent learns the direction of this point that was harder, by the edit distance to the
text; where both were as hard there is nothing to learn.

What is said here and not in the paper: directions are drawn, not the most probable taken, so that an agent that knows
nothing moves points at random; and the agent learns from the point that was turned alone, as the others say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count, check_within
from opsin.data.transforms.moving_points import HEIGHT, displace, stay_inside
from opsin.errors import InputError
from opsin.ops.sequence import edit_distances
from opsin.read.recognizer import Outputs, Recognizer

SIZE = (32, 100)  # of the images that the agent looks at
# Convolutions of table 1: channels, whether batch norm follows, whether a pooling by 2 does.
_LAYERS = (
    (16, False, True), (64, False, True), (128, True, False), (128, False, True), (64, True, False), (16, True, True),
)  # fmt: skip


class AugmentationAgent(nn.Module):
    """Images (B, in_channels, H, W) -> logits of directions (B, 2 (patches + 1), 2, 2): point, across or down, - or +.

    Images of another size than 32x100 are seen at that size.
    """

    def __init__(self, in_channels: int, patches: int = 3) -> None:
        super().__init__()
        self.points = 2 * (check_count("patches", patches) + 1)
        layers: list[nn.Module] = []
        before = check_count("in_channels", in_channels)
        for channels, norm, pooling in _LAYERS:
            layers.append(nn.Conv2d(before, channels, 3, padding=1))
            layers += [nn.BatchNorm2d(channels)] if norm else []
            layers.append(nn.ReLU(inplace=True))
            layers += [nn.MaxPool2d(2)] if pooling else []
            before = channels
        self.features = nn.Sequential(*layers)
        self.predict = nn.Linear(16 * (SIZE[0] // 16) * (SIZE[1] // 16), 4 * self.points)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != SIZE:
            images = F.interpolate(images, SIZE, mode="bilinear", antialias=True)
        return self.predict(self.features(images).flatten(1)).view(-1, self.points, 2, 2)


@dataclass(frozen=True)
class Moves:
    """What was done to a batch. images: (B, C, H, W), as the agent saw them. directions: (B, K, 2), -1 or 1.

    distances: (B, K, 2) in [0, 1]. turned: (B,), the point of each that goes the other way in the comparison.
    """

    images: Tensor
    directions: Tensor
    distances: Tensor
    turned: Tensor

    def opposite(self) -> Tensor:
        """The directions with one point turned."""
        rows = torch.arange(len(self.directions), device=self.directions.device)
        directions = self.directions.clone()
        directions[rows, self.turned] *= -1
        return directions


class LearnedAugmentation(nn.Module):
    """Bends batches of images as its agent says, and teaches the agent by what a recognizer makes of them.

    patches: of equal width; the points are 2 (patches + 1). radius: how far a point moves at most, in pixels of an
    image 32 high. 3 and 10 are the paper's. The tensors are those of the agent: they are no part of the recognizer,
    which is used without them.
    """

    def __init__(self, in_channels: int, *, patches: int = 3, radius: float = 10.0) -> None:
        super().__init__()
        self.agent = AugmentationAgent(in_channels, patches)
        self.patches = patches
        self.radius = check_within("radius", radius, 0.0, HEIGHT / 2 - 1e-6)
        self._moves: Moves | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Images as they are learned from, bent; what was done is kept for `loss`. Draws from torch's generators."""
        with torch.no_grad():
            probabilities = self.agent(images).softmax(dim=3)[..., 1]
            directions = 2.0 * (torch.rand_like(probabilities) < probabilities) - 1
            distances = torch.rand_like(directions)
            turned = torch.randint(0, directions.shape[1], (len(images),), device=images.device)
        self._moves = Moves(images.detach(), directions, distances, turned)
        return self.bend(images, directions * distances)

    def bend(self, images: Tensor, moves: Tensor) -> Tensor:
        """Images (B, C, H, W) with their border points moved: (B, 2 (patches + 1), 2) in [-1, 1] of the radius."""
        height, width = images.shape[-2:]
        with torch.no_grad():
            field = stay_inside(displace(moves.float(), (height, width), self.radius))
            own = F.affine_grid(torch.eye(2, 3).to(field)[None], [1, 1, height, width], align_corners=False)
            return F.grid_sample(images, (own + field).to(images.dtype), padding_mode="border", align_corners=False)

    def loss(self, model: Recognizer, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The agent's, of the batch that it last bent: cross-entropy of the harder direction of each turned point.

        outputs: the recognizer's, of those images. Raises InputError where there was no such batch.
        """
        if self._moves is None:
            raise InputError("there is nothing to compare: images are bent first, by forward")
        moves, self._moves = self._moves, None
        with torch.no_grad():
            other = model(self.bend(moves.images, moves.opposite() * moves.distances))
            harder = difficulties(model, other, targets) - difficulties(model, outputs, targets)
        rows = torch.arange(len(harder))
        change = harder.sign().to(moves.directions)
        wanted = moves.directions[rows, moves.turned] * -change[:, None]  # (B, 2): turned where that was harder
        logits = self.agent(moves.images)[rows, moves.turned]
        terms = F.cross_entropy(logits.flatten(0, 1), (wanted > 0).long().flatten(), reduction="none")
        informed = change.abs().repeat_interleave(2)
        return {"loss": (terms * informed).sum() / max(len(terms), 1)}


def difficulties(model: Recognizer, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
    """How hard each image of a batch is to read: the edit distance of what is read to its text, (B,) int64."""
    lengths: Sequence[int] = targets["lengths"].tolist()
    texts = [row[:length] for row, length in zip(targets["labels"].tolist(), lengths, strict=True)]
    return edit_distances([list(reading.labels) for reading in model.decode(outputs)], texts)

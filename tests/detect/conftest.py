"""A detector of sixty lines: enough to train, to evaluate and to draw with, small enough to read in a minute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import opsin
from opsin import registry
from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.engine.checkpoint import Facts, save_model
from opsin.engine.recipe import load_recipe
from opsin.engine.recipe_data import create_preprocessing
from opsin.registry import Entry, Published
from opsin.structures import Instances

STRIDE = 8


class CellDetector(Detector):
    """One prediction a cell of 8x8 pixels: classes, and how far the box reaches left, up, right and down."""

    def __init__(self, *, num_classes: int = 10, in_channels: int = 3, width: int = 16) -> None:
        super().__init__(num_classes, in_channels)
        self.strides, self.divisor = (STRIDE,), STRIDE
        layers: list[nn.Module] = []
        for channels, wider, stride in ((in_channels, width, 2), (width, 2 * width, 2), (2 * width, 2 * width, 2),
                                        (2 * width, 2 * width, 1)):  # fmt: skip
            layers += [nn.Conv2d(channels, wider, 3, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(2 * width, num_classes + 4, 3, padding=1)
        nn.init.constant_(self.head.bias[:num_classes], -4.0)  # type: ignore[index, arg-type]

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        raw = self.head(self.body(images)).flatten(2).mT
        height, width = images.shape[-2:]
        y, x = torch.meshgrid(torch.arange(height // STRIDE), torch.arange(width // STRIDE), indexing="ij")
        corner = STRIDE * torch.stack([x, y], dim=-1).flatten(0, 1).to(raw)
        return {
            "logits": raw[..., : self.num_classes],
            "reach": raw[..., self.num_classes :],
            "anchors": torch.cat([corner, corner + STRIDE], dim=1),
            "size": torch.tensor([height, width]),
        }

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        anchors = outputs["anchors"]
        centre = (anchors[:, :2] + anchors[:, 2:]) / 2
        reach = STRIDE * outputs["reach"].clamp(max=6).exp()
        return torch.cat([centre - reach[..., :2], centre + reach[..., 2:]], dim=-1), outputs["logits"].sigmoid()

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        anchors, found = outputs["anchors"], []
        for one in targets:
            matched = torch.full((len(anchors),), -1, device=anchors.device)
            centres = (anchors[:, :2] + anchors[:, 2:]) / 2
            for place, (box, label) in enumerate(zip(one.boxes, one.labels, strict=True)):  # type: ignore[arg-type]
                inside = ((centres > box[:2]) & (centres < box[2:])).all(dim=1)
                middle = (anchors[:, :2] <= (box[:2] + box[2:]) / 2).all(dim=1)
                middle &= ((box[:2] + box[2:]) / 2 < anchors[:, 2:]).all(dim=1)
                matched[inside] = -2
                matched[middle if label >= 0 else inside] = place if label >= 0 else -2
            found.append(Assignment(anchors, matched))
        return found

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        boxes, _ = self.predictions(outputs)
        logits, terms = outputs["logits"], {"class": [], "box": []}
        for row, (assigned, one) in enumerate(zip(self.assign(outputs, targets), targets, strict=True)):
            matched = assigned.matched
            hit, seen = matched >= 0, matched != -2
            truth = torch.zeros_like(logits[row])
            truth[hit, one.labels[matched[hit]]] = 1.0  # type: ignore[index]
            terms["class"].append(F.binary_cross_entropy_with_logits(logits[row][seen], truth[seen], reduction="sum"))
            off = (boxes[row][hit] - one.boxes[matched[hit]]) / STRIDE
            terms["box"].append(F.smooth_l1_loss(off, torch.zeros_like(off), reduction="sum"))
        count = max(1, sum(int((one.labels >= 0).sum()) for one in targets))  # type: ignore[union-attr]
        return {name: torch.stack(parts).sum() / count for name, parts in terms.items()}


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name under which the detector is registered while a test runs."""
    registry.list_models()
    published = Published("none", 2024, (3, 64, 64), 0)
    entry = Entry("cells", "detect", CellDetector, published, MappingProxyType({}))
    monkeypatch.setitem(registry._models, "cells", entry)
    yield "cells"


@pytest.fixture
def run(cells: str, tmp_path: Path) -> Path:
    """A detector that says of every cell that a square of 16 pixels is there, of class "dot", where it is bright."""
    recipe = load_recipe({"task": "detect", "model": {"name": cells, "width": 2}, "data": {"source": "scenes:4"}})
    model: Any = opsin.create_model(cells, num_classes=2, width=2)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        for place in (0, 3, 6, 9):  # the first channel carries the brightness of the cell through the network
            model.body[place].weight[0, :, 1, 1] = 1.0 if place == 0 else 0.0
            model.body[place].weight[0, 0, 1, 1] = 1.0
            model.body[place + 1].weight[0] = 1.0
        model.head.weight[0, 0, 1, 1] = 2.0
        model.head.bias[:2] = torch.tensor([-4.0, -9.0])
    model.score_threshold = 0.4
    folder = tmp_path / "run"
    folder.mkdir()
    preprocessing = create_preprocessing(recipe, 3)
    facts = Facts(recipe, preprocessing, {"classes": ["dot", "line"]}, {"num_classes": 2, "in_channels": 3})
    save_model(folder / "model.safetensors", model, facts, {})
    return folder


def randomize(model: nn.Module) -> None:
    """Weights that keep the scale of what passes through."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif name.endswith(("running_var", "weight")):
                tensor.uniform_(0.5, 1.0, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.1, generator=generator)

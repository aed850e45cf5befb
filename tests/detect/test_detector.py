"""What all detectors share: weights from a classifier or another detector."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opsin import create_model
from opsin.detect.detector import Detector, Outputs


class Small(Detector):
    """A classifier's layers in the backbone, and a head whose names a classifier's head may have too."""

    def __init__(self) -> None:
        super().__init__(num_classes=2, in_channels=3)
        self.backbone = nn.ModuleDict({"backbone": nn.ModuleDict({"stem": nn.Conv2d(3, 4, 1)})})
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Outputs:
        raise AssertionError

    loss = predictions = assign = forward  # type: ignore[assignment]


def full(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.full(shape, 7.0) for name, shape in shapes.items()}


STEM = {"stem.weight": (4, 3, 1, 1), "stem.bias": (4,)}


@pytest.mark.parametrize(
    "head", [{"head.weight": (9, 4), "head.bias": (9,)}, {"head.weight": (9, 4), "head.bias": (5,)}]
)
def test_a_classifiers_head_of_the_same_name_does_not_keep_the_rest_out(head: dict[str, tuple[int, ...]]) -> None:
    model = Small()
    before = model.head.bias.clone()
    assert model.initialize_from(full({**STEM, **head})) == ["head.weight", "head.bias"]
    assert (model.backbone["backbone"]["stem"].weight == 7).all()  # type: ignore[index, union-attr]
    assert torch.equal(model.head.bias, before)


def test_a_detectors_own_names_go_where_they_say() -> None:
    model = Small()
    state = full({**{f"backbone.backbone.{name}": shape for name, shape in STEM.items()}, "head.weight": (9, 4)})
    assert model.initialize_from(state) == ["head.weight", "head.bias"]
    assert model.initialize_from(full({"head.bias": (5,)})) == [
        name for name in model.state_dict() if name != "head.bias"
    ]
    assert model.initialize_from(full({"other": (5,)})) == list(model.state_dict())


def test_initializes_from_the_backbone_of_another_detector() -> None:
    """What YOLOv3 and R-CNN hold as their classification network goes to that of the other."""
    small: dict[str, Any] = {"backbone": "shufflenet_v2_x0_5", "num_classes": 2}
    one, other = (create_model(name, **small) for name in ("yolov3", "rcnn"))
    for giver, taker, theirs, ours in (
        (one, other, "backbone.backbone.", "network."),
        (other, one, "network.", "backbone.backbone."),
    ):
        for value in giver.state_dict().values():
            value.fill_(3)
        left = taker.initialize_from(giver.state_dict())  # type: ignore[operator]
        shared = [k for k in taker.state_dict() if theirs + k.removeprefix(ours) in giver.state_dict()]
        assert len(shared) > 100 and not set(shared) & set(left)
        assert all(bool((taker.state_dict()[name] == 3).all()) for name in shared)
        for value in taker.state_dict().values():
            value.fill_(0)


def test_an_unfinished_detector_is_refused() -> None:
    class Unfinished(Detector):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Unfinished(num_classes=1, in_channels=3)  # type: ignore[abstract]

"""Which detectors are trained in stages."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from opsin import registry
from opsin.detect.rcnn import RCNN
from opsin.detect.training import training_stages

STEPS = ["start", "rpn", "detector", "shared_rpn", "shared_head"]
FITTED = ["finetune", "features", "svm", "boxes"]


@pytest.mark.parametrize(
    ("name", "options", "stages"),
    [
        ("rcnn", {}, ["proposals", *FITTED]),
        ("spp_net", {}, ["proposals", "network", *FITTED]),
        ("faster_rcnn", {"alternating": True}, STEPS),
        ("faster_rcnn", {}, []),
        ("fast_rcnn", {}, []),
        ("ssd300_vgg16", {}, []),
    ],
)
def test_stages_of_a_detector(name: str, options: dict[str, Any], stages: list[str]) -> None:
    with torch.device("meta"):
        model: Any = registry.create_model(name, **options)
    assert [stage.name for stage in training_stages(model)] == stages


def test_a_detector_derived_from_another_is_trained_as_that_one() -> None:
    class Mine(RCNN):
        pass

    model = Mine(backbone="lenet5", side=32, context=4)
    assert [stage.name for stage in training_stages(model)] == ["proposals", *FITTED]

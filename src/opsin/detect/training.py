"""Which detectors are trained in stages, and by which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opsin.detect import alternating_training, rcnn_training, spp_net_training
from opsin.detect.detector import Detector
from opsin.detect.faster_rcnn import FasterRCNN
from opsin.detect.rcnn import RCNN
from opsin.detect.spp_net import SPPNet
from opsin.engine.task import Stage

STAGES: dict[type[Detector], Callable[[Any], Sequence[Stage]]] = {
    FasterRCNN: alternating_training.stages,
    RCNN: rcnn_training.stages,
    SPPNet: spp_net_training.stages,
}


def training_stages(model: Detector) -> Sequence[Stage]:
    """How a detector is trained, in order; none where one training by gradient does it all.

    A class without stages of its own has those of the class it is derived from.
    """
    for kind in type(model).__mro__:
        if kind in STAGES:
            return STAGES[kind](model)
    return ()

"""SPP-Net's training in stages: R-CNN's, and before them that of the classification network whose maps are pooled.

He, Zhang, Ren and Sun 2014, arXiv:1406.4729v4, sections 2.3 and 4.1. The network is `opsin.detect.spp_net`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opsin.detect import rcnn_training
from opsin.detect.detector import Outputs
from opsin.detect.rcnn import RCNN
from opsin.detect.regions import Regions
from opsin.detect.spp_net import SPPNet
from opsin.engine.stages import Workplace
from opsin.engine.task import Stage


class WarpedRegions(RCNN):
    """SPP-Net's classification network as R-CNN trains one: on regions warped one by one, all its layers.

    It has the model's layers and tensors themselves, under the same names. The regions of a batch are of one of the
    model's `sizes`, drawn anew each time (section 2.3, multi-size training).
    """

    sizes: tuple[int, ...]

    def __init__(self, model: SPPNet) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(model))

    def pool(self, outputs: Outputs, regions: Regions) -> Tensor:
        self.side = self.sizes[int(torch.randint(len(self.sizes), ()))]
        return super().pool(outputs, regions)


def stages(model: SPPNet) -> list[Stage]:
    """How it is trained, in order."""
    first, *others = rcnn_training.stages(model)
    return [first, Stage("network", train_network), *others]


def train_network(work: Workplace) -> dict[str, Tensor]:
    """Train the classification network on warped regions, unless the recipe gives it weights."""
    recipe, model = work.task.recipe, rcnn_training.network_of(work)
    assert isinstance(model, SPPNet)
    if recipe.model.backbone_weights or recipe.model.weights or recipe.train.init:
        work.say("the network has weights: its convolutions stay as they are")
    else:
        work.train({"train": work.splits["train"]}, WarpedRegions(model))
    return rcnn_training.network_state(work)

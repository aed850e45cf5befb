"""Faster R-CNN's alternating training: four steps, of which each trains a part of the network.

Ren, He, Girshick and Sun 2015, arXiv:1506.01497, section 3.2. The network is `opsin.detect.faster_rcnn`, which is
trained jointly by default. A step is a stage of a run, or a loop of one's own around what `take_step` gives.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from opsin.detect.detector import Outputs
from opsin.detect.faster_rcnn import FasterRCNN
from opsin.engine.stages import Workplace
from opsin.engine.task import Stage
from opsin.errors import InputError
from opsin.structures import Instances

_RPN_TERMS, _ROI_TERMS = ("objectness", "rpn_box"), ("class", "box", "mask")
_START = "start"  # the stage that keeps the weights from before the first step
_PROPOSED = ("proposals", "proposal_scores", "proposal_ranks")


@dataclass(frozen=True)
class Step:
    """A part of a training in several: which of the detector's children are trained, and which loss terms count.

    name: that of its stage, and of its folder in the run. restart: children set back to what they were before the first
    step. borrow: the proposals are those of the network as the step before left it, kept beside this one.
    """

    name: str
    trained: tuple[str, ...]
    terms: tuple[str, ...]
    restart: tuple[str, ...] = ()
    borrow: bool = False


# Section 3.2, "4-step alternating training". The second starts again from ImageNet's weights, so that its network and
# the first share nothing yet; from the third on the convolutions are the second's and fixed.
ALTERNATING = (
    Step("rpn", ("backbone", "neck", "rpn"), _RPN_TERMS),
    Step("detector", ("backbone", "neck", "roi"), _ROI_TERMS, restart=("backbone", "neck"), borrow=True),
    Step("shared_rpn", ("rpn",), _RPN_TERMS),
    Step("shared_head", ("roi",), _ROI_TERMS),
)


class SteppedFasterRCNN(FasterRCNN):
    """A Faster R-CNN in a step: only the step's children are trained, and the loss has the step's terms.

    It has the detector's layers and tensors themselves, under the same names. What is not trained stays as it is, its
    norms included. lender: the network whose proposals take the place of its own, no part of its state.
    """

    def __init__(self, model: FasterRCNN, step: Step, lender: FasterRCNN | None = None) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(model))
        self.step = step
        self.lenders = () if lender is None else (lender,)  # in a tuple: torch does not see it

    def forward(self, images: Tensor) -> Outputs:
        outputs = super().forward(images)
        for lender in self.lenders:
            with torch.no_grad():
                lent = lender(images)
            outputs |= {name: lent[name] for name in _PROPOSED}
        return outputs

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """The step's terms. Only their part of the network is run: each draws its own sample."""
        losses = {}
        if set(self.step.terms) & set(_RPN_TERMS):
            losses |= self.rpn.losses(outputs, targets, self.num_classes)
        if set(self.step.terms) & set(_ROI_TERMS):
            losses |= self.head_losses(outputs, targets)
        return {name: value for name, value in losses.items() if name in self.step.terms}

    def train(self, mode: bool = True) -> SteppedFasterRCNN:
        super().train(mode)
        for name, child in self.named_children():
            if name not in self.step.trained:
                child.eval()
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> SteppedFasterRCNN:
        for lender in self.lenders:  # goes where this network goes
            lender._apply(fn)
        return super()._apply(fn, recurse)


@contextmanager
def take_step(model: FasterRCNN, step: Step, start: Mapping[str, Tensor] | None = None) -> Iterator[SteppedFasterRCNN]:
    """The detector made ready for a step, such as those of `ALTERNATING`; behind it all of `model` is trained again.

    To resume within a step, load what the step before left, take the step, and then load what had been reached. start:
    the state dict from before the first step, where the step restarts something. Raises InputError where it is missing.
    """
    if step.restart and start is None:
        raise InputError(f"step {step.name!r} restarts {', '.join(step.restart)}; give the state it starts from")
    stepped = SteppedFasterRCNN(model, step, _lend(model) if step.borrow else None)
    if start is not None:
        model.load_state_dict(_part(start, step.restart), strict=False)
    for name, child in model.named_children():
        child.requires_grad_(name in step.trained)
    try:
        yield stepped.train(model.training)
    finally:
        for child in model.children():
            child.requires_grad_(True)
        model.train(stepped.training)


def _lend(model: FasterRCNN) -> FasterRCNN:
    lender: Any = copy.deepcopy(model).eval().requires_grad_(False)
    lender.roi.head = lender.roi.predictor = None  # nine tenths of VGG-16's weights, for what no one asks
    return lender


def _part(state: Mapping[str, Tensor], children: Sequence[str]) -> dict[str, Tensor]:
    """The state of some children, by its names in the whole."""
    heads = tuple(f"{name}." for name in children)
    return {name: tensor for name, tensor in state.items() if name.startswith(heads)}


# The stages


def stages(model: FasterRCNN) -> list[Stage]:
    """The steps of `ALTERNATING`, after the weights that the second starts from again; none in a joint training."""
    if not model.alternating:
        return []
    steps = [Stage(step.name, partial(_train_step, step)) for step in ALTERNATING]
    return [Stage(_START, _keep_start), *steps]


def _keep_start(work: Workplace) -> dict[str, Tensor]:
    return _part(work.task.model.state_dict(), [name for step in ALTERNATING for name in step.restart])


def _train_step(step: Step, work: Workplace) -> dict[str, Tensor]:
    """One step, as the recipe says; only the last makes a whole detector, which is validated."""
    last, model = step == ALTERNATING[-1], work.task.model
    assert isinstance(model, FasterRCNN)
    splits = {name: split for name, split in work.splits.items() if last or name == "train"}
    with take_step(model, step, work.result_of(_START)) as stepped:
        work.train(splits, stepped)
    return _part(model.state_dict(), step.trained)

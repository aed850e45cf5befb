"""How many objects of a data set a detector of regions could find at all: the recall of its proposals.

They are a method's, made once and kept, or those of a trained detector: its RPN's, or its method's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from opsin.data import Problem, Source, Split
from opsin.detect.detector import Outputs
from opsin.detect.faster_rcnn import FasterRCNN
from opsin.detect.predict import find_proposer
from opsin.detect.proposals import METHODS, Recall, create_proposer, find_proposals, paint_recall, proposal_recall
from opsin.detect.rpn import RPN, take_proposals
from opsin.detect.targets import to_image
from opsin.engine.predict import Predictor, load
from opsin.errors import InputError, unknown
from opsin.structures import Instances

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Proposed:
    """The recall of the proposals of a split. method: its name, or the run's."""

    method: str
    split: str
    images: int
    recall: Recall

    @property
    def problems(self) -> list[Problem]:
        """None: what no proposal finds may still be learned from."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: those of `Recall.to_dict`, and method, split and images."""
        own = {"method": self.method, "split": self.split, "images": self.images, "pictures": self.images}
        return own | self.recall.to_dict()  # "pictures": the earlier key, for a release

    def render(self) -> str:
        """A table as plain text: a row for each number of proposals, a column for each IoU."""
        recall = self.recall
        head = ["proposals", *(f"{threshold:.2f}" for threshold in recall.thresholds), "mean"]
        rows = [
            [f"{count:,}", *(f"{value:.3f}" for value in values), f"{mean:.3f}"]
            for count, values, mean in zip(recall.counts, recall.values.tolist(), recall.average.tolist(), strict=True)
        ]
        found = f"{recall.mean:,.0f} proposals of an image on average"
        title = f"{self.method} on {self.split}, {self.images:,} images, {recall.objects:,} objects: {found}"
        body = ["  ".join(f"{cell:>{9 if not k else 5}}" for k, cell in enumerate(row)) for row in [head, *rows]]
        return "\n".join([title, "  share of the objects that one of the first proposals overlaps by an IoU of", *body])

    def draw(self) -> Image.Image:
        """Recall against the number of proposals, as `opsin.detect.proposals.recall_figure` has it."""
        from opsin.engine import charts  # drawing takes long to import

        return charts.image(partial(paint_recall, {self.method: self.recall}))


def measure_recall(
    source: Source,
    proposals: str,
    options: Mapping[str, Any] | None = None,
    split: str | None = None,
    *,
    device: str | None = None,
) -> Proposed:
    """Make the proposals of a split and hold them against its objects.

    proposals: a method of `opsin.detect.proposals`, with options, or a run, a model.safetensors or published weights of
    a detector that looks at regions. A method's are kept, see `find_proposals`. split: test, else val, all or train, if
    None. Raises InputError for an unknown method, option or split, a detector without proposals, options beside a
    run, and data without boxes or objects.
    """
    if source.task != "detect":
        raise InputError(
            f"proposals are evaluated by boxes, and {source.name} was opened to {source.task}; leave --proposals out"
        )
    name = split or next((n for n in ("test", "val", "all") if n in source.splits), "train")
    if name not in source.splits:
        raise unknown(f"split of {source.name}", name, source.splits)
    chosen = source.splits[name]
    truth: list[Instances] = [] if chosen.truth is None else chosen.kind.instances
    if not any((one.labels is None or bool((one.labels >= 0).any())) for one in truth if len(one)):
        raise InputError(f"{source.name}, {name}, has no objects that proposals could be held against")
    if proposals in METHODS:
        found = find_proposals(chosen, create_proposer(proposals, **(options or {})))
    elif Path(proposals).exists() or len(Path(proposals).parts) > 1 or ":" in proposals:
        if options:
            given = next(iter(options))
            raise InputError(f"the options of a run's proposals are those of its recipe; leave out --set {given}")
        found = _proposals_of(load(proposals, device), chosen)
    else:
        raise unknown("proposals", proposals, METHODS)
    return Proposed(proposals, name, len(chosen), proposal_recall(truth, found))


def _proposals_of(predictor: Predictor, split: Split) -> list[Tensor]:
    """What a trained detector looks at in every image, in pixels of it."""
    model, preprocessing = predictor.model.eval(), predictor.preprocessing
    proposer = find_proposer(model)
    if proposer is not None:
        return find_proposals(split, proposer)
    if not isinstance(model, FasterRCNN | RPN):
        raise InputError(f"{predictor.recipe.model.name} looks at no proposals; name a method: {', '.join(METHODS)}")
    found = []
    for index in range(len(split)):
        image = split.read(index)
        images = preprocessing.normalize(preprocessing.prepare(image)[None].to(predictor.device))
        with torch.inference_mode():
            (boxes,) = _chosen(model, model(images))
        size = image.shape[-2], image.shape[-1]
        found.append(to_image(Instances(boxes), preprocessing, size).boxes)
    return found


def _chosen(model: FasterRCNN | RPN, outputs: Outputs) -> list[Tensor]:
    """The proposals that a detector with an RPN evaluates, or gives."""
    if isinstance(model, RPN):
        return take_proposals(outputs, model.selection.limit)
    return take_proposals(outputs, model.test_proposals, model.test_candidates)

"""R-CNN's training in stages: proposals, the network, features on disk, and what is fitted to those.

Girshick, Donahue, Darrell and Malik 2014, arXiv:1311.2524v5, section 2.3 and appendices B and C. The network is
`opsin.detect.rcnn`; SPP-Net's stages are these and one more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from opsin import data
from opsin.detect.detector import Outputs
from opsin.detect.matching import assign_anchors
from opsin.detect.predict import DetectPredictor
from opsin.detect.rcnn import RCNN, real_objects
from opsin.detect.svm import Shard, fit_ridge, load_solver, mine_svms
from opsin.detect.targets import batch_targets
from opsin.engine.stages import Workplace, progress, write_shards
from opsin.engine.task import Stage
from opsin.ops import encode_boxes, pairwise_iou
from opsin.structures import Batch, Instances

_IMAGES = 16  # of a shard of features: 260 MB of fc7 of 2,000 regions each
_NORM = 20.0  # of the features that the SVMs see on average, as in the authors' code, whose cost is meant for it


def stages(model: RCNN) -> list[Stage]:
    """How it is trained, in order. Raises InputError where the library that trains SVMs is not installed."""
    load_solver()  # now, and not hours later
    return [
        Stage("proposals", make_proposals),
        Stage("finetune", fine_tune),
        Stage("features", write_features),
        Stage("svm", fit_svms),
        Stage("boxes", fit_boxes),
    ]


def network_of(work: Workplace) -> RCNN:
    """The detector in training."""
    assert isinstance(work.task.model, RCNN)
    return work.task.model


def network_state(work: Workplace) -> dict[str, Tensor]:
    """Its classification network, by the names in the whole."""
    return {f"network.{name}": tensor for name, tensor in network_of(work).network.state_dict().items()}


def predictor_of(work: Workplace) -> DetectPredictor:
    """The predictor of the task, which keeps the proposals."""
    return work.task.predictor  # type: ignore[return-value]


def make_proposals(work: Workplace) -> dict[str, Tensor]:
    """Of every split; they are kept in a cache of their own, by what the images are."""
    for split in work.splits.values():
        predictor_of(work).propose(split)
    return {}


def fine_tune(work: Workplace) -> dict[str, Tensor]:
    """Train the network on sampled regions, as the recipe says, without validation."""
    work.train({"train": work.splits["train"]})
    return network_state(work)


def write_features(work: Workplace) -> dict[str, Tensor]:
    """Features of every region of the training images, in shards."""
    split, task, model = work.splits["train"], work.task.eval(), network_of(work)
    proposals = predictor_of(work).propose(split)

    def make(places: range) -> dict[str, Tensor]:
        given = [proposals[place] for place in places]
        part = split.subset(places)
        part = part.with_truth(part.kind.with_proposals(given))
        loader = data.create_loader(part, task.preprocessing, batch_size=1)
        rows = [_features(model, *_look(task, batch)) for batch in loader]
        return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}

    write_shards(work.folder, len(split), _IMAGES, make, title="features", say=work.say)
    return {}


def _look(task: Any, batch: Batch) -> tuple[Outputs, Instances]:
    return task.model(*task.predictor.inputs(batch)), batch_targets(batch, task.device)[0]


@torch.no_grad()
def _features(model: RCNN, outputs: Outputs, truth: Instances) -> dict[str, Tensor]:
    """What the later stages learn from one image: n regions, the truth's first, m of them near a truth.

    features (n, F); labels (n,), -1 but of truths; background (n, K), for which classes; pooled (m, D), and their
    answers (m,), targets (m, 4).
    """
    real = truth.boxes[real_objects(truth)]
    labels = truth.labels[real_objects(truth)]  # type: ignore[index]
    proposals = outputs["proposals"]
    (near,) = assign_anchors(proposals, [truth], model.num_classes, positive=model.box_threshold, rescue=None)
    places = (near.matched >= 0).nonzero()[:, 0]
    boxes = torch.cat([real, proposals])
    overlaps = boxes.new_zeros(len(boxes), model.num_classes)
    overlaps.scatter_reduce_(1, labels.expand(len(boxes), -1), pairwise_iou(boxes, real), "amax")
    background = overlaps < model.negative_threshold
    background[len(real) :][near.matched == -2] = False  # in a region to ignore
    wanted = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    wanted[places + len(real)] = True
    every = {**outputs, "proposals": boxes, "counts": torch.tensor([len(boxes)])}
    features, pooled = [], []
    for regions, keep in zip(model.parts(every), wanted.split(model.chunk), strict=True):
        described = model.describe(every, regions)
        features.append(_stored(described.features, model.precision))
        pooled.append(_stored(described.pooled[keep], model.precision))
    answers = near.matched[places]
    return {
        "features": torch.cat(features),
        "labels": F.pad(labels, (0, len(proposals)), value=-1).cpu(),
        "background": background.cpu(),
        "pooled": torch.cat(pooled),
        "answers": truth.labels[answers].cpu(),  # type: ignore[index]
        "targets": encode_boxes(truth.boxes[answers], proposals[places]).cpu(),
    }


def fit_svms(work: Workplace) -> dict[str, Tensor]:
    """Section 2.3: positives are the truth, negatives overlap no object of the class by 0.3 or more."""
    model, paths = network_of(work), _shards(work)
    total = count = 0.0
    positives: list[list[Tensor]] = [[] for _ in range(model.num_classes)]
    for path in progress(paths, "positives", work.say):
        features, labels = _read(path, "features", "labels")
        total, count = total + float(features.float().norm(dim=1).sum()), count + len(features)
        for label in labels[labels >= 0].unique().tolist():
            positives[label].append(features[labels == label].float())
    scale = _NORM * count / total if total > 0 else 1.0
    empty = model.svm_weights.new_zeros(0, model.svm_weights.shape[1]).cpu()

    def shards() -> Iterator[Shard]:
        for path in progress(paths, "hard negatives", work.say):
            features, background = _read(path, "features", "background")
            yield Shard(features.float() * scale, background)

    found = mine_svms([torch.cat([empty, *each]) * scale for each in positives], shards, model.margin)
    return {"svm_weights": found.weights * scale, "svm_biases": found.biases, "has_svms": torch.tensor(True)}


def fit_boxes(work: Workplace) -> dict[str, Tensor]:
    """Appendix C: from the last pooling of a proposal to its truth, for each class."""
    model = network_of(work)
    parts = [_read(path, "pooled", "answers", "targets") for path in _shards(work)]
    weights, biases = torch.zeros_like(model.box_weights).cpu(), torch.zeros_like(model.box_biases).cpu()
    for label in progress(range(model.num_classes), "box regressions", work.say):
        pooled = torch.cat([pooled[answers == label] for pooled, answers, _ in parts]).float()
        targets = torch.cat([targets[answers == label] for _, answers, targets in parts])
        own, biases[label] = fit_ridge(pooled, targets, model.box_penalty)
        weights[label] = own.T
    return {"box_weights": weights, "box_biases": biases}


def _stored(values: Tensor, precision: torch.dtype) -> Tensor:
    largest = torch.finfo(precision).max
    return values.clamp(-largest, largest).to("cpu", precision)


def _shards(work: Workplace) -> list[Path]:
    return sorted(path for path in work.folder_of("features").glob("*.safetensors") if path.stem.isdigit())


def _read(path: Path, *names: str) -> list[Tensor]:
    with safe_open(path, framework="pt") as file:
        return [file.get_tensor(name) for name in names]

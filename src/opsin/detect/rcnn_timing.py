"""Where the time of R-CNN's and SPP-Net's answers goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from opsin.data import Preprocessing
from opsin.detect.rcnn import RCNN
from opsin.ops import clip_boxes


@torch.no_grad()
def time_parts(
    model: RCNN, preprocessing: Preprocessing, samples: Sequence[Tensor], propose: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """Seconds an image, uint8 (C, H, W), for `proposals`, `features`, `classification` and `suppression`.

    Preparing the image counts among features, and moving boxes among suppression. propose: as in
    `opsin.detect.proposals`. The model is timed as it is, on its device.
    """
    device = model.svm_weights.device
    spent: dict[str, float] = dict.fromkeys(("proposals", "features", "classification", "suppression"), 0.0)

    def lap(name: str, started: float) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        spent[name] += now - started
        return now

    for sample in samples:
        clock = time.perf_counter()
        boxes = propose(sample)
        clock = lap("proposals", clock)
        images = preprocessing.normalize(preprocessing.prepare(sample)[None].to(device))
        placed = clip_boxes(preprocessing.place_boxes(boxes, sample.shape[-2:]), preprocessing.size)
        outputs = model(images, [placed])
        scored = []
        for regions in model.parts(outputs):
            described = model.describe(outputs, regions)
            clock = lap("features", clock)
            scored.append(model.classify(described))
            clock = lap("classification", clock)
        scores, offsets = map(torch.cat, zip(*scored, strict=True))
        model.choose(outputs, scores, offsets, model.selection)
        lap("suppression", clock)
    return {name: seconds / max(1, len(samples)) for name, seconds in spent.items()}

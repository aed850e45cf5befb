"""An exported detector as a network, so that its file answers as the run does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from opsin.data import Preprocessing
from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.detect.postprocess import Selection, select, select_candidates
from opsin.detect.text_lines import LineRules, decode_lines
from opsin.ops import clip_boxes
from opsin.structures import Instances

LINES = (
    "The boxes are strips of lines of text, as wide as a column of 16 pixels, and sides, (batch, places), where there "
    "are any, say the x of the nearest end of a line: connect the strips as the rules in decoding.lines say."
)


class DetectorProgram(Detector):
    """Images, uint8 (B, channels, H, W) -> {"boxes": (B, A, 4), "scores": (B, A, K)}, by a file's program.

    texts: the file's metadata; "selection" says how dense predictions become instances, and "decoding", which files of
    earlier versions lack, what `decoding_of` found.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Mapping[str, Tensor]],
        texts: Mapping[str, Any],
        preprocessing: Preprocessing,
        num_classes: int,
    ) -> None:
        super().__init__(num_classes, preprocessing.channels)
        self.program, self.size = run, preprocessing.size
        self.selection = Selection(**texts["selection"])
        self.restore_state(texts.get("values", {}))
        decoding = texts.get("decoding", {})
        self.rules = LineRules(**decoding["lines"]) if "lines" in decoding else None
        self.takes_polygons = self.rules is not None
        self.groups, self.clip = decoding.get("candidates_of", "all"), bool(decoding.get("clips_first", False))

    def forward(self, images: Tensor) -> Outputs:
        return dict(self.program(images))

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        return outputs["boxes"], outputs["scores"]

    def decoding(self) -> dict[str, Any]:
        return {} if self.rules is None else {"lines": asdict(self.rules)}

    def decode(
        self, outputs: Outputs, selection: Selection | None = None, *, rules: LineRules | None = None, **options: Any
    ) -> list[Instances]:
        """As the network that was exported. rules: of one that finds lines of text, others than its own."""
        selection = Selection(**{**vars(selection or self.selection), **options})
        if self.rules is not None:
            return decode_lines(outputs, rules or self.rules, selection, self.size)
        return [
            self._select(boxes.float(), scores.float(), selection)
            for boxes, scores in zip(*self.predictions(outputs), strict=True)
        ]

    def _select(self, boxes: Tensor, scores: Tensor, selection: Selection) -> Instances:
        boxes = clip_boxes(boxes, self.size) if self.clip else boxes
        if self.groups == "all":
            found = select(boxes, scores, selection)
        else:
            levels = None
            if self.groups != "classes":
                levels = torch.repeat_interleave(torch.arange(len(self.groups)), torch.tensor(self.groups))
            found = select_candidates(scores.amax(dim=1), scores.__getitem__, boxes.__getitem__, selection, levels)
        return replace(found, boxes=clip_boxes(found.boxes, self.size))

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        raise NotImplementedError("an exported file cannot be trained")

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        raise NotImplementedError("an exported file has no anchors")


@torch.no_grad()
def decoding_of(model: Detector, preprocessing: Preprocessing) -> dict[str, Any]:
    """How a detector makes instances of its dense predictions, beside its `Selection`: plain JSON.

    lines: of a detector of text, `LineRules`. candidates_of: "all", "classes", or of levels the number of places of
    each, in order. clips_first: see `Detector`.
    """
    groups: Any = model.candidates_of
    if groups == "levels":
        levels = model(torch.zeros(1, model.in_channels, *preprocessing.size))["levels"]
        groups = torch.bincount(levels).tolist()
    return {"candidates_of": groups, "clips_first": model.clips_first, **model.decoding()}

"""Evaluation of whole pages: what is found and read against the lines that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from opsin.data.truth import Size, Summary, Truth
from opsin.engine.evaluator import Evaluator, Result
from opsin.errors import InputError
from opsin.ops.quads import convex_quad
from opsin.read.page_metrics import PageCounts, Written, count_page, measure_pages, written_of
from opsin.structures import Batch, Instances


class PageTruth(Truth):
    """The regions of each page with their texts, of a truth of boxes that knows them."""

    def __init__(self, regions: Any) -> None:
        self.source = regions

    def __len__(self) -> int:
        return len(self.source)

    def select(self, places: np.ndarray) -> PageTruth:
        return PageTruth(self.source.select(places))

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        """`instances`: boxes, labels, polygons and texts, in pixels of the page."""
        return {"instances": self.source.regions(i)}

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"instances": [sample["instances"] for sample in samples]}

    def summary(self) -> Summary:
        return Summary(kind="lines with their texts", section="pages")


class PageEvaluator(Evaluator):
    """Compares the answers for pages with their true lines, see `opsin.read.page_metrics`."""

    takes_answers: ClassVar[bool] = True

    def __init__(self, predictor: Any, *, ignore_case: bool = False) -> None:
        super().__init__(predictor)
        self.ignore_case = ignore_case

    def update(self, outputs: Any, batch: Batch) -> None:
        raise InputError("pages are evaluated by their answers, and no network of theirs is trained")

    def update_answers(self, answers: Sequence[Mapping[str, Any]], batch: Batch) -> None:
        pages = [
            count_page(_true(one), written_of(answer["lines"]), ignore_case=self.ignore_case)
            for answer, one in zip(answers, batch["instances"], strict=True)
        ]
        self.collect(batch["index"].tolist(), pages)

    def brief(self) -> dict[str, float]:
        found = self.result().metrics
        return {"word_f1": found["word_f1"]} if "word_f1" in found else {}

    def result(self) -> Result:
        pages: list[PageCounts] = self.collected()
        compared = "without regard to case" if self.ignore_case else "case by case"
        details = {"pages": len(pages), "compared": compared, "texts": [page.pairs for page in pages]}
        return Result(measure_pages(pages), details)


def _true(one: Instances) -> Written:
    """The lines of a page as it is annotated; those without a text, and regions to ignore, count neither way."""
    assert one.polygons is not None and one.texts is not None
    labels = [0] * len(one) if one.labels is None else one.labels.tolist()
    ignored = [label < 0 or not text.strip() for label, text in zip(labels, one.texts, strict=True)]
    return Written([convex_quad(polygon.numpy()) for polygon in one.polygons], one.texts, ignored)

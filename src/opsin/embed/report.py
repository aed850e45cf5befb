"""An embedder's part of the report."""

from __future__ import annotations

from opsin.data import Split
from opsin.embed.thresholds import Threshold
from opsin.engine.evaluator import Result
from opsin.engine.report import Section


def sections(result: Result, split: Split, threshold: Threshold | None = None) -> list[Section]:
    """What is drawn of an evaluated split."""
    return []

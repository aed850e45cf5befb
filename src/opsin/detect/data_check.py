"""What `opsin data` finds of a detection data set beside its own checks: with a detector, and of proposals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opsin.data import Source
from opsin.detect.anchor_coverage import match_named
from opsin.detect.recall import measure_recall
from opsin.engine.recipe import parse_setting
from opsin.errors import InputError


def check(source: Source, name: str, split: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Findings by their key in JSON: the objects that a detector's places miss, and the recall of proposals.

    name: what the source was opened from. options: model, proposals and set, see the room.
    """
    model, proposals, settings = (options.get(key) for key in ("model", "proposals", "set"))
    if settings and (model is None) == (proposals is None):
        raise InputError("--set belongs to either --model NAME or --proposals NAME: give one of them")
    given = dict(map(parse_setting, settings or []))
    found: dict[str, Any] = {}
    if model is not None:
        found["matches"] = match_named(source, name, model, given)
    if proposals is not None:
        found["proposals"] = measure_recall(source, proposals, given, split)
    return found

"""Several networks beside each other: the numbers of one table, and their JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opsin.analyze.explain_schema import FORMAT, Explanation
from opsin.analyze.page import shared_metric


def compare(explanations: Sequence[Explanation]) -> dict[str, Any]:
    """{"format", "metric", "models": one row each}, of what a comparison is about; the units are an Explanation's.

    metric: the result that most of them have, and accuracy: its value, measured before published; "" and None where
    they share none. receptive_field: (height, width) of the last stage, None where there is none.
    """
    metric, values = shared_metric(explanations)
    return {
        "format": FORMAT,
        "metric": metric,
        "models": [_row(e, value) for e, value in zip(explanations, values, strict=True)],
    }


def _row(explanation: Explanation, accuracy: float | None) -> dict[str, Any]:
    identity, totals, memory = explanation.identity, explanation.totals, explanation.memory
    maps = [s for s in explanation.stages if s.name.startswith("stages.") and s.field is not None]
    field = maps[-1].field if maps else None
    return {
        "name": identity.name,
        "source": identity.source,
        "kind": identity.kind,
        "year": identity.year,
        "input": list(identity.input),
        "params": totals.params,
        "macs": totals.macs,
        "flops": totals.flops,
        "activations": totals.activations,
        "connections": totals.connections,
        "bytes": totals.bytes,
        "intensity": totals.intensity,
        "coverage": totals.coverage,
        "batch": memory.batch,
        "train_peak": memory.train_peak,
        "infer_peak": memory.infer_peak,
        "receptive_field": None if field is None else list(field.size),
        "sees_all": None if field is None else field.whole,
        "accuracy": accuracy,
        "latency": None if explanation.latency is None else explanation.latency.median,
        "advice": [advice.rule for advice in explanation.advice],
    }

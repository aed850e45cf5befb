"""Whether an image is dark or bright, by a rule: a task that trains nothing and has no network, yet is evaluated."""

from __future__ import annotations

from opsin import Metric, Option, Room, register

ROOM = register(
    Room(
        task="rule",
        help="whether an image is dark or bright",
        formats=("opsin.data.formats.folders:FORMAT",),
        predicts="rule_predict:RulePredictor",
        evaluates="rule_predict:RuleEvaluator",
        metrics=(Metric("right", unit="%", scale=100.0, digits=1), Metric("margin", unit="levels", digits=1)),
        options={"eval": (Option("threshold", float, "From which mean on an image is bright.", default=127.0),)},
    )
)

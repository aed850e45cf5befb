"""How many dots an image shows: a task outside the package, registered by one line."""

from __future__ import annotations

from opsin import Metric, Option, Room, register

ROOM = register(
    Room(
        task="dots",
        help="how many dots an image shows",
        networks="dots.network",
        formats=("dots.data:FORMAT",),
        trains="dots.task:DotsTask",
        predicts="dots.predict:DotsPredictor",
        evaluates="dots.evaluate:DotsEvaluator",
        section="dots.task:DotsSection",
        metrics=(Metric("mae", "lower", "dots", digits=2), Metric("loss", "lower")),
        monitor="val_mae",
        options={"predict": (Option("round", bool, "Answer with a whole number."),)},
        commands={"count-dots": "dots.command:count_dots"},
    )
)

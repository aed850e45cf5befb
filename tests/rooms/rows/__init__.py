"""A number from a row of numbers: a task without images, and without a preprocessing."""

from __future__ import annotations

from opsin import Metric, Room, register

ROOM = register(
    Room(
        task="rows",
        help="a number from a row of numbers",
        networks="rows.network",
        formats=("rows.data:FORMAT",),
        trains="rows.task:RowsTask",
        predicts="rows.task:RowsPredictor",
        evaluates="rows.task:RowsEvaluator",
        metrics=(Metric("rmse", "lower"), Metric("loss", "lower")),
        monitor="val_rmse",
    )
)

"""The verbs on the command line."""

from typing import Any

from opsin.cli.command import app_for, create_app, main, run

__all__ = ["app_for", "create_app", "main", "run"]


def __getattr__(name: str) -> Any:
    if name == "app":  # of no task
        return create_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

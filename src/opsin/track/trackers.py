"""Trackers by name, and their settings held against what each takes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from opsin.errors import InputError, unknown
from opsin.track.online import OnlineTracker

ONLINE: Mapping[str, str] = {
    "sort": "opsin.track.sort:Sort",
}


def tracker_names() -> list[str]:
    """All names, the online ones first."""
    return list(ONLINE)


def tracker_class(name: str) -> type[Any]:
    """The class of a tracker. Raises InputError for an unknown name."""
    known = {**ONLINE}
    if name not in known:
        raise unknown("tracker", name, known)
    module, _, attribute = known[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def tracker_settings(name: str) -> dict[str, Any]:
    """The settings of a tracker and their defaults, which are the paper's, without `frame_rate`."""
    parameters = inspect.signature(tracker_class(name).__init__).parameters
    return {key: one.default for key, one in parameters.items() if key not in ("self", "frame_rate")}


def create_tracker(name: str, *, frame_rate: float = 1.0, **settings: Any) -> OnlineTracker:
    """A tracker of this name. settings: of `tracker_settings`; the others keep their defaults.

    frame_rate: frames a second that the settings are meant for; times of an update are then in seconds.

    Raises:
        InputError: an unknown name or setting, or a value of another kind.
    """
    defaults = tracker_settings(name)
    for key, value in settings.items():
        if key not in defaults:
            raise unknown(f"setting of {name}", key, defaults)
        default = defaults[key]
        kinds = (int, float) if isinstance(default, float) else type(default)
        if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, kinds):
            raise InputError(f"{key} of {name} is {value!r}, expected {_kind(default)}, as {default!r}")
    return tracker_class(name)(frame_rate=frame_rate, **settings)


def _kind(default: Any) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    return kinds[type(default)]

"""Trackers by name, and their settings held against what each takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from opsin import rooms
from opsin.errors import InputError, unknown

# The online ones first.
TRACKERS: Mapping[str, str] = {
    "iou": "opsin.track.iou_tracker:IouTracker",
    "sort": "opsin.track.sort:Sort",
    "deep_sort": "opsin.track.deep_sort:DeepSort",
    "byte_track": "opsin.track.byte_track:ByteTrack",
    "oc_sort": "opsin.track.oc_sort:OcSort",
    "bot_sort": "opsin.track.bot_sort:BotSort",
    "min_cost_flow": "opsin.track.network_flow:MinCostFlow",
    "shortest_paths": "opsin.track.network_flow:ShortestPaths",
    "tracklets": "opsin.track.tracklets:Tracklets",
    "two_pass": "opsin.track.two_pass:TwoPass",
}


def list_trackers() -> list[str]:
    """All names, the online ones first."""
    return list(TRACKERS)


def find_tracker(name: str) -> type[Any]:
    """The class of a tracker. Raises InputError for an unknown name."""
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)
    return rooms.load(TRACKERS[name])


def settings_of(name: str) -> dict[str, Any]:
    """The settings of a tracker and their defaults, which are the paper's, without `frame_rate`."""
    parameters = inspect.signature(find_tracker(name).__init__).parameters
    return {key: one.default for key, one in parameters.items() if key not in ("self", "frame_rate")}


def create_tracker(name: str, *, frame_rate: float = 1.0, **settings: Any) -> Any:
    """A tracker of this name. settings: of `settings_of`; the others keep their defaults.

    frame_rate: frames a second that the settings are meant for; times of an update are then in seconds.

    Raises:
        InputError: an unknown name or setting, or a value of another kind.
    """
    defaults = settings_of(name)
    for key, value in settings.items():
        if key not in defaults:
            raise unknown(f"setting of {name}", key, defaults)
        default = defaults[key]
        kinds = (int, float) if isinstance(default, float) else type(default)
        if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, kinds):
            raise InputError(f"{key} of {name} is {value!r}, expected {_kind(default)}, as {default!r}")
    kind = find_tracker(name)
    return kind(frame_rate=frame_rate, **settings) if kind.online else kind(**settings)


def _kind(default: Any) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    return kinds[type(default)]

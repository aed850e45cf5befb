"""Checks of arguments: each gives the value of an option, or raises an InputError that says what was expected."""

from __future__ import annotations

import math
from typing import Any

from opsin.errors import InputError


def check_count(option: str, value: Any, least: int = 1) -> int:
    """The value of an option. Raises InputError unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{option} must be a whole number of at least {least}, got {value!r}")
    return value


def check_number(option: str, value: Any, low: float = 0.0, *, above: bool = False, hint: str = "") -> float:
    """The value of an option. Raises InputError unless it is a finite number of at least, or `above`, `low`.

    hint: what would do, for the end of the message: "4 is the paper's".
    """
    if not _is_number(value):
        raise InputError(f"{option} must be a number, got {value!r}{_ending(hint)}")
    if value < low or (above and value == low):
        raise InputError(f"{option} must be {'above' if above else 'at least'} {low:g}, got {value!r}{_ending(hint)}")
    return float(value)


def check_within(option: str, value: Any, low: float, high: float = math.inf) -> float:
    """The value of an option. Raises InputError unless it is a finite number from `low` to `high`."""
    if not _is_number(value) or not low <= value <= high:
        wanted = f"a number of at least {low}" if high == math.inf else f"a number from {low} to {high}"
        raise InputError(f"{option} must be {wanted}, got {value!r}")
    return float(value)


def check_probability(option: str, value: Any) -> float:
    """The value of an option, of dropout or smoothing. Raises InputError unless it is at least 0 and below 1."""
    if not _is_number(value) or not 0 <= value < 1:
        raise InputError(f"{option} must be a number of at least 0 and below 1, got {value!r}")
    return float(value)


def check_share(option: str, value: Any, *, hint: str = "") -> float:
    """The value of an option. Raises InputError unless it is above 0 and at most 1. hint: see `check_number`."""
    if not _is_number(value) or not 0 < value <= 1:
        raise InputError(f"{option} must be a number above 0 and at most 1, got {value!r}{_ending(hint)}")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _ending(hint: str) -> str:
    return f"; {hint}" if hint else ""

"""What recipes of earlier versions hold, as they are told apart and as this version has it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

VERSION = 3  # of what a recipe holds: 2 has sections of tasks, 3 says how data is divided


def version_of(values: Mapping[str, Any]) -> Any:
    """The version that a recipe is of: what it says, 1 where it was saved before they were said, else this one."""
    section = values.get("data")
    held = section if isinstance(section, Mapping) else {}
    saved = "split" not in held and all(key in held for key in _ALWAYS_SAVED)
    return values.get("version", 1 if saved else VERSION)


# Every saved recipe holds all keys, and a recipe that somebody writes does not.
_ALWAYS_SAVED = ("source", "val_fraction", "test_fraction", "split_seed", "channels", "mean", "std", "skip_bad")


def pin_division(values: Mapping[str, Any], version: Any) -> None:
    """Divide the data of a recipe before version 3 as it always was."""
    section = values.get("data")
    if isinstance(version, int) and version < 3 and isinstance(section, dict):
        section.setdefault("split", "stratified")


def pin_built_in(values: Mapping[str, Any], task: str) -> None:
    """Divide built-in data stratified unless the recipe says otherwise: what is published was measured so."""
    section = values.get("data")
    if isinstance(section, dict) and "split" not in section and isinstance(section.get("source"), str):
        from opsin.data.open_source import is_built_in  # which needs the formats, for new recipes alone

        if section["source"] and is_built_in(section["source"], task):
            section["split"] = "stratified"


TENSORBOARD = "tensorboard"  # the key that `train.logger` was, true or false


def current_logger(key: str, value: Any) -> tuple[str, Any]:
    """A key and its value, of `train.tensorboard` as `train.logger` has it: every earlier recipe holds it.

    True meant event files beside metrics.csv, when TensorBoard came with opsin; now, where it is installed.
    """
    if key != f"train.{TENSORBOARD}" or not isinstance(value, bool):
        return key, value
    wanted = value and find_spec(TENSORBOARD) is not None
    return "train.logger", ["csv", TENSORBOARD] if wanted else ["csv"]

"""The search space of a tuning: which values a key of the recipe may take, read from text.

float:0.0..0.5         any number between the two, both included
0.0..0.5               the same
log:1e-4..1e-1         any number, as likely between 1e-4 and 1e-3 as between 1e-2 and 1e-1
int:16..128            a whole number; int:16..128:16 in steps of 16
logint:1..1000         a whole number on a logarithmic scale
choice:sgd,adamw       one of these, each read as YAML: choice:null,0.999, choice:[32, 32],[64, 64]
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from opsin.errors import InputError, unknown
from opsin.yaml_text import load_yaml

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_BETWEEN = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::({_NUMBER}))?")
_KINDS = ("float", "log", "int", "logint", "choice")


@dataclass(frozen=True)
class Between:
    """Numbers from low to high, both included. step: of whole numbers, 1 if not given."""

    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: int = 1

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values by which the whole range is checked: both ends and, where not whole, one between them."""
        return (
            (self.low, self.high) if self.whole else (self.low, self.low + 0.381966 * (self.high - self.low), self.high)
        )

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return not self.whole or (float(value).is_integer() and (value - self.low) % self.step == 0)

    def suggest(self, trial: Any, key: str) -> Any:
        """A value for a trial of Optuna."""
        if self.whole:
            return trial.suggest_int(key, int(self.low), int(self.high), step=self.step, log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def stored(self, value: Any) -> Any:
        """A value as Optuna has it."""
        return value


@dataclass(frozen=True)
class Choice:
    """One of some values. Optuna has each as a text of JSON: it keeps single values only, and takes 1 for true."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """Every value."""
        return self.values

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these."""
        return self.stored(value) in map(self.stored, self.values)

    def suggest(self, trial: Any, key: str) -> Any:
        """A value for a trial of Optuna."""
        return json.loads(trial.suggest_categorical(key, [self.stored(value) for value in self.values]))

    def stored(self, value: Any) -> Any:
        """A value as Optuna has it."""
        return json.dumps(value)


Range: TypeAlias = Between | Choice


def is_range(text: str) -> bool:
    """Whether a text says which values there are, instead of being one: `log:1e-4..1e-1`, but not `../photos`."""
    kind, colon, rest = text.strip().partition(":")
    if colon and kind in _KINDS:
        return True
    return bool(_BETWEEN.fullmatch(rest if colon and kind.isidentifier() else text.strip()))


def parse_range(key: str, given: str | Sequence[Any]) -> Range:
    """The values that a key may take. given: a text, or from Python a list of choices.

    Raises InputError that names the key, what was given, and how it is written.
    """
    if not isinstance(given, str):
        return _choice(key, list(given), given)
    kind, colon, rest = given.strip().partition(":")
    if _BETWEEN.fullmatch(given.strip()):
        kind, rest = "float", given.strip()
    elif not colon or kind not in _KINDS:
        if is_range(given):
            raise unknown(f"kind of values for {key}", kind, _KINDS)
        raise InputError(
            f"{key} is {given!r}, which gives no values to search; write log:1e-4..1e-1, float:0..0.5, int:16..128 or "
            "choice:a,b"
        )
    if kind == "choice":
        try:
            values = load_yaml(f"[{rest}]")
        except InputError as error:
            raise InputError(f"{key}: {given!r} is no list of choices: {error}") from None
        return _choice(key, values, given)
    return _between(key, kind, rest, given)


def parse_space(space: Mapping[str, str | Sequence[Any]]) -> dict[str, Range]:
    """The ranges of several keys. Raises InputError for an empty space."""
    if not space:
        raise InputError(
            "nothing to search: give a key of the recipe and its values, for example --set optim.lr=log:1e-4..1e-1"
        )
    return {key: parse_range(key, given) for key, given in space.items()}


def _choice(key: str, values: Any, given: Any) -> Choice:
    if not isinstance(values, list) or len(values) < 2:
        raise InputError(f"{key}: {given!r} leaves nothing to choose; give two values or more, as choice:sgd,adamw")
    try:
        texts = [json.dumps(value) for value in values]
    except (TypeError, ValueError):
        raise InputError(f"{key}: {given!r} has a choice that a recipe cannot hold") from None
    if twice := next((text for text in texts if texts.count(text) > 1), None):
        raise InputError(f"{key}: {given!r} has {twice} twice")
    return Choice(tuple(values))


def _between(key: str, kind: str, rest: str, given: str) -> Between:
    found = _BETWEEN.fullmatch(rest.strip())
    whole, log = kind in ("int", "logint"), kind in ("log", "logint")
    example = {"log": "log:1e-4..1e-1", "int": "int:16..128", "logint": "logint:1..1000"}.get(kind, "float:0..0.5")
    if found is None:
        raise InputError(f"{key}: {given!r} is not understood; write LOW..HIGH, for example {example}")
    low, high = float(found[1]), float(found[2])
    step = float(found[3] or 1)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{key}: {given!r} has an end that is too large for a number")
    if low >= high:
        raise InputError(f"{key}: {given!r} is empty; the lower end comes first, and differs from the upper one")
    if log and low <= 0:
        raise InputError(f"{key}: {given!r} has no logarithm at {found[1]}; begin above 0, for example {example}")
    if whole and not (low.is_integer() and high.is_integer()):
        raise InputError(f"{key}: {given!r} has an end that is no whole number; write {example}, or float: for others")
    if found[3] and (kind != "int" or not step.is_integer() or not 1 <= step <= high - low):
        raise InputError(f"{key}: {given!r} has a step that does not fit; steps are of int alone, as int:16..128:16")
    if whole:
        return Between(int(low), int(high), True, log, int(step))
    return Between(low, high, False, log)

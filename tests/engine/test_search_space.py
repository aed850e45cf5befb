"""The text that says which values a key may take."""

from __future__ import annotations

import pytest

from opsin.cli.tune import read_settings
from opsin.engine.search_space import Between, Choice, is_range, parse_range, parse_space
from opsin.errors import InputError


class Draws:
    """What Optuna is asked for."""

    def suggest_float(self, key: str, low: float, high: float, log: bool = False) -> tuple[object, ...]:
        return ("float", key, low, high, log)

    def suggest_int(self, key: str, low: int, high: int, step: int = 1, log: bool = False) -> tuple[object, ...]:
        return ("int", key, low, high, step, log)

    def suggest_categorical(self, key: str, values: list[str]) -> str:
        return values[-1]


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("0.0..0.5", ("float", "k", 0.0, 0.5, False)),
        ("float:-1..1", ("float", "k", -1.0, 1.0, False)),
        ("log:1e-4..1e-1", ("float", "k", 1e-4, 0.1, True)),
        ("int:16..128", ("int", "k", 16, 128, 1, False)),
        ("int:16..128:16", ("int", "k", 16, 128, 16, False)),
        ("logint:1..1000", ("int", "k", 1, 1000, 1, True)),
        ("choice:sgd,adamw", "adamw"),
        ("choice:1e-3, null", None),
        ("choice:[32, 32],[64, 48]", [64, 48]),
        ("choice:false,true", True),
    ],
)
def test_a_range_asks_optuna_for_what_it_says(text: str, asked: object):
    assert parse_range("k", text).suggest(Draws(), "k") == asked


def test_python_gives_choices_as_a_list():
    assert parse_range("optim.name", ["sgd", "adamw"]) == Choice(("sgd", "adamw"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("log:0..1", ("no logarithm at 0",)),
        ("0.5..0.1", ("is empty",)),
        ("int:0.5..4", ("no whole number", "float:")),
        ("log:1e-4", ("LOW..HIGH", "log:1e-4..1e-1")),
        ("uniform:0..1", ("unknown kind of values for k 'uniform'", "float, int, log")),
        ("int:1..10:0", ("step that does not fit",)),
        ("log:1..10:2", ("step that does not fit",)),
        ("choice:sgd", ("nothing to choose",)),
        ("choice:[1,", ("no list of choices",)),
        ("choice:a,a", ('"a" twice',)),
        ("0.1", ("gives no values to search",)),
        ("0..1e999", ("too large",)),
    ],
)
def test_what_is_wrong_is_named(text: str, words: tuple[str, ...]):
    with pytest.raises(InputError) as error:
        parse_range("k", text)
    assert "k" in str(error.value) and all(word in str(error.value) for word in words), error.value


def test_an_empty_space_is_refused():
    with pytest.raises(InputError, match="nothing to search"):
        parse_space({})


def test_paths_and_single_values_are_no_ranges():
    settings = [
        "data.source=../photos",
        "optim.lr=0.1",
        "data.x=a:b",
        "optim.momentum=0.8..0.99",
        "optim.name=choice:a,b",
    ]
    space, overrides = read_settings(settings)
    assert space == {"optim.momentum": "0.8..0.99", "optim.name": "choice:a,b"}
    assert overrides == {"data.source": "../photos", "optim.lr": 0.1, "data.x": "a:b"}
    assert is_range("unknown:1..2")  # an error with the known kinds, not a text


def test_what_a_range_holds():
    steps = Between(16, 128, True, step=16)
    assert steps.holds(32) and not steps.holds(33) and not steps.holds(144) and not steps.holds(True)
    assert Between(0.0, 1.0).holds(1) and not Between(0.0, 1.0).holds(None)
    assert Choice((True, "a")).holds(True) and not Choice((True, "a")).holds(1)

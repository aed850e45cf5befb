"""Argument checks: the value comes back, and what is wrong is named."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from opsin.checks import check_count, check_number, check_probability, check_share, check_within
from opsin.errors import InputError


def test_the_value_comes_back() -> None:
    assert check_count("layers", 3) == 3 and check_count("workers", 0, least=0) == 0
    assert check_number("lr", 0) == 0.0 and isinstance(check_number("lr", 1), float)
    assert check_number("shift", -1, low=-2) == -1 and check_within("gamma", 1, 0, 1) == 1
    assert check_probability("dropout", 0) == 0 and check_share("alpha", 1) == 1


@pytest.mark.parametrize("check", [check_count, check_number, check_probability, check_share])
@pytest.mark.parametrize("value", [True, "1", None, math.nan, math.inf, -1])
def test_what_is_no_number_of_the_kind_is_refused(check, value: object) -> None:
    with pytest.raises(InputError, match=rf"alpha must be .*, got {value!r}"):
        check("alpha", value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_count("depth", 2.0), "depth must be a whole number of at least 1, got 2.0"),
        (lambda: check_count("k", 1, least=2), "k must be a whole number of at least 2, got 1"),
        (lambda: check_number("margin", 0, above=True), "margin must be above 0, got 0"),
        (lambda: check_number("width", 0, above=True, hint="1 is usual"), "width must be above 0, got 0; 1 is usual"),
        (lambda: check_number("lr", "x", hint="try 0.1"), "lr must be a number, got 'x'; try 0.1"),
        (lambda: check_within("steps", 0, 1), "steps must be a number of at least 1, got 0"),
        (lambda: check_within("gamma", 10, 0, 1), "gamma must be a number from 0 to 1, got 10"),
        (lambda: check_within("steps", math.inf, 1), "steps must be a number of at least 1, got inf"),
        (lambda: check_probability("dropout", 1), "dropout must be a number of at least 0 and below 1, got 1"),
        (
            lambda: check_share("alpha", 0, hint="0.5 is usual"),
            "alpha must be a number above 0 and at most 1, got 0;",
        ),
    ],
)
def test_messages(call, message: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value).startswith(message)


def test_the_ground_floor_needs_no_torch() -> None:
    code = "import sys, opsin.checks; assert not {'torch', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)

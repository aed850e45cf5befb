"""Modules are found by the names they had before 0.2, and say what they are called now."""

from __future__ import annotations

import importlib
import sys

import pytest

from opsin.old_names import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_gives_the_new_module(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    sys.modules.pop(old, None)
    new = importlib.import_module(MOVED[old])
    name, spec = new.__name__, new.__spec__
    assert importlib.import_module(old) is new
    assert new.__name__ == name and new.__spec__ is spec
    assert f"{old} is called {MOVED[old]} now" in capsys.readouterr().err
    sys.modules.pop(old, None)


def test_an_unknown_name_is_none() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("opsin.data.no_such_name")

"""How annotations say flags, numbers, ids and paths, and how YAML is read."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from opsin.data.formats.values import as_posix, find_file, read_flag, read_key, read_number, read_whole, shown
from opsin.errors import InputError
from opsin.yaml_text import load_yaml


@pytest.mark.parametrize("value", [True, 1, 1.0, "1", "1.0", " true ", "True", "YES", "y"])
def test_set_flags(value: Any) -> None:
    assert read_flag(value) is True


@pytest.mark.parametrize("value", [False, 0, 0.0, "0", "0.0", "false", "No", "", " ", None])
def test_unset_flags(value: Any) -> None:
    assert read_flag(value) is False


@pytest.mark.parametrize("value", [2, -1, 0.5, "2", "maybe", "nan", float("nan"), [], {}, [1], 10**400, "0x1"])
def test_what_is_no_flag(value: Any) -> None:
    with pytest.raises(ValueError, match="expected 0 or 1"):
        read_flag(value)


def test_numbers_and_ids() -> None:
    assert [read_number(value) for value in (3, 2.5, "2.5", " 7 ")] == [3.0, 2.5, 2.5, 7.0]
    assert [read_whole(value) for value in (3, 3.0, "3", "3.0")] == [3, 3, 3, 3]
    assert [read_key(value) for value in (7, 7.0, "7", " 7 ")] == [7, 7, 7, 7]
    assert [read_key(value) for value in ("007", "a", "", "-7")] == ["007", "a", "", "-7"]
    for read, values in (
        (read_number, [True, None, "x", [], 10**400]),
        (read_whole, [True, 2.5, float("inf"), "1e400", None]),
        (read_key, [True, None, 2.5, float("nan"), {}]),
    ):
        for value in values:
            with pytest.raises(ValueError, match="is "):
                read(value)


def test_messages_show_the_start_of_a_value() -> None:
    assert shown("a\nb\x1b[0m") == r"'a\nb\x1b[0m'"
    assert len(shown("x" * 10**6)) < 50 and len(shown(10**5000)) < 50
    assert shown(["secret"]) == "a list"


def test_paths_of_other_computers(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/p.png").touch()
    for path in (r"images\p.png", r"D:\data\images\p.png", "/srv/x/images/p.png", "../images/p.png", "p.png"):
        found = find_file(as_posix(path), [tmp_path, tmp_path / "images"])
        assert found is not None and found.samefile(tmp_path / "images/p.png"), path
    assert find_file(PurePosixPath("images/q.png"), [tmp_path]) is None


def bomb(levels: int, width: int) -> str:
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


def test_yaml_of_plain_values() -> None:
    assert load_yaml("a: [1, 2.5, 1e-4, yes, ~, x]") == {"a": [1, 2.5, 1e-4, True, None, "x"]}
    assert load_yaml("d: 2024-01-31") == {"d": "2024-01-31"}
    assert load_yaml("n: [yes, no, 012, 1:30, ~]", texts=True) == {"n": ["yes", "no", "012", "1:30", "~"]}
    assert load_yaml("a: &one [1]\nb: *one") == {"a": [1], "b": [1]}
    assert load_yaml("") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb(10, 10), "aliases multiply"),
        ("[" * 2000 + "]" * 2000, "nested deeper"),
        ("a: &a [*a]", "an alias stands within what it names"),
        ("n: " + "9" * 5000, "4300"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: [1", "expected"),
        ("{[1]: 2}", "unhashable"),
        ("a: \x1b", "special characters"),
    ],
)
def test_yaml_that_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        load_yaml(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300

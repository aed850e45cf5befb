"""Where drawn answers go: names worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsin.cli.drawn_files import check_out, plan
from opsin.engine.inputs import ReadOnce, find_inputs
from opsin.errors import InputError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "x/1.png", "y/1.png", "y/deep/2.webp", "y/deep/3.gif"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


def planned(*given: str) -> list[str]:
    return [target.relative_to("out").as_posix() for target in plan(find_inputs(given), given, Path("out"))]


def test_names_and_folders_are_kept_and_what_cannot_be_written_becomes_png() -> None:
    assert planned("a.jpg") == ["a.jpg"]
    assert planned("y") == ["1.png", "deep/2.webp", "deep/3.gif.png"]
    assert planned("y/**/*.webp") == ["deep/2.webp"]
    assert planned("*/deep/*.webp") == ["y/deep/2.webp"]  # below the longest part without a pattern, which is here


@pytest.mark.parametrize("given", [("x/1.png", "y/1.png"), ("x", "y/1.png"), ("x", "y/*.png")])
def test_the_same_name_is_told_apart_by_its_folder(given: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(*given) == ["x/1.png", "y/1.png"]
    assert "x/1.png as out/x/1.png, and 1 more alike" in capsys.readouterr().err


def test_endings_and_cases_tell_nothing_away(tmp_path: Path) -> None:
    for name in ("a.png", "A.JPG", "b.gif", "b.gif.png", "c.avi"):
        (tmp_path / "z" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "z" / name).write_bytes(b"x")
    # Sorted, as folders are: A.JPG comes before a.png; nothing meets but b.gif.png.
    assert planned("z") == ["A.JPG", "a.png", "b.gif.png", "b.gif_2.png", "c.avi.mp4"]
    (tmp_path / "z/a.jpg").write_bytes(b"x")
    assert planned("z")[:3] == ["A.JPG", "a_2.jpg", "a.png"]


def test_the_same_input_twice_has_one_drawing(capsys: pytest.CaptureFixture[str]) -> None:
    assert planned("x", "x/1.png") == ["1.png", "1.png"]
    assert capsys.readouterr().err == ""


def test_inputs_without_a_file_have_sensible_names() -> None:
    found = [ReadOnce("-"), ReadOnce("https://u:p@a.org/p/cat.jpg?w=1"), ReadOnce("http://b.org/q/cat.jpg")]
    found += [ReadOnce("http://b.org/../%2e%2e/"), "webcam:0"]
    names = [target.relative_to("out").as_posix() for target in plan(found, [], Path("out"))]
    assert names == ["stdin.png", "p/cat.jpg", "q/cat.jpg", "b.org.png", "webcam_0.mp4"]


@pytest.mark.parametrize("out", ["x", "x/drawn", ".", "./x/"])
def test_an_output_in_around_or_equal_to_an_input_folder_is_refused(out: str) -> None:
    with pytest.raises(InputError, match="input folder x"):
        check_out(Path(out), ["x"])
    check_out(Path("drawn"), ["x", "a.jpg"])


def test_patterns_and_links_are_input_folders_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "x")
    for out, given in (("x", "x/*.png"), ("y/drawn", "y/**/*.png"), ("link/drawn", "x")):
        with pytest.raises(InputError, match="second run"):
            check_out(Path(out), [given])
    check_out(Path("y/drawn"), ["y/*.png"])  # which finds nothing in folders below


def test_no_input_is_overwritten() -> None:
    with pytest.raises(InputError, match="would overwrite"):
        plan([Path("a.jpg")], ["a.jpg"], Path())

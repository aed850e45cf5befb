"""One rule for what is an image in a folder, held by prediction and by every reader of data."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from opsin.data.formats.folders import walk as walk_of_data
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, find_files, is_left_out, walk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images, among all that is none."""
    for name in ("b/1.png", "b/2.JPG", "a/deep/3.webp", "4.png"):
        _write(tmp_path / "set" / name)
    for name in (".hidden/5.png", "b/.ipynb_checkpoints/1-checkpoint.png", "__MACOSX/b/1.png", "a/@eaDir/3.png"):
        _write(tmp_path / "set" / name)
    for name in ("b/._1.png", "b/Thumbs.db", "b/notes.txt", "b/desktop.ini"):
        _write(tmp_path / "set" / name)
    _write(tmp_path / "set/c/folder.png/x.txt")
    os.mkfifo(tmp_path / "set/b/pipe.png")
    return tmp_path / "set"


def _write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_files(folder, IMAGE_SUFFIXES)]


def test_what_systems_hide_is_left_out(folder: Path) -> None:
    assert names(folder) == ["4.png", "a/deep/3.webp", "b/1.png", "b/2.JPG", "b/pipe.png"]
    assert walk_of_data(folder).images == names(folder)
    assert [p.name for p in find_files(folder / "b", IMAGE_SUFFIXES, below=False)] == ["1.png", "2.JPG", "pipe.png"]


def test_the_folder_itself_may_be_hidden(folder: Path) -> None:
    assert names(folder / ".hidden") == ["5.png"]


def test_links_are_followed_and_circles_end(folder: Path, tmp_path: Path) -> None:
    _write(tmp_path / "store/6.png")
    (folder / "linked").symlink_to(tmp_path / "store")
    (folder / "z.png").symlink_to(tmp_path / "store/6.png")
    (folder / "b/up").symlink_to(folder)  # a circle
    (folder / "self").symlink_to(folder / "self")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")  # reported by whoever reads it
    expected = ["4.png", "a/deep/3.webp", "b/1.png", "b/2.JPG", "b/pipe.png", "gone.png", "linked/6.png", "z.png"]
    assert names(folder) == expected
    assert walk_of_data(folder).images == sorted(expected)
    assert "b/up" not in walk(folder)[1]


def test_a_folder_that_is_linked_beside_itself_is_there_twice(tmp_path: Path) -> None:
    _write(tmp_path / "z/1.png")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    assert names(tmp_path) == ["a/1.png", "z/1.png"]


def test_links_in_a_ring_end(tmp_path: Path) -> None:
    for name in "abcdefg":
        _write(tmp_path / name / "1.png")
        for other in "abcdefg":
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    assert len(names(tmp_path)) <= 7 * 8


def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot look into .*nothing: no such file"):
        walk(tmp_path / "nothing")


def test_folders_deeper_than_a_path_can_say_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(25):
        os.mkdir("d" * 200)  # noqa: PTH102
        monkeypatch.chdir("d" * 200)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^the path .{30}\.\.\.d{30}, of 4,\d\d\d characters, is too long here$"):
        walk(tmp_path)
    subprocess.run(["rm", "-rf", str(tmp_path / ("d" * 200))], check=True)  # Python's own removal fails at it


@pytest.mark.parametrize("name", [".a", "._b.jpg", "__MACOSX", "@eaDir", "Thumbs.db", "thumbs.db", "desktop.ini"])
def test_names_that_are_left_out(name: str) -> None:
    assert is_left_out(name)


@pytest.mark.parametrize("name", ["a.jpg", "_x.png", "thumbs", "macosx", "@home"])
def test_names_that_are_not(name: str) -> None:
    assert not is_left_out(name)


def test_folders_1500_deep(tmp_path: Path) -> None:
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=place)
        inner = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(os.open("a.png", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.symlink("..", "up", dir_fd=place)
    os.close(place)
    try:
        files, folders = walk(tmp_path)
    finally:  # Python's own way is a call for each level
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)
    assert files == ["d/" * 1500 + "a.png"] and max(map(len, folders)) == 2999  # not the link, to one above

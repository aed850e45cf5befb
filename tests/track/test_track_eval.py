"""`opsin eval TRACKS --data SEQUENCE`: what it prints, notices and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.track.conftest import Call

import opsin as library
from opsin.track.tracks import Tracks
from opsin.track.writing import write_sequences


def walk(count: int = 20, speed: float = 6.0, name: str = "walk") -> Tracks:
    boxes = [[speed * t + 100 * i, 0, speed * t + 100 * i + 20, 40] for t in range(count) for i in range(3)]
    frames, ids = np.repeat(np.arange(count), 3), np.tile([1, 2, 3], count)
    return Tracks.build(frames, boxes, ids, classes=("pedestrian",), name=name)


def mot(tracks: Tracks, first: int = 1) -> str:
    rows = zip(tracks.frames.tolist(), tracks.ids.tolist(), tracks.boxes.tolist(), strict=True)
    return "".join(f"{t + first},{i},{a + 1},{b + 1},{c - a},{d - b},1,-1,-1,-1\n" for t, i, (a, b, c, d) in rows)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    write_sequences(tmp_path / "truth", {"walk": walk()}, "mot")
    return tmp_path / "truth"


def test_tracks_in_the_place_of_a_run(opsin: Call, truth: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(mot(walk()))
    result = opsin("eval", tmp_path / "mine.txt", "--data", truth, "--json")
    found = json.loads(result.out)
    assert (result.status, found["hota"], found["mota"], found["idf1"], found["switches"]) == (0, 1, 1, 1, 0)
    assert found["protocol"] == "mot15" and len(found["curves"]["pedestrian"]["hota"]) == 19
    printed = opsin("eval", tmp_path / "mine.txt", "--data", truth / "walk", "--ladder")
    assert "60 boxes of 3 tracks, rules of mot15" in printed.out
    assert "perfect association" in printed.out and "hota" in printed.out and "100.00 %" in printed.out
    same = library.evaluate_predictions(tmp_path / "mine.txt", truth)
    assert same == {key: value for key, value in found.items() if key in same}


@pytest.mark.parametrize(("frames", "first"), [(0, 0), (2, 1)])
def test_frames_from_another_number_are_noticed(
    opsin: Call, truth: Path, tmp_path: Path, frames: int, first: int
) -> None:
    moved = walk().select(walk().frames > 0) if frames == 0 else walk().select(walk().frames < 19)
    (tmp_path / "walk.txt").write_text(mot(moved, frames))
    result = opsin("eval", tmp_path / "walk.txt", "--data", truth)
    assert result.status == 0
    assert f"one frame {'later' if frames == 0 else 'earlier'}: a mean IoU of 1.000 against 0.538" in result.err
    assert f"--first-frame {first}" in result.err
    if frames == 0:
        right = opsin("eval", tmp_path / "walk.txt", "--data", truth, "--first-frame", 0, "--json")
        assert json.loads(right.out)["motp"] == 1 and right.err == ""


def test_another_length_and_other_sequences_are_said(opsin: Call, tmp_path: Path) -> None:
    write_sequences(tmp_path / "truth", {name: walk(name=name) for name in ("a", "b")}, "mot")
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "a.txt").write_text(mot(walk(8)))
    (tmp_path / "found" / "c.txt").write_text(mot(walk(8)))
    result = opsin("eval", tmp_path / "found", "--data", tmp_path / "truth", "--json")
    assert json.loads(result.out)["misses"] == 60 + 36
    assert "left out: c" in result.err and "no tracks of b" in result.err
    assert "a: the tracks end with frame 7, the truth with frame 19" in result.err


def test_what_cannot_be_is_one_line(opsin: Call, truth: Path, tmp_path: Path) -> None:
    def refused(text: str, *more: object) -> str:
        (tmp_path / "x.txt").write_text(text)
        result = opsin("eval", tmp_path / "x.txt", "--data", truth, *more)
        assert result.status == 2 and result.err.count("\n") == 1, result
        return result.err

    assert "tracks in frame 20, counted from 0, and the sequence has 20 frames" in refused(mot(walk(21)))
    assert "frame 0, and frames are counted from 1" in refused(mot(walk(), 0))
    assert "which have no identities" in refused("1,-1,1,1,20,40,1,-1,-1,-1\n")
    assert "unknown protocol of tracks 'mot71'; did you mean" in refused(mot(walk()), "--protocol", "mot71")
    assert "unknown class of the truth 'dog'" in refused(mot(walk()), "--of-class", "dog")
    assert "no known format of tracks" in refused("what is this\n")


def test_classes_are_asked_for_where_tracks_have_none(opsin: Call, tmp_path: Path) -> None:
    own = walk()
    classes = Tracks.build(own.frames, own.boxes, own.ids, labels=own.ids % 2, classes=("car", "dog"), name="walk")
    write_sequences(tmp_path / "truth", {"walk": classes}, "csv")
    (tmp_path / "walk.txt").write_text(mot(own))
    result = opsin("eval", tmp_path / "walk.txt", "--data", tmp_path / "truth")
    assert result.status == 2 and "the truth has car, dog; say it with --of-class" in result.err
    one = opsin("eval", tmp_path / "walk.txt", "--data", tmp_path / "truth", "--of-class", "car", "--json")
    assert json.loads(one.out)["false_positives"] == 40
    write_sequences(tmp_path / "found", {"walk": classes}, "cvat")
    both = json.loads(opsin("eval", tmp_path / "found", "--data", tmp_path / "truth", "--json").out)
    assert [row["class"] for row in both["per_class"]] == ["car", "dog"] and both["hota"] == 1


def test_the_data_check_counts_tracks(opsin: Call, truth: Path) -> None:
    result = opsin("data", truth, "--json")
    facts = json.loads(result.out)
    assert facts["tracks"] == {"sequences": 1, "frames": 20, "tracks": 3, "boxes": 60, "ignored": 0}

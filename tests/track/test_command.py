"""`opsin track` on files of detections: what it prints and writes, what `opsin eval` makes of it, what is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.track.conftest import Call, Printed

from opsin.errors import InputError
from opsin.track import following, job
from opsin.track.following import Rows, stoppable
from opsin.track.job import TrackJob, is_run
from opsin.track.result_files import read_results, tracks_to_dict
from opsin.track.tracks import Tracks


def refused(result: Printed, *words: str, status: int = 2) -> None:
    """One line on standard error, with these words, and the exit status."""
    assert result.status == status, result
    lines = [line for line in result.err.splitlines() if line.startswith("opsin: ")]
    assert len(lines) == 1 and "Traceback" not in result.err, result.err
    for word in words:
        assert word in lines[0]


@pytest.mark.real_data
def test_sort_on_mot15_gives_the_published_counts(opsin: Call, data_dir: Path, tmp_path: Path) -> None:
    """Counts of SORT as published, MOTA 62.67 and 71.71 %: from a folder of sequences to its evaluation."""
    done = opsin("track", data_dir / "mot15", "--tracker", "sort", "--out", tmp_path / "out")
    assert done.status == 0 and "TUD-Campus: 15 tracks of 261 boxes in 71 frames" in done.out
    found = json.loads(opsin("eval", tmp_path / "out", "--data", data_dir / "mot15", "--json").out)
    names = ("false_positives", "misses", "switches", "fragments")
    counts = {row["sequence"]: [row[name] for name in names] for row in found["per_sequence"]}
    assert counts == {"TUD-Campus": [15, 113, 6, 9], "TUD-Stadtmitte": [22, 295, 10, 16]}
    shown = {row["sequence"]: f"{100 * row['mota']:.2f}" for row in found["per_sequence"]}
    assert shown == {"TUD-Campus": "62.67", "TUD-Stadtmitte": "71.71"}


def test_the_folder_holds_text_and_json_of_the_same_tracks(opsin: Call, walkers: Path, tmp_path: Path) -> None:
    done = opsin("track", walkers, "--set", "min_hits=0", "--out", tmp_path / "out")
    assert done.status == 0 and "walk: 2 tracks of 40 boxes in 20 frames" in done.out
    lines = (tmp_path / "out/walk.txt").read_text().splitlines()
    assert len(lines) == 40
    first = [float(part) for part in lines[0].split(",")]
    assert first[:6] == pytest.approx([1, 1, 10, 11, 20, 40]) and first[6] == 0.9  # as it was detected
    tracks = read_results((tmp_path / "out/tracks.json").read_bytes(), "tracks.json")["walk"]
    assert tracks.num_frames == 20 and len(tracks) == 40
    assert tracks.boxes[0] == pytest.approx([9, 10, 29, 50])  # from 0, and corners
    assert [np.ptp(tracks.boxes[tracks.ids == one][:, 1]) for one in (1, 2)] == pytest.approx([0, 0], abs=1e-3)


def test_json_is_all_that_is_printed(opsin: Call, walkers: Path) -> None:
    found = json.loads(opsin("track", walkers, "--json", "--set", "min_hits=0").out)
    assert found["tracker"] == "sort" and found["settings"] == {"min_hits": 0}
    assert [one["id"] for one in found["sequences"][0]["tracks"]] == [1, 2]
    assert found["sequences"][0]["tracks"][0]["frames"] == list(range(20))
    assert found["runs"]["walk"]["uses_future"] is False


def test_every_second_frame(opsin: Call, walkers: Path) -> None:
    found = json.loads(opsin("track", walkers, "--json", "--every", 2, "--set", "min_hits=0").out)
    each = found["sequences"][0]["tracks"]
    assert [one["frames"] for one in each] == [list(range(0, 20, 2))] * 2
    assert found["runs"]["walk"]["frames"] == 10


def test_classes_are_tracked_apart(tmp_path: Path) -> None:
    """A car where a pedestrian was a frame ago is somebody else, however well their boxes overlap."""
    labels = [0, 0, 0, 1, 1, 1]
    found = Tracks.build(range(6), [[10, 10, 30, 50]] * 6, labels=labels, classes=("pedestrian", "car"), num_frames=6)
    course = following.follow_online(
        job.create_tracker("sort", min_hits=0), following.frames_of(found), job.facts_of(found)
    )
    tracks = course.tracks
    assert tracks.classes == ("pedestrian", "car") and tracks.labels.tolist() == labels
    assert len(set(tracks.ids[:3].tolist())) == len(set(tracks.ids[3:].tolist())) == 1
    assert tracks.ids[0] != tracks.ids[5]


def test_lines_are_counted(opsin: Call, walkers: Path, tmp_path: Path) -> None:
    plan = {"lines": [{"name": "gate", "from": [60, 0], "to": [60, 60]}], "zones": []}
    (tmp_path / "line.json").write_text(json.dumps(plan))
    done = opsin("track", walkers, "--count", tmp_path / "line.json", "--set", "min_hits=0", "--out", tmp_path / "out")
    assert "gate: 0 left to right, 1 right to left" in done.out  # walked downward, its right side is where x is smaller
    counts = json.loads((tmp_path / "out/tracks.json").read_text())["runs"]["walk"]["counts"]
    (crossing,) = counts["lines"][0]["crossings"]
    assert crossing["direction"] == "right_to_left" and crossing["frame"] == 9  # 9 + 5 * 9 + 10 = 64


def test_trackers_are_listed_with_their_settings(opsin: Call) -> None:
    out = opsin("track", "--list").out
    assert "sort  " in out and "max_age=1, min_hits=3, min_iou=0.3" in out


def test_what_is_wrong_is_one_line(opsin: Call, walkers: Path, tmp_path: Path) -> None:
    refused(opsin("track"), "opsin track RUN VIDEO, or opsin track DETECTIONS")
    refused(opsin("track", tmp_path / "none.txt"), "no run, file or folder at")
    refused(opsin("track", walkers, "--tracker", "srt"), "did you mean sort")
    refused(opsin("track", walkers, "--set", "max_ag=3"), "did you mean max_age?")
    refused(opsin("track", walkers, "--set", "max_age=old"), "max_age", "expected a whole number")
    refused(opsin("track", walkers, "--count", tmp_path / "none.json"), "cannot read")
    refused(opsin("track", walkers, "--every", 0), "0")
    refused(opsin("track", walkers, "--out", tmp_path), "not empty")
    (tmp_path / "text.txt").write_text("hello\n")
    refused(opsin("track", tmp_path / "text.txt"), "in no known format of tracks")


def test_flat_detections_are_left_out_and_said(opsin: Call, tmp_path: Path) -> None:
    (tmp_path / "flat.txt").write_text("1,-1,10,10,0,40,1,-1,-1,-1\n1,-1,50,10,20,40,1,-1,-1,-1\n")
    done = opsin("track", tmp_path / "flat.txt", "--set", "min_hits=0")
    assert done.status == 0 and "flat: 1 track of 1 boxes in 1 frames" in done.out
    assert "flat.txt: 1 box has no area, the first in line 1" in done.err


def test_dropped_frames_are_noticed(opsin: Call, walkers: Path, tmp_path: Path) -> None:
    kept = [line for line in walkers.read_text().splitlines() if int(line.split(",")[0]) % 3 == 1]
    (tmp_path / "third.txt").write_text("\n".join(kept) + "\n")
    assert "third has detections in one frame of 3 alone; if the others" in opsin("track", tmp_path / "third.txt").err
    assert "alone" not in opsin("track", walkers).err
    assert "alone" not in opsin("track", tmp_path / "third.txt", "--every", 3).err


def test_models_of_a_task_without_networks(opsin: Call) -> None:
    refused(opsin("models", "--task", "track"), "track has no networks of its own; see `opsin track --help`")


def test_a_run_without_a_video_is_asked_for_one(opsin: Call, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.yaml").write_text("task: detect\n")
    refused(opsin("track", tmp_path / "run"), "say what", "opsin track", "VIDEO")


@pytest.mark.parametrize(
    ("name", "content", "run"),
    [("a.safetensors", b"", True), ("a.onnx", b"", True), ("a.xml", b"<?xml?><net name='x'>", True),
     ("a.xml", b"<sequence name='x'>", False), ("a.txt", b"", False)],
)  # fmt: skip
def test_runs_are_told_from_detections(name: str, content: bytes, run: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert is_run(str(tmp_path / name)) is run
    assert is_run("yolov3:coco") and is_run("hf:owner/name")


def test_an_empty_file_has_no_tracks(opsin: Call, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("")
    done = opsin("track", tmp_path / "none.txt", "--out", tmp_path / "out")
    assert done.status == 0 and "none: 0 tracks of 0 boxes in 0 frames" in done.out
    assert (tmp_path / "out/none.txt").read_text() == ""


def test_ctrl_c_keeps_what_there_is(
    opsin: Call, walkers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal itself comes in the middle of frame 7, and is heeded after it."""
    frames_of = following.frames_of

    def interrupted(*given: Any) -> Any:
        for seen in frames_of(*given):
            if seen.frame == 7:
                os.kill(os.getpid(), signal.SIGINT)
            yield seen

    monkeypatch.setattr(job, "frames_of", interrupted)
    before = signal.getsignal(signal.SIGINT)
    done = opsin("track", walkers, "--out", tmp_path / "out", "--set", "min_hits=0")
    refused(done, "stopped after 8 frames", "the tracks up to there are in", status=1)
    assert "2 tracks of 16 boxes in 8 frames" in done.out
    kept = json.loads((tmp_path / "out/tracks.json").read_text())
    assert kept["runs"]["walk"]["stopped"] is True and kept["sequences"][0]["num_frames"] == 8
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_ends_at_once() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's job in the background ignores
    try:
        with pytest.raises(KeyboardInterrupt), stoppable() as stopped:
            os.kill(os.getpid(), signal.SIGINT)
            assert stopped()
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second was not heeded")
    finally:
        signal.signal(signal.SIGINT, before)


def test_tracks_survive_their_file() -> None:
    tracks = Tracks.build(
        [0, 0, 3],
        [[1, 2, 3, 4], [5, 6, 7.25, 8], [1, 2, 3, 4.5]],
        ids=[4, 2, 4],
        scores=[0.5, 0.25, 1],
        labels=[1, 0, 1],
        classes=("car", "van"),
        num_frames=9,
        fps=12.5,
        size=(64, 48),
        name="a/b",
        batch=True,
    )
    text = json.dumps({"sequences": [tracks_to_dict(tracks)]})
    (again,) = read_results(text.encode(), "tracks.json").values()
    for name in ("num_frames", "fps", "size", "name", "batch", "classes"):
        assert getattr(again, name) == getattr(tracks, name)
    order = np.lexsort((tracks.ids, tracks.frames))
    other = np.lexsort((again.ids, again.frames))
    for name in ("frames", "ids", "boxes", "scores", "labels"):
        assert np.array_equal(getattr(again, name)[other], getattr(tracks, name)[order])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.pop("classes"), "it lacks 'classes'"),
        (lambda one: one["tracks"][0].update(boxes=[]), "as many frames as boxes"),
        (lambda one: one["tracks"][0].update(scores=[float("inf")]), "finite"),
        (lambda one: one["tracks"][0].update(frames=[99]), "num_frames"),
        (lambda one: one["tracks"][0].update({"class": "cat"}), "not in"),
    ],
)
def test_a_damaged_file_is_named(change: Any, message: str) -> None:
    one = tracks_to_dict(Tracks.build([0], [[1, 2, 3, 4]], ids=[1], num_frames=2))
    change(one)
    with pytest.raises(InputError, match=message):
        read_results(json.dumps({"sequences": [one]}).encode(), "tracks.json")


def test_rows_of_no_frames() -> None:
    assert len(Rows().build(5, classes=("a",))) == 0 and Rows().build(5, classes=("a",)).num_frames == 5


def test_python_gives_the_same(walkers: Path) -> None:
    tracks = TrackJob(str(walkers), settings={"min_hits": 0}).run().tracks["walk"]
    assert len(tracks) == 40 and set(tracks.ids.tolist()) == {1, 2}

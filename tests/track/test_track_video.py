"""`opsin track` with images: a run on a video, detections on the frames of a folder, films that break off, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engine.test_frames import RedFinder, frame
from tests.engine.test_video import damaged, write
from tests.track.conftest import Call

from opsin.engine.predict import Predictor
from opsin.engine.video import open_video, write_video
from opsin.errors import InputError
from opsin.structures import Instances
from opsin.track import job
from opsin.track.drawing import TrackDrawer, color_of_id
from opsin.track.job import TrackJob
from opsin.track.online import OnlineTracker

pytest.importorskip("av")
FRAMES = 10
NOW = ["--set", "min_hits=0"]


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RedFinder:
    """What `opsin track` loads as its run, whatever that is called; the folder `run` passes for one."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.yaml").write_text("task: detect\n")
    found = RedFinder()
    monkeypatch.setattr(job, "load", lambda run, device: found)
    return found


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A red box that moves by 4 pixels a frame, at 10 frames a second."""
    with write_video(tmp_path / "walk.mp4", Fraction(10)) as append:
        for place in range(FRAMES):
            append(frame(4 * place))
    return tmp_path / "walk.mp4"


def count(path: Path) -> int:
    with open_video(path) as frames:
        return sum(1 for _ in frames)


def test_a_run_on_a_video(opsin: Call, finder: RedFinder, video: Path, tmp_path: Path) -> None:
    done = opsin("track", tmp_path / "run", video, "--out", tmp_path / "out", *NOW)
    assert done.status == 0 and "walk: 1 track of 10 boxes in 10 frames" in done.out
    facts = json.loads((tmp_path / "out/tracks.json").read_text())
    (sequence,) = facts["sequences"]
    assert (sequence["fps"], sequence["size"], sequence["num_frames"]) == (10, [64, 48], FRAMES)
    boxes = np.array(sequence["tracks"][0]["boxes"])
    assert boxes[:, 0] == pytest.approx(4 * np.arange(FRAMES), abs=2)
    assert count(tmp_path / "out/walk.mp4") == FRAMES
    files = {"drawn": str(tmp_path / "out/walk.mp4"), "tracks": str(tmp_path / "out/walk.txt")}
    assert facts["runs"]["walk"]["files"] == files


def test_every_third_frame_and_its_time(opsin: Call, finder: RedFinder, video: Path, tmp_path: Path) -> None:
    """The box moves by 12 pixels between frames that are looked at; the film that is written runs as fast as before."""
    done = opsin(
        "track", tmp_path / "run", video, "--out", tmp_path / "out", "--every", 3, "--set", "min_iou=0.01", *NOW
    )
    assert "in 4 frames" in done.out
    found = json.loads((tmp_path / "out/tracks.json").read_text())["sequences"][0]["tracks"]
    assert sorted(frame for one in found for frame in one["frames"]) == [0, 3, 6, 9]
    assert count(tmp_path / "out/walk.mp4") == 4


def test_detections_are_drawn_on_the_images_of_their_sequence(opsin: Call, tmp_path: Path) -> None:
    (tmp_path / "img1").mkdir()
    lines = []
    for place in range(3):
        frame(4 * place).save(tmp_path / f"img1/{place + 1:06}.png")
        lines.append(f"{place + 1},-1,{4 * place + 1},11,8,10,1,-1,-1,-1\n")
    (tmp_path / "det.txt").write_text("".join(lines))
    done = opsin("track", tmp_path / "det.txt", tmp_path / "img1", "--fps", 5, "--out", tmp_path / "out", *NOW)
    assert done.status == 0 and "1 track of 3 boxes in 3 frames" in done.out
    (drawn,) = (tmp_path / "out").glob("*.mp4")
    with open_video(drawn) as frames:
        seen = list(frames)
    assert [one.time for one in seen] == pytest.approx([0, 0.2, 0.4])


def test_a_sequence_says_how_fast_it_is_and_what_it_is_called(opsin: Call, finder: RedFinder, tmp_path: Path) -> None:
    (tmp_path / "walk/img1").mkdir(parents=True)
    (tmp_path / "walk/seqinfo.ini").write_text("[Sequence]\nname=walk\nframeRate=5\nseqLength=3\n")
    for place in range(3):
        frame(4 * place).save(tmp_path / f"walk/img1/{place + 1:06}.png")
    for given in (tmp_path / "walk", tmp_path / "walk/img1"):
        (sequence,) = json.loads(opsin("track", tmp_path / "run", given, "--json", *NOW).out)["sequences"]
        assert (sequence["name"], sequence["fps"], sequence["num_frames"]) == ("walk", 5, 3)


def test_what_is_drawn_is_where_the_track_is() -> None:
    drawer = TrackDrawer(("ball",), fps=10)
    grey = torch.full((3, 400, 600), 128, dtype=torch.uint8)
    drawn = np.empty(0)
    for place in range(3):
        box = torch.tensor([[50.0 + 100 * place, 100.0, 90.0 + 100 * place, 200.0]])
        drawn = np.asarray(drawer(grey, place, Instances(box, labels=torch.tensor([0]), ids=torch.tensor([3]))))
    assert drawn.shape == (400, 600, 3)
    colour = np.array(color_of_id(3))
    assert (drawn[150, 250] == colour).all() and (drawn[150, 289] == colour).all()  # left and right side
    changed: np.ndarray = np.logical_or.reduce(drawn != 128, axis=2)
    assert changed[198:203, 100:240].any(axis=0).all()  # the trail: the lower middles, at x 70, 170 and 270
    assert not changed[150, 100:240].any() and not changed[205:].any()


def test_a_film_that_breaks_off_keeps_what_was_read(opsin: Call, finder: RedFinder, tmp_path: Path) -> None:
    broken = damaged(write(tmp_path / "noise.mp4", 30, noise=True), 3000)
    done = opsin("track", tmp_path / "run", broken, "--out", tmp_path / "out", *NOW)
    assert done.status == 1 and "is damaged" in done.err and "what was read is tracked" in done.err
    runs = json.loads((tmp_path / "out/tracks.json").read_text())["runs"]["noise"]
    assert runs["damage"] and 0 < runs["frames"] < 31
    assert count(tmp_path / "out/noise.mp4") == runs["frames"]


def test_ctrl_c_leaves_a_film_that_plays(
    opsin: Call, finder: RedFinder, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = finder.answers

    def interrupted(outputs: Any, sizes: Any, originals: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return answers(outputs, sizes, originals, **options)

    monkeypatch.setattr(finder, "answers", interrupted)
    done = opsin("track", tmp_path / "run", video, "--out", tmp_path / "out", "--batch-size", 4, *NOW)
    assert done.status == 1 and "stopped after 1 frame;" in done.err
    assert count(tmp_path / "out/walk.mp4") == 1
    assert (tmp_path / "out/walk.txt").read_text().count("\n") == 1


def test_a_tracker_that_needs_the_future_is_drawn_afterwards(
    opsin: Call, finder: RedFinder, video: Path, tmp_path: Path
) -> None:
    """Its film has all frames, and is drawn once the tracks are known; of a camera it is refused."""
    done = opsin("track", tmp_path / "run", video, "--tracker", "min_cost_flow", "--out", tmp_path / "out")
    assert done.status == 0 and "later frames were used" in done.out
    facts = json.loads((tmp_path / "out/tracks.json").read_text())
    assert facts["sequences"][0]["uses_future"] is True and count(tmp_path / "out/walk.mp4") == FRAMES
    with pytest.raises(InputError, match="a camera has no end"):
        TrackJob(str(tmp_path / "run"), "0", "min_cost_flow").run()


def test_a_tracker_is_given_images_and_looks(
    finder: RedFinder, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Any, Any]] = []

    class Curious(OnlineTracker):
        takes_features = takes_images = True

        def __init__(self) -> None:
            super().__init__(None)

        def camera(self, image: Any, boxes: Any) -> None:
            given.append((image.shape, image.dtype))

        def step(self, seen: Any, elapsed: float) -> Any:
            given.append((elapsed, seen.features))
            return np.zeros(0, np.bool_), np.empty((4, 0))

    monkeypatch.setattr(job, "create_tracker", lambda name, **settings: Curious())
    monkeypatch.setattr(
        Predictor, "embed", lambda self, images: torch.stack([one.float().mean((1, 2)) for one in images])
    )
    TrackJob(str(tmp_path / "run"), str(video), appearance="any:run").run()
    assert len(given) == 2 * FRAMES and given[0] == ((48, 64, 3), np.uint8)
    elapsed, looks = given[1]
    assert elapsed == 1.0 and looks.shape == (1, 3) and np.linalg.norm(looks) == pytest.approx(1, abs=1e-5)
    assert looks[0, 0] > 0.9  # it is red


def test_what_cannot_be_is_refused(video: Path, walkers: Path, finder: RedFinder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not look at how objects look"):
        TrackJob(str(walkers), str(video), appearance="any:run").run()
    with pytest.raises(InputError, match="is a single image"):
        frame(0).save(tmp_path / "one.png")
        TrackJob(str(tmp_path / "run"), str(tmp_path / "one.png")).run()
    (tmp_path / "two").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"two/{name}.txt").write_text(walkers.read_text())
    with pytest.raises(InputError, match="holds the sequences a, b"):
        TrackJob(str(tmp_path / "two"), str(video)).run()

"""The built-in sequences: exact truth, the same always, and what an imperfect detector makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from opsin import data
from opsin.errors import InputError
from opsin.track.evaluate import Counts
from opsin.track.imperfect import Flaws, degrade, detect
from opsin.track.moving_scenes import KINDS, MovingScene, scenes_of
from opsin.track.reading import read_sequences
from opsin.track.rules import compare, find_rules
from opsin.track.track_files import Asked
from opsin.track.tracks import Tracks


def counted(truth: Tracks, found: Tracks) -> Counts:
    return Counts.of(compare(truth, found, "object", find_rules("any_class")).pairs)


def test_boxes_are_where_the_digits_are_drawn() -> None:
    for kind in ("crossing", "camera"):
        scene = MovingScene("test", kind, 20)
        truth = scene.truth()
        frame = scene.frame(15).float()
        behind = scene._plan.ground[:, :, scene._plan.offsets[15, 0] :][:, :, :160]
        changed = ((frame - behind).abs().amax(dim=0) > 25).numpy()
        inside = np.zeros_like(changed)
        for x1, y1, x2, y2 in truth.boxes[truth.rows(15)].astype(int).tolist():
            inside[y1:y2, x1:x2] = True
            assert changed[y1:y2, x1:x2].any()
        assert changed.sum() > 300 and not changed[~inside].any()


def test_what_stands_before_hides() -> None:
    scene = MovingScene("test", "occlusion", 60)
    truth = scene.truth()
    assert truth.visibility is not None
    centres = (truth.boxes[:, 0] + truth.boxes[:, 2]) / 2
    hidden = truth.visibility == 0
    assert hidden.any() and (np.abs(centres[hidden] - 80) < 17).all()  # the pillar is 34 pixels wide
    clear = (truth.boxes[:, 2] < 60) | (truth.boxes[:, 0] > 100)
    assert np.median(truth.visibility[clear]) == 1


def test_objects_cross_and_move_less_than_their_width_but_at_a_low_rate() -> None:
    for kind in KINDS:
        truth = MovingScene("train", kind, 40).truth()
        steps = [np.diff(truth.boxes[truth.ids == number, 0]) for number in np.unique(truth.ids)]
        fastest = max(float(np.abs(one).max()) for one in steps)
        assert (fastest > 8) == (kind == "low_frame_rate")
    crossing = MovingScene("test", "crossing", 60).truth()
    assert crossing.visibility is not None and crossing.visibility.min() < 0.5


def test_sequences_are_the_same_always() -> None:
    one, again = (MovingScene("test", "crowd", 12) for _ in range(2))
    assert one.truth().boxes.tolist() == again.truth().boxes.tolist()
    longer = MovingScene("test", "crowd", 30).truth()
    assert longer.boxes[longer.frames < 12].tolist() == one.truth().boxes.tolist()
    assert scenes_of("moving_scenes:7")["test"][0].num_frames == 7
    with pytest.raises(InputError, match="expected moving_scenes"):
        scenes_of("moving_scenes:1")


def test_flaws_are_as_often_as_asked() -> None:
    truth = Tracks.build(
        np.repeat(np.arange(500), 4),
        np.tile([[50.0 * k, 0, 50.0 * k + 40, 40] for k in range(4)], (500, 1)),
        np.tile(np.arange(4), 500),
        size=(640, 480),
    )
    counts = counted(truth, degrade(truth, Flaws(missed=0.2, jitter=0.02, doubled=0, clutter=1, switched=0, swapped=0)))
    assert abs(counts.clear.misses - 400) < 60 and abs(counts.clear.false_positives - 500) < 80
    assert counts.clear.switches == 0
    assert counted(truth, degrade(truth, Flaws(0, 0, 0, 0, 0, 0))).hota.figures()["hota"] == 1
    swaps = counted(truth, degrade(truth, Flaws(0, 0, 0, 0, 0, 0.1)))
    assert abs(swaps.clear.switches - 100) < 40  # two of each
    found = detect(truth, Flaws(doubled=0.5))
    assert not found.has_ids and len(found) > 2200 and (np.diff(found.scores[found.rows(3)]) <= 0).all()
    assert degrade(truth, seed=1).boxes.tolist() == degrade(truth, seed=1).boxes.tolist()


def test_written_as_motchallenge_with_images_and_detections(tmp_path: Path) -> None:
    from opsin.track.data import MOT

    source = data.open("moving_scenes:4", "track")
    assert list(source.splits) == ["train", "test"] and MOT.write is not None
    MOT.write(source, tmp_path / "out", False)
    folder = tmp_path / "out" / "crossing_test"
    assert sorted(file.name for file in (folder / "img1").iterdir()) == [f"{number:06d}.png" for number in range(1, 5)]
    assert len(read_sequences(tmp_path / "out", Asked(truth=True))) == 10
    assert not read_sequences(folder)["crossing_test"].has_ids

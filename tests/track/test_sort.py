"""SORT's published integers on two sequences of MOT15, its ages and streaks on scenes worked by hand, and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from opsin.errors import InputError
from opsin.structures import Instances
from opsin.track.affinity import iou
from opsin.track.sort import Sort
from opsin.track.tracks import Tracks


def mot(path: Path, num_frames: int) -> Tracks:
    """A file of MOTChallenge, frames from 1 and boxes as x, y, width, height."""
    table = np.loadtxt(path, delimiter=",", ndmin=2)
    boxes = np.hstack([table[:, 2:4], table[:, 2:4] + table[:, 4:6]])
    return Tracks.build(table[:, 0] - 1, boxes, table[:, 1], table[:, 6], num_frames=num_frames)


def clear(truth: Tracks, tracks: Tracks) -> list[int]:
    """False positives, misses, switches and fragments at IoU 0.5, frame by frame (Bernardin and Stiefelhagen 2008)."""
    wrong = missed = switches = fragments = 0
    last: dict[int, int] = {}  # whom each object was matched to when it was last
    before: dict[int, int] = {}  # in the frame before
    seen, lost = set(), set()
    for frame in range(truth.num_frames):
        own, other = truth.rows(frame), tracks.rows(frame)
        overlap = iou(truth.boxes[own].T, tracks.boxes[other].T)
        objects, ids = truth.ids[own].tolist(), tracks.ids[other].tolist()
        kept = np.array([[before.get(one) == who for who in ids] for one in objects]).reshape(overlap.shape)
        value = np.where(overlap >= 0.5 - 1e-12, overlap + 1000 * kept, 0)
        pairs = [(i, j) for i, j in zip(*linear_sum_assignment(-value), strict=True) if value[i, j] > 0]
        before = {objects[i]: ids[j] for i, j in pairs}
        switches += sum(last.get(one, who) != who for one, who in before.items())
        fragments += sum(one in lost for one in before)
        last.update(before)
        seen |= before.keys()
        lost = {one for one in seen if one not in before}
        wrong += len(ids) - len(pairs)
        missed += len(objects) - len(pairs)
    return [wrong, missed, switches, fragments]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "num_frames", "counts", "mota"),
    [("TUD-Campus", 71, [15, 113, 6, 9], 62.67), ("TUD-Stadtmitte", 179, [22, 295, 10, 16], 71.71)],
)
def test_as_published(data_dir: Path, name: str, num_frames: int, counts: list[int], mota: float) -> None:
    folder = data_dir / "mot15" / name
    truth = mot(folder / "gt" / "gt.txt", num_frames)
    tracks = Sort().run(mot(folder / "det" / "det.txt", num_frames))
    found = clear(truth.select(truth.scores > 0), tracks)
    assert found == counts
    assert 100 * (1 - sum(found[:3]) / int((truth.scores > 0).sum())) == pytest.approx(mota, abs=0.005)


def instances(*left: float, label: int = 0) -> Instances:
    """Boxes of 20 x 40 at these x."""
    boxes = torch.tensor([[x, 10, x + 20, 50] for x in left], dtype=torch.float32).reshape(-1, 4)
    return Instances(boxes, labels=torch.full((len(left),), label), scores=torch.ones(len(left)))


def who(found: Instances) -> list[int]:
    """The identities that were given."""
    assert found.ids is not None
    return found.ids.tolist()


def ids(tracker: Sort, *left: float) -> list[int]:
    """Who is given when these boxes are seen, in order."""
    return who(tracker.update(instances(*left)))


def test_a_track_is_given_after_its_hits() -> None:
    tracker = Sort()
    assert [ids(tracker, 10), ids(tracker, 11), ids(tracker, 12)] == [[1], [1], [1]]  # a sequence's first frames
    assert [ids(tracker, 13, 200), ids(tracker, 14, 201), ids(tracker, 15, 202)] == [[1], [1], [1]]
    assert ids(tracker, 16, 203) == [1, 2]  # the fourth detection, three after the first


def test_a_track_ends_at_its_age() -> None:
    tracker = Sort(max_age=2, min_hits=0)
    assert ids(tracker, 10) == [1]
    assert [ids(tracker), ids(tracker), ids(tracker, 10)] == [[], [], [1]]
    assert [ids(tracker), ids(tracker), ids(tracker), ids(tracker, 10)] == [[], [], [], [2]]
    assert len(tracker.tracks["ids"]) == 1


def test_a_missed_frame_breaks_the_streak() -> None:
    tracker = Sort(max_age=5, min_hits=2)
    for _ in range(4):
        ids(tracker, 10)
    assert [ids(tracker), ids(tracker, 10), ids(tracker, 10)] == [[], [], [1]]


def test_time_moves_tracks_on() -> None:
    """30 pixels a frame: beyond reach where four frames between are taken for one, and met where they are known."""
    for timed in (True, False):
        tracker = Sort(min_hits=0, max_age=9, frame_rate=25.0)
        moments = [0, 1, 2, 3, 4, 8, 12]
        found = []
        for moment in moments:
            seen = instances(6 * moment)
            found.append(who(tracker.update(seen, moment / 25 if timed else None)))
        assert found[:5] == [[1]] * 5
        assert found[5:] == ([[1], [1]] if timed else [[2], [3]])


def test_labels_are_followed_apart() -> None:
    tracker = Sort(min_hits=0)
    first = tracker.update(Instances(torch.tensor([[0.0, 0, 10, 10], [40, 0, 50, 10]]), labels=torch.tensor([0, 1])))
    assert who(first) == [1, 2]
    second = tracker.update(Instances(torch.tensor([[40.0, 0, 50, 10], [0, 0, 10, 10]]), labels=torch.tensor([1, 1])))
    assert who(second) == [2, 3]
    assert second.labels is not None
    assert second.labels.tolist() == [1, 1]


def test_other_fields_stay_with_their_detection() -> None:
    tracker = Sort(min_hits=0)
    tracker.update(instances(10, 100))
    seen = instances(100, 10, 300)
    seen.texts = ["second", "first", "new"]
    found = tracker.update(seen)
    assert who(found) == [1, 2, 3]
    assert found.texts == ["first", "second", "new"]
    assert found.boxes.dtype == seen.boxes.dtype
    torch.testing.assert_close(found.boxes[0], seen.boxes[1], atol=1.0, rtol=0)


def test_rounds_are_kept_for_whoever_explains() -> None:
    tracker = Sort(min_hits=0)
    tracker.keep_rounds = True
    ids(tracker, 10, 100)
    ids(tracker, 101, 10, 300)
    (only,) = tracker.rounds
    assert (only.name, only.ids.tolist(), only.affinity.shape, only.least) == ("IoU", [1, 2], (2, 3), 0.3)
    assert [one.tolist() for one in only.pairs] == [[0, 1], [1, 0]]


def test_a_sequence_is_run_from_its_beginning() -> None:
    tracker = Sort(min_hits=0)
    detections = Tracks.build([0, 0, 2], [[0, 0, 9, 9], [50, 0, 59, 9], [1, 0, 10, 9]], num_frames=4)
    tracker.run(detections)
    tracks = tracker.run(detections)
    assert (tracks.frames.tolist(), tracks.ids.tolist(), tracks.num_frames) == ([0, 0, 2], [1, 2, 1], 4)
    assert not tracks.batch
    again = tracker.run(detections.frame(i) for i in range(4))
    assert again.ids.tolist() == tracks.ids.tolist()
    np.testing.assert_allclose(again.boxes, tracks.boxes)
    assert tracker.run(detections, every=2).frames.tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    ("box", "score", "words"),
    [
        ([0.0, 0, 0, 10], 1.0, r"detection 1 has box \(0, 0, 0, 10\), of no area; expected x1 < x2"),
        ([9.0, 0, 0, 10], 1.0, "of no area"),
        ([0.0, 0, float("nan"), 10], 1.0, "expected finite numbers"),
        ([0.0, 0, float("inf"), 10], 1.0, "expected finite numbers"),
        ([0.0, 0, 9, 9], float("nan"), "score nan; expected finite numbers"),
    ],
)
def test_what_no_filter_may_be_given_is_refused(box: list[float], score: float, words: str) -> None:
    seen = Instances(torch.tensor([[0.0, 0, 9, 9], box]), scores=torch.tensor([1.0, score]))
    with pytest.raises(InputError, match=words):
        Sort().update(seen)


def test_frames_come_in_order() -> None:
    tracker = Sort()
    tracker.update(instances(10), 0.5)
    for moment in (0.5, 0.2):
        with pytest.raises(InputError, match=r"came after one of 0.5; frames must be given in order of time"):
            tracker.update(instances(10), moment)
    tracker.update(instances(10), 0.7)
    with pytest.raises(InputError, match="frame_rate is 0"):
        Sort(frame_rate=0)

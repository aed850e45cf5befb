"""The online trackers: known figures, plain versions of them, and scenes in which each does what its paper is about."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from opsin.errors import InputError
from opsin.structures import Instances
from opsin.track.bot_sort import BotSort
from opsin.track.byte_track import ByteTrack
from opsin.track.camera_motion import CameraMotion
from opsin.track.deep_sort import DeepSort
from opsin.track.evaluate import evaluate
from opsin.track.iou_tracker import IouTracker
from opsin.track.motion import AreaRatioFilter, ConstantVelocity, RatioHeightFilter, WidthHeightFilter
from opsin.track.oc_sort import OcSort
from opsin.track.online import OnlineTracker
from opsin.track.reading import Asked, read_sequences
from opsin.track.rules import RULES
from opsin.track.trackers import TRACKERS, create_tracker, find_tracker, list_trackers, settings_of
from opsin.track.tracks import Tracks

from .plain_kalman import PlainKalman

ONLINE = [name for name in list_trackers() if find_tracker(name).online]


def row(*boxes: tuple[float, ...], scores: float | list[float] = 0.9) -> Instances:
    """Boxes of 20 x 40 with their upper left corners here."""
    corners = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 2)
    each = torch.as_tensor(scores, dtype=torch.float64).expand(len(corners))
    return Instances(torch.cat([corners, corners + torch.tensor([20.0, 40.0])], 1), scores=each)


def who(found: Instances) -> list[int]:
    assert found.ids is not None
    return found.ids.tolist()


def wandering(seed: int, num_frames: int = 40, count: int = 6) -> Tracks:
    """People who walk about and are missed now and then, some with low scores, among false detections."""
    random = np.random.default_rng(seed)
    place, speed = random.uniform(0, 200, (count, 2)), random.normal(0, 2.5, (count, 2))
    size = random.uniform(20, 50, (count, 2))
    frames, boxes, scores = [], [], []
    for frame in range(num_frames):
        place, speed = place + speed, speed + random.normal(0, 0.3, (count, 2))
        for one in range(count):
            if random.uniform() > 0.12:
                corner = place[one] + random.normal(0, 1.0, 2)
                boxes.append([*corner, *(corner + size[one] + random.normal(0, 1.0, 2))])
                scores.append(random.choice([0.95, 0.8, 0.65, 0.4]))
                frames.append(frame)
        if random.uniform() < 0.5:
            corner = random.uniform(0, 200, 2)
            boxes.append([*corner, *(corner + 30)])
            scores.append(random.uniform(0.2, 0.9))
            frames.append(frame)
    return Tracks.build(frames, boxes, scores=scores, num_frames=num_frames)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "idf1", "hota"),
    [  # what Roboflow's trackers 2.6 reaches with its defaults, IDF1 and HOTA of Campus and Stadtmitte
        ("byte_track", (60.31, 76.04), (46.81, 52.83)),
        ("oc_sort", (67.97, 73.67), (48.80, 51.07)),
        ("bot_sort", (74.45, 79.02), (53.37, 53.55)),
    ],
)
def test_never_below_a_well_known_implementation(
    data_dir: Path, name: str, idf1: tuple[float, float], hota: tuple[float, float]
) -> None:
    truth = read_sequences(data_dir / "mot15", Asked(truth=True))
    detections = read_sequences(data_dir / "mot15")
    for place, sequence in enumerate(("TUD-Campus", "TUD-Stadtmitte")):
        tracks = create_tracker(name).run(detections[sequence])
        found = evaluate({sequence: truth[sequence]}, {sequence: tracks}, RULES["mot15"]).metrics
        assert 100 * found["idf1"] >= idf1[place]
        assert 100 * found["hota"] >= hota[place]


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return box_iou(torch.tensor(one).reshape(-1, 4), torch.tensor(other).reshape(-1, 4)).numpy()


def assigned(value: np.ndarray, least: float) -> list[tuple[int, int]]:
    """The best matching in which a pair may be left out, by a square matrix with room for everybody to stay alone."""
    rows, columns = value.shape
    square = np.zeros((rows + columns, rows + columns))
    square[:rows, :columns] = np.where(value > least, value - least, -1e3)
    return [
        (int(i), int(j))
        for i, j in zip(*linear_sum_assignment(-square), strict=True)
        if i < rows and j < columns and value[i, j] > least
    ]


def plain_byte_track(detections: Tracks, kind: type[ConstantVelocity]) -> list[tuple[int, int, int]]:
    """Frame, identity and row of what is given; one object a track, lists, and nothing clever."""
    tracks: list[dict] = []
    given, last = [], 0
    for frame in range(detections.num_frames):
        rows = list(range(detections.rows(frame).start, detections.rows(frame).stop))
        boxes, scores = detections.boxes[rows].reshape(-1, 4), detections.scores[rows]
        for track in tracks:
            if kind is RatioHeightFilter and track["seen"] < frame - 1:
                track["filter"].x[7] = 0.0
            track["filter"].predict()
        high = [i for i, score in enumerate(scores) if score >= 0.6]
        low = [i for i, score in enumerate(scores) if 0.1 <= score < 0.6]
        predicted = np.array([track["filter"].box() for track in tracks]).reshape(-1, 4)
        pairs = [(i, high[j]) for i, j in assigned(overlap(predicted, boxes[high]) * scores[high].reshape(1, -1), 0.2)]
        taken = {i for i, _ in pairs}
        behind = [i for i, track in enumerate(tracks) if i not in taken and track["sure"]]
        second = [(behind[i], low[j]) for i, j in assigned(overlap(predicted[behind], boxes[low]), 0.5)]
        for i, j in pairs + second:
            tracks[i]["filter"].correct(boxes[j])
            tracks[i].update(sure=True, seen=frame, row=rows[j])
        tracks = [one for one in tracks if one["seen"] == frame or (one["sure"] and frame - one["seen"] <= 30)]
        for j in sorted(set(high) - {j for _, j in pairs}):
            if scores[j] >= 0.7:
                last += 1
                fresh = PlainKalman(kind, boxes[j])
                tracks.append({"id": last, "filter": fresh, "seen": frame, "sure": frame == 0, "row": rows[j]})
        given += [(frame, one["id"], one["row"]) for one in tracks if one["sure"] and one["seen"] == frame]
    return given


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("ours", "kind"), [(ByteTrack, RatioHeightFilter), (BotSort, WidthHeightFilter)])
def test_byte_track_and_bot_sort_equal_a_plain_version(ours, kind, seed: int) -> None:  # type: ignore[no-untyped-def]
    detections = wandering(seed)
    expected = plain_byte_track(detections, kind)
    found = []
    tracker = ours()
    for frame in range(detections.num_frames):
        rows = detections.rows(frame)
        one = tracker.follow(detections.boxes[rows], detections.scores[rows])
        found += [(frame, who, rows.start + at) for who, at in zip(one.ids.tolist(), one.detections, strict=True)]
    assert len(found) > 100
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_iou_tracker_equals_its_listing(seed: int) -> None:
    detections = wandering(seed)
    active: list[dict] = []
    expected, last = [], 0
    for frame in range(detections.num_frames):
        rows = list(range(detections.rows(frame).start, detections.rows(frame).stop))
        left, kept = list(rows), []
        for track in active:
            values = overlap(detections.boxes[track["row"]], detections.boxes[left])[0] if left else np.empty(0)
            if len(values) and values.max() >= 0.5:
                at = left.pop(int(values.argmax()))
                best = max(track["best"], detections.scores[at])
                kept.append({"id": track["id"], "row": at, "best": best, "length": track["length"] + 1})
        for at in left:
            last += 1
            kept.append({"id": last, "row": at, "best": detections.scores[at], "length": 1})
        active = kept
        expected += [(frame, one["id"]) for one in active if one["length"] >= 2 and one["best"] >= 0.5]
    tracks = IouTracker().run(detections)
    assert sorted(zip(tracks.frames.tolist(), tracks.ids.tolist(), strict=True)) == sorted(expected)


@pytest.mark.parametrize("name", ONLINE)
def test_two_classes_together_are_as_each_alone(name: str) -> None:
    one, other = wandering(5), wandering(6)
    labels = np.repeat([0, 1], [len(one), len(other)])
    both = Tracks.build(
        np.concatenate([one.frames, other.frames]),
        np.concatenate([one.boxes, other.boxes]),
        scores=np.concatenate([one.scores, other.scores]),
        labels=labels,
        classes=("first", "second"),
        num_frames=one.num_frames,
    )
    together = create_tracker(name).run(both)
    for label, alone in enumerate((one, other)):
        expected = create_tracker(name).run(alone)
        found = together.select(together.labels == label)
        assert found.frames.tolist() == expected.frames.tolist()
        names = dict(zip(found.ids.tolist(), expected.ids.tolist(), strict=True))
        assert [names[who] for who in found.ids.tolist()] == expected.ids.tolist()
        assert len(set(names.values())) == len(names)
        np.testing.assert_allclose(found.boxes, expected.boxes)


@pytest.mark.parametrize("name", ONLINE)
def test_frames_without_anything_and_sequences_without_frames(name: str) -> None:
    tracker = create_tracker(name)
    empty = Tracks.build([], [], num_frames=3)
    assert len(tracker.run(empty)) == 0
    assert len(tracker.run(replace(empty, num_frames=0))) == 0
    tracker.reset()
    for seen in (row(), row((0, 0), (50, 0)), row(), row((0, 0)), row()):
        assert len(tracker.update(seen)) <= len(seen)


@pytest.mark.parametrize("name", ONLINE)
def test_memory_does_not_grow(name: str) -> None:
    """What is remembered after two hundred frames of clutter is no more than after a hundred."""
    tracker, random = create_tracker(name), np.random.default_rng(0)

    def size() -> int:
        return sum(column.nbytes for column in tracker.tracks.values())

    sizes = []
    for _ in range(200):
        corners = random.uniform(0, 2000, (8, 2))
        tracker.follow(np.hstack([corners, corners + 20]), random.uniform(0.3, 1.0, 8))
        sizes.append(size())
    assert max(sizes[100:]) <= 1.3 * max(sizes[:100])


def test_byte_track_keeps_a_track_by_a_low_score() -> None:
    found = {}
    for low in (0.1, 0.5):
        tracker = ByteTrack(low=low, max_age=1)
        scores = [0.9, 0.9, 0.3, 0.3, 0.3, 0.9]
        found[low] = [who(tracker.update(row((4 * at, 0), scores=score))) for at, score in enumerate(scores)]
    assert found[0.1] == [[1]] * 6
    assert found[0.5] == [[1], [1], [], [], [], []]


def test_byte_track_begins_with_two_detections_in_a_row() -> None:
    tracker = ByteTrack()
    seen = [row(), row((0, 0)), row(), row((0, 0)), row((0, 0))]
    assert [who(tracker.update(one)) for one in seen] == [[], [], [], [], [2]]
    assert who(tracker.update(row((0, 0), (90, 0), scores=[0.9, 0.65]))) == [2]  # a score too low to begin with
    assert who(tracker.update(row((0, 0), (90, 0), scores=[0.9, 0.65]))) == [2]


def test_oc_sort_walks_the_straight_way_again() -> None:
    """After a gap the filter is as one that saw the object at even steps between, the last of them twice."""
    tracker = OcSort(min_hits=0)
    boxes = [[0.0, 0, 20, 40], [2, 1, 22, 41], [4, 2, 24, 42]]
    back = np.array([12.0, 10, 34, 54])
    for box in boxes:
        tracker.follow(np.array([box]))
    for _ in range(3):
        tracker.follow(np.empty((0, 4)))
    found = tracker.follow(back[None])
    assert found.ids.tolist() == [1]
    plain = PlainKalman(AreaRatioFilter, np.array(boxes[0]))
    for box in [*boxes[1:], *(np.array(boxes[2]) + (back - boxes[2]) * part for part in (0.25, 0.5, 0.75, 1.0))]:
        plain.predict()
        plain.correct(np.array(box))
    plain.correct(back)
    np.testing.assert_allclose(tracker.tracks["state"][:2, :, 0].ravel(), plain.x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.boxes, back[None])  # what is given is what was seen


def test_oc_sort_finds_who_stopped_behind_something() -> None:
    """The prediction has walked on, and the last observation has not."""
    found = {}
    for kind in (OcSort, ByteTrack):
        tracker = kind()
        for at in range(8):
            tracker.update(row((6 * at, 0)))
        for _ in range(6):
            tracker.update(row())
        found[kind] = who(tracker.update(row((6 * 7 + 2, 0))))
    assert found == {OcSort: [], ByteTrack: []}  # a streak begins anew; and nobody is found by a prediction
    tracker = OcSort(min_hits=0)
    for seen in (*(row((6 * at, 0)) for at in range(8)), *[row()] * 6):
        tracker.update(seen)
    assert who(tracker.update(row((44, 0)))) == [1]


def test_oc_sort_prefers_the_direction() -> None:
    """Of two detections, one beside the line of a track overlaps more, and one is straight ahead."""
    found = {}
    for inertia in (0.0, 0.9):
        tracker = OcSort(min_hits=0, inertia=inertia)
        for at in range(4):
            tracker.update(row((8 * at, 0)))
        at = float(tracker.tracks["state"][:2, 0, 0].sum()) - 10  # where the track is expected
        tracker.update(row((at, 6), (at + 3.5, 0)))
        found[inertia] = int(tracker.tracks["detection"][0])
    assert found == {0.0: 0, 0.9: 1}


LOOKS = np.eye(3)


def test_deep_sort_knows_again_who_was_hidden() -> None:
    """Two cross while both are hidden, and come out where the other one was expected."""
    found = {}
    for seen_looks in (True, False):
        tracker = DeepSort(max_distance=0.2)
        for at in range(6):
            tracker.update(row((4 * at, 0), (60 - 4 * at, 0)), features=LOOKS[:2] if seen_looks else None)
        for _ in range(3):
            tracker.update(row(), features=LOOKS[:0] if seen_looks else None)
        back = row((24, 0), (36, 0))
        found[seen_looks] = who(tracker.update(back, features=LOOKS[[1, 0]] if seen_looks else None))
        if seen_looks:
            assert tracker.tracks["detection"].tolist() == [1, 0]
    assert found[True] == [1, 2]


def test_deep_sort_never_crosses_the_gate() -> None:
    tracker = DeepSort(n_init=1)
    tracker.update(row((0, 0)), features=LOOKS[:1])
    tracker.update(row((0, 0)), features=LOOKS[:1])
    assert who(tracker.update(row((300, 0)), features=LOOKS[:1])) == [2]


def test_deep_sort_ends_who_is_not_sure_and_forgets_old_looks() -> None:
    tracker = DeepSort(gallery=2)
    assert [who(tracker.update(row((0, 0)))) for _ in range(3)] == [[], [], [1]]
    assert [who(tracker.update(one)) for one in (row((0, 0), (90, 0)), row((0, 0)), row((0, 0), (90, 0)))] == [[1]] * 3
    assert who(tracker.update(row((0, 0), (90, 0)))) == [1]
    assert who(tracker.update(row((0, 0), (90, 0)))) == [1, 3]
    for look in (0, 1, 2, 2):
        tracker.update(row((0, 0)), features=LOOKS[look : look + 1])
    assert tracker._galleries[1].tolist() == LOOKS[[2, 2]].tolist()


def test_bot_sort_looks_twice_where_boxes_overlap() -> None:
    """Two stand so close that the overlap alone takes the wrong one."""
    found = {}
    for features in (None, LOOKS[[1, 0]]):
        tracker = BotSort()
        for _ in range(3):
            tracker.update(row((0, 0), (5, 0)), features=None if features is None else LOOKS[:2])
        tracker.update(row((1, 0), (4, 0)), features=features)
        found[features is None] = tracker.tracks["detection"].tolist()
    assert found == {True: [0, 1], False: [1, 0]}


def test_bot_sort_takes_the_camera_out() -> None:
    """A camera that turns by more than a person's width a frame, and a person who stands still."""
    turn = np.array([[1.0, 0, 30], [0, 1, 0]])
    found = {}
    for known in (True, False):
        tracker = BotSort()
        found[known] = [
            who(tracker.update(row((30 * at, 0)), motion=turn if known and at else None)) for at in range(4)
        ]
    assert found == {True: [[1]] * 4, False: [[1], [], [], []]}


def test_the_motion_of_a_camera_is_found_in_images() -> None:
    cv2 = pytest.importorskip("cv2")
    random = np.random.default_rng(0)
    scene = cv2.GaussianBlur(random.integers(0, 255, (240, 320, 3)).astype(np.uint8), (0, 0), 2)
    scene = cv2.normalize(scene, None, 0, 255, cv2.NORM_MINMAX)
    motion = cv2.getRotationMatrix2D((160, 120), 2.0, 1.03) + np.array([[0, 0, 6.0], [0, 0, -4.0]])
    moved = cv2.warpAffine(scene, motion, (320, 240))
    moved[60:180, 100:160] = scene[60:180, 100:160]  # somebody who moves by himself
    boxes = np.array([[100.0], [60], [160], [180]])
    finder = CameraMotion()
    assert finder.find(scene, boxes) is None
    found = finder.find(moved, boxes)
    assert found is not None
    corners = np.array([[0, 0, 1], [320, 0, 1], [0, 240, 1], [320, 240, 1]]).T
    np.testing.assert_allclose(found @ corners, motion @ corners, atol=0.7)
    assert finder.find(np.zeros((240, 320, 3), np.uint8), boxes) is None  # nothing to hold on to
    assert BotSort(camera=False).camera(scene, boxes) is None


def test_without_opencv_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"camera motion needs OpenCV.*camera=false"):
        BotSort().update(row((0, 0)), image=np.zeros((60, 80, 3), np.uint8))


def test_what_is_not_of_the_right_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"features are of shape \(1, 3\), expected a row for each of 2 detections"):
        DeepSort().update(row((0, 0), (50, 0)), features=LOOKS[:1])
    with pytest.raises(InputError, match="expected an affine map of pixels"):
        BotSort().update(row((0, 0)), motion=np.eye(3))


def test_trackers_by_name() -> None:
    for name in TRACKERS:
        assert find_tracker(name).name == name
        assert set(find_tracker(name).ranges) <= set(settings_of(name))
    assert settings_of("sort") == {"max_age": 1, "min_hits": 3, "min_iou": 0.3}  # the paper's
    assert create_tracker("sort", min_iou=1).min_iou == 1
    with pytest.raises(InputError, match="unknown tracker 'byte'; did you mean byte_track"):
        create_tracker("byte")
    with pytest.raises(InputError, match="unknown setting of sort 'max_ages'; did you mean max_age"):
        create_tracker("sort", max_ages=3)
    for value in (True, 2.5, "3"):
        with pytest.raises(InputError, match=r"max_age of sort is .*, expected a whole number, as 1"):
            create_tracker("sort", max_age=value)
    assert isinstance(create_tracker("sort"), OnlineTracker)


@pytest.mark.parametrize("name", ["deep_sort", "bot_sort"])
def test_a_frame_without_detections_has_no_features_and_ends_nothing(name: str) -> None:
    tracker, look = create_tracker(name), np.eye(4)[:1]
    box, ids = np.array([[10.0, 10.0, 50.0, 90.0]]), list[int]()
    for frame in range(8):
        there = frame != 5
        found = tracker.follow(box[: int(there)], np.ones(int(there)), features=look if there else np.zeros((0, 0)))
        ids += found.ids.tolist()
    assert set(ids) == {1} and len(ids) >= 5

"""Batch trackers: the flow against linear programming, smoothing against one big system, and scenes worked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from opsin.errors import InputError
from opsin.structures import Instances
from opsin.track import gaps, smoothing
from opsin.track.batch import identities
from opsin.track.bot_sort import BotSort
from opsin.track.evaluate import evaluate
from opsin.track.flow import FlowNetwork, solve, solve_greedily
from opsin.track.motion import AreaRatioFilter
from opsin.track.network_flow import MinCostFlow, pairs_apart
from opsin.track.reading import Asked, read_sequences
from opsin.track.rules import RULES
from opsin.track.trackers import create_tracker, find_tracker, list_trackers
from opsin.track.tracklets import Tracklets
from opsin.track.tracks import Tracks
from opsin.track.two_pass import TwoPass, links

BATCH = [name for name in list_trackers() if not find_tracker(name).online]


def some_network(seed: int, count: int = 24) -> FlowNetwork:
    """Detections of about six frames, some likelier false, and links over one frame and two."""
    random = np.random.default_rng(seed)
    frames = np.sort(random.integers(0, 6, count))
    pairs = [pairs_apart(frames, gap) for gap in (1, 2)]
    sources, targets = (np.concatenate([pair[at] for pair in pairs]) for at in range(2))
    kept = random.uniform(size=len(sources)) < 0.7
    return FlowNetwork(
        random.normal(-0.7, 1.2, count),
        sources[kept],
        targets[kept],
        random.exponential(1.0, kept.sum()),
        enter=0.9,
        leave=0.6,
    )


def programmed(network: FlowNetwork) -> float:
    """The least cost by linear programming on the paper's network: in and out of each detection, source and sink."""
    count, edges = len(network.detections), len(network.sources)
    costs = np.concatenate(
        [network.detections, network.links, np.full(count, network.enter), np.full(count, network.leave)]
    )
    into, out = np.zeros((count, len(costs))), np.zeros((count, len(costs)))
    for one in range(count):
        into[one, one] = out[one, one] = -1
        into[one, count + np.flatnonzero(network.targets == one)] = 1
        into[one, count + edges + one] = 1
        out[one, count + np.flatnonzero(network.sources == one)] = 1
        out[one, 2 * count + edges + one] = 1
    return linprog(costs, A_eq=np.vstack([into, out]), b_eq=np.zeros(2 * count), bounds=(0, 1)).fun


def is_a_set_of_tracks(following: np.ndarray, used: np.ndarray, network: FlowNetwork) -> bool:
    rows = np.flatnonzero(following >= 0)
    edges = set(zip(network.sources.tolist(), network.targets.tolist(), strict=True))
    return (
        len(set(following[rows].tolist())) == len(rows)
        and bool(used[rows].all())
        and bool(used[following[rows]].all())
        and all(pair in edges for pair in zip(rows.tolist(), following[rows].tolist(), strict=True))
    )


@pytest.mark.parametrize("seed", range(12))
def test_the_flow_is_the_cheapest(seed: int) -> None:
    network = some_network(seed)
    following, used = solve(network)
    assert is_a_set_of_tracks(following, used, network)
    assert network.cost(following, used) == pytest.approx(programmed(network), abs=1e-7)
    greedy = solve_greedily(network)
    assert is_a_set_of_tracks(*greedy, network)
    assert network.cost(*greedy) >= network.cost(following, used) - 1e-9


def plain_greedy(network: FlowNetwork) -> tuple[np.ndarray, np.ndarray]:
    """The shortest path of all that is left, found from nothing each time."""
    count = len(network.detections)
    following, used = np.full(count, -1), np.zeros(count, bool)
    while True:
        total, last = np.full(count, np.inf), np.full(count, -1)
        for one in range(count):
            if used[one]:
                continue
            total[one] = network.enter
            for edge in np.flatnonzero(network.targets == one):
                there = total[network.sources[edge]] + network.links[edge]
                if there < total[one]:
                    total[one], last[one] = there, network.sources[edge]
            total[one] += network.detections[one]
        at = int(total.argmin())
        if total[at] + network.leave >= 0:
            return following, used
        while at >= 0:
            used[at] = True
            if last[at] >= 0:
                following[last[at]] = at
            at = int(last[at])


@pytest.mark.parametrize("seed", range(6))
def test_greedy_paths_equal_a_plain_version(seed: int) -> None:
    network = some_network(seed, 40)
    for ours, plain in zip(solve_greedily(network), plain_greedy(network), strict=True):
        assert ours.tolist() == plain.tolist()


def test_a_flow_takes_back_what_a_greedy_path_took() -> None:
    """Two tracks 0-2 and 1-3; the cheapest path alone is 0-3, after which 1 and 2 are not worth a track."""
    network = FlowNetwork(
        np.full(4, -2.0), np.array([0, 0, 1]), np.array([2, 3, 3]), np.array([0.5, 0.1, 0.5]), enter=1.4, leave=1.4
    )
    assert solve(network)[0].tolist() == [2, 3, -1, -1]
    assert network.cost(*solve(network)) == pytest.approx(2 * (-4 + 0.5 + 2.8))
    following, used = solve_greedily(network)
    assert (following.tolist(), used.tolist()) == ([3, -1, -1, -1], [True, False, False, True])


def test_flows_of_nothing() -> None:
    empty = FlowNetwork(np.empty(0), np.empty(0, int), np.empty(0, int), np.empty(0), 1.0, 1.0)
    for found in (solve(empty), solve_greedily(empty)):
        assert [len(one) for one in found] == [0, 0]
    worthless = replace(some_network(0), detections=np.ones(24))
    for following, used in (solve(worthless), solve_greedily(worthless)):
        assert not used.any()
        assert (following == -1).all()


def test_pairs_apart_are_all_there_are() -> None:
    frames = np.array([0, 0, 1, 3, 3, 4])
    for gap in (1, 2, 3, 5):
        expected = [(i, j) for i in range(6) for j in range(6) if frames[j] - frames[i] == gap]
        assert sorted(zip(*(one.tolist() for one in pairs_apart(frames, gap)), strict=True)) == expected


def test_identities_follow_links() -> None:
    assert identities(np.array([2, 3, 4, -1, -1, -1])).tolist() == [1, 2, 1, 2, 1, 3]


def walk(frames: list[int], start: float, speed: float, y: float = 0.0) -> np.ndarray:
    left = start + speed * np.array(frames, float)
    return np.stack([left, np.full(len(frames), y), left + 20, np.full(len(frames), y + 40.0)], 1)


def scene(*walks: tuple[list[int], np.ndarray], num_frames: int, score: float = 0.9) -> Tracks:
    frames = np.concatenate([frames for frames, _ in walks])
    boxes = np.concatenate([boxes for _, boxes in walks])
    return Tracks.build(frames, boxes, scores=np.full(len(frames), score), num_frames=num_frames)


@pytest.mark.parametrize("name", BATCH)
def test_one_who_is_hidden_is_one_track(name: str) -> None:
    """Missed for three frames, which are filled where the path is straight; a false detection is left out."""
    seen = [at for at in range(20) if at not in (9, 10, 11)]
    detections = scene((seen, walk(seen, 0, 3)), ([5], walk([5], 200, 0)), num_frames=22)
    tracks = create_tracker(name).run(detections)
    assert tracks.frames.tolist() == list(range(20))
    assert set(tracks.ids.tolist()) == {1}
    np.testing.assert_allclose(tracks.boxes, walk(list(range(20)), 0, 3), atol=2.0)
    assert (tracks.batch, tracks.num_frames, detections.batch) == (True, 22, False)


@pytest.mark.parametrize("name", BATCH)
def test_batch_trackers_are_refused_online(name: str) -> None:
    tracker = create_tracker(name)
    assert not tracker.online
    with pytest.raises(InputError, match=f"{name} uses later frames and cannot follow a video frame by frame"):
        tracker.update(Instances(torch.zeros(0, 4)))


@pytest.mark.parametrize("name", BATCH)
def test_two_classes_together_are_as_each_alone(name: str) -> None:
    one = scene((list(range(12)), walk(list(range(12)), 0, 2)), num_frames=12)
    other = scene((list(range(3, 12)), walk(list(range(3, 12)), 1, 2)), num_frames=12)
    both = Tracks.build(
        np.concatenate([one.frames, other.frames]),
        np.concatenate([one.boxes, other.boxes]),
        scores=np.concatenate([one.scores, other.scores]),
        labels=np.repeat([0, 1], [len(one), len(other)]),
        classes=("first", "second"),
    )
    tracks = create_tracker(name).run(both)
    for label, alone in enumerate((one, other)):
        expected = create_tracker(name).run(alone)
        found = tracks.select(tracks.labels == label)
        assert found.frames.tolist() == expected.frames.tolist()
        assert len(set(found.ids.tolist())) == 1
        np.testing.assert_allclose(found.boxes, expected.boxes)
    assert len(set(tracks.ids.tolist())) == 2


@pytest.mark.parametrize("name", BATCH)
def test_nothing_gives_nothing_and_bad_boxes_are_named(name: str) -> None:
    tracker = create_tracker(name)
    for num_frames in (0, 4):
        assert len(tracker.run(Tracks.build([], [], num_frames=num_frames))) == 0
    with pytest.raises(InputError, match="of no area"):
        tracker.run(Tracks.build([0], [[5.0, 5, 5, 9]]))
    with pytest.raises(InputError, match=r"fill is 'cubic', expected one of linear, gaussian, none"):
        create_tracker(name, fill="cubic")


def test_frames_that_were_not_looked_at_are_filled() -> None:
    detections = scene((list(range(21)), walk(list(range(21)), 0, 3)), num_frames=21)
    tracks = TwoPass(max_age=4).run(detections, every=2)
    assert tracks.frames.tolist() == list(range(21))
    assert TwoPass(fill="none").run(detections, every=2).frames.tolist() == list(range(0, 21, 2))


def test_tracklets_begin_only_where_nothing_comes_near() -> None:
    """Two stand close together: no pair is far enough ahead of its rivals, and motion decides at the second level."""
    frames = list(range(6))
    close = scene((frames, walk(frames, 0, 0)), (frames, walk(frames, 2, 0)), num_frames=6)
    tracker = Tracklets()
    assert (tracker._begin(close) >= 0).sum() == 0
    far = scene((frames, walk(frames, 0, 0)), (frames, walk(frames, 60, 0)), num_frames=6)
    assert (tracker._begin(far) >= 0).sum() == 10
    tracks = tracker.run(close)
    assert {tuple(tracks.boxes[tracks.ids == who, 0].round()) for who in (1, 2)} == {(0.0,) * 6, (2.0,) * 6}


def test_tracklets_that_cross_unseen_go_on_as_they_went() -> None:
    early, late = list(range(10)), list(range(16, 26))
    detections = scene(
        (early, walk(early, 0, 4)), (late, walk(late, 0, 4)),
        (early, walk(early, 104, -4)), (late, walk(late, 104, -4)), num_frames=26,
    )  # fmt: skip
    tracks = Tracklets().run(detections)
    for who in (1, 2):
        steps = np.diff(tracks.boxes[tracks.ids == who, 0])
        assert len(steps) == 25
        assert (np.sign(steps) == np.sign(steps[0])).all()
    assert Tracklets()._reaches() == [0, 2, 8, 32, 40]


def test_links_of_both_directions_are_those_of_time() -> None:
    frames = list(range(8))
    detections = scene((frames, walk(frames, 0, 3)), (frames, walk(frames, 90, -3)), num_frames=8)
    forward = links(BotSort(), detections)
    assert forward.tolist() == links(BotSort(), detections, backward=True).tolist()
    assert identities(forward).tolist() == [1, 2] * 8


def test_links_of_both_directions_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """0-2 is of both; 1-3 is of the forward pass, so that the backward one's 2-3 is not made, but its 3-4 is."""
    passes = {False: np.array([2, 3, -1, -1, -1]), True: np.array([2, -1, 3, 4, -1])}
    monkeypatch.setattr("opsin.track.two_pass.links", lambda tracker, detections, backward=False: passes[backward])
    assert TwoPass().link(Tracks.build([], [])).tolist() == [2, 3, -1, 4, -1]


def test_gaps_are_filled_by_lines() -> None:
    boxes = walk([0, 4, 20], 0, 5)
    tracks = Tracks.build([0, 4, 20], boxes, [7, 7, 7], [0.8, 0.6, 1.0], num_frames=30)
    filled = gaps.fill_gaps(tracks, 3)
    assert filled.frames.tolist() == [0, 1, 2, 3, 4, 20]
    np.testing.assert_allclose(filled.boxes, walk([0, 1, 2, 3, 4, 20], 0, 5))
    np.testing.assert_allclose(filled.scores, [0.8, 0.7, 0.7, 0.7, 0.6, 1.0])
    assert (filled.batch, set(filled.ids.tolist())) == (True, {7})
    assert gaps.fill_gaps(tracks, 2).frames.tolist() == [0, 4, 20]
    assert gaps.fill_gaps(tracks, 99, "none").frames.tolist() == [0, 4, 20]


def test_the_process_equals_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    frames = np.sort(random.choice(60, 25, replace=False))
    boxes = walk(frames.tolist(), 5, 2) + np.cumsum(random.normal(0, 1, (25, 4)), 0) * 0.3
    wanted = np.array([3, 17, 40])
    side = float(np.mean(boxes[:, 2:] - boxes[:, :2]))
    kernel = ConstantKernel((0.5 * side) ** 2, "fixed") * RBF(10.0, "fixed")
    trend = np.stack([np.polyfit(frames, boxes[:, corner], 1) for corner in range(4)])
    around = GaussianProcessRegressor(kernel, alpha=(0.02 * side) ** 2, optimizer=None)  # type: ignore[arg-type]
    around.fit(frames[:, None], boxes - (np.outer(frames, trend[:, 0]) + trend[:, 1]))
    expected = around.predict(wanted[:, None]) + np.outer(wanted, trend[:, 0]) + trend[:, 1]
    np.testing.assert_allclose(gaps.gaussian(frames, boxes, wanted), expected, atol=1e-6)
    long = np.arange(0, 1000, 2)
    np.testing.assert_allclose(
        gaps.gaussian(long, walk(long.tolist(), 0, 1), np.array([1, 499, 997])), walk([1, 499, 997], 0, 1), atol=0.01
    )


def test_smoothing_equals_one_least_squares_of_all_frames() -> None:
    """The smoother's means are the likeliest course: all states at once, by the inverse covariances of every step."""
    random, motion = np.random.default_rng(0), AreaRatioFilter()
    frames = np.array([0, 1, 2, 5, 6, 8])
    boxes = walk(frames.tolist(), 0, 4) + random.normal(0, 1.5, (6, 4))
    seen = motion.measure(boxes.T.copy())
    ours = motion.measure(smoothing.smooth_boxes(frames, boxes, motion).T.copy())
    first, step, noise = (10.0, 1e4), (1.0, 0.01), 1.0  # of a centre
    for row in range(2):
        count = int(frames[-1]) + 1
        normal, right = np.zeros((2 * count, 2 * count)), np.zeros(2 * count)
        normal[:2, :2] += np.diag(1 / np.array(first))
        right[0] += seen[row, 0] / first[0]
        for frame in range(1, count):
            move = np.zeros((2, 2 * count))
            move[:, 2 * frame - 2 : 2 * frame + 2] = [[-1, -1, 1, 0], [0, -1, 0, 1]]
            normal += move.T @ np.diag(1 / np.array(step)) @ move
        for place, frame in enumerate(frames[1:], 1):
            normal[2 * frame, 2 * frame] += 1 / noise
            right[2 * frame] += seen[row, place] / noise
        np.testing.assert_allclose(ours[row], np.linalg.solve(normal, right)[2 * frames], rtol=1e-8)


def test_a_network_knows_what_it_costs() -> None:
    """Odds of a detection, and a link of half a side in each coordinate over two frames."""
    detections = Tracks.build([0, 2], [[0.0, 0, 20, 40], [2, 4, 22, 44]], scores=[0.9, 0.5])
    network = MinCostFlow(position=0.1, missed=1.0, border=4.0).network(detections)
    np.testing.assert_allclose(network.detections, [-np.log(9), 0.0], atol=1e-12)
    np.testing.assert_allclose(network.links, [0.5 * (1 + 1) / 2 + 1.0])


@pytest.mark.real_data
def test_the_best_batch_tracker(data_dir: Path) -> None:
    """Above what every online tracker reaches on the same detections, and what it was built to reach."""
    truth, detections = read_sequences(data_dir / "mot15", Asked(truth=True)), read_sequences(data_dir / "mot15")
    for sequence, least in (("TUD-Campus", 76.0), ("TUD-Stadtmitte", 81.0)):

        def figures(name: str, sequence: str = sequence) -> dict[str, float]:
            tracks = create_tracker(name).run(detections[sequence])
            return evaluate({sequence: truth[sequence]}, {sequence: tracks}, RULES["mot15"]).metrics

        best = figures("two_pass")
        assert 100 * best["idf1"] >= least
        assert best["hota"] > max(figures(name)["hota"] for name in ("sort", "byte_track", "oc_sort", "bot_sort"))

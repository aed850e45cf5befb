"""The metrics: hand-worked scenes, a plain slow version, and what TrackEval 1.3.0 says of the same files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opsin.track.clear import count_clear, match_clear
from opsin.track.evaluate import Counts, combine, evaluate
from opsin.track.hota import ALPHAS
from opsin.track.imperfect import Flaws, degrade
from opsin.track.kitti_tracking import write_kitti
from opsin.track.mot_challenge import write_mot
from opsin.track.pairs import Pairs, find_pairs, paired_iou
from opsin.track.reading import Asked, read_sequences
from opsin.track.rules import compare, find_rules
from opsin.track.tracks import Tracks

DATA = Path(os.environ.get("OPSIN_DATA", "nowhere"))
HERE = Path(__file__).parent
PLAIN = find_rules("plain")
Rows = list[tuple[int, int, float]]  # frame, identity, left side of a box of 10 by 10


def tracks(rows: Rows, num_frames: int = 10) -> Tracks:
    boxes = [[left, 0, left + 10, 10] for _, _, left in rows]
    return Tracks.build([row[0] for row in rows], boxes, [row[1] for row in rows], num_frames=num_frames)


def counted(truth: Rows, found: Rows) -> Counts:
    return Counts.of(compare(tracks(truth), tracks(found), "object", PLAIN).pairs)


def test_perfect_tracks() -> None:
    rows: Rows = [(t, i, 20.0 * i + t) for t in range(10) for i in range(3)]
    figures = counted(rows, rows).figures()
    assert all(figures[name] == 1 for name in ("hota", "deta", "assa", "loca", "mota", "motp", "idf1", "idp", "idr"))
    assert figures["switches"] == figures["fragments"] == figures["misses"] == figures["false_positives"] == 0
    assert figures["mostly_tracked"] == 3


def test_a_track_that_changes_its_identity_half_way() -> None:
    # 10 frames, one object; the tracker calls it 1, then 2: one switch, and each of the two covers half of the object
    figures = counted([(t, 7, 0.0) for t in range(10)], [(t, 1 + (t > 4), 0.0) for t in range(10)]).figures()
    assert figures["mota"] == 9 / 10
    assert figures["switches"] == 1
    assert figures["idf1"] == 5 / 10
    assert figures["assa"] == pytest.approx(1 / 2)  # 5 matches of 5 + 5 + 0 frames, for each
    assert figures["hota"] == pytest.approx((1 / 2) ** 0.5)
    assert (figures["assre"], figures["asspr"]) == (pytest.approx(1 / 2), pytest.approx(1))


def test_gaps_misses_and_clutter() -> None:
    # found in frames 0-2 and 6-9, with a false box in each of two frames
    found = [(t, 1, 0.0) for t in (0, 1, 2, 6, 7, 8, 9)] + [(0, 2, 50.0), (6, 3, 50.0)]
    truth: Rows = [(t, 7, 0.0) for t in range(10)] + [(t, 8, 100.0) for t in range(10)]
    both = counted(truth, found)
    # frames 3 to 5 without any answer are passed over: what is matched before and after is in a row
    assert (both.clear.matches, both.clear.misses, both.clear.false_positives) == (7, 13, 2)
    assert (both.clear.switches, both.clear.fragments) == (0, 0)
    assert (both.clear.partly_tracked, both.clear.mostly_lost) == (1, 1)
    seen = counted(truth, [*found, (4, 9, 300.0)])  # once there is an answer in frame 4, it is a gap
    assert seen.clear.fragments == 1
    assert both.figures()["mota"] == (7 - 2) / 20
    assert both.identity.figures()["idf1"] == 7 / (7 + 0.5 * 2 + 0.5 * 13)


def test_a_match_is_kept_while_it_may_be() -> None:
    # in frame 1 track 2 overlaps the object more than track 1, which it was matched with
    found = [(0, 1, 0.0), (1, 1, 3.0), (1, 2, 0.0)]
    matched = match_clear(compare(tracks([(0, 7, 0.0), (1, 7, 0.0)]), tracks(found), "object", PLAIN).pairs)
    assert matched.pairs.track[matched.chosen].tolist() == [0, 1]
    assert not matched.switched.any()


def test_what_is_undefined_is_absent() -> None:
    nothing = counted([], [(0, 1, 0.0)]).figures()
    assert "mota" not in nothing and "recall" not in nothing and "motp" not in nothing
    assert nothing["precision"] == 0
    silent = counted([(0, 1, 0.0)], []).figures()
    assert silent["mota"] == 0 and "precision" not in silent and silent["misses"] == 1


# A plain version: every decision by looking at all possibilities


def frames_of(pairs: Pairs) -> Iterator[tuple[list[int], list[int], np.ndarray]]:
    for t in range(pairs.num_frames):
        own = list(range(pairs.truth_starts[t], pairs.truth_starts[t + 1]))
        other = list(range(pairs.track_starts[t], pairs.track_starts[t + 1]))
        matrix = np.zeros((len(own), len(other)))
        for i, j, value in zip(pairs.truth, pairs.track, pairs.similarity, strict=True):
            if i in own:
                matrix[i - own[0], j - other[0]] = value
        yield own, other, matrix


def best(scores: np.ndarray) -> list[tuple[int, int]]:
    """The pairs, each row and column once, of the largest sum."""
    rows, columns = scores.shape
    small, large = min(rows, columns), max(rows, columns)
    ways = [list(zip(range(small), way, strict=True)) for way in permutations(range(large), small)]
    if rows > columns:
        ways = [[(j, i) for i, j in way] for way in ways]
    return max(ways, key=lambda way: sum(scores[i, j] for i, j in way)) if ways else []


def slowly(pairs: Pairs) -> dict[str, float]:
    objects, names = pairs.truth_ids.tolist(), pairs.track_ids.tolist()
    last: dict[int, int] = {}
    before: dict[int, int] = {}
    hits: dict[int, int] = {}
    matches = switches = fragments = 0
    for own, other, matrix in frames_of(pairs):
        if not own or not other:
            continue
        scores = np.where(matrix >= 0.5, matrix, 0)
        for i, j in np.argwhere(scores):
            scores[i, j] += 1000 * (before.get(objects[own[i]]) == names[other[j]])
        now = {objects[own[i]]: names[other[j]] for i, j in best(scores) if scores[i, j] > 0}
        for one, name in now.items():
            switches += last.get(one, name) != name
            fragments += one in last and one not in before
            hits[one] = hits.get(one, 0) + 1
        matches, before = matches + len(now), now
        last |= now
    lengths = {one: objects.count(one) for one in set(objects)}
    mostly = sum(hits.get(one, 0) / length > 0.8 for one, length in lengths.items())
    found = {"matches": matches, "switches": switches, "fragments": fragments, "mostly_tracked": mostly}
    return {**found, "id_true_positives": _identity(pairs), **_hota(pairs)}


def _identity(pairs: Pairs) -> int:
    shared = np.zeros((pairs.num_truth_ids, pairs.num_track_ids))
    for own, other, matrix in frames_of(pairs):
        for i, j in np.argwhere(matrix >= 0.5):
            shared[pairs.truth_ids[own[i]], pairs.track_ids[other[j]]] += 1
    return int(sum(shared[i, j] for i, j in best(shared)))


def _hota(pairs: Pairs) -> dict[str, float]:
    shape = pairs.num_truth_ids, pairs.num_track_ids
    own_length, length = np.bincount(pairs.truth_ids), np.bincount(pairs.track_ids)
    together = np.zeros(shape)
    for own, other, matrix in frames_of(pairs):
        for i, j in np.argwhere(matrix):
            share = matrix[i, j] / (matrix[i].sum() + matrix[:, j].sum() - matrix[i, j])
            together[pairs.truth_ids[own[i]], pairs.track_ids[other[j]]] += share
    alignment = together / (own_length[:, None] + length[None] - together)
    hota = []
    for alpha in ALPHAS:
        found = []
        for own, other, matrix in frames_of(pairs):
            weights = alignment[pairs.truth_ids[own]][:, pairs.track_ids[other]]
            chosen = best(weights * matrix)
            found += [(pairs.truth_ids[own[i]], pairs.track_ids[other[j]]) for i, j in chosen if matrix[i, j] >= alpha]
        shares = [found.count(one) / (own_length[one[0]] + length[one[1]] - found.count(one)) for one in found]
        detection = len(found) / (len(pairs.truth_ids) + len(pairs.track_ids) - len(found))
        hota.append((detection * sum(shares) / max(1, len(found))) ** 0.5)
    return {"hota": float(np.mean(hota))}


@pytest.mark.parametrize("seed", range(12))
def test_small_scenes_equal_a_plain_version(seed: int) -> None:
    random = np.random.RandomState(seed)
    rows: Rows = [(t, i, 12.0 * i + t * (1 - i)) for t in range(8) for i in range(4) if random.rand() > 0.2]
    found = [(t, (i + (random.rand() < 0.2)) % 4, left + random.normal(0, 3)) for t, i, left in rows]
    unique = {(t, i): left for t, i, left in found if random.rand() > 0.2}
    pairs = compare(tracks(rows), tracks([(t, i, left) for (t, i), left in unique.items()]), "object", PLAIN).pairs
    figures = Counts.of(pairs).figures()
    for name, value in slowly(pairs).items():
        assert figures[name] == pytest.approx(value, abs=1e-12), name


def test_pairs_are_those_of_a_loop() -> None:
    random = np.random.RandomState(3)
    sides: list[tuple[Any, Any, Any]] = []
    for count in (60, 45):
        corners = random.rand(count, 2) * 40
        boxes = np.concatenate([corners, corners + random.randint(0, 3, (count, 2)) * 10], axis=1)
        sides.append((np.sort(random.randint(0, 6, count)), random.randint(0, 9, count), boxes))
    pairs = find_pairs(sides[0], sides[1], 7)
    expected = []
    for i in range(60):
        for j in range(45):
            a, b = sides[0][2][i], sides[1][2][j]
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            if sides[0][0][i] == sides[1][0][j] and width > 0 and height > 0:
                areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
                expected.append((i, j, width * height / (sum(areas) - width * height)))
    assert list(zip(pairs.truth.tolist(), pairs.track.tolist(), strict=True)) == [one[:2] for one in expected]
    np.testing.assert_allclose(pairs.similarity, [one[2] for one in expected], rtol=1e-15)


def test_a_box_without_area_overlaps_nothing() -> None:
    flat, box = np.array([[0.0, 0, 0, 10]]), np.array([[0.0, 0, 10, 10]])
    assert paired_iou(flat, box).tolist() == [0] and paired_iou(flat, flat).tolist() == [0]


def test_sequences_together_are_not_their_mean() -> None:
    one, other = counted([(0, 1, 0.0)] * 1, [(0, 1, 0.0)]), counted([(t, 1, 0.0) for t in range(3)], [])
    both = combine([one, other])
    assert both.figures()["mota"] == 1 / 4
    assert both.figures()["hota"] == pytest.approx((1 / 4) ** 0.5)


# TrackEval, by the figures that benchmarks/tracking_evaluation.py --figures has written down

FLAWS = (Flaws(), Flaws(0.3, 0.12, 0.1, 3.0, 0.05, 0.1))
OFFICIAL: dict[str, Any] = json.loads((HERE / "trackeval_figures.json").read_text())


def results(case: str, truth: dict[str, Tracks], names: list[str]) -> dict[str, str]:
    if case == "mot15":
        return {name: (DATA / "mot15" / "results" / f"{name}.txt").read_text() for name in names}
    which = 1 if case.startswith("mot20") or case.endswith("1") else 0
    made = {name: degrade(truth[name], FLAWS[which], which) for name in names}
    if case.startswith("kitti"):
        return {name: write_kitti(one) for name, one in made.items()}
    return {name: write_mot(replace(one, classes=("x",) * len(one.classes))) for name, one in made.items()}


@pytest.mark.parametrize("case", list(OFFICIAL))
def test_every_figure_is_that_of_trackeval(case: str, tmp_path: Path) -> None:
    rules = case.split()[0]
    root = DATA / {"mot15": "mot15", "mot17": "mot17_half", "mot20": "mot17_half", "kitti": "kitti_tracking"}[rules]
    if not root.is_dir():
        pytest.skip(f"OPSIN_DATA names no folder with {root.name}")
    truth = read_sequences(root, Asked(truth=True))
    names = sorted({key.split()[0] for key in OFFICIAL[case]} - {"COMBINED_SEQ"})
    for name, text in results(case, truth, names).items():
        (tmp_path / f"{name}.txt").write_text(text)
    found = evaluate({name: truth[name] for name in names}, read_sequences(tmp_path), find_rules(rules))
    for key, figures in OFFICIAL[case].items():
        sequence, name = key.split()
        counts = found.of_class(name) if sequence == "COMBINED_SEQ" else found.counts[sequence, name]
        own: dict[str, dict[str, Any]] = {
            "clear": counts.clear.figures(),
            "identity": counts.identity.figures(),
            "hota": counts.hota.figures(),
            "curves": counts.hota.curves(),
            "counts": {"boxes": counts.boxes, "tracks": counts.tracks, "objects": counts.objects},
        }
        for group, values in figures.items():
            for metric, value in values.items():
                np.testing.assert_allclose(own[group][metric], value, rtol=0, atol=1e-9, err_msg=f"{key} {metric}")
                if isinstance(value, int):
                    assert own[group][metric] == value, f"{key} {metric}"


def test_counts_of_sort_on_mot15_are_the_published_ones() -> None:
    """The reference tools on the results that mot15 brings: MOTA 52.65 and 56.40, IDF1 55.77 and 64.46."""
    root = DATA / "mot15"
    if not root.is_dir():
        pytest.skip("OPSIN_DATA names no folder with mot15")
    found = evaluate(read_sequences(root, Asked(truth=True)), read_sequences(root / "results"), find_rules("mot15"))
    figures = {name: found.of_sequence(name).figures() for name in found.sequences}
    assert [round(100 * one["mota"], 2) for one in figures.values()] == [52.65, 56.40]
    assert [round(100 * one["idf1"], 2) for one in figures.values()] == [55.77, 64.46]
    assert [round(one["motp_distance"], 4) for one in figures.values()] == [0.2772, 0.3459]
    assert count_clear(compare_pairs(root)).switches == 7


def compare_pairs(root: Path) -> Pairs:
    truth = read_sequences(root / "TUD-Campus", Asked(truth=True))["TUD-Campus"]
    own = read_sequences(root / "results" / "TUD-Campus.txt")["TUD-Campus"]
    return compare(truth, own, "pedestrian", find_rules("mot15")).pairs

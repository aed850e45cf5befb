"""The evaluation of tracks against TrackEval 1.3.0: every figure, and how fast; CLEAR and identity against motmetrics.

    pip install --target peers --no-deps trackeval==1.3.0 motmetrics pandas xmltodict tabulate
    PYTHONPATH=peers python benchmarks/tracking_evaluation.py [--only WORD ...] [--figures FILE] [--json]

Times are of one class of one sequence in memory, 600 frames of 40 objects, boxes to figures, in turns in one process
and on one thread; the best of five. Equality is from files to figures, on every sequence of whatever of mot15,
mot17_half and kitti_tracking lies in the folder that OPSIN_DATA names: of the results that mot15 brings, of made-up
trackers of `opsin.track.imperfect`, and of every tracker here on the detections of mot15 and kitti_tracking. The
figures of motmetrics are compared on the same objects and boxes. --figures writes what TrackEval says of a few
sequences: it is what tests/track holds ours against. Target: at least 4 times as fast, equal to 1e-9, counts exactly.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from opsin.track.evaluate import Counts, evaluate
from opsin.track.imperfect import Flaws, degrade
from opsin.track.kitti_tracking import write_kitti
from opsin.track.mot_challenge import write_mot
from opsin.track.pairs import number
from opsin.track.reading import Asked, read_sequences
from opsin.track.rules import Compared, compare, find_rules
from opsin.track.trackers import create_tracker, list_trackers
from opsin.track.tracks import Tracks

with contextlib.redirect_stdout(io.StringIO()):  # it prints what it could not import
    import trackeval  # type: ignore[import-not-found]

CURVES = "HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA", "OWTA"
FIGURES = {  # ours: theirs
    "clear": {
        "mota": "MOTA", "motp": "MOTP", "moda": "MODA", "recall": "CLR_Re", "precision": "CLR_Pr", "smota": "sMOTA",
        "mostly_tracked_share": "MTR", "partly_tracked_share": "PTR", "mostly_lost_share": "MLR", "f1": "CLR_F1",
        "false_positives_per_frame": "FP_per_frame", "mota_log": "MOTAL", "matches": "CLR_TP", "misses": "CLR_FN",
        "false_positives": "CLR_FP", "switches": "IDSW", "mostly_tracked": "MT", "partly_tracked": "PT",
        "mostly_lost": "ML", "fragments": "Frag",
    },
    "identity": {
        "idf1": "IDF1", "idr": "IDR", "idp": "IDP", "id_true_positives": "IDTP", "id_false_negatives": "IDFN",
        "id_false_positives": "IDFP",
    },
    "hota": {"hota_0": "HOTA(0)", "loca_0": "LocA(0)", "hotaloca_0": "HOTALocA(0)"},
    "curves": {name.lower(): name for name in CURVES},
}  # fmt: skip
QUIET = {"PRINT_CONFIG": False}
FLAWS = (Flaws(), Flaws(0.3, 0.12, 0.1, 3.0, 0.05, 0.1))
KITTI = "0000", "0001", "0004"
MOT17 = "MOT17-05-FRCNN", "MOT17-09-FRCNN"
Case = tuple[Path, str, dict[str, str]]  # the truth's folder, the rules, and the results of each sequence as text
PEER = {  # ours: those of motmetrics
    "mota": "mota", "motp_distance": "motp", "idf1": "idf1", "idp": "idp", "idr": "idr", "recall": "recall",
    "precision": "precision", "switches": "num_switches", "fragments": "num_fragmentations", "misses": "num_misses",
    "false_positives": "num_false_positives", "mostly_tracked": "mostly_tracked", "mostly_lost": "mostly_lost",
}  # fmt: skip


def crowd(frames: int, objects: int) -> Tracks:
    """Objects that walk in waves over a frame of 1920x1080."""
    random = np.random.RandomState(0)
    start, speed = random.rand(objects, 2) * [1800, 900], random.normal(0, 2, (objects, 2))
    sides = np.stack([random.uniform(40, 80, objects), random.uniform(100, 200, objects)], axis=1)
    when = np.arange(frames)[:, None, None]
    corners = start + speed * when + 20 * np.sin(when / 30 + np.arange(objects)[None, :, None])
    boxes = np.concatenate([corners, corners + sides], axis=2).reshape(-1, 4)
    ids = np.tile(np.arange(objects), frames)
    return Tracks.build(np.repeat(np.arange(frames), objects), boxes, ids, num_frames=frames, size=(1920, 1080))


def ours(truth: Tracks, tracks: Tracks) -> Counts:
    """Every figure of one class of one sequence."""
    return Counts.of(compare(truth, tracks, "object", find_rules("plain")).pairs)


def theirs(truth: Tracks, tracks: Tracks) -> dict[str, Any]:
    """The same by TrackEval's metrics, of its own overlaps."""
    own, other = number(truth.ids), number(tracks.ids)
    data: dict[str, Any] = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    iou = trackeval.datasets._base_dataset._BaseDataset._calculate_box_ious
    for frame in range(truth.num_frames):
        rows, columns = truth.rows(frame), tracks.rows(frame)
        data["gt_ids"].append(own[rows])
        data["tracker_ids"].append(other[columns])
        data["similarity_scores"].append(iou(truth.boxes[rows], tracks.boxes[columns], box_format="x0y0x1y1"))
    data |= {"num_gt_ids": int(own.max()) + 1, "num_tracker_ids": int(other.max()) + 1}
    data |= {"num_timesteps": truth.num_frames, "num_gt_dets": len(own), "num_tracker_dets": len(other)}
    with contextlib.redirect_stdout(io.StringIO()):
        return {metric.get_name(): metric.eval_sequence(data) for metric in _metrics()}


def _metrics() -> list[Any]:
    made = trackeval.metrics
    return [made.HOTA({}), made.CLEAR(dict(QUIET)), made.Identity(dict(QUIET))]


def speed(frames: int, objects: int) -> dict[str, float]:
    """Seconds of both in turns, and their ratio."""
    truth = crowd(frames, objects)
    tracks = degrade(truth, Flaws(), seed=1)
    seconds = {"ours": [], "trackeval": []}
    for _ in range(5):
        for name, function in (("ours", ours), ("trackeval", theirs)):
            start = time.perf_counter()
            function(truth, tracks)
            seconds[name].append(time.perf_counter() - start)
    best = {name: min(each) for name, each in seconds.items()}
    return {**best, "ratio": best["trackeval"] / best["ours"]}


def official(dataset: Any) -> dict[str, Any]:
    """What TrackEval finds: of each sequence and "COMBINED_SEQ" each class's figures."""
    names = ["PRINT_RESULTS", "PRINT_CONFIG", "TIME_PROGRESS", "OUTPUT_SUMMARY", "OUTPUT_DETAILED", "PLOT_CURVES"]
    evaluator = trackeval.Evaluator({**dict.fromkeys(names, False), "BREAK_ON_ERROR": True, "LOG_ON_ERROR": None})
    with contextlib.redirect_stdout(io.StringIO()):
        found, _ = evaluator.evaluate([dataset], _metrics())
    return next(iter(next(iter(found.values())).values()))


def of_mot(truth: Path, results: Mapping[str, str], benchmark: str) -> dict[str, Any]:
    """TrackEval's figures of results in MOTChallenge's form."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), results)
        config = {"GT_FOLDER": str(truth), "TRACKERS_FOLDER": folder, "TRACKERS_TO_EVAL": ["x"], **QUIET}
        config |= {"BENCHMARK": benchmark, "SKIP_SPLIT_FOL": True, "SEQ_INFO": dict.fromkeys(results)}
        with contextlib.redirect_stdout(io.StringIO()):
            dataset = trackeval.datasets.MotChallenge2DBox(config)
        return official(dataset)


def of_kitti(truth: Path, results: Mapping[str, str]) -> dict[str, Any]:
    """TrackEval's figures of results in KITTI's form."""
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "truth"
        own.mkdir()
        (own / "label_02").symlink_to(truth / "label_02")
        lines = (truth / "evaluate_tracking.seqmap.training").read_text().splitlines()
        kept = [line for line in lines if line.split()[0] in results]
        (own / "evaluate_tracking.seqmap.training").write_text("\n".join([*kept, ""]))
        _write(Path(folder) / "results", results)
        config = {"GT_FOLDER": str(own), "TRACKERS_FOLDER": f"{folder}/results", "TRACKERS_TO_EVAL": ["x"], **QUIET}
        with contextlib.redirect_stdout(io.StringIO()):
            dataset = trackeval.datasets.Kitti2DBox(config)
        return official(dataset)


def _write(folder: Path, results: Mapping[str, str]) -> None:
    (folder / "x" / "data").mkdir(parents=True)
    for name, text in results.items():
        (folder / "x" / "data" / f"{name}.txt").write_text(text)


def every_case(data: Path) -> dict[str, Case]:
    """All sequences, by made-up trackers and by real ones."""
    found = few_cases(data, everything=True)
    for folder, rules, write in (("mot15", "mot15", write_mot), ("kitti_tracking", "kitti", write_kitti)):
        if (root := data / folder).is_dir():
            given = read_sequences(root / "detections" if rules == "kitti" else root)
            for tracker in list_trackers():
                texts = {name: write(create_tracker(tracker).run(one)) for name, one in given.items()}
                found[f"{rules} {tracker}"] = root, rules, texts
    return found


def few_cases(data: Path, everything: bool = False) -> dict[str, Case]:
    """Made-up trackers and the results of mot15, on a few sequences of each data set, or on all."""
    found: dict[str, Case] = {}
    if (root := data / "mot15").is_dir():
        truth = read_sequences(root, Asked(truth=True))
        found["mot15"] = root, "mot15", {name: (root / "results" / f"{name}.txt").read_text() for name in truth}
        for seed, flaws in enumerate(FLAWS):
            texts = {name: write_mot(degrade(one, flaws, seed)) for name, one in truth.items()}
            found[f"mot15 made up {seed}"] = root, "mot15", texts
    if (root := data / "mot17_half").is_dir():
        truth = read_sequences(root, Asked(truth=True))
        for seed, (flaws, rules) in enumerate(zip(FLAWS, ("mot17", "mot20"), strict=True)):
            made = {name: degrade(truth[name], flaws, seed) for name in (truth if everything else MOT17)}
            texts = {name: write_mot(replace(one, classes=("x",) * 13)) for name, one in made.items()}
            found[f"{rules} made up"] = root, rules, texts
    if (root := data / "kitti_tracking").is_dir():
        truth = read_sequences(root, Asked(truth=True))
        for seed, flaws in enumerate(FLAWS):
            texts = {name: write_kitti(degrade(truth[name], flaws, seed)) for name in (truth if everything else KITTI)}
            found[f"kitti made up {seed}"] = root, "kitti", texts
    return found


def compare_case(
    root: Path, rules: str, texts: Mapping[str, str], beside: bool = False
) -> tuple[float, dict[str, Any], list[Any]]:
    """The largest difference of any figure, TrackEval's figures by sequence and class, and motmetrics' beside ours."""
    found = of_kitti(root, texts) if rules == "kitti" else of_mot(root, texts, rules.upper())
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), texts)
        tracks = read_sequences(folder)
    truth = read_sequences(root, Asked(truth=True))
    made = evaluate({name: truth[name] for name in texts}, tracks, find_rules(rules))
    parts = {(sequence, name): counts for (sequence, name), counts in made.counts.items()}
    parts |= {("COMBINED_SEQ", name): made.of_class(name) for name in made.classes}
    worst, kept = 0.0, {}
    for (sequence, name), counts in parts.items():
        official_figures = renamed(found[sequence][name])
        worst = max(worst, difference(counts, official_figures))
        kept[f"{sequence} {name}"] = official_figures
    others = []
    for (sequence, name), counts in made.counts.items() if beside else ():
        kept_of = compare(truth[sequence], tracks[sequence], name, find_rules(rules))
        if len(kept_of.truth) and len(kept_of.tracks):
            other = of_motmetrics(truth[sequence], tracks[sequence], kept_of)
            own = counts.figures()
            others.append({key: (float(own[key]), other[key]) for key in PEER if key in own})
    return worst, kept, others


def renamed(found: Mapping[str, Any]) -> dict[str, Any]:
    """TrackEval's figures of a sequence and class by our names; curves are lists."""
    groups = {"clear": "CLEAR", "identity": "Identity", "hota": "HOTA", "curves": "HOTA"}
    figures = {
        group: {own: np.asarray(found[groups[group]][other]).tolist() for own, other in names.items()}
        for group, names in FIGURES.items()
    }
    count = found["Count"]
    return {**figures, "counts": {"boxes": count["Dets"], "tracks": int(count["IDs"]), "objects": int(count["GT_IDs"])}}


def difference(counts: Counts, figures: Mapping[str, Mapping[str, Any]]) -> float:
    """The largest difference of ours to figures under our names; 1 or more where a count differs.

    Where there is no object, shares of the objects are undefined: TrackEval says 0, and 1 for what is mostly lost.
    """
    undefined = set() if counts.objects else set(counts.clear.figures()) - set(counts.figures())
    own = {
        "clear": counts.clear.figures(),
        "identity": counts.identity.figures(),
        "hota": counts.hota.figures(),
        "curves": counts.hota.curves(),
        "counts": {"boxes": counts.boxes, "tracks": counts.tracks, "objects": counts.objects},
    }
    return max(
        float(np.abs(np.asarray(own[group][name]) - np.asarray(value)).max())
        for group, values in figures.items()
        for name, value in values.items()
        if name not in undefined
    )


def of_motmetrics(truth: Tracks, tracks: Tracks, compared: Compared) -> dict[str, float]:
    """motmetrics' figures by our names, of those objects and boxes that count."""
    import motmetrics  # type: ignore[import-not-found]

    own, other = truth.select(compared.truth), tracks.select(compared.tracks)
    accumulator, iou = motmetrics.MOTAccumulator(), trackeval.datasets._base_dataset._BaseDataset._calculate_box_ious
    for frame in range(truth.num_frames):
        rows, columns = own.rows(frame), other.rows(frame)
        overlap = iou(own.boxes[rows], other.boxes[columns], box_format="x0y0x1y1")
        distances = np.where(overlap >= 0.5, 1 - overlap, np.nan)  # its own iou_matrix wants an older NumPy
        accumulator.update(own.ids[rows], other.ids[columns], distances, frameid=frame)
    found = motmetrics.metrics.create().compute(accumulator, metrics=list(PEER.values()), return_dataframe=False)
    return {name: float(found[theirs]) for name, theirs in PEER.items()}


def agreement(beside: list[dict[str, tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Of each figure in how many sequences and classes motmetrics says the same, and the largest difference."""
    found = {}
    for name in PEER:
        apart = [abs(own - other) for each in beside for own, other in [each.get(name, (0.0, 0.0))]]
        found[name] = {
            "equal": sum(gap < 1e-9 for gap in apart), "of": len(apart), "difference": max(apart, default=0.0)
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--only", nargs="*", default=[""], help="only cases with one of these words in their names")
    parser.add_argument("--no-motmetrics", action="store_true", help="TrackEval alone, in half the time")
    parser.add_argument("--figures", type=Path, help="write TrackEval's figures of a few sequences into this file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = Path(os.environ.get("OPSIN_DATA", "nowhere"))
    if options.figures is not None:
        figures = {name: compare_case(*case)[1] for name, case in few_cases(data).items()}
        options.figures.write_text(json.dumps(figures, separators=(",", ":")) + "\n")
        return
    times = speed(options.frames, options.objects)
    if not options.json:
        print(f"{options.frames} frames, {options.objects} objects: ours {times['ours']:.3f} s, TrackEval "
              f"{times['trackeval']:.3f} s, ratio {times['ratio']:.1f}", flush=True)  # fmt: skip
    worst, beside = {}, []
    for name, case in every_case(data).items():
        if any(word in name for word in options.only):
            worst[name], each, others = compare_case(*case, beside=not options.no_motmetrics)
            beside += others
            if not options.json:
                print(f"{name}: {len(each)} sequences and classes, largest difference {worst[name]:.1e}", flush=True)
    others = agreement(beside) if beside else {}
    if options.json:
        print(json.dumps({"speed": times, "largest difference": worst, "motmetrics": others}, indent=1))
        return
    for name, row in others.items():
        print(f"{name}: as motmetrics in {row['equal']} of {row['of']}, else by at most {row['difference']:.4g}")


if __name__ == "__main__":
    main()

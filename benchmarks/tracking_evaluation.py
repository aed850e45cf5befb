"""The evaluation of tracks against TrackEval 1.3.0: every figure, and how fast; CLEAR and identity against motmetrics.

    pip install --target peers --no-deps trackeval==1.3.0 motmetrics pandas xmltodict tabulate
    PYTHONPATH=peers python benchmarks/tracking_evaluation.py [--frames 600] [--objects 40] [--figures FILE] [--json]

Times are of one class of one sequence in memory, boxes to figures, in turns in one process and on one thread; the best
of five. Equality is from files to figures, on whatever of mot15, mot17_half and kitti_tracking lies in the folder that
OPSIN_DATA names: the results that mot15 brings, and made-up trackers of `opsin.track.imperfect`. --figures writes what
TrackEval says of some of them: it is what tests/track holds ours against. Target: at least 4 times as fast, equal to
1e-9, counts exactly.
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
from opsin.track.rules import compare, find_rules
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


def cases(data: Path) -> dict[str, tuple[Path, str, dict[str, str]]]:
    """Of each case the truth's folder, the rules, and the results of each sequence as text."""
    found: dict[str, tuple[Path, str, dict[str, str]]] = {}
    if (root := data / "mot15").is_dir():
        truth = read_sequences(root, Asked(truth=True))
        found["mot15"] = root, "mot15", {name: (root / "results" / f"{name}.txt").read_text() for name in truth}
        for seed, flaws in enumerate(FLAWS):
            texts = {name: write_mot(degrade(one, flaws, seed)) for name, one in truth.items()}
            found[f"mot15 made up {seed}"] = root, "mot15", texts
    if (root := data / "mot17_half").is_dir():
        truth = read_sequences(root, Asked(truth=True))
        for seed, (flaws, rules) in enumerate(zip(FLAWS, ("mot17", "mot20"), strict=True)):
            made = {name: degrade(truth[name], flaws, seed) for name in MOT17}
            texts = {name: write_mot(replace(one, classes=("x",) * 13)) for name, one in made.items()}
            found[f"{rules} made up"] = root, rules, texts
    if (root := data / "kitti_tracking").is_dir():
        truth = read_sequences(root, Asked(truth=True))
        for seed, flaws in enumerate(FLAWS):
            texts = {name: write_kitti(degrade(truth[name], flaws, seed)) for name in KITTI}
            found[f"kitti made up {seed}"] = root, "kitti", texts
    return found


def compare_case(root: Path, rules: str, texts: Mapping[str, str]) -> tuple[float, dict[str, Any]]:
    """The largest difference of any figure, and TrackEval's figures by sequence and class under our names."""
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
    return worst, kept


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
    """The largest difference of ours to figures under our names; 1 or more where a count differs."""
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
    )


def against_motmetrics() -> dict[str, tuple[float, float]]:
    """Ours and motmetrics' figures of a crowd, by our names."""
    import motmetrics  # type: ignore[import-not-found]

    truth = crowd(100, 10)
    tracks = degrade(truth, Flaws(), seed=1)
    accumulator, iou = motmetrics.MOTAccumulator(), trackeval.datasets._base_dataset._BaseDataset._calculate_box_ious
    for frame in range(truth.num_frames):
        rows, columns = truth.rows(frame), tracks.rows(frame)
        overlap = iou(truth.boxes[rows], tracks.boxes[columns], box_format="x0y0x1y1")
        distances = np.where(overlap >= 0.5, 1 - overlap, np.nan)  # its own iou_matrix wants an older NumPy
        accumulator.update(truth.ids[rows], tracks.ids[columns], distances, frameid=frame)
    names = {
        "mota": "mota", "motp_distance": "motp", "idf1": "idf1", "idp": "idp", "idr": "idr", "recall": "recall",
        "precision": "precision", "switches": "num_switches", "fragments": "num_fragmentations", "misses": "num_misses",
        "false_positives": "num_false_positives", "mostly_tracked": "mostly_tracked", "mostly_lost": "mostly_lost",
    }  # fmt: skip
    found = motmetrics.metrics.create().compute(accumulator, metrics=list(names.values()), return_dataframe=False)
    figures = ours(truth, tracks).figures()
    return {own: (float(figures[own]), float(found[other])) for own, other in names.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--figures", type=Path, help="write TrackEval's figures into this file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {"speed": speed(options.frames, options.objects), "motmetrics": against_motmetrics()}
    figures, worst = {}, {}
    for name, case in cases(Path(os.environ.get("OPSIN_DATA", "nowhere"))).items():
        worst[name], figures[name] = compare_case(*case)
    found["largest difference"] = worst
    if options.figures is not None:
        options.figures.write_text(json.dumps(figures, separators=(",", ":")) + "\n")
    if options.json:
        print(json.dumps(found, indent=1))
        return
    times = found["speed"]
    print(f"{options.frames} frames, {options.objects} objects: ours {times['ours']:.3f} s, TrackEval "
          f"{times['trackeval']:.3f} s, ratio {times['ratio']:.1f}")  # fmt: skip
    for name, value in worst.items():
        print(f"{name}: largest difference {value:.1e}")
    for name, (own, other) in found["motmetrics"].items():
        print(f"{name}: ours {own:.6f}, motmetrics {other:.6f}")


if __name__ == "__main__":
    main()

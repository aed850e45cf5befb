"""Trackers on the CPU: frames a second beside a plain SORT and Roboflow's `trackers`, memory, and the flow's time.

    python benchmarks/tracking.py [speed|memory|flow|dropped|figures ...] [--frames 150] [--json]

speed: 5, 50 and 300 boxes that move in straight lines with noise, each missed in one frame of twenty; a tracker's
`update` alone, in turns with the others in one process, the better of two. Plain is SORT with one object and matrices
of 7 x 7 for each track. Roboflow's is measured where `trackers` is installed (2.6; it brings an OpenCV that collides
with the headless one: an environment of its own, put behind this one on PYTHONPATH). Target: 5 times Roboflow's at 50
boxes.
memory: 100,000 frames of ten boxes that come and go; how much more the process has after them than after 10,000.
flow: the cheapest flow, and the other batch trackers, on 2,000 frames of 20 detections; target: under a minute.
dropped: IDF1 of the cars of KITTI's sequences 0000 to 0010 with 30 % of the frames dropped, once with the time between
frames and once without.
figures: IDF1 and HOTA of every tracker on mot15, and HOTA on those cars. Both need the folder that OPSIN_DATA names.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opsin.structures import Instances
from opsin.track.association import hungarian_then_gate
from opsin.track.evaluate import evaluate
from opsin.track.reading import Asked, read_sequences
from opsin.track.rules import RULES
from opsin.track.trackers import create_tracker, list_trackers
from opsin.track.tracks import Tracks

Frames = list[tuple[np.ndarray, np.ndarray]]
PEERS = {
    "sort": ("SORTTracker", {}),
    "byte_track": ("ByteTrackTracker", {}),
    "oc_sort": ("OCSORTTracker", {}),
    "bot_sort": ("BoTSORTTracker", {"enable_cmc": False}),
}


def make_frames(count: int, num_frames: int, *, seed: int = 0, life: int | None = None) -> Frames:
    """Boxes (N, 4) and scores (N,) of each frame. life: frames after which everybody is somewhere else."""
    random = np.random.default_rng(seed)
    place, size = random.uniform(0, 2000, (count, 2)), random.uniform(30, 90, (count, 2))
    speed = random.normal(0, 3, (count, 2))
    frames = []
    for frame in range(num_frames):
        if life and frame % life == 0:
            place = random.uniform(0, 2000, (count, 2))
        place = place + speed
        seen = random.uniform(size=count) > 0.05
        corner = place[seen] + random.normal(0, 1, (int(seen.sum()), 2))
        frames.append((np.hstack([corner, corner + size[seen]]), random.uniform(0.5, 1.0, int(seen.sum()))))
    return frames


class PlainSort:
    """SORT as one writes it first: a list of tracks, each with matrices of its own."""

    def __init__(self) -> None:
        self.tracks: list[dict[str, Any]] = []
        self.step, self.seen = np.eye(7) + np.eye(7, k=4), np.eye(4, 7)
        self.process = np.diag([1, 1, 1, 1, 0.01, 0.01, 1e-4])
        self.noise = np.diag([1.0, 1, 10, 10])

    def update(self, boxes: np.ndarray) -> None:
        """Follow one frame further."""
        for track in self.tracks:
            track["x"] = self.step @ track["x"]
            track["p"] = self.step @ track["p"] @ self.step.T + self.process
        overlap = np.array([[_iou(_box(track["x"]), box) for box in boxes] for track in self.tracks])
        pairs = hungarian_then_gate(overlap.reshape(len(self.tracks), len(boxes)), 0.3)
        for row, column in zip(*pairs, strict=True):
            track = self.tracks[row]
            gain = track["p"] @ self.seen.T @ np.linalg.inv(self.seen @ track["p"] @ self.seen.T + self.noise)
            track["x"] = track["x"] + gain @ (_measured(boxes[column]) - self.seen @ track["x"])
            track["p"] = (np.eye(7) - gain @ self.seen) @ track["p"]
            track["missed"] = -1
        for track in self.tracks:
            track["missed"] += 1
        self.tracks = [track for track in self.tracks if track["missed"] <= 1]
        for column in sorted(set(range(len(boxes))) - set(pairs.columns.tolist())):
            state = np.concatenate([_measured(boxes[column]), np.zeros(3)])
            self.tracks.append({"x": state, "p": np.diag([10.0] * 4 + [1e4] * 3), "missed": 0})


def _measured(box: np.ndarray) -> np.ndarray:
    w, h = box[2] - box[0], box[3] - box[1]
    return np.array([box[0] + w / 2, box[1] + h / 2, w * h, w / h])


def _box(x: np.ndarray) -> np.ndarray:
    w = np.sqrt(max(x[2] * x[3], 1e-9))
    h = x[2] / w
    return np.array([x[0] - w / 2, x[1] - h / 2, x[0] + w / 2, x[1] + h / 2])


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    w, h = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = max(w, 0.0) * max(h, 0.0)
    return shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared)


def ours(name: str, frames: Frames) -> Callable[[], None]:
    """What to time: a fresh tracker over all frames."""
    each = [
        Instances(
            torch.from_numpy(b).float(), labels=torch.zeros(len(s), dtype=torch.int64), scores=torch.from_numpy(s)
        )
        for b, s in frames
    ]

    def run() -> None:
        tracker = create_tracker(name)
        for one in each:
            tracker.update(one)

    return run


def theirs(name: str, frames: Frames) -> Callable[[], None] | None:
    """The same of Roboflow's; None where it is not installed."""
    try:
        import supervision  # pyright: ignore[reportMissingImports]
        import trackers  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    kind, options = PEERS[name]
    each = [
        supervision.Detections(b.astype(np.float32), confidence=s.astype(np.float32), class_id=np.zeros(len(s), int))
        for b, s in frames
    ]

    def run() -> None:
        tracker = getattr(trackers, kind)(**options)
        for one in each:
            tracker.update(one)

    return run


def plain(frames: Frames) -> Callable[[], None]:
    """The same of the plain SORT."""

    def run() -> None:
        tracker = PlainSort()
        for boxes, _ in frames:
            tracker.update(boxes)

    return run


def speed(num_frames: int) -> list[dict[str, Any]]:
    """Frames a second of each tracker, with what is beside it."""
    rows = []
    for boxes in (5, 50, 300):
        frames = make_frames(boxes, max(10, num_frames * 50 // max(boxes, 50)))
        for name in PEERS:
            ways = {"ours": ours(name, frames), "roboflow": theirs(name, frames)}
            if name == "sort" and boxes <= 50:
                ways["plain"] = plain(frames[:40])
            best: dict[str, float] = {}
            for _ in range(2):
                for way, run in ways.items():
                    if run is not None:
                        start = time.perf_counter()
                        run()
                        count = 40 if way == "plain" else len(frames)
                        best[way] = max(best.get(way, 0.0), count / (time.perf_counter() - start))
            rows.append({"boxes": boxes, "tracker": name} | {way: round(value, 1) for way, value in best.items()})
    return rows


def memory(num_frames: int = 100_000) -> list[dict[str, Any]]:
    """MiB that a process has more after all frames than after a tenth of them."""
    frames, rows = make_frames(10, 1000, life=40), []
    for name in ("sort", "byte_track", "oc_sort", "bot_sort", "deep_sort", "iou"):
        tracker, early = create_tracker(name), 0
        for frame in range(num_frames):
            tracker.follow(*frames[frame % len(frames)])
            if frame == num_frames // 10:
                early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - early) / 1024
        rows.append({"tracker": name, "frames": num_frames, "grown_mib": round(grown, 2)})
    return rows


def flow() -> list[dict[str, Any]]:
    """Seconds of 2,000 frames of 20 detections."""
    frames = make_frames(21, 2000, life=200)
    at = np.repeat(np.arange(len(frames)), [len(scores) for _, scores in frames])
    boxes, scores = (np.concatenate([frame[place] for frame in frames]) for place in range(2))
    detections, rows = Tracks.build(at, boxes, scores=scores), []
    for name in ("min_cost_flow", "shortest_paths", "tracklets", "two_pass"):
        start = time.perf_counter()
        tracks = create_tracker(name).run(detections)
        seconds = round(time.perf_counter() - start, 1)
        rows.append({"tracker": name, "detections": len(boxes), "seconds": seconds, "tracks": int(tracks.ids.max())})
    return rows


def dropped() -> list[dict[str, Any]]:
    """IDF1 in % with the time between frames and without, 30 % of them dropped."""
    root = Path(os.environ["OPSIN_DATA"]) / "kitti_tracking"
    truth, rows = read_sequences(root / "label_02", Asked(truth=True)), []
    detections = read_sequences(root / "detections" / "Car")
    for name in ("sort", "byte_track", "oc_sort", "bot_sort"):
        row: dict[str, Any] = {"tracker": name}
        for timed in (True, False):
            kept, found = {}, {}
            for sequence, own in truth.items():
                random = np.random.default_rng(0)
                frames = np.flatnonzero(random.uniform(size=own.num_frames) >= 0.3)
                tracker = create_tracker(name)
                tracks = tracker.run_frames(detections[sequence], frames.tolist(), timed=timed)
                kept[sequence], found[sequence] = _only(own, frames), _only(tracks, frames)
            figures = evaluate(kept, found, RULES["kitti"], classes=["car"]).metrics
            row["timed" if timed else "untimed"] = round(100 * figures["idf1"], 2)
        rows.append(row)
    return rows


def figures() -> list[dict[str, Any]]:
    """IDF1 and HOTA in % of every tracker, with its defaults."""
    root, rows = Path(os.environ["OPSIN_DATA"]), []
    people = read_sequences(root / "mot15", Asked(truth=True)), read_sequences(root / "mot15")
    cars = (
        read_sequences(root / "kitti_tracking" / "label_02", Asked(truth=True)),
        read_sequences(root / "kitti_tracking" / "detections" / "Car"),
    )
    for name in list_trackers():
        row: dict[str, Any] = {"tracker": name}
        for sequence, truth in people[0].items():
            tracks = create_tracker(name).run(people[1][sequence])
            found = evaluate({sequence: truth}, {sequence: tracks}, RULES["mot15"]).metrics
            row |= {f"{sequence} {metric}": round(100 * found[metric], 1) for metric in ("idf1", "hota")}
        tracked = {sequence: create_tracker(name).run(one) for sequence, one in cars[1].items()}
        row["cars hota"] = round(100 * evaluate(cars[0], tracked, RULES["kitti"], classes=["car"]).metrics["hota"], 1)
        rows.append(row)
    return rows


def _only(tracks: Tracks, frames: np.ndarray) -> Tracks:
    """What is in some frames, which become the first, the second and so on."""
    rows = tracks.select(np.isin(tracks.frames, frames))
    return replace(rows, frames=np.searchsorted(frames, rows.frames), num_frames=len(frames))


MEASURES: dict[str, Callable[..., list[dict[str, Any]]]] = {
    one.__name__: one for one in (speed, memory, flow, dropped, figures)
}


def main() -> None:
    """Measure what is asked for, and print it as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default="speed", choices=tuple(MEASURES), help="speed unless given")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [arguments.what] if isinstance(arguments.what, str) else arguments.what
    rows = {what: speed(arguments.frames) if what == "speed" else MEASURES[what]() for what in chosen}
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    for what, each in rows.items():
        print(what)
        for row in each:
            print("  " + "  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()

"""Sequences of tracks as data: their truth, and the formats that open it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.values import read_head
from opsin.data.inputs import Inputs
from opsin.data.source import Source, Split
from opsin.data.truth import Problem, Size, Summary, Truth
from opsin.track.coco_video import VideoImages
from opsin.track.imperfect import Flaws, detect
from opsin.track.moving_scenes import MOVING, MovingScene, scenes_of
from opsin.track.places import open_place
from opsin.track.reading import read_sequences, recognize_place
from opsin.track.track_files import Asked, recognize
from opsin.track.tracks import NOBODY, Tracks
from opsin.track.writing import WRITERS, write_detections, write_images, write_sequences

SCENE_FLAWS = Flaws(missed=0.08, jitter=0.03, doubled=0.03, clutter=0.3, hidden=0.35)  # of their detections
_HEAD = 1 << 20  # bytes by which a file is known


@dataclass(frozen=True, eq=False)
class Sequences(Inputs):
    """Sequences by their names, of which the images may be nowhere. names: (N,)."""

    names: tuple[str, ...]
    key = "sequence"
    noun = "sequence"

    def __len__(self) -> int:
        return len(self.names)

    def name(self, i: int) -> str:
        return self.names[i]

    def read(self, i: int) -> Any:
        return self.names[i]

    def select(self, places: np.ndarray) -> Sequences:
        return Sequences(tuple(self.names[place] for place in places.tolist()))


@dataclass(frozen=True, eq=False)
class MovingScenes(Sequences):
    """Built-in sequences, whose frames are drawn. scenes: (N,)."""

    scenes: tuple[MovingScene, ...] = ()

    def select(self, places: np.ndarray) -> MovingScenes:
        scenes = tuple(self.scenes[place] for place in places.tolist())
        return MovingScenes(tuple(one.name for one in scenes), scenes)


@dataclass(frozen=True)
class TrackSummary(Summary):
    """The numbers of a truth of tracks. lengths: frames of each sequence. tracks, boxes: of all."""

    lengths: tuple[int, ...] = ()
    tracks: int = 0
    boxes: int = 0
    ignored: int = 0

    def facts(self, others: Sequence[Any] = ()) -> dict[str, Any]:
        each = [self, *others]
        lengths = [length for one in each for length in one.lengths]
        return {
            "sequences": len(lengths),
            "frames": sum(lengths),
            "tracks": sum(one.tracks for one in each),
            "boxes": sum(one.boxes for one in each),
            "ignored": sum(one.ignored for one in each),
        }

    def lines(self, facts: Mapping[str, Any]) -> list[str]:
        return [
            f"{facts['frames']:,} frames in {facts['sequences']:,} sequences, {facts['tracks']:,} tracks of "
            f"{facts['boxes']:,} boxes, {facts['ignored']:,} boxes ignored"
        ]


@dataclass(frozen=True, eq=False)
class TrackTruth(Truth):
    """The tracks of each sequence. images: what the ids of a COCO json mean, for results that go by them."""

    sequences: tuple[Tracks, ...]
    images: VideoImages | None = None

    @property
    def meaning(self) -> Mapping[str, Any]:
        names = [one.classes[label] for one in self.sequences for label in np.unique(one.labels).tolist() if label >= 0]
        return {"classes": sorted(set(names))}

    def __len__(self) -> int:
        return len(self.sequences)

    def select(self, places: np.ndarray) -> TrackTruth:
        return TrackTruth(tuple(self.sequences[place] for place in places.tolist()), self.images)

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        return {"tracks": self.sequences[i]}

    def digest(self, i: int) -> bytes:
        one, made = self.sequences[i], hashlib.sha256()
        for column in (one.frames, one.ids, one.boxes, one.labels, one.ignored):
            made.update(np.ascontiguousarray(column).tobytes())
        return made.digest()

    def summary(self) -> TrackSummary:
        classes, counted = self.meaning["classes"], {}
        shown: dict[str, int] = {}
        for name in classes:
            ids = [np.unique(one.of_class(name).ids) for one in self.sequences if name in one.classes]
            counts = [int((each != NOBODY).sum()) for each in ids]
            counted[name], shown[name] = sum(counts), sum(count > 0 for count in counts)
        return TrackSummary(
            "tracks of the objects of a sequence",
            shown,
            "sequences",
            counted,
            section="tracks",
            lengths=tuple(one.num_frames for one in self.sequences),
            tracks=sum(counted.values()),
            boxes=sum(int((~one.ignored & (one.ids != NOBODY)).sum()) for one in self.sequences),
            ignored=sum(int(one.ignored.sum()) for one in self.sequences),
        )

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        found = []
        for i, one in enumerate(self.sequences):
            if not np.any(~one.ignored & (one.ids != NOBODY)):
                found.append(
                    Problem("no_tracks", "", "no object with an identity: nothing is to be tracked", "warning", i)
                )
        return found


def open_tracks(path: Path, name: str = "tracks") -> Source:
    """A source of what a path holds. name: of its format."""
    images = VideoImages()
    read = read_sequences(path, Asked(truth=True, images=images))
    truth = TrackTruth(tuple(read.values()), images)
    return Source(path.resolve().name, name, {"all": Split(Sequences(tuple(read)), truth)})


def _kind_of(path: Path) -> str | None:
    place = open_place(path)
    if place is not None:
        return recognize_place(place)
    return recognize(read_head(path, _HEAD), path.name) if path.is_file() else None


def _format(kind: str, name: str, expects: str) -> Format:
    """The format of a kind of `opsin.track.track_files.READERS`."""

    def claims(path: Path) -> Claim:
        return 2 if _kind_of(path) == kind else 0

    def opens(path: Path) -> Source:
        return open_tracks(path, name)

    written = kind if kind in WRITERS else ""
    write = partial(write_source, kind) if written else None
    return Format(name, "the tracks of the objects of sequences", expects, claims, opens, written=written, write=write)


def write_source(kind: str, source: Source, out: Path, link: bool) -> list[str]:
    """Write the tracks of a source in a format, a key of `WRITERS`. Returns what was not kept, in words."""
    sequences = {one.name: one for split in source.splits.values() for one in split.kind.sequences}
    notes = write_sequences(out, sequences, kind)
    scenes = [one for split in source.splits.values() for one in getattr(split.inputs, "scenes", ())]
    if kind == "mot":
        for scene in scenes:
            write_images(out / scene.name / "img1", scene)
            write_detections(out / scene.name, detect(scene.truth(), SCENE_FLAWS))
    return notes


def open_moving_scenes(name: str = "moving_scenes") -> Source:
    """Sequences of moving digits, see `opsin.track.moving_scenes`: train, to choose settings on, and test."""
    splits = {}
    for part, scenes in scenes_of(name).items():
        truth = TrackTruth(tuple(one.truth() for one in scenes))
        splits[part] = Split(MovingScenes(tuple(one.name for one in scenes), tuple(scenes)), truth)
    return Source("moving_scenes", "built in", splits)


def _claims_moving(path: Path) -> Claim:
    return 3 if MOVING.fullmatch(str(path)) and not path.exists() else 0


MOVING_SCENES = Format(
    "moving scenes",
    "the tracks of the objects of sequences",
    "",
    _claims_moving,
    lambda path: open_moving_scenes(str(path)),
    names=("moving_scenes",),
)
MOT = _format("mot", "MOTChallenge", "a folder with gt/gt.txt, folders of sequences, or a txt of MOTChallenge")
KITTI = _format("kitti", "KITTI tracking", "label_02 or a txt of KITTI tracking")
DETRAC = _format("detrac", "UA-DETRAC", "an xml of UA-DETRAC")
CVML = _format("cvml", "CVML", "an xml of PETS2009")
CVAT = _format("cvat", "CVAT for video", "an xml of CVAT for video")
IDL = _format("idl", "TUD idl", "an idl of TUD")
COCO = _format("coco", "COCO video json", "a COCO json with videos")
CSV = _format("csv", "csv of tracks", "a csv with the columns frame, id, x1, y1, x2, y2")

"""What an imperfect detector and an imperfect tracker make of a truth: seeded, for tests, benchmarks and tutorials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from opsin.track.tracks import NOBODY, Tracks

_SIZE = (640, 480)  # of frames, in pixels, where the truth does not say
_CONFIDENT, _CLUTTER_SCORE = (8.0, 2.0), (3.0, 4.0)  # parameters of the beta distributions of scores


@dataclass(frozen=True)
class Flaws:
    """How often what goes wrong.

    missed: the share of boxes that are not found. jitter: the standard deviation of each side of a box, as a share of
    its width or height. doubled: the share of found boxes that are found twice. clutter: false boxes in a frame, on
    average. switched: the share of boxes at which a track gets a new identity. swapped: the share of frames in which
    two tracks take each other's. hidden: boxes of which a smaller share than this is visible are never found.
    """

    missed: float = 0.1
    jitter: float = 0.04
    doubled: float = 0.02
    clutter: float = 0.5
    switched: float = 0.01
    swapped: float = 0.02
    hidden: float = 0.0


def degrade(truth: Tracks, flaws: Flaws = Flaws(), seed: int = 0) -> Tracks:
    """Tracks as an imperfect tracker would give them, the same for the same seed; what is ignored is found as well.

    Boxes stay those of the truth's classes; scores of found boxes are mostly above 0.6, those of clutter below. Doubles
    and clutter have identities of their own, clutter one for every box.
    """
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))  # the same with every NumPy
    truth = truth.select(truth.ids != NOBODY)
    found = random.random_sample(len(truth)) >= flaws.missed
    if truth.visibility is not None:
        found &= truth.visibility >= flaws.hidden
    ids = _identities(truth, flaws, random)
    sides = np.tile(truth.boxes[:, 2:] - truth.boxes[:, :2], 2)
    boxes = truth.boxes + random.normal(0, flaws.jitter, truth.boxes.shape) * sides
    twice = found & (random.random_sample(len(truth)) < flaws.doubled)
    again = truth.boxes[twice] + random.normal(0, flaws.jitter, (int(twice.sum()), 4)) * sides[twice]
    frames, clutter = _clutter(truth, flaws, random)
    first = int(ids.max(initial=0)) + 1
    parts = [
        (truth.frames[found], boxes[found], ids[found], truth.labels[found]),
        (truth.frames[twice], again, ids[twice] + first, truth.labels[twice]),
        (frames, clutter, np.arange(len(frames)) + 2 * first, random.randint(len(truth.classes), size=len(frames))),
    ]
    columns = [np.concatenate([part[k] for part in parts]) for k in range(4)]
    columns[1] = np.concatenate([columns[1][:, :2], np.maximum(columns[1][:, 2:], columns[1][:, :2] + 1)], axis=1)
    right = len(columns[0]) - len(frames)
    scores = np.concatenate([random.beta(*_CONFIDENT, right), random.beta(*_CLUTTER_SCORE, len(frames))])
    facts = {"classes": truth.classes, "fps": truth.fps, "size": truth.size, "name": truth.name}
    return Tracks.build(
        columns[0], columns[1], columns[2], scores, columns[3], num_frames=truth.num_frames, **facts
    )  # fmt: skip


def detect(truth: Tracks, flaws: Flaws = Flaws(), seed: int = 0) -> Tracks:
    """Detections as an imperfect detector would give them: those of `degrade`, without identities, by falling score."""
    made = degrade(truth, flaws, seed)
    order = np.lexsort((-made.scores, made.frames))
    made = made.select(order)
    facts = {"num_frames": made.num_frames, "fps": made.fps, "size": made.size, "name": made.name}
    return Tracks.build(made.frames, made.boxes, None, made.scores, made.labels, classes=made.classes, **facts)


def _identities(truth: Tracks, flaws: Flaws, random: np.random.RandomState) -> np.ndarray:
    """The identity that a tracker gives each box: new ones at switches, exchanged ones at swaps."""
    known, numbers = np.unique(truth.ids, return_inverse=True)
    current = np.arange(len(known))
    following = len(known)
    ids = np.empty(len(truth), np.int64)
    for frame in range(truth.num_frames):
        rows = truth.rows(frame)
        present = numbers[rows]
        for one in present[random.random_sample(len(present)) < flaws.switched].tolist():
            current[one], following = following, following + 1
        if len(present) > 1 and random.random_sample() < flaws.swapped:
            pair = random.choice(present, 2, replace=False)
            current[pair] = current[pair[::-1]]
        ids[rows] = current[present]
    return ids + 1


def _clutter(truth: Tracks, flaws: Flaws, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Frames and boxes of what is not there, of the sizes of what is."""
    counts = random.poisson(flaws.clutter, truth.num_frames)
    frames = np.repeat(np.arange(truth.num_frames), counts)
    if not len(truth):
        return frames[:0], np.empty((0, 4))
    sides = (truth.boxes[:, 2:] - truth.boxes[:, :2])[random.randint(len(truth), size=len(frames))]
    corners = random.random_sample((len(frames), 2)) * np.array(truth.size or _SIZE)
    return frames, np.concatenate([corners, corners + sides], axis=1)

"""What counts and what does not, as each benchmark has it: distractors, ignored objects and regions, small answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from opsin.errors import InputError, unknown
from opsin.track.pairs import EPSILON, Pairs, assign, find_pairs, share_inside
from opsin.track.tracks import NOBODY, Flags, Floats, Integers, Tracks

_NEAR = 0.5  # the IoU at which an answer is taken to be meant for a distractor
_INSIDE = 0.5  # the share of an answer above which it lies in a region that is not evaluated
_NONE: Mapping[str, tuple[str, ...]] = MappingProxyType({})
_DISTRACTORS = ("person_on_vehicle", "static_person", "distractor", "reflection")


@dataclass(frozen=True)
class Rules:
    """The rules of a benchmark.

    classes: those that are evaluated; all that the truth has, if None. distractors: of a class, those like it: an
    answer that is nearest to one is neither right nor wrong. against_all: answers are compared with objects of every
    class to find that out. classless: classes say nothing. takes_ignored: objects that the data marks as ignored are
    like distractors; if not, they are left out alone. min_height: answers of at most so many pixels that meet nothing
    are left out. same: other names of a class.
    """

    name: str
    classes: tuple[str, ...] | None = None
    distractors: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NONE)
    against_all: bool = False
    classless: bool = False
    takes_ignored: bool = True
    min_height: float | None = None
    same: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NONE)


_PEOPLE = {"pedestrian": ("person",)}
RULES: Mapping[str, Rules] = {
    rules.name: rules
    for rules in (
        Rules("plain"),
        Rules("any_class", ("object",), classless=True),
        Rules("mot15", ("pedestrian",), classless=True, takes_ignored=False),
        Rules(
            "mot17", ("pedestrian",), {"pedestrian": _DISTRACTORS}, against_all=True, takes_ignored=False, same=_PEOPLE
        ),
        Rules(
            "mot20",
            ("pedestrian",),
            {"pedestrian": (*_DISTRACTORS, "non_mot_vehicle")},
            against_all=True,
            takes_ignored=False,
            same=_PEOPLE,
        ),
        Rules("kitti", ("car", "pedestrian"), {"car": ("van",), "pedestrian": ("person",)}, min_height=25.0),
    )
}


def find_rules(name: str) -> Rules:
    """Rules by their name. Raises InputError for an unknown one."""
    if name not in RULES:
        raise unknown("protocol of tracks", name, RULES)
    return RULES[name]


@dataclass(frozen=True, eq=False)
class Compared:
    """One class of one sequence, ready to be evaluated. truth, tracks: the places of G objects and T answers there."""

    pairs: Pairs
    truth: Integers
    tracks: Integers


def compare(truth: Tracks, tracks: Tracks, name: str, rules: Rules) -> Compared:
    """What is to be evaluated of a class of a sequence: all that the rules leave of truth and answers.

    name: the class, in lower case. Classless answers, of which the class is `object`, are of each class.
    """
    own = _of_class(truth, name, rules)
    others = np.isin(truth.labels, [at for at, one in enumerate(truth.classes) if one.lower() in _others(name, rules)])
    regions = truth.ignored & (truth.ids == NOBODY)
    seen = (np.ones(len(truth), np.bool_) if rules.against_all else own | others) & (truth.ids != NOBODY)
    rows = np.flatnonzero(seen)
    answers = np.flatnonzero(_of_class(tracks, name, rules) & (tracks.ids != NOBODY))
    own_columns = truth.frames[rows], truth.ids[rows], truth.boxes[rows]
    columns = tracks.frames[answers], tracks.ids[answers], tracks.boxes[answers]
    pairs = find_pairs(own_columns, columns, max(truth.num_frames, tracks.num_frames))
    taking = others[rows] | (truth.ignored[rows] & rules.takes_ignored)
    dropped = _dropped(pairs, taking, (truth.frames[regions], truth.boxes[regions]), tracks, answers, rules)
    kept = own[rows] & ~truth.ignored[rows]
    return Compared(pairs.within(kept, ~dropped), rows[kept], answers[~dropped])


def _others(name: str, rules: Rules) -> tuple[str, ...]:
    return rules.distractors.get(name, ())


def _of_class(tracks: Tracks, name: str, rules: Rules) -> Flags:
    """(N,): the rows of a class, by its name or another that means the same."""
    if rules.classless or tracks.classes == ("object",):
        return np.ones(len(tracks), np.bool_)
    names = (name, *rules.same.get(name, ()))
    return np.isin(tracks.labels, [at for at, one in enumerate(tracks.classes) if one.lower() in names])


def _dropped(
    pairs: Pairs, taking: Flags, regions: tuple[Integers, Floats], tracks: Tracks, answers: Integers, rules: Rules
) -> Flags:
    """(T,): the answers that are left out."""
    dropped = np.zeros(len(answers), np.bool_)
    if not taking.any() and not len(regions[0]) and rules.min_height is None:
        return dropped
    near = pairs.where(pairs.similarity >= _NEAR - EPSILON)
    chosen = assign(near, near.similarity)
    dropped[near.track[chosen & taking[near.truth]]] = True
    free = np.ones(len(answers), np.bool_)
    free[near.track[chosen]] = False
    boxes = tracks.boxes[answers]
    if rules.min_height is not None:
        dropped |= free & (boxes[:, 3] - boxes[:, 1] <= rules.min_height + EPSILON)
    if len(regions[0]):
        dropped |= free & _inside(tracks.frames[answers], boxes, regions)
    return dropped


def _inside(frames: Integers, boxes: Floats, regions: tuple[Integers, Floats]) -> Flags:
    """(T,): the answers of which more than half lies in one region of their frame."""
    inside = np.zeros(len(frames), np.bool_)
    for frame in np.unique(regions[0]).tolist():
        first, last = np.searchsorted(frames, (frame, frame + 1))
        shares = share_inside(boxes[first:last], regions[1][regions[0] == frame])
        inside[first:last] = (shares > _INSIDE + EPSILON).any(axis=1)
    return inside


def evaluated_classes(truth: Tracks, rules: Rules) -> list[str]:
    """The classes, in lower case, of which a truth has objects that count by the rules."""
    labels = np.unique(truth.labels[~truth.ignored & (truth.ids != NOBODY)])
    if rules.classless:
        return list(rules.classes or ()) if len(labels) else []
    names = {truth.classes[label].lower() for label in labels.tolist() if label >= 0}
    if rules.classes is None:
        return sorted(names)
    return [name for name in rules.classes if names & {name, *rules.same.get(name, ())}]


def check_compared(truth: Tracks, tracks: Tracks) -> None:
    """Raise InputError for tracks that cannot be those of a truth: without identities, or of frames beyond its end."""
    if len(tracks) and not tracks.has_ids:
        raise InputError(
            f"{tracks.name}: these are detections, which have no identities; give the tracks that a tracker made of "
            "them"
        )
    if len(tracks) and tracks.frames[-1] >= truth.num_frames:
        raise InputError(
            f"{tracks.name} has tracks in frame {tracks.frames[-1]}, counted from 0, and the sequence has "
            f"{truth.num_frames} frames: it is another one, or its frames are counted from another number; see "
            "--first-frame"
        )

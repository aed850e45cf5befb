"""Whether tracks can be those of a truth: of the same sequences and length, and with the same first frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from opsin.errors import InputError, say
from opsin.track.pairs import find_pairs
from opsin.track.rules import check_compared
from opsin.track.tracks import NOBODY, Tracks

_LOOKED_AT = 300  # frames of a sequence in which a shift is looked for
_CLEARLY = 0.01  # of mean IoU, by which a shift has to fit better to be said
_ENDS_EARLY = 0.9  # of the truth's frames: tracks that end before are said


def match_sequences(
    truth: Mapping[str, Tracks], tracks: Mapping[str, Tracks], path: Path
) -> tuple[dict[str, Tracks], dict[str, Tracks]]:
    """Truth and tracks by the names of the truth's sequences; one sequence of each belong together in any case.

    A truth of which nobody said how long it is becomes as long as its tracks. Says which sequences are left out, which
    have no tracks, which tracks end early, and whether frames seem to be counted from another number. Raises InputError
    where no tracks belong to any sequence, and for what cannot be tracks of its truth.
    """
    if len(truth) == len(tracks) == 1:
        tracks = dict(zip(truth, tracks.values(), strict=True))
    missing, rest = [name for name in truth if name not in tracks], [name for name in tracks if name not in truth]
    if len(missing) == len(truth):
        raise InputError(
            f"{path} has tracks of {listed(rest)}, and the truth is of {listed(list(truth))}; name the files after "
            "the sequences"
        )
    if rest:
        say(f"tracks of sequences that the truth does not have are left out: {listed(rest)}")
    if missing:
        say(f"no tracks of {listed(missing)}: all that is there counts as missed")
    kept = {name: one for name, one in tracks.items() if name in truth}
    own = {name: _long_enough(one, kept.get(name)) for name, one in truth.items()}
    for name, one in kept.items():
        check_compared(own[name], one)
    for name, one in kept.items():
        _say_length(name, own[name], one)
    _say_shift(own, kept)
    return own, kept


def listed(names: Sequence[str]) -> str:
    """Names as a message shows them: five, and how many more."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def _long_enough(truth: Tracks, tracks: Tracks | None) -> Tracks:
    if tracks is None or not truth.open_ended or tracks.num_frames <= truth.num_frames:
        return truth
    say(
        f"nothing says how many frames {truth.name} has: its truth ends with frame {truth.num_frames - 1}, its tracks "
        f"with frame {tracks.num_frames - 1}, counted from 0, and what is after the truth's end is wrong"
    )
    return replace(truth, num_frames=tracks.num_frames)


def _say_length(name: str, truth: Tracks, tracks: Tracks) -> None:
    """Say where tracks are of another length, or end long before what they are to follow."""
    if not tracks.open_ended and not truth.open_ended and tracks.num_frames != truth.num_frames:
        say(f"{name}: the tracks are of {tracks.num_frames:,} frames, the truth of {truth.num_frames:,}")
    elif len(tracks) and len(truth) and tracks.frames[-1] < _ENDS_EARLY * truth.frames[-1]:
        say(
            f"{name}: the tracks end with frame {tracks.frames[-1]:,}, the truth with frame {truth.frames[-1]:,}, "
            "counted from 0: are they of all of it?"
        )


def _say_shift(truth: Mapping[str, Tracks], tracks: Mapping[str, Tracks]) -> None:
    """Say where tracks fit their truth clearly better one frame earlier or later."""
    fits = np.array([_fit(truth, tracks, shift) for shift in (-1, 0, 1)])
    best = int(fits.argmax()) - 1
    if best and fits[best + 1] > fits[1] + _CLEARLY:
        first = 0 if best > 0 else 1
        say(
            f"the tracks fit the truth better one frame {'later' if best > 0 else 'earlier'}: a mean IoU of "
            f"{fits[best + 1]:.3f} against {fits[1]:.3f}; if their file counts frames from {first}, say so with "
            f"--first-frame {first}"
        )


def _fit(truth: Mapping[str, Tracks], tracks: Mapping[str, Tracks], shift: int) -> float:
    """The mean over answers of the largest IoU with what is there, if tracks are moved by some frames."""
    overlaps, count = 0.0, 0
    for name, one in tracks.items():
        own = truth[name]
        first = int(own.frames[0]) if len(own) else 0
        rows = np.flatnonzero((own.ids != NOBODY) & (own.frames < first + _LOOKED_AT))
        frames = one.frames + shift
        answers = np.flatnonzero((frames >= max(first, 0)) & (frames < min(first + _LOOKED_AT, own.num_frames)))
        columns = frames[answers], one.ids[answers], one.boxes[answers]
        pairs = find_pairs((own.frames[rows], own.ids[rows], own.boxes[rows]), columns, own.num_frames)
        best = np.zeros(len(answers))
        np.maximum.at(best, pairs.track, pairs.similarity)
        overlaps, count = overlaps + float(best.sum()), count + len(answers)
    return overlaps / max(1, count)

"""Settings of a tracker that were found on given truth, in a file that knows which frames that was.

Figures on the sequences that settings were chosen on say nothing of others, so that these are refused there. A frame is
known by its boxes, rounded to pixels: whatever a sequence is called, in whatever format it is, and if only half of it
is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opsin.errors import InputError
from opsin.files import atomic, load_json, read_regular
from opsin.track.tracks import NOBODY, Tracks

FILE = "settings.json"
FORM = "opsin tracker settings"
_LETTERS = 12  # of a frame's digest: 48 bits
_SHARED = 0.05  # the share of a sequence's frames from which on it is one that was tuned on
_LARGEST = 1 << 28  # bytes of the file


@dataclass(frozen=True)
class TunedSettings:
    """Settings of a tracker, and what they were found on.

    tuned_on: by the names of sequences, the digests of their frames. metric: that was raised, from `before` with the
    tracker's own settings to `value`.
    """

    tracker: str
    settings: Mapping[str, Any]
    tuned_on: Mapping[str, tuple[str, ...]]
    metric: str
    before: float
    value: float
    trials: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        tuned_on = {name: list(digests) for name, digests in self.tuned_on.items()}
        figures = {"metric": self.metric, "before": self.before, "value": self.value, "trials": self.trials}
        chosen = {"format": FORM, "tracker": self.tracker, "settings": dict(self.settings)}
        return {**chosen, **figures, "tuned_on": tuned_on}

    def write(self, path: Path) -> None:
        """Write them as a file, which `--tracker` takes. Raises JobError where that cannot be."""
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")


def read_settings(path: str | Path) -> TunedSettings:
    """The settings of a file. Raises InputError for a file that has none."""
    try:
        values = load_json(read_regular(path, _LARGEST))
        if values["format"] != FORM:
            raise ValueError(f"its format is {values['format']!r}")
        tuned_on = {str(name): tuple(map(str, digests)) for name, digests in values["tuned_on"].items()}
        figures = float(values["before"]), float(values["value"]), int(values["trials"])
        settings = {str(key): value for key, value in values["settings"].items()}
        return TunedSettings(str(values["tracker"]), settings, tuned_on, str(values["metric"]), *figures)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no settings of a tracker, which `--tune` writes: {error}") from None


def digests_of(truth: Tracks) -> tuple[str, ...]:
    """A digest for each frame that has objects, whatever its number and theirs."""
    rows = np.flatnonzero((truth.ids != NOBODY) & ~truth.ignored)
    boxes = np.round(truth.boxes[rows]).astype(np.int64)
    frames = truth.frames[rows]
    order = np.lexsort((*boxes.T[::-1], frames))
    boxes, frames = boxes[order], frames[order]
    parts = np.split(boxes, np.flatnonzero(np.diff(frames)) + 1) if len(boxes) else []
    return tuple(hashlib.sha256(np.ascontiguousarray(one).tobytes()).hexdigest()[:_LETTERS] for one in parts)


def refuse_tuned(tuned_on: Mapping[str, Iterable[str]], truth: Mapping[str, Tracks], tracker: str) -> None:
    """Raise InputError for a truth that a tracker's settings were found on. tuned_on: as of `TunedSettings`."""
    known = {name: frozenset(digests) for name, digests in tuned_on.items()}
    for name, own in truth.items() if known else ():
        digests = digests_of(own)
        for other, seen in known.items():
            shared = sum(one in seen for one in digests)
            if shared > _SHARED * len(digests):
                called = "" if other == name else f", there {other}"
                raise InputError(
                    f"the settings of {tracker} were tuned on {name}{called}: {shared:,} of its {len(digests):,} "
                    "frames are among those, and figures on them say nothing of other videos; evaluate on another "
                    "sequence"
                )

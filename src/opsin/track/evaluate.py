"""The evaluation of tracks: every metric of every class and sequence, and of all together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from opsin.track.clear import Clear, combine_clear, count_clear
from opsin.track.hota import Hota, combine_hota, count_hota
from opsin.track.identity import Identity, combine_identity, count_identity
from opsin.track.pairs import Pairs
from opsin.track.rules import Rules, check_compared, compare, evaluated_classes
from opsin.track.tracks import Tracks


@dataclass(frozen=True)
class Counts:
    """What all metrics are computed from, of one class of a sequence or of several."""

    clear: Clear = field(default_factory=Clear)
    identity: Identity = field(default_factory=Identity)
    hota: Hota = field(default_factory=Hota)
    boxes: int = 0
    tracks: int = 0
    objects: int = 0

    @classmethod
    def of(cls, pairs: Pairs, threshold: float = 0.5) -> Counts:
        """Those of a sequence. threshold: the least IoU of a match, for CLEAR and identity; HOTA has all of its own."""
        return cls(
            count_clear(pairs, threshold),
            count_identity(pairs, threshold),
            count_hota(pairs),
            len(pairs.track_ids),
            pairs.num_track_ids,
            pairs.num_truth_ids,
        )

    def figures(self) -> dict[str, float]:
        """Every metric by its name; those that are undefined are absent: without objects, or without a match."""
        found = {**self.hota.figures(), **self.clear.figures(), **self.identity.figures()}
        absent = set[str]()
        if not self.clear.matches + self.clear.misses:
            absent |= {"mota", "moda", "smota", "mota_log", "recall", "idr", "detre"}
            absent |= {"mostly_tracked_share", "partly_tracked_share", "mostly_lost_share", "false_positives_per_frame"}
        if not self.clear.matches + self.clear.false_positives:
            absent |= {"precision", "idp", "detpr"}
        if not self.clear.matches:
            absent |= {"motp", "motp_distance"}
        return {name: value for name, value in found.items() if name not in absent}


def combine(parts: Iterable[Counts]) -> Counts:
    """Several classes or sequences as one: every box counts alike."""
    each = list(parts)
    return Counts(
        combine_clear(one.clear for one in each),
        combine_identity(one.identity for one in each),
        combine_hota(one.hota for one in each),
        *(sum(getattr(one, name) for one in each) for name in ("boxes", "tracks", "objects")),
    )


@dataclass(frozen=True)
class Evaluation:
    """What was found. counts: by (sequence, class), in the order of both. rules: by which."""

    counts: Mapping[tuple[str, str], Counts]
    rules: str

    @property
    def classes(self) -> list[str]:
        """Those that were evaluated."""
        return list(dict.fromkeys(name for _, name in self.counts))

    @property
    def sequences(self) -> list[str]:
        """Those that were evaluated."""
        return list(dict.fromkeys(name for name, _ in self.counts))

    def of_class(self, name: str) -> Counts:
        """A class in all sequences."""
        return combine(counts for (_, one), counts in self.counts.items() if one == name)

    def of_sequence(self, name: str) -> Counts:
        """A sequence, with all its classes."""
        return combine(counts for (one, _), counts in self.counts.items() if one == name)

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric of all sequences as one. Of several classes shares are the mean of theirs, counts the sum."""
        each = [self.of_class(name).figures() for name in self.classes]
        names = reduce(lambda known, one: known | dict.fromkeys(one), each, dict[str, None]())
        found: dict[str, float] = {}
        for name in names:
            values = [one[name] for one in each if name in one]
            found[name] = sum(values) if isinstance(values[0], int) else float(np.mean(values))
        return found


def evaluate(
    truth: Mapping[str, Tracks],
    tracks: Mapping[str, Tracks],
    rules: Rules,
    *,
    classes: Sequence[str] | None = None,
    threshold: float = 0.5,
) -> Evaluation:
    """Evaluate the tracks of sequences, by their names. A sequence without any is one in which nothing was found.

    classes: those to evaluate, in lower case; all that the rules name and the truth has, if None. threshold: see
    `Counts.of`. Raises InputError for tracks that cannot be those of the truth.
    """
    found: dict[tuple[str, str], Counts] = {}
    known = [evaluated_classes(one, rules) for one in truth.values()]
    wanted = list(classes) if classes is not None else list(dict.fromkeys(name for each in known for name in each))
    for sequence, own in truth.items():
        answers = tracks.get(sequence, Tracks.build([], [], num_frames=own.num_frames, name=sequence))
        check_compared(own, answers)
        for name in wanted:
            found[sequence, name] = Counts.of(compare(own, answers, name, rules).pairs, threshold)
    return Evaluation(found, rules.name)

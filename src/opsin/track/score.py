"""Evaluation of tracks of whatever tool against the truth, in any two formats; no model is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data import Source
from opsin.engine.evaluator import Result
from opsin.errors import InputError, say, unknown
from opsin.track import mot_challenge
from opsin.track.evaluate import Evaluation, evaluate
from opsin.track.reading import Asked, read_sequences
from opsin.track.rules import Rules, evaluated_classes, find_rules
from opsin.track.tracks import Tracks

_SHOWN = ("hota", "deta", "assa", "mota", "idf1", "switches", "fragments", "false_positives", "misses")


def score(
    path: Path,
    source: Source,
    split: str,
    *,
    protocol: str | None = None,
    iou: float | None = None,
    of_class: Sequence[str] | None = None,
    first_frame: int | None = None,
) -> Result:
    """What the tracks of a file or a folder are worth against a source. Sequences are found by their names.

    One sequence of tracks and one of truth belong together whatever they are called. protocol: a name of
    `opsin.track.rules.RULES`; that of the truth's format if None. iou, of_class, first_frame: the options of `eval`.
    Raises InputError for tracks that cannot be those of the truth.
    """
    kind = source.splits[split].kind
    truth = {one.name: one for one in kind.sequences}
    tracks = read_sequences(path, Asked(first=first_frame, images=kind.images))
    tracks = match_sequences(truth, tracks, path)
    rules = find_rules(protocol) if protocol else choose_rules(list(truth.values()))
    wanted = _wanted_classes(of_class, truth, rules)
    _check_classes(path, tracks, truth, rules, wanted)
    found = evaluate(truth, tracks, rules, classes=wanted, threshold=0.5 if iou is None else iou)
    if not found.counts or not any(counts.objects for counts in found.counts.values()):
        raise InputError(f"{source.name} has no object that counts by the rules of {rules.name}: see --protocol")
    boxes = sum(counts.boxes for counts in found.counts.values())
    said = (
        f"; {boxes:,} boxes of {sum(counts.tracks for counts in found.counts.values()):,} tracks, rules of {rules.name}"
    )
    return Result(found.metrics, _details(found), found, data=said)


def match_sequences(truth: Mapping[str, Tracks], tracks: Mapping[str, Tracks], path: Path) -> dict[str, Tracks]:
    """The tracks by the names of the truth's sequences. Raises InputError where none belongs to any.

    Says which are left out, which have no tracks, and where a sequence is longer than its truth is known to be.
    """
    if len(truth) == len(tracks) == 1:
        tracks = dict(zip(truth, tracks.values(), strict=True))
    missing, rest = [name for name in truth if name not in tracks], [name for name in tracks if name not in truth]
    if len(missing) == len(truth):
        raise InputError(
            f"{path} has tracks of {_listed(rest)}, and the truth is of {_listed(list(truth))}; name the files after "
            "the sequences"
        )
    if rest:
        say(f"tracks of sequences that the truth does not have are left out: {_listed(rest)}")
    if missing:
        say(f"no tracks of {_listed(missing)}: all that is there counts as missed")
    return {name: one for name, one in tracks.items() if name in truth}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def choose_rules(truth: Sequence[Tracks]) -> Rules:
    """The rules of the benchmark that a truth is of, by its format."""
    classes = {one.classes for one in truth}
    if any("truncation" in one.others for one in truth):
        return find_rules("kitti")
    if classes == {mot_challenge.CLASSES}:
        return find_rules("mot20" if all(one.name.startswith("MOT20") for one in truth) else "mot17")
    return find_rules("mot15" if classes == {("pedestrian",)} else "plain")


def _wanted_classes(of_class: Sequence[str] | None, truth: Mapping[str, Tracks], rules: Rules) -> list[str] | None:
    if of_class is None:
        return None
    known = {name for one in truth.values() for name in evaluated_classes(one, rules)}
    for name in of_class:
        if name.lower() not in known:
            raise unknown("class of the truth", name, known)
    return [name.lower() for name in of_class]


def _check_classes(
    path: Path, tracks: Mapping[str, Tracks], truth: Mapping[str, Tracks], rules: Rules, wanted: Sequence[str] | None
) -> None:
    """Raise InputError for tracks without classes where the truth has several, and for tracks of other classes."""
    known = list(dict.fromkeys(name for one in truth.values() for name in evaluated_classes(one, rules)))
    asked = known if wanted is None else list(wanted)
    given = {name.lower() for one in tracks.values() for name in np.array(one.classes)[np.unique(one.labels)].tolist()}
    if "object" in given and len(asked) > 1:
        raise InputError(
            f"{path} does not say of which class its tracks are, and the truth has {_listed(asked)}; say it with "
            "--of-class"
        )
    same = {other for name in asked for other in rules.same.get(name, ())}
    if given and not rules.classless and not given & {*asked, *same, "object"}:
        raise InputError(f"{path} has tracks of {_listed(sorted(given))}, and the truth is of {_listed(asked)}")


def _details(found: Evaluation) -> dict[str, Any]:
    """The tables of sequences and of classes, and the curves of HOTA."""
    sequences = [_row("sequence", name, found.of_sequence(name).figures()) for name in found.sequences]
    classes = [_row("class", name, found.of_class(name).figures()) for name in found.classes]
    curves = {name: found.of_class(name).hota.curves() for name in found.classes}
    return {
        "protocol": found.rules,
        "per_class": classes,
        "per_sequence": sequences,
        "curves": {name: {key: curve.tolist() for key, curve in each.items()} for name, each in curves.items()},
    }


def _row(kind: str, name: str, figures: Mapping[str, float]) -> dict[str, Any]:
    return {kind: name, **{key: figures.get(key) for key in _SHOWN}}

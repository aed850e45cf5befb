"""Evaluation of tracks of whatever tool against the truth, in any two formats; no model is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data import Source
from opsin.engine.evaluator import Result
from opsin.errors import InputError, unknown
from opsin.track import mot_challenge, result_files
from opsin.track.agreement import listed, match_sequences
from opsin.track.evaluate import Evaluation, evaluate
from opsin.track.ladder import ladder as climb
from opsin.track.reading import read_sequences
from opsin.track.rules import Rules, evaluated_classes, find_rules
from opsin.track.track_files import Asked
from opsin.track.tracks import Tracks
from opsin.track.tuned_settings import refuse_tuned

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
    ladder: bool = False,
) -> Result:
    """What the tracks of a file or a folder are worth against a source. Sequences are found by their names.

    One sequence of tracks and one of truth belong together whatever they are called. protocol: a name of
    `opsin.track.rules.RULES`; that of the truth's format if None. iou, of_class, first_frame, ladder: the options of
    `eval`. Raises InputError for tracks that cannot be those of the truth.
    """
    kind = source.splits[split].kind
    truth = {one.name: one for one in kind.sequences}
    tracks = read_sequences(path, Asked(first=first_frame, images=kind.images))
    truth, tracks = match_sequences(truth, tracks, path)
    made = result_files.read_facts(path)
    refuse_tuned(made.get("tuned_on", {}), {name: truth[name] for name in tracks}, str(made.get("tracker")))
    threshold = 0.5 if iou is None else iou
    rules = find_rules(protocol) if protocol else choose_rules(list(truth.values()))
    wanted = _wanted_classes(of_class, truth, rules)
    _check_classes(path, tracks, truth, rules, wanted)
    found = evaluate(truth, tracks, rules, classes=wanted, threshold=threshold)
    if not found.counts or not any(counts.objects for counts in found.counts.values()):
        raise InputError(f"{source.name} has no object that counts by the rules of {rules.name}: see --protocol")
    boxes = sum(counts.boxes for counts in found.counts.values())
    said = (
        f"; {boxes:,} boxes of {sum(counts.tracks for counts in found.counts.values()):,} tracks, rules of {rules.name}"
    )
    details = _details(found)
    if ladder:
        details["ladder"] = _rungs(truth, tracks, found, rules, threshold)
    return Result(found.metrics, details, found, data=said)


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
            f"{path} does not say of which class its tracks are, and the truth has {listed(asked)}; say it with "
            "--of-class"
        )
    same = {other for name in asked for other in rules.same.get(name, ())}
    if given and not rules.classless and not given & {*asked, *same, "object"}:
        raise InputError(f"{path} has tracks of {listed(sorted(given))}, and the truth is of {listed(asked)}")


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


def _rungs(
    truth: Mapping[str, Tracks], tracks: Mapping[str, Tracks], found: Evaluation, rules: Rules, threshold: float
) -> list[dict[str, Any]]:
    """A row for each rung and class."""
    several, rows = len(found.classes) > 1, []
    for name in found.classes:
        for rung, counts in climb(truth, tracks, name, rules, threshold).items():
            rows.append(_row("with", f"{rung}, {name}" if several else rung, counts.figures()))
    return rows


def _row(kind: str, name: str, figures: Mapping[str, float]) -> dict[str, Any]:
    return {kind: name, **{key: figures.get(key) for key in _SHOWN}}

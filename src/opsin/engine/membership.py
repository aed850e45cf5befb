"""The splits of a training: made once, kept with its checkpoints and its model, and restored from there.

So a resumed run, an evaluation and everything else that looks at a run's own data have the splits that it was trained
with, and say what has changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from opsin.data import Source, Split, stratified
from opsin.data.digests import UNKNOWN
from opsin.data.hash_division import place_new
from opsin.data.members import Members, members_of, restore
from opsin.data.splits import cut_split, divide_source, fractions_of, ordered
from opsin.engine.recipe import DataSection, Recipe
from opsin.errors import InputError

Say = Callable[[str], None]

_restored: ContextVar[Members | None] = ContextVar("restored", default=None)
_ACCEPT = (
    "restore the data, or go on all the same with --set data.changes=accept: removed ones leave, edited ones stay in "
    "their split, added ones go"
)


@dataclass
class Division:
    """How a training's data was divided. lines: what is to be said of it. members: None where nothing was looked at."""

    lines: list[str] = field(default_factory=list)
    members: Members | None = None


@contextmanager
def restoring(members: Members | None) -> Iterator[None]:
    """Divide the data of a resumed run, while this lasts, as its members say; None divides anew."""
    token = _restored.set(members)
    try:
        yield
    finally:
        _restored.reset(token)


def divide_for_training(recipe: Recipe, source: Source) -> dict[str, Split]:
    """The splits that a recipe makes of a source, or those of the run under way; notes in the source how.

    Raises InputError where the data is not what the run was begun with, unless the recipe accepts that.
    """
    section, lines, saved = recipe.data, list[str](), _restored.get()
    fractions = fractions_of(section.val_fraction, section.test_fraction)
    if saved is None:
        splits, lines = divide_source(source, fractions, section.split_seed, section.split)
        if section.split == "hash" and cut_split(source)[1]:
            lines.insert(0, "divided by a hash of each name: another file moves no other (data.split)")
    else:
        splits, lines = _restore(section, source, saved, fractions)
    limited = {} if section.limit is None else {name: _spread(one, section.limit) for name, one in splits.items()}
    members = None
    if any(split.digests is not None for split in splits.values()):
        members = members_of(source, splits, limited)
        if saved is not None:
            members = replace(members, earlier=np.setdiff1d(saved.trained(), members.trained()))
        lines += _crossing(splits)
    source.division = Division(lines, members)
    return {name: one.subset(limited[name]) if name in limited else one for name, one in splits.items()}


def divide_as_trained(recipe: Recipe, source: Source, packed: bytes | None, say: Say) -> dict[str, Split]:
    """The splits of a run's own data as it was trained with them, less what is gone; `say` is told what has changed.

    packed: its members as its model has them; None of earlier runs, whose recipe divides the source once more. What is
    new to data that was cut is in no split.
    """
    if packed is None:
        return divide_for_training(recipe, source)
    parts, _, changes = restore(source, Members.unpack(packed))
    if changes:
        say(f"{source.name} has changed since the training: {changes.describe()}")
    if not parts:
        return divide_for_training(recipe, source)
    splits = _cut(source, parts)
    if (limit := recipe.data.limit) is not None:
        splits = {name: one.subset(_spread(one, limit)) for name, one in splits.items()}
    return splits


def _restore(
    section: DataSection, source: Source, saved: Members, fractions: Mapping[str, float]
) -> tuple[dict[str, Split], list[str]]:
    parts, new, changes = restore(source, saved)
    if changes and section.changes != "accept":
        where = "where the hash of their name says" if section.split == "hash" else "to train"
        raise InputError(f"{source.name} has changed since the run was begun: {changes.describe()}; {_ACCEPT} {where}")
    lines = [f"{source.name} has changed since the run was begun, which is accepted: {changes.describe()}"]
    if not parts:
        splits, more = divide_source(source, fractions, section.split_seed, section.split)
        return splits, [*(lines if changes else []), *more]
    key, cut = cut_split(source)
    if len(new):
        place = np.zeros(len(new), np.int64)
        if section.split == "hash":
            known = np.full(len(source.splits[key]), -1)
            for number, name in enumerate(("train", *cut)):
                known[parts.get(name, np.arange(0))] = number
            place = place_new(source, source.splits[key], {n: fractions[n] for n in cut}, section.split_seed, known)
        for number, name in enumerate(("train", *cut)):
            parts[name] = np.sort(np.concatenate([parts.get(name, np.arange(0)), new[place == number]]))
    if not len(parts.get("train", ())):
        raise InputError(f"{source.name} holds none of the images any more that the run was trained on")
    return _cut(source, parts), lines if changes else []


def _cut(source: Source, parts: Mapping[str, np.ndarray]) -> dict[str, Split]:
    key, _ = cut_split(source)
    whole = source.splits[key]
    return ordered({**source.splits, **{name: whole.subset(part) for name, part in parts.items() if len(part)}})


def _spread(split: Split, limit: int) -> np.ndarray:
    """Places of at most `limit` examples, of the classes in proportion where the truth has some."""
    strata = None if split.truth is None else split.truth.strata()
    return stratified(np.zeros(len(split), np.int64) if strata is None else strata, limit)


def _crossing(splits: Mapping[str, Split]) -> list[str]:
    """A line where images are in train and in another split too."""
    pixels = {name: split.digests[:, 1] for name, split in splits.items() if split.digests is not None}
    train = pixels.pop("train", np.zeros(0, np.uint64))
    train = train[train != UNKNOWN]
    counts = {name: int(np.isin(own, train).sum()) for name, own in pixels.items()}
    shown = " and ".join(f"{count:,} of {len(pixels[name]):,} in {name}" for name, count in counts.items() if count)
    inputs = next(iter(splits.values())).inputs
    noun, equal = inputs.noun, "the same pixel for pixel" if inputs.key == "image" else "exactly the same"
    return [f"{noun}s that are in train too, {equal}: {shown} (see opsin data)"] if shown else []


def describe_known(packed: bytes | None, pixels: Any, noun: str) -> str | None:
    """That some of what is evaluated was trained on, in words; None where none was, or nobody knows.

    packed: the members of the run. pixels: (N,) digests of what is evaluated, as `opsin.data.digests.of_value` has it.
    """
    if packed is None or not len(pixels):
        return None
    count = int(np.isin(np.asarray(pixels, np.uint64), Members.unpack(packed).trained()).sum())
    return f"{count:,} of {len(pixels):,} {noun}s are among those it was trained on" if count else None

"""The domains of an adaptation, opened and divided. No label of the target goes further than this file unasked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from opsin import data, image_files
from opsin.adapt.domains import TARGET, UNKNOWN, Domains, join
from opsin.adapt.recipe import AdaptSection
from opsin.data import Source, Split
from opsin.data.class_names import translate
from opsin.data.hash_division import by_hash, group, hash_of
from opsin.data.inputs import ImageFiles
from opsin.data.source import examine, listed
from opsin.data.splits import cut_split, divide_source, fractions_of, ordered
from opsin.engine.membership import divide_for_training
from opsin.engine.recipe import Recipe, own_section
from opsin.engine.recipe_data import Say, open_readable
from opsin.errors import InputError, printable

_LEAST = 2  # images of a domain's part, below which nothing is learned from it


def open_domains(recipe: Recipe, say: Say) -> Domains:
    """The sources and the target of a recipe: the splits "train" and "val" of all of them, "test" of the first source.

    In train and val the target's images have no label, but those that `adapt.target_labels` asks for. The target is
    divided by the names of its images alone: a division that kept classes in proportion would know them.
    Raises InputError for sources whose classes differ, for several classes an image, and for a target without images.
    """
    section: AdaptSection = own_section(recipe)
    first = open_readable(recipe, say)
    data.check_trainable(first, recipe.data.val_fraction, recipe.data.test_fraction)
    if first.multi_label:
        raise InputError(f"{first.name} has several classes an image, and adaptation takes one; give other data")
    classes, parts = list(first.classes), [divide_for_training(recipe, first)]
    names = [first.name]
    for place in section.sources:
        opened = open_readable(recipe, say, place)
        parts.append(_divide_source(recipe, opened, classes))
        names.append(opened.name)
    if len({recipe.data.source, *section.sources}) < len(names):
        raise InputError(f"a source is named twice: {listed([recipe.data.source, *section.sources])}; name each once")
    train = [(one["train"], one["train"].kind.presence, k) for k, one in enumerate(parts)]
    val = [(one["val"], one["val"].kind.presence, k) for k, one in enumerate(parts) if "val" in one]
    found = Domains(first.name, first.format, {}, first.skipped, first.problems, first.task, first.root, first.division)
    found.names = names
    if section.target is not None:
        _add_target(recipe, open_target(recipe, section.target, say), classes, found, train, val)
    found.bridges = [divide_target(recipe, open_target(recipe, one, say))["train"] for one in section.bridges]
    splits = {"train": join(train, classes)} | ({"val": join(val, classes)} if val else {})
    if "test" in parts[0]:
        splits["test"] = join([(parts[0]["test"], parts[0]["test"].kind.presence, 0)], classes)
    return replace(found, splits=splits)


def open_target(recipe: Recipe, place: str, say: Say) -> Source:
    """A domain whose labels need not be there: class folders and the like, or images that lie in a folder as they are.

    Its splits have a truth where it has labels.
    """
    folder = Path(place).expanduser()
    loose = image_files.list_folder(folder) if folder.is_dir() else ([], [])
    images = sorted(str(folder / one) for one in loose[0] if Path(one).suffix.lower() in image_files.IMAGE_SUFFIXES)
    if not images or loose[1]:
        if folder.is_dir() and not any(folder.iterdir()):
            raise InputError(f"{place} holds no images; give a folder of images of the target domain")
        opened = open_readable(recipe, say, place)
        if opened.multi_label:
            raise InputError(f"{opened.name} has several classes an image, and adaptation takes one; give other data")
        return opened
    opened, problems = examine(Source(folder.name, "images of a folder", {"all": Split(ImageFiles(images))}))
    bad = [one for one in problems if one.kind == "unreadable"]
    if bad and not recipe.data.skip_bad:
        shown = "; ".join(f"{one.path}: {one.reason}" for one in bad[:5])
        raise InputError(f"{len(bad)} unreadable files in {place}: {shown}; remove them or pass --skip-bad")
    opened.root = str(folder)
    return opened.without(bad) if bad else opened


def divide_target(recipe: Recipe, opened: Source) -> dict[str, Split]:
    """The splits of a domain, without any truth: its own, or by a hash of each file's name, the lowest to test and val.

    Where an image lies in the folder of its class, its path says the class: order and division look at the last part
    of the path alone, and where that is not unique, at the file's bytes.
    """
    section = recipe.data
    fractions = fractions_of(section.val_fraction, section.test_fraction)
    blind = {key: _in_blind_order(split) for key, split in opened.splits.items()}
    key, cut = cut_split(opened.with_splits(blind))
    if cut:
        whole, shares = blind.pop(key), {name: fractions[name] for name in cut if fractions[name] > 0}
        groups = group(blind_names(whole), whole, section.split_seed)
        part = by_hash(groups, shares)
        for number in range(1, len(shares) + 1):  # of few images a part may have none: it gets the lowest hash left
            if len(part) > len(shares) and not (part == number).any():
                part[np.where(part == 0, groups.place, np.inf).argmin()] = number
        for number, name in enumerate(("train", *shares)):
            blind[name] = whole.subset(np.flatnonzero(part[groups.number] == number))
    return _limited(recipe, ordered({name: split for name, split in blind.items() if len(split)}))


def blind_names(split: Split) -> list[str]:
    """A name of each example that says nothing of its class: of a file the last part of its path, and its content."""
    names = [split.name(i) for i in range(len(split))]
    if not split.inputs.stored:
        return names
    content = [0] * len(split) if split.digests is None else split.digests[:, 0].tolist()
    return [f"{PurePath(name).name}#{number:x}" for name, number in zip(names, content, strict=True)]


def _in_blind_order(split: Split) -> Split:
    """A split without its truth, its examples in the order of `blind_names`."""
    names = blind_names(split)
    order = sorted(range(len(split)), key=names.__getitem__) if split.inputs.stored else range(len(split))
    return split.with_truth(None).subset(list(order))


def labels_in(opened: Source, splits: dict[str, Split], classes: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Of each split of a target its labels in a model's classes, (N,) int64, -1 of others; None where it has none.

    splits: as `divide_target` made them, whose images are found again by their names.
    """
    if any(split.truth is None for split in opened.splits.values()):
        return None
    own = translate(list(opened.classes), list(classes))
    number = np.array([classes.index(name) if name in classes else UNKNOWN for name in own] or [UNKNOWN], np.int64)
    found = {}
    for key, split in splits.items():
        whole = next(opened.splits[name] for name in (key, "train", "all") if name in opened.splits)
        labels = whole.kind.presence
        mapped = np.where(labels < 0, UNKNOWN, number[labels])
        known = {whole.name(i): int(label) for i, label in enumerate(mapped)}
        found[key] = np.array([known[split.name(i)] for i in range(len(split))], np.int64)
    return found


def describe_label_sets(source: Source, target: Source) -> list[str]:
    """The classes that one domain has and the other lacks, in words; none where they are the same or not known."""
    if any(split.truth is None for split in target.splits.values()):
        return []
    own, other = list(source.classes), translate(list(target.classes), list(source.classes))
    new, lacking = [c for c in other if c not in own], [c for c in own if c not in other]
    lines = []
    if new:
        lines.append(
            f"classes of {target.name} that {source.name} lacks, which no method here can learn: {listed(new)}"
        )
    if lacking:
        lines.append(
            f"classes of {source.name} that {target.name} lacks, onto which aligning may pull its images: "
            f"{listed(lacking)}"
        )
    return [printable(line) for line in lines]


def _divide_source(recipe: Recipe, opened: Source, classes: Sequence[str]) -> dict[str, Split]:
    """The splits of a further source, in the classes of the first."""
    section = recipe.data
    data.check_trainable(opened, section.val_fraction, section.test_fraction)
    own = translate(list(opened.classes), list(classes))
    if set(own) != set(classes):
        odd = sorted(set(own) ^ set(classes))
        raise InputError(
            f"{opened.name} and {recipe.data.source} are to teach the same classes and differ in {listed(odd)}; "
            "rename the folders, or leave one of the domains out"
        )
    fractions = fractions_of(section.val_fraction, section.test_fraction)
    splits, _ = divide_source(opened, fractions, section.split_seed, section.split)
    found = {key: one.with_truth(one.kind.match({"classes": list(classes)})) for key, one in splits.items()}
    return _limited(recipe, found)


def _limited(recipe: Recipe, splits: dict[str, Split]) -> dict[str, Split]:
    """At most `data.limit` examples of each split, evenly spaced."""
    limit = recipe.data.limit
    if limit is None:
        return splits
    return {
        key: one.subset(np.linspace(0, len(one) - 1, limit).round().astype(np.int64)) if len(one) > limit else one
        for key, one in splits.items()
    }


def _add_target(
    recipe: Recipe,
    opened: Source,
    classes: list[str],
    found: Domains,
    train: list[Any],
    val: list[Any],
) -> None:
    """Put the target's images into the parts of train and val, and what is known of its test images aside."""
    section: AdaptSection = own_section(recipe)
    splits = divide_target(recipe, opened)
    labels = labels_in(opened, splits, classes)
    first = Source(found.name, "", {"all": train[0][0]})
    found.target, found.notes = opened.name, describe_label_sets(first, opened)
    for key, parts in (("train", train), ("val", val)):
        if key not in splits:
            continue
        blind = np.full(len(splits[key]), UNKNOWN, np.int64)
        if key == "train" and section.target_labels != 0:
            if labels is None:
                raise InputError(
                    f"adapt.target_labels={section.target_labels} needs labels, and {opened.name} has none; "
                    "put some of its images into class folders, or set it to 0"
                )
            blind = _some(labels[key], blind_names(splits[key]), section.target_labels, recipe.data.split_seed)
        parts.append((splits[key], blind, TARGET))
    if len(train[-1][0]) < _LEAST:
        raise InputError(f"{opened.name} has {len(train[-1][0])} images to adapt to; give more of the target domain")
    key = "test" if "test" in splits else "val"
    if labels is not None and key in splits and (known := np.flatnonzero(labels[key] >= 0)).size:
        found.oracle = join([(splits[key].subset(known), labels[key][known], TARGET)], classes)


def _some(labels: np.ndarray, names: Sequence[str], count: int | str, seed: int) -> np.ndarray:
    """The labels of `count` images of each class, those with the lowest hashes of their names; -1 for all others."""
    if count == "all":
        return labels
    place = np.array([hash_of(name, seed) for name in names])
    kept = np.full_like(labels, UNKNOWN)
    for label in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == label)
        chosen = members[np.argsort(place[members])[: int(count)]]
        kept[chosen] = label
    return kept

"""Which examples a training's splits hold, with digests of them: kept with its checkpoints and its model.

So a division is restored instead of made anew, what has changed since is known, and so is what was trained on.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from opsin.data import digests
from opsin.data.images import UnreadableImage
from opsin.data.names import names_within
from opsin.data.source import FULL, Source, Split
from opsin.data.splits import cut_split
from opsin.errors import InputError

NAMED = 200_000  # members up to which their names are kept; of more, digests of the names
_LARGEST = 1 << 31  # bytes of members once unpacked
_COLUMNS = 5  # a name's digest, its file's bytes, its pixels, length and time, its truth


@dataclass(frozen=True, eq=False)
class Members:
    """The examples of the splits of a training.

    marks: of each split (N, 5) uint64: digests of each example's name, of its file's bytes, of its pixels, of the
    file's length and time, and of its truth; 0 for what is not known. names: of each split, none where there are too
    many. cut: the split of the source that others were cut from, "" for none. meaning: a digest of what the truth
    means. lengths: whether files are known by their lengths alone. unused: of a split the places that a limit left out.
    earlier: digests of pixels that were trained on before they left.
    """

    marks: dict[str, np.ndarray]
    names: dict[str, list[str]]
    cut: str
    meaning: int
    lengths: bool = False
    unused: dict[str, np.ndarray] = field(default_factory=dict)
    earlier: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))

    def __len__(self) -> int:
        return sum(map(len, self.marks.values()))

    def trained(self) -> np.ndarray:
        """(N,) uint64: digests of the pixels that were trained on, of those that are known."""
        rows = self.marks.get("train", np.zeros((0, _COLUMNS), np.uint64))
        kept = np.ones(len(rows), bool)
        kept[self.unused.get("train", np.arange(0))] = False
        pixels = rows[kept, 2]
        return np.union1d(pixels[pixels != digests.UNKNOWN], self.earlier)

    def nameless(self) -> Members:
        """The same without names, for those whom they do not concern."""
        return replace(self, names={})

    def pack(self) -> bytes:
        """Compressed, as `unpack` reads it."""
        about = {"names": self.names, "cut": self.cut, "meaning": self.meaning, "lengths": self.lengths}
        arrays = {f"marks.{key}": rows for key, rows in self.marks.items()}
        arrays |= {f"unused.{key}": places for key, places in self.unused.items()}
        arrays["earlier"] = self.earlier
        content = io.BytesIO()
        np.savez(content, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        return zlib.compress(content.getvalue(), 1)

    @classmethod
    def unpack(cls, packed: bytes) -> Members:
        """Of what `pack` gave. Raises InputError for anything else."""
        try:
            reader = zlib.decompressobj()
            content = reader.decompress(packed, _LARGEST)
            if not reader.eof:
                raise ValueError("it is cut off, or too large")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            about = json.loads(found.pop("about").tobytes())
            earlier = found.pop("earlier")
            marks, unused = ({k[len(n) :]: v for k, v in found.items() if k.startswith(n)} for n in _PARTS)
            if any(rows.shape[1:] != (_COLUMNS,) or rows.dtype != np.uint64 for rows in marks.values()):
                raise ValueError("its digests have another form")
            names = {str(key): [str(name) for name in names] for key, names in about["names"].items()}
            return cls(marks, names, str(about["cut"]), int(about["meaning"]), bool(about["lengths"]), unused, earlier)
        except Exception as error:  # whatever a damaged file makes zlib, NumPy and JSON raise
            raise InputError(f"the list of the splits' members is damaged: {' '.join(str(error).split())}") from None


_PARTS = ("marks.", "unused.")


@dataclass
class Changes:
    """What a source has that the members of a training had not, by split. examined: split -> (before, now), indices.

    added, removed, edited: names by split; of what is new to data that was cut, "new". counts stand for names that were
    not kept.
    """

    added: dict[str, list[str]] = field(default_factory=dict)
    removed: dict[str, list[str]] = field(default_factory=dict)
    edited: dict[str, list[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(any(one.values()) for one in (self.added, self.removed, self.edited))

    def describe(self) -> str:
        """Counts and the first names, by split."""
        found = []
        for split in dict.fromkeys([*self.removed, *self.edited, *self.added]):
            parts = [
                f"{len(names):,} {word}{_first(names)}"
                for word in ("added", "removed", "edited")
                if (names := getattr(self, word).get(split))
            ]
            found += [f"{split}: {', '.join(parts)}"] if parts else []
        return "; ".join(found)


def _first(names: Sequence[str], count: int = 3) -> str:
    shown = [name for name in names[:count] if name]
    return f" ({', '.join(shown)}{', ...' if len(names) > count else ''})" if shown else ""


def members_of(source: Source, splits: Mapping[str, Split], limited: Mapping[str, np.ndarray]) -> Members:
    """The members of a divided source, whose splits were looked at. limited: of a split the places that are used."""
    names = {key: names_within(source, split) for key, split in splits.items()}
    marks = {key: marks_of(split, names[key]) for key, split in splits.items()}
    stored = sum(len(split) for split in source.splits.values() if split.inputs.stored)
    unused = {key: np.setdiff1d(np.arange(len(splits[key])), places) for key, places in limited.items()}
    kept = names if sum(map(len, names.values())) <= NAMED else {}
    return Members(marks, kept, cut_split(source)[0], meaning_of(source), stored > FULL, unused)


def marks_of(split: Split, names: Sequence[str]) -> np.ndarray:
    """(N, 5) uint64, as `Members.marks` has them. What was not looked at is not known of files."""
    marks = np.zeros((len(split), _COLUMNS), np.uint64)
    marks[:, 0] = [digests.of_name(name) for name in names]
    if split.digests is not None:
        marks[:, 1:4] = split.digests
    if (truth := split.truth) is not None:
        marks[:, 4] = digests.of_each(truth.digest(i) for i in range(len(split)))
    return marks


def meaning_of(source: Source) -> int:
    """A digest of what the truth of a source means: that of two examples compares where it is the same."""
    return digests.of_name(json.dumps(dict(source.meaning), sort_keys=True, default=repr))


def restore(source: Source, saved: Members) -> tuple[dict[str, np.ndarray], np.ndarray, Changes]:
    """Of the split that others are cut from: the places of each split's members, and those that are in none.

    And what has changed, in all splits. Raises nothing: what is gone is in the changes.
    """
    key, _ = cut_split(source)
    changes, same = Changes(), meaning_of(source) == saved.meaning
    cut = key == saved.cut
    own = [name for name in saved.marks if name not in source.splits or name == key] if cut and key else []
    parts: dict[str, np.ndarray] = {}
    new = np.arange(0)
    if own:
        whole = source.splits[key]
        names = names_within(source, whole)
        marks = marks_of(whole, names)
        taken = np.zeros(len(whole), bool)
        for name in own:
            parts[name] = np.sort(_compare(name, saved, marks, names, whole, same, changes))
            taken[parts[name]] = True
        new = np.flatnonzero(~taken)
        changes.added["new"] = [names[i] for i in new.tolist()]
    for name, split in source.splits.items():
        if own and name == key:
            continue
        names = names_within(source, split)
        marks = marks_of(split, names)
        known = _compare(name, saved, marks, names, split, same, changes)
        gone = np.setdiff1d(np.arange(len(split)), known)
        changes.added[name] = [names[i] for i in gone.tolist()]
    for name in saved.marks.keys() - set(own) - source.splits.keys():
        changes.removed[name] = list(saved.names.get(name, [""] * len(saved.marks[name])))
    return parts, new, changes


def _compare(
    name: str,
    saved: Members,
    marks: np.ndarray,
    names: list[str],
    split: Split,
    same: bool,
    changes: Changes,
) -> np.ndarray:
    """The places of a split's members among examples; what was removed and edited goes into `changes`."""
    before = saved.marks.get(name, np.zeros((0, _COLUMNS), np.uint64))
    known = saved.names.get(name, [""] * len(before))
    places = {key: place for place, key in enumerate(marks[:, 0].tolist())}
    found = np.array([places.get(key, -1) for key in before[:, 0].tolist()], np.int64)
    there = found >= 0
    changes.removed[name] = [known[i] for i in np.flatnonzero(~there).tolist()]
    old, now = before[there], found[there]
    changes.edited[name] = [names[i] for i in now[_edited(old, marks[now], split, now, same, saved.lengths)].tolist()]
    return now


def _edited(
    old: np.ndarray, new: np.ndarray, split: Split, places: np.ndarray, same: bool, lengths: bool
) -> np.ndarray:
    """(M,) bool: whether an example is another than it was. same: whether the truths of both mean the same."""
    truth = same & (old[:, 4] != new[:, 4]) & (old[:, 4] != 0) & (new[:, 4] != 0)
    content = (old[:, 1] != new[:, 1]) & (old[:, 1] != 0) & (new[:, 1] != 0)
    for row in np.flatnonzero((old[:, 1] != 0) & (new[:, 1] == 0)).tolist():  # which was not looked at
        length, time = split.inputs.stamp(int(places[row]))
        if not length and not split.inputs.held:
            continue
        if not split.inputs.held and digests.of_numbers(length, time) == int(old[row, 3]):
            continue
        content[row] = _content(split, int(places[row]), lengths) != int(old[row, 1])
    return truth | content


def _content(split: Split, place: int, lengths: bool) -> int:
    """The digest of an example's bytes, as `opsin.data.source.examine` has it."""
    if lengths and split.inputs.stored:
        return digests.of_numbers(split.inputs.stamp(place)[0])
    try:
        encoded = split.inputs.encoded(place)
        return digests.of_value(split.read(place)) if encoded is None else digests.of_bytes(encoded)
    except UnreadableImage:
        return digests.UNKNOWN

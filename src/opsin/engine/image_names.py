"""Which image of a split a name in somebody's file of predictions means: by id, by path, by file name or by stem."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from opsin.data import Source
from opsin.data.formats.values import as_posix, read_key, shown
from opsin.data.source import listed
from opsin.errors import InputError, say

Place = tuple[str, int]  # a split, and the place of an image in it


@dataclass
class ImageNames:
    """Finds the images of one split of a source; those of its other splits are known, and left out.

    keys: of each split, the ids that its file gives to its images, by which numbers are looked for first. A path means
    the image with the most of its last parts in common, so that another computer's folders do no harm; one without an
    ending, or with another, means the image of that stem. What several images could be is refused.
    """

    source: Source
    split: str
    keys: Mapping[str, Sequence[int | str | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_name: dict[str, list[Place]] = defaultdict(list)
        self._by_stem: dict[str, list[Place]] = defaultdict(list)
        self._by_key: dict[int | str, Place] = {}
        self._said: dict[Place, str | int] = {}  # of an image, what it was called
        self._found: dict[str | int, Place | None] = {}
        self._unknown: dict[str | int, str] = {}  # with the place in the file
        ordered = sorted(self.source.splits, key=lambda name: name == self.split)  # the last one wins an id
        for name in ordered:
            for i, key in enumerate(self.keys.get(name, ())):
                if key is not None:
                    self._by_key[key] = name, i
            split = self.source.splits[name]
            for i in range(len(split)):
                path = as_posix(split.name(i))
                self._by_name[path.name].append((name, i))
                self._by_stem[path.stem].append((name, i))
        self._by_number = {int(stem): places for stem, places in self._by_stem.items() if stem.isdecimal()}

    def find(self, said: str | int, place: str) -> int | None:
        """The place in the split of the image that a file calls `said`; None where it is in none, or in another split.

        place: in the file, with the file, for messages. Raises InputError where several images could be meant, or where
        two names mean one image.
        """
        if said not in self._found:
            self._found[said] = self._look_for(said, place)
        found = self._found[said]
        return found[1] if found is not None and found[0] == self.split else None

    def check(self, file: Path, what: str = "answers") -> None:
        """Once all are found: raise InputError where images were unknown, and say what belongs to other splits."""
        where = f"the {self.split} split of {self.source.name}"
        if self._unknown:
            first, place = next(iter(self._unknown.items()))
            count, total = len(self._unknown), len(self._found)
            split = self.source.splits[self.split]
            example = f", which has images such as {PurePosixPath(split.name(0)).name!r}" if len(split) else ""
            amount = "no image of the file is" if count == total else f"{count} of {total} images of the file are not"
            raise InputError(
                f"{place}: the image {shown(first)} is not in {self.source.name}{example}; {amount} in the truth: give "
                "the data that it was made for, or remove them"
            )
        others = [found for found in self._found.values() if found is not None and found[0] != self.split]
        if not others:
            return
        names = sorted({name for name, _ in others})
        if len(others) == len(self._found):
            raise InputError(f"no image of {file} is in {where}; they are of {listed(names)}: give --split {names[0]}")
        say(f"{what} for {len(others)} images that are not in {where} are left out: they are of {listed(names)}")

    def _look_for(self, said: str | int, place: str) -> Place | None:
        candidates = self._candidates(said)
        if not candidates:
            self._unknown[said] = place
            return None
        if len(candidates) > 1:
            own = [one for one in candidates if one[0] == self.split]
            candidates = own if len(own) == 1 else candidates
        if len(candidates) > 1:
            names = [self.source.splits[name].name(i) for name, i in candidates]
            raise InputError(
                f"{place}: {shown(said)} may be {listed(names[:2])}{' or others' if names[2:] else ''}; "
                "give each image its path within the data"
            )
        (found,) = candidates
        before = self._said.setdefault(found, said)
        if before != said:
            name = self.source.splits[found[0]].name(found[1])
            raise InputError(f"{place}: {shown(said)} and {shown(before)} would both be the image {name}; name it once")
        return found

    def _candidates(self, said: str | int) -> list[Place]:
        key = read_key(said)
        if key in self._by_key:
            return [self._by_key[key]]
        path = as_posix(str(said).strip())
        found = self._by_name.get(path.name) or self._by_stem.get(path.name) or self._by_stem.get(path.stem)
        if not found and path.name.isdecimal():
            found = self._by_number.get(int(path.name))
        if not found or len(found) == 1:
            return found or []
        shared = [self._shared(path, one) for one in found]
        return [one for one, count in zip(found, shared, strict=True) if count == max(shared)]

    def _shared(self, path: PurePosixPath, place: Place) -> int:
        """How many folders above the file two paths have in common, from the file on."""
        own = as_posix(self.source.splits[place[0]].name(place[1])).parts[-2::-1]
        count = 0
        for one, two in zip(path.parts[-2::-1], own, strict=False):
            if one != two:
                break
            count += 1
        return count

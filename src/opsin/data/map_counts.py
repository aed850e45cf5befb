"""What the maps of a split hold, counted once and kept: pixels of each class, digests, sizes, faults. No pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from opsin.data.truth import Size


@dataclass(frozen=True)
class MapFault:
    """Something wrong with a map. kind, severity: as of a `Problem`. unreadable: it cannot be used at all."""

    kind: str
    reason: str
    severity: Literal["error", "warning", "note"] = "error"
    unreadable: bool = False


@dataclass(frozen=True)
class Tally:
    """One map. counts: (K + 1,) int64, pixels of each class, then those of which nothing is known.

    digest: equal for equal maps. size: (height, width); None where it cannot be read. faults: what is wrong with it.
    """

    counts: np.ndarray
    digest: bytes = b""
    size: Size | None = None
    faults: Sequence[MapFault] = ()

    @classmethod
    def failed(cls, num_classes: int, fault: MapFault) -> Tally:
        """Of a map that cannot be read."""
        return cls(np.zeros(num_classes + 1, np.int64), faults=(fault,))


class _Counted(Protocol):
    def __len__(self) -> int: ...

    def tally(self, i: int) -> Tally: ...


class Census:
    """The tallies of a split's maps, each made when it is first asked for and kept; shared by all selections."""

    def __init__(self, maps: _Counted) -> None:
        self._maps = maps
        self._found: dict[int, Tally] = {}

    def at(self, place: int) -> Tally:
        """Of one map."""
        if place not in self._found:
            self._found[place] = self._maps.tally(place)
        return self._found[place]

    def among(self, places: np.ndarray) -> list[Tally]:
        """Of some maps; those that are missing are made on every core."""
        from opsin.data.source import map_threads

        wanted = places.tolist()
        tally: Callable[[int], object] = self.at
        missing = [place for place in wanted if place not in self._found]
        if len(missing) > 1:
            map_threads(tally, missing)
        return [self.at(place) for place in wanted]

"""Parts of images as examples of their own: of each page its lines, cut along their quads."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from opsin.data.inputs import Inputs
from opsin.ops.quads import cut_quad, quad_size

_KEPT_BYTES = 256 << 20  # of cut pixels that a process keeps: a page is decoded once, not for each of its lines
_LOCKS = 16  # pages that are cut at a time


class Crops(Inputs):
    """The parts of images within quads, brought upright.

    images: the whole images. pages: (N,) int64, of which image each part is. quads: (N, 4, 2) float, its corners in
    pixels of it, clockwise from where its text begins. parts: what each is called within its image, as "line 12".
    """

    stored = True

    def __init__(
        self,
        images: Inputs,
        pages: np.ndarray,
        quads: np.ndarray,
        parts: Sequence[str],
        places: np.ndarray | None = None,
        cuts: _Cuts | None = None,
    ) -> None:
        self.images, self.pages, self.quads, self.parts = images, pages, quads, parts
        self.places = np.arange(len(pages)) if places is None else places
        self.stored = images.stored
        self._cuts = cuts or _Cuts(images, pages, quads)

    def __len__(self) -> int:
        return len(self.places)

    def name(self, i: int) -> str:
        place = int(self.places[i])
        return f"{self.images.name(int(self.pages[place]))} {self.parts[place]}"

    def read(self, i: int) -> Tensor:
        return self._cuts.read(int(self.places[i]))

    def size(self, i: int) -> tuple[int, int]:
        return quad_size(self.quads[self.places[i]])

    def stamp(self, i: int) -> tuple[int, int]:
        return self.images.stamp(int(self.pages[self.places[i]]))

    def paths(self) -> Sequence[str]:
        return self.images.paths()

    def select(self, places: np.ndarray) -> Crops:
        return Crops(self.images, self.pages, self.quads, self.parts, self.places[places], self._cuts)


class _Cuts:
    """Cut parts by page, those used last kept in memory, by process: a copy sent to another one begins empty."""

    def __init__(self, images: Inputs, pages: np.ndarray, quads: np.ndarray) -> None:
        self.images, self.pages, self.quads = images, pages, quads
        self.order = np.argsort(pages, kind="stable")
        self.sorted = pages[self.order]
        self._begin()

    def _begin(self) -> None:
        self.known: OrderedDict[int, dict[int, Tensor]] = OrderedDict()
        self.bytes = 0
        self.locks = [threading.Lock() for _ in range(_LOCKS)]
        self.lock = threading.Lock()
        self.process = os.getpid()  # the last, or another thread would take a lock of before

    def __getstate__(self) -> tuple[Inputs, np.ndarray, np.ndarray]:
        return self.images, self.pages, self.quads

    def __setstate__(self, state: tuple[Inputs, np.ndarray, np.ndarray]) -> None:
        self.__init__(*state)

    def read(self, place: int) -> Tensor:
        """A part's pixels, uint8 (C, H, W), the caller's own."""
        if self.process != os.getpid():
            self._begin()  # whose locks another process may have held when this one was forked
        page = int(self.pages[place])
        with self.locks[page % _LOCKS]:
            with self.lock:
                found = self.known.get(page)
                if found is not None:
                    self.known.move_to_end(page)
            if found is None:
                found = self._cut(page)
                with self.lock:
                    self._keep(page, found)
        return found[place].clone()

    def _cut(self, page: int) -> dict[int, Tensor]:
        image = self.images.read(page)
        first, end = np.searchsorted(self.sorted, [page, page + 1])
        return {place: cut_quad(image, self.quads[place]) for place in self.order[first:end].tolist()}

    def _keep(self, page: int, found: dict[int, Tensor]) -> None:
        self.known[page] = found
        self.bytes += _bytes_of(found)
        while self.bytes > _KEPT_BYTES and len(self.known) > 1:
            self.bytes -= _bytes_of(self.known.popitem(last=False)[1])


def _bytes_of(cut: dict[int, Tensor]) -> int:
    return sum(part.numel() for part in cut.values())


def as_quads(quads: Sequence[np.ndarray]) -> np.ndarray:
    """Quads (4, 2) as one array (N, 4, 2)."""
    return np.array(quads, np.float64).reshape(-1, 4, 2)

"""Reading a database of LMDB: the documented layout of its B+ tree, without the library, never written to.

A file `data.mdb` is pages. Of the two meta pages that with the later transaction names the root of the main tree. A
branch page leads to the child whose first key is the last not above the one sought; a leaf holds keys and values, or
the number of the first of some overflow pages that a large value fills. Values of several under one key (DUPSORT) and
named databases within are not read. Everything is of the machine's byte order, little endian here.

Layout: lmdb.h and mdb.c of OpenLDAP, version 0.9: MDB_meta, MDB_page, MDB_node.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from opsin.errors import InputError
from opsin.files import check_regular

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEADER = 16  # bytes of a page's
_BRANCH, _LEAF, _OVERFLOW, _LEAF2 = 0x01, 0x02, 0x04, 0x20
_BIG, _SUB, _DUP = 0x01, 0x02, 0x04
_DEEPEST = 32  # levels of a tree, as LMDB has it
_NO_ROOT = (1 << 64) - 1


class Lmdb:
    """A database to look things up in. Raises InputError for a file that is none, or is damaged.

    Any number of threads may ask it, and forked processes, since nothing here moves; a copy opens the file anew.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            check_regular(Path(path))
            with Path(path).open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        first = self._meta(0)
        if first is None:
            raise InputError(f"{path} is no database of LMDB, or of another version or byte order")
        self._size = first[1]
        metas = (first, self._meta(self._size))
        _, _, self._root, self._entries = max((one for one in metas if one is not None), key=lambda one: one[0])

    def __getstate__(self) -> str:
        return self.path

    def __setstate__(self, path: str) -> None:
        self.__init__(path)

    def __len__(self) -> int:
        """How many keys it has."""
        return self._entries

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None where there is none."""
        number = self._root
        if number == _NO_ROOT:
            return None
        for _ in range(_DEEPEST):
            page, flags = self._page(number)
            keys = self._places(page)
            if flags & _BRANCH and not keys:
                raise self._damaged("a branch leads nowhere")
            low = self._bisect(keys, key, 1 if flags & _BRANCH else 0)
            if flags & _BRANCH:
                number = self._child(keys[low - 1])
                continue
            if low == len(keys) or self._key(keys[low]) != key:
                return None
            return self._value(keys[low])
        raise self._damaged("its tree is deeper than any")

    def _meta(self, at: int) -> tuple[int, int, int, int] | None:
        """Of a meta page: transaction, bytes of a page, root and entries; None where it is none."""
        body = self._bytes[at + _HEADER : at + _HEADER + 136]
        if len(body) < 136 or struct.unpack_from("<II", body) != (_MAGIC, _VERSION):
            return None
        # magic, version, address, size of the map; then two databases of 48 bytes, the free list's and the main one:
        # pad (page size), flags, depth, branch, leaf and overflow pages, entries, root; then last page and transaction
        (size,) = struct.unpack_from("<I", body, 24)
        entries, root = struct.unpack_from("<QQ", body, 24 + 48 + 32)
        (transaction,) = struct.unpack_from("<Q", body, 24 + 96 + 8)
        if size < 256 or size & (size - 1) or size > 1 << 16:
            return None
        return transaction, size, root, entries

    def _page(self, number: int) -> tuple[int, int]:
        """Where a page of the tree begins, and its flags."""
        at = number * self._size
        if number > len(self._bytes) // self._size or at + self._size > len(self._bytes):
            raise self._damaged(f"page {number} lies behind its end")
        (flags,) = struct.unpack_from("<H", self._bytes, at + 10)
        if not flags & (_BRANCH | _LEAF) or flags & (_OVERFLOW | _LEAF2):
            raise self._damaged(f"page {number} is no part of a tree of single values")
        return at, flags

    def _places(self, at: int) -> list[int]:
        """Where the nodes of a page begin."""
        (lower,) = struct.unpack_from("<H", self._bytes, at + 12)
        count = (lower - _HEADER) // 2
        if not 0 <= count <= self._size // 2:
            raise self._damaged("a page has an impossible number of keys")
        places = struct.unpack_from(f"<{count}H", self._bytes, at + _HEADER)
        if any(place + 8 > self._size for place in places):
            raise self._damaged("a key lies behind the end of its page")
        return [at + place for place in places]

    def _bisect(self, places: list[int], key: bytes, first: int) -> int:
        """The first of the nodes from `first` on whose key is not below, in a branch whose key is above."""
        low, high = first, len(places)
        while low < high:
            middle = (low + high) // 2
            other = self._key(places[middle])
            if other < key or (first and other == key):
                low = middle + 1
            else:
                high = middle
        return low

    def _key(self, place: int) -> bytes:
        (length,) = struct.unpack_from("<H", self._bytes, place + 6)
        return self._bytes[place + 8 : place + 8 + length]

    def _child(self, place: int) -> int:
        low, high, flags = struct.unpack_from("<HHH", self._bytes, place)
        return low | high << 16 | flags << 32

    def _value(self, place: int) -> bytes:
        low, high, flags, key = struct.unpack_from("<HHHH", self._bytes, place)
        length, start = low | high << 16, place + 8 + key
        if flags & (_SUB | _DUP):
            raise self._damaged("a key has several values, or a database within")
        if flags & _BIG:
            if start + 8 > len(self._bytes):
                raise self._damaged("a value reaches behind its end")
            (number,) = struct.unpack_from("<Q", self._bytes, start)
            start = number * self._size + _HEADER
        if start + length > len(self._bytes):
            raise self._damaged("a value reaches behind its end")
        return self._bytes[start : start + length]

    def _damaged(self, reason: str) -> InputError:
        return InputError(f"{self.path} is damaged: {reason}; copy or make it anew")

"""A format of data: what it claims to read, and how it opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from opsin.data.source import Source

Claim = Literal[0, 1, 2, 3]  # no; by shape alone, as class folders; by what only it has; by a built-in name


@dataclass(frozen=True)
class Format:
    """A way of keeping data.

    name: as people call it. truth: what is known of each image, in a few words. expects: how its files show it;
    empty for built-in data. claims: how surely a path, which exists, or a built-in name is of this format. open: a path
    that it claims as a source, with those keywords of `options` that are given. names: of built-in data, for messages.
    insists: that of `options` which says that a path is of this format although other tasks' formats claim it more
    surely; where there is none, they are not asked. written: its name for `opsin data --as`. write: a source of its
    truth into a new folder, linking to images or not; returns what was not kept, in words.
    """

    name: str
    truth: str
    expects: str
    claims: Callable[[Path], Claim]
    open: Callable[..., Source]
    options: Sequence[str] = ()
    names: Sequence[str] = ()
    insists: str = ""
    written: str = ""
    write: Callable[[Source, Path, bool], list[str]] | None = None

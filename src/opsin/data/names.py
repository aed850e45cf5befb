"""Names of examples within their data: the same wherever the data's folder lies and however it is called."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from opsin.data.source import Source, Split


def names_within(source: Source, split: Split) -> list[str]:
    """The name of each example of a split: a path from the data's root with forward slashes, in Unicode's form NFC.

    What lies in no folder, such as "digits[12]", keeps its name. Of several of one name, the later ones are numbered.
    """
    roots = _roots(source.root) if source.root else []
    stored, seen, found = split.inputs.stored and bool(roots), dict[str, int](), []
    for i in range(len(split)):
        name = _within(split.name(i), roots, stored)
        before = seen.get(name, 0)
        seen[name] = before + 1
        found.append(f"{name}#{before + 1}" if before else name)
    return found


def _within(name: str, roots: list[str], stored: bool) -> str:
    for root in roots:
        if name.startswith(root):
            name = name[len(root) :]
            break
    else:
        if stored:
            name = os.path.relpath(name, roots[0])
    if os.sep != "/":
        name = name.replace(os.sep, "/")
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _roots(root: str) -> list[str]:
    """A folder as it was given, from the top, and with its links followed, each with a slash behind it."""
    path = Path(root)
    return list(dict.fromkeys(f"{str(one).rstrip(os.sep)}{os.sep}" for one in (path, path.absolute(), path.resolve())))

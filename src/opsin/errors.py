"""What a user is told: the two errors, how they are worded, and lines of progress."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable


class InputError(Exception):
    """The call or its input is wrong: exit status 2. The message names the value, what was expected and the fix."""


class JobError(Exception):
    """The job failed on its way: exit status 1. The message says what happened and what was saved."""


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """An InputError for a name that is not among `known`, with the nearest ones.

    >>> str(unknown("model", "resnet5O", ["resnet50", "vgg16"]))
    "unknown model 'resnet5O'; did you mean resnet50?"
    """
    names = sorted(known)
    near = nearest(name, names)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif len(names) <= 20:
        hint = f"known: {', '.join(names)}" if names else "there are none"
    else:
        hint = f"{len(names)} are known, for example {', '.join(names[:5])}"
    return InputError(f"unknown {kind} {str(name)!r}; {hint}")


def nearest(name: object, known: Iterable[str], cutoff: float = 0.5) -> list[str]:
    """At most three of the known names that are like this one, the nearest first; upper and lower case are one.

    cutoff: how like they must be, 1 for the same letters.
    """
    by_letters: dict[str, list[str]] = {}
    for one in known:
        by_letters.setdefault(one.casefold(), []).append(one)
    near = difflib.get_close_matches(str(name).casefold(), by_letters, n=3, cutoff=cutoff)
    return [one for letters in near for one in by_letters[letters]][:3]


def on_terminal() -> bool:
    """Whether a person watches standard error."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def say(line: str) -> None:
    """A line on standard error; of several processes of a training the first alone says it."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)

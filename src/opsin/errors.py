"""Errors and lines of progress: how they are worded, and how any text of a file is made fit to be shown."""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
from collections.abc import Iterable

# What steers a terminal, breaks a line, turns the direction of writing, or has no form in UTF-8 or XML.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff]"
)


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


def name_too_long(error: OSError) -> str:
    """What to say of a path that is longer than the system takes, without all of it; "" for any other error.

    >>> name_too_long(OSError(errno.ENAMETOOLONG, "", "a" * 5000))
    'the path aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, of 5,000 characters, is too long here'
    """
    if error.errno != errno.ENAMETOOLONG:
        return ""
    path = str(error.filename)
    return f"the path {path[:30]}...{path[-30:]}, of {len(path):,} characters, is too long here"


def printable(text: object, keep: str = "") -> str:
    """A text as it can be shown anywhere: terminal, page, drawing; what cannot is written as `\\x1b` or `\\u202e`.

    Names of files and classes may hold escapes that steer a terminal, marks that turn the direction of writing, line
    breaks, and bytes that are no UTF-8. keep: characters that stay, as "\\n" of a text of several lines.

    >>> printable("a\\x1b]0;b"), printable("caf\\xe9"), printable("x\\ny", keep="\\n")
    ('a\\\\x1b]0;b', 'café', 'x\\ny')
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escape(ord(found[0])), str(text))


def is_printable(text: str) -> bool:
    """Whether `printable` leaves a text as it is."""
    return _UNPRINTABLE.search(text) is None


def _escape(code: int) -> str:
    code = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code  # how Python holds a byte that is no UTF-8
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def on_terminal() -> bool:
    """Whether a person watches standard error."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def is_first_process() -> bool:
    """Whether this is the first process of a training, or the only one; torchrun, SLURM and Lightning number them."""
    return not any(int(os.environ.get(name) or 0) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))


def say(line: str) -> None:
    """A line on standard error; of several processes of a training the first alone says it."""
    if is_first_process():
        print(printable(line, keep="\n\t"), file=sys.stderr, flush=True)

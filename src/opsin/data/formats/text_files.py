"""Text files of labels, line by line, in an encoding: what is in another is named with its line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from opsin.data.truth import Problem
from opsin.files import read_regular


def read_lines(file: Path, problems: list[Problem], encoding: str = "utf-8-sig") -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, as `decode_lines` has them; a file without any is a problem."""
    try:
        data = read_regular(file)
    except OSError as error:
        problems.append(Problem("broken_annotation", str(file), f"cannot be read: {error.strerror or error}"))
        return
    yield from decode_lines(data, str(file), problems, encoding)


def decode_lines(
    data: bytes, where: str, problems: list[Problem], encoding: str = "utf-8-sig"
) -> Iterator[tuple[int, str]]:
    """The lines of a text with their numbers, blank ones left out.

    A line that is not in the encoding is a problem that names it, with what it could be.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", "replace")
        yield from ((k, line.rstrip("\r")) for k, line in enumerate(text.split("\n"), 1) if line.strip())
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            text = line.decode(encoding).rstrip("\r").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            named = "UTF-8" if encoding.lower().startswith("utf-8") else encoding
            reason = (
                f"is not {named} ({line[error.start]:#04x} at byte {error.start + 1} of the line){_guess(line)}; "
                "save it as UTF-8, or name its encoding"
            )
            problems.append(Problem("wrong_encoding", f"{where} line {number}", reason))
            continue
        if text.strip():
            yield number, text


def _guess(line: bytes) -> str:
    """In which encodings a line would be text, in words to append to an error."""
    fitting = []
    for encoding in ("gb18030", "big5", "shift_jis", "cp1252"):
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError:
            continue
        if text.rstrip("\r").replace("\t", " ").isprintable():  # a tab parts a file from its text
            fitting.append(encoding)
    return f", it may be {' or '.join(fitting)}" if fitting else ""

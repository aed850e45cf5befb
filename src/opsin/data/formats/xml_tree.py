"""XML as a tree of elements with their lines, read with care: no entities, no other files, a limited depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from opsin.data.truth import Problem
from opsin.files import read_regular

_DEEPEST = 50


@dataclass
class Element:
    """An element. line: of the file where it begins. text: what it says before its first child, without blanks."""

    tag: str
    attributes: dict[str, str]
    line: int
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Element]:
        """The elements of a name at any depth, in order."""
        waiting: list[Element] = [self]
        while waiting:
            one = waiting.pop()
            if one.tag == tag:
                yield one
            waiting.extend(reversed(one.children))

    def said(self, tag: str) -> str:
        """The text of the first child of a name; "" where there is none."""
        return next((one.text for one in self.children if one.tag == tag), "")


def read_elements(file: Path, tag: str, problems: list[Problem]) -> list[Element]:
    """The elements of a name in a file, in order; none, and a problem, where it cannot be read."""
    try:
        return list(read_xml(file).all(tag))
    except (ValueError, OSError) as error:
        problems.append(Problem("broken_annotation", str(file), getattr(error, "strerror", None) or str(error)))
        return []


def read_xml(file: Path) -> Element:
    """The outermost element of a file. Raises ValueError with the line for what is no XML, and OSError."""
    return parse_xml(read_regular(file))


def parse_xml(content: bytes) -> Element:
    """The outermost element of a file's content. Raises ValueError with the line for what is no XML."""
    parser, stack = expat.ParserCreate(), [Element("", {}, 0)]

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(stack) > _DEEPEST:
            raise ValueError(f"line {parser.CurrentLineNumber}: nested deeper than {_DEEPEST} levels")
        element = Element(tag, attributes, parser.CurrentLineNumber)
        stack[-1].children.append(element)
        stack.append(element)

    def end(tag: str) -> None:
        stack.pop().text = "".join(words.pop(len(stack), [])).strip()

    def say(text: str) -> None:
        words.setdefault(len(stack), []).append(text)

    def refuse(*_: object) -> None:
        raise ValueError(f"line {parser.CurrentLineNumber}: it declares entities, which are not read")

    words: dict[int, list[str]] = {}
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = say, refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(f"line {error.lineno}: not well-formed XML: {expat.ErrorString(error.code)}") from None
    return stack[0].children[0]

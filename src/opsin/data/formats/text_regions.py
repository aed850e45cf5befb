"""What every format of pages with text says of them, and how pages become a source: of boxes, or of cut lines.

A format's reader gives one `Page` an image with its `Region`s. `open_pages` makes of them what a detector learns from:
boxes of the one class "text" around outlines, the texts beside them, regions to ignore with the label -1. `open_lines`
makes what a recognizer learns from: each region cut out of its page along its quad, with its text, those of one page
kept together by a division. Both divide the same pages alike by their hash.

What leaves its page by more than a pixel is cut at the border for boxes and said; a line is cut out as it is drawn, and
repeats the border. With less than half of its area on the page it is an error, without an area left out.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from opsin.data.crops import Crops, as_quads
from opsin.data.formats.annotations import Annotation, build
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.text_crops import clean, with_subset
from opsin.data.images import UnreadableImage, read_header
from opsin.data.inputs import ImageFiles
from opsin.data.source import Source, Split, map_threads
from opsin.data.texts import PackedTexts, Texts, alphabet_of
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.files import read_regular
from opsin.ops.polygons import signed_area
from opsin.ops.quads import quad_of, quad_size

TEXT = "text"  # the one class of what a page shows
UNREADABLE = ("###",)  # a transcription that says that nobody can read it
_INSIDE, _ROUNDING = 0.5, 1.0  # as `opsin.data.formats.annotations` has them for boxes


@dataclass
class Region:
    """A word or a line on a page. outline: (n, 2) corners in pixels, two of an upright box. text: None where nobody
    knows. ignored: nobody is to find or read it. place: within the file, as "line 12".
    """

    outline: np.ndarray
    text: str | None
    place: str
    ignored: bool = False


@dataclass
class Page:
    """An image and what is written on it.

    file: its path; where: of its annotation. size: (height, width) if said. lexicon: words of which each text is one.
    """

    file: str
    where: str
    regions: list[Region] = field(default_factory=list)
    size: tuple[int, int] | None = None
    lexicon: tuple[str, ...] = ()

    def add(self, numbers: Sequence[float], text: str | None, place: str, *, ignored: bool = False) -> None:
        """One more region, by its corners x1 y1 x2 y2 ...; a text of ### is one to ignore.

        Raises ValueError for half a corner, for fewer than two, and for numbers that are not finite.
        """
        if len(numbers) < 4 or len(numbers) % 2:
            raise ValueError(f"an outline of {len(numbers)} numbers; expected x and y of two corners or more")
        outline = np.array(numbers, np.float64).reshape(-1, 2)
        if not (np.abs(outline) < 1e9).all():
            raise ValueError("its corners are no numbers of pixels")
        unread = text is not None and text.strip() in UNREADABLE
        self.regions.append(Region(outline, None if unread else text, place, ignored or unread))


Pages = Mapping[str, Sequence[Page]]  # of each split


def open_pages(name: str, format_: str, pages: Pages, problems: Sequence[Problem] = ()) -> Source:
    """A source of boxes, class "text", with outlines and texts."""
    parts: dict[str, list[Annotation]] = {}
    for key, some in pages.items():
        parts[key] = []
        for page in some:
            annotation = Annotation(page.file, page.where, page.size)
            for region in page.regions:
                text = region.text or ""
                corners = region.outline if len(region.outline) > 2 else quad_of(region.outline)
                annotation.add_outline(
                    corners.ravel().tolist(),
                    TEXT,
                    region.place,
                    ignored=region.ignored,
                    text=clean(text),
                )
            parts[key].append(annotation)
    return build(name, format_, parts, classes=[TEXT], declared="the task", problems=problems)


def open_lines(
    name: str, format_: str, pages: Pages, problems: Sequence[Problem] = (), root: Path | None = None
) -> Source:
    """A source of texts, one of each region that can be read. root: from which pages are named in a division."""
    found = list(problems)
    kept = {key: [_readable(page, found) for page in _measured(some, found)] for key, some in pages.items()}
    everything = [one.text or "" for some in kept.values() for regions in some for one in regions]
    if not everything:
        raise InputError(f"no region of {name} has a text; it says at most where there are some")
    characters = alphabet_of(PackedTexts.pack(everything))
    names = _page_names([page.file for some in pages.values() for page in some], root)
    splits = {key: _split(pages[key], kept[key], characters, names) for key in pages}
    return Source(name, format_, splits, problems=found)


def _split(pages: Sequence[Page], kept: Sequence[Sequence[Region]], characters: str, names: Mapping[str, str]) -> Split:
    lines = [(number, one) for number, regions in enumerate(kept) for one in regions]
    inputs = Crops(
        ImageFiles([page.file for page in pages]),
        np.array([number for number, _ in lines], np.int64),
        as_quads([quad_of(one.outline) for _, one in lines]),
        [one.place for _, one in lines],
    )
    truth = Texts(
        PackedTexts.pack(one.text or "" for _, one in lines),
        characters,
        pages=PackedTexts.pack(names[pages[number].file] for number, _ in lines),
    )
    lexicons = [tuple(map(clean, page.lexicon)) for page in pages]
    return Split(inputs, truth.with_lexicons([lexicons[number] for number, _ in lines]))


def _page_names(files: Sequence[str], root: Path | None) -> dict[str, str]:
    """What a division calls each page; of copies all are called as the one with the shortest name, of these the first.

    So `opsin.data.hash_division` has it of the pages themselves. Of two files only equal bytes count as a copy.
    """
    sizes = [_bytes_of(file) for file in files]
    counts = Counter(sizes)
    same: dict[bytes, list[str]] = {}
    for file, size in zip(files, sizes, strict=True):
        same.setdefault(_content(file) if size >= 0 and counts[size] > 1 else os.fsencode(file), []).append(file)
    names = {file: _within(file, root) for file in files}
    first = (min((names[one] for one in some), key=lambda name: (len(name), name)) for some in same.values())
    return {file: name for name, some in zip(first, same.values(), strict=True) for file in some}


def _bytes_of(file: str) -> int:
    try:
        return Path(file).stat().st_size
    except (OSError, ValueError):
        return -1


def _content(file: str) -> bytes:
    """A digest of a file; the name of one that cannot be read, which is another's copy for nobody."""
    try:
        return hashlib.blake2b(read_regular(file)).digest()
    except OSError:
        return os.fsencode(file)


def _within(file: str, root: Path | None) -> str:
    """The name of a page, as `opsin.data.names` has it for the page itself."""
    name = file if root is None else os.path.relpath(file, root)
    return unicodedata.normalize("NFC", name.replace(os.sep, "/"))


def _measured(pages: Sequence[Page], problems: list[Problem]) -> Sequence[Page]:
    """The pages, with the size that each has; one that declares another is a problem."""

    def ask(page: Page) -> Problem | None:
        try:
            header = read_header(Path(page.file), page.file)
        except UnreadableImage as error:
            return Problem("unreadable", error.path, error.reason)
        said, page.size = page.size, (header.height, header.width)
        if said is None or said == page.size:
            return None
        real, stated = (f"{width}x{height}" for height, width in (page.size, said))
        reason = f"{page.file} is {real} pixels (width x height), but its annotation says {stated}"
        return Problem("declared_size", page.where, reason)

    problems += [problem for problem in map_threads(ask, pages) if problem is not None]
    return pages


def _readable(page: Page, problems: list[Problem]) -> list[Region]:
    """The regions of a page that can be cut out and have a text; what is wrong with others goes into `problems`."""
    kept = []
    for region in page.regions:
        if region.ignored:
            continue
        if not (region.text or "").strip():
            reason = "the text of a region is empty; left out"
            problems.append(Problem("empty_text", f"{page.where} {region.place}", reason, "warning"))
        elif (problem := _misplaced(page, region)) is not None:
            problems.append(problem)
            if problem.kind == "clipped_quad":
                kept.append(region)
        else:
            kept.append(region)
        region.text = clean(region.text or "")
    return kept


def _misplaced(page: Page, region: Region) -> Problem | None:
    quad, place = quad_of(region.outline), f"{page.where} {region.place}"
    low, high = quad.min(axis=0), quad.max(axis=0)
    written = " ".join(f"{x:g},{y:g}" for x, y in region.outline.tolist())
    if min(quad_size(quad)) < 1 or (high - low <= 0).any() or signed_area(quad) <= 0:
        return Problem("degenerate_quad", place, f"a region has no area: {written}; left out", "warning")
    if page.size is None:
        return None
    height, width = page.size
    cut_low, cut_high = np.clip(low, 0, (width, height)), np.clip(high, 0, (width, height))
    share = float((cut_high - cut_low).prod() / (high - low).prod())
    far = max(float(np.abs(cut_low - low).max()), float(np.abs(cut_high - high).max()))
    if share <= 0 or (far > _ROUNDING and share < _INSIDE):
        reason = f"a region lies outside of its page: {written} of {width}x{height}; fix or remove it"
        return Problem("outside_quad", place, reason)
    if far > _ROUNDING:
        reason = f"a region reaches out of its page: {written} of {width}x{height}; its border is repeated there"
        return Problem("clipped_quad", place, reason, "warning")
    return None


Read = Callable[[Path, str], tuple[Pages, list[Problem]]]  # of a path, in an encoding


def page_formats(name: str, expects: str, claims: Callable[[Path], Claim], read: Read) -> tuple[Format, Format]:
    """The formats of a kind of pages: as boxes, and as lines. read: what opens a path that is claimed."""

    def boxes(path: Path, encoding: str = "") -> Source:
        pages, problems = read(path, encoding)
        return open_pages(path.stem if path.is_file() else path.name, name, pages, problems)

    def lines(path: Path, encoding: str = "") -> Source:
        pages, problems = read(path, encoding)
        root = path if path.is_dir() else path.parent
        return open_lines(path.stem if path.is_file() else path.name, f"lines of {name}", pages, problems, root)

    return (
        Format(name, "boxes", expects, claims, boxes, ("encoding",)),
        with_subset(Format(f"lines of {name}", "texts", expects, claims, lines, ("encoding",))),
    )


def ordered(parts: Mapping[str, Sequence[Page]]) -> Pages:
    """The splits that there are, in their order."""
    return {key: parts[key] for key in ("train", "val", "test", "all") if parts.get(key)}

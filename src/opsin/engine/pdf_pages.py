"""Pages of PDF files as images, by PDFium through pypdfium2, which the extra `opsin[pdf]` brings.

A page is named `scan.pdf#page=3`, as RFC 8118 has it, from 1; a file alone means all its pages.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opsin.errors import InputError

PDF_SUFFIXES = frozenset({".pdf"})
RESOLUTION = 200  # dots an inch: small print is 17 pixels high then, and a page of A4 1654 x 2339
_LARGEST = 60_000_000  # pixels of a page; a larger one, as of a plan, is drawn with fewer dots an inch
_LESS = 1 - 1e-5  # PDFium rounds up: 240.001 pixels would become 241
_alone = threading.Lock()  # PDFium is used by one thread at a time
_PAGE = re.compile(r"(.+\.pdf)#page=(\d{1,6})", re.IGNORECASE)


class PdfPage(str):
    """A page of a file, drawn when it is read; each reading opens the file anew, so that nothing of it stays."""

    __slots__ = ()

    @property
    def place(self) -> tuple[Path, int]:
        """The file, and the page's number from 1; of a file that could not be opened, its name alone is the first."""
        found = _PAGE.fullmatch(self)
        return (Path(self), 1) if found is None else (Path(found[1]), int(found[2]))

    def draw(self) -> Any:
        """uint8 (H, W, 3), RGB, at `RESOLUTION`. Raises InputError for what cannot be read, and a page not there."""
        file, number = self.place
        with _opened(file) as document:
            if not 1 <= number <= len(document):
                raise InputError(f"{file} has {len(document)} pages and no page {number}")
            return _draw(document, number, str(self), _LARGEST)


def _draw(document: Any, number: int, name: str, most: int) -> Any:
    page = document[number - 1]
    width, height = page.get_size()
    if not width * height > 0:
        raise InputError(f"{name} has a size of {width:g} x {height:g} points; there is nothing to draw")
    scale = min(RESOLUTION / 72, (most / (width * height)) ** 0.5)
    bitmap = page.render(scale=scale * _LESS, rev_byteorder=True)
    pixels = bitmap.to_numpy()[..., :3].copy()
    bitmap.close()
    page.close()
    return pixels


def count_pages(data: bytes, name: str) -> int:
    """The pages of a PDF in memory. name: in messages. Raises InputError for what cannot be read."""
    with _alone, _opened(data, name) as document:
        return len(document)


def draw_page(data: bytes, number: int, name: str, most: int = _LARGEST) -> Any:
    """A page of a PDF in memory, as `PdfPage.draw`; safe in threads. most: pixels; a larger one has fewer an inch."""
    with _alone, _opened(data, name) as document:
        return _draw(document, number, f"page {number} of {name}", min(most, _LARGEST))


def is_pdf(given: Any) -> bool:
    """Whether something names a PDF file, or a page of one, that is there."""
    if not isinstance(given, str | Path) or ".pdf" not in str(given).lower():
        return False
    if os.path.lexists(given):
        return Path(given).suffix.lower() in PDF_SUFFIXES and not os.path.isdir(given)  # noqa: PTH112
    found = _PAGE.fullmatch(str(given))
    return found is not None and os.path.lexists(found[1])


def find_pages(given: str | Path) -> list[PdfPage]:
    """The pages that a name as of `is_pdf` means. Raises InputError for a file that cannot be read or has none."""
    if not os.path.lexists(given):
        return [PdfPage(given)]
    with _opened(Path(given)) as document:
        count = len(document)
    if not count:
        raise InputError(f"{given} has no pages")
    return [PdfPage(f"{given}#page={number}") for number in range(1, count + 1)]


@contextmanager
def _opened(source: Path | bytes, name: str | None = None) -> Iterator[Any]:
    file = name or source
    try:
        import pypdfium2  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError:
        raise InputError(f"{file}: pages of a PDF need pypdfium2: pip install 'opsin[pdf]'") from None
    try:
        document = pypdfium2.PdfDocument(source)
    except (pypdfium2.PdfiumError, OSError, ValueError) as error:
        reason = "it is protected by a password" if "password" in str(error).lower() else str(error)
        raise InputError(f"cannot read {file} as a PDF: {reason}") from None
    try:
        yield document
    except pypdfium2.PdfiumError as error:
        raise InputError(f"cannot read {file} as a PDF: {error}") from None
    finally:
        document.close()

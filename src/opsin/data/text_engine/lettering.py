"""A text set in a font, before any distortion: its ink, and the place of every character."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opsin.data.text_engine.fonts import Face, Glyph, glyph, kerning

_SPACE = 0.3  # of the em: how far the pen moves over a space that the font has no width for


@dataclass(frozen=True, eq=False)
class Style:
    """How a text is set. size: pixels of the em. stroke: pixels by which outlines are widened. spacing: pixels between
    characters beside the font's own. outline: pixels by which the border stands out, 0 for none. underline: whether
    there is a line below. margin: pixels around the ink.
    """

    size: int
    stroke: float = 0.0
    spacing: float = 0.0
    outline: float = 0.0
    underline: bool = False
    margin: int = 4


@dataclass(frozen=True, eq=False)
class Lettering:
    """A text in a font and a style, its characters in their places.

    shape: (height, width) that hold its ink and the margin. placed: of each character its ink, and where its first
    pixel lies, (x, y). rects: (N, 4) float64, x1, y1, x2, y2 around the ink of each character; of a space the width
    that it takes, at the height of the whole text. baseline: y.
    """

    text: str
    face: Face
    style: Style
    shape: tuple[int, int]
    placed: list[tuple[Glyph, int, int]]
    rects: np.ndarray
    baseline: int

    def ink(self) -> np.ndarray:
        """How much the text covers each pixel, uint8 (height, width)."""
        found = np.zeros(self.shape, np.uint8)
        paste(found, self.placed)
        if bar := _bar(self.style):
            pad, top = _pad(self.style), self.baseline + 2
            found[top : top + bar, pad : self.shape[1] - pad] = 255
        return found

    def border(self) -> np.ndarray:
        """The same of the text with outlines that are wider by the style's `outline`."""
        found, wide = np.zeros(self.shape, np.uint8), self.style.stroke + self.style.outline
        wider = [glyph(self.face, self.style.size, one, wide) for one in self.text]
        paste(
            found,
            [
                (over, x - one.left + over.left, self.baseline + over.top)
                for over, (one, x, _) in zip(wider, self.placed, strict=True)
            ],
        )
        return found


def set_text(text: str, face: Face, style: Style) -> Lettering:
    """A text in one line. Every character must have ink in the font, but for spaces."""
    glyphs, pens, advance = _pens(text, face, style)
    inked = [(one, x) for one, x in zip(glyphs, pens, strict=True) if one.ink.size]
    left = min((x + one.left for one, x in inked), default=0)
    right = max((x + one.left + one.ink.shape[1] for one, x in inked), default=int(advance) + 1)
    top = min((one.top for one, _ in inked), default=-style.size)
    bottom = max((one.top + one.ink.shape[0] for one, _ in inked), default=0)
    if bar := _bar(style):
        bottom = max(bottom, 2 + bar)
    pad = _pad(style)
    shape = (bottom - top + 2 * pad, right - left + 2 * pad)
    dx, dy = pad - left, pad - top
    placed = [(one, x + one.left + dx, one.top + dy) for one, x in zip(glyphs, pens, strict=True)]
    rects = np.array([(x, y, x + one.ink.shape[1], y + one.ink.shape[0]) for one, x, y in placed], np.float64)
    for i, (one, x, _) in enumerate(placed):
        if not one.ink.size:
            rects[i] = (x, pad, x + (one.advance or _SPACE * style.size), shape[0] - pad)
    return Lettering(text, face, style, shape, placed, rects, dy)


def _bar(style: Style) -> int:
    """How thick the line below is, in pixels."""
    return max(1, style.size // 16) if style.underline else 0


def _pad(style: Style) -> int:
    return style.margin + int(np.ceil(style.outline))


def _pens(text: str, face: Face, style: Style) -> tuple[list[Glyph], list[int], float]:
    """Of each character its ink and where the pen stands; and where the pen ends."""
    glyphs, pens, pen = [], [], 0.0
    for i, character in enumerate(text):
        one = glyph(face, style.size, character, style.stroke)
        if i:
            pen += style.spacing + kerning(face, style.size, text[i - 1], character)
        glyphs.append(one)
        pens.append(round(pen))
        pen += one.advance or _SPACE * style.size
    return glyphs, pens, pen


def paste(canvas: np.ndarray, placed: Sequence[tuple[Glyph, int, int]], dx: int = 0, dy: int = 0) -> None:
    """Lay inks onto a canvas, uint8 (H, W), moved by (dx, dy): of two the darker, cut at its edges."""
    for one, left, top in placed:
        height, width = one.ink.shape
        if not height:
            continue
        x, y = left + dx, top + dy
        under = canvas[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
        over = one.ink[max(-y, 0) :, max(-x, 0) :][: under.shape[0], : under.shape[1]]
        np.maximum(under, over, out=under)

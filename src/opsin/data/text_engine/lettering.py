"""A text set in a font, before any distortion: its ink, and the place of every character."""

from __future__ import annotations

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
    """The ink of a text, uint8 (H, W), and of its border likewise; None where there is none.

    glyphs: of each character its ink, and where its first pixel lies, (x, y). rects: (N, 4) float64, x1, y1, x2, y2
    around the ink of each character; of a space the width that it takes, at the height of the whole text. baseline: y.
    """

    ink: np.ndarray
    border: np.ndarray | None
    glyphs: list[tuple[Glyph, int, int]]
    rects: np.ndarray
    baseline: float


def set_text(text: str, face: Face, style: Style) -> Lettering:
    """A text in one line. Every character must have ink in the font, but for spaces."""
    glyphs, pens, advance = _pens(text, face, style)
    inked = [(one, x) for one, x in zip(glyphs, pens, strict=True) if one.ink.size]
    left = min((x + one.left for one, x in inked), default=0)
    right = max((x + one.left + one.ink.shape[1] for one, x in inked), default=int(advance) + 1)
    top = min((one.top for one, _ in inked), default=-style.size)
    bottom = max((one.top + one.ink.shape[0] for one, _ in inked), default=0)
    bar = max(1, style.size // 16) if style.underline else 0
    bottom = max(bottom, 2 + 2 * bar) if bar else bottom
    pad = style.margin + int(np.ceil(style.outline))
    shape = (bottom - top + 2 * pad, right - left + 2 * pad)
    dx, dy = pad - left, pad - top
    placed = [(one, x + one.left + dx, one.top + dy) for one, x in zip(glyphs, pens, strict=True)]
    rects = np.array([_rect(one, x, y) for one, x, y in placed], np.float64).reshape(-1, 4)
    for i, (one, x, _) in enumerate(placed):
        if not one.ink.size:
            rects[i] = (x, pad, x + (one.advance or _SPACE * style.size), shape[0] - pad)
    ink = _paste(shape, placed)
    if bar:
        ink[dy + 2 : dy + 2 + bar, pad : shape[1] - pad] = 255
    border = None
    if style.outline:
        wider = [glyph(face, style.size, one, style.stroke + style.outline) for one in text]
        border = _paste(shape, [(g, x + g.left + dx, g.top + dy) for g, x in zip(wider, pens, strict=True)])
    return Lettering(ink, border, placed, rects, float(dy))


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


def _rect(one: Glyph, x: int, y: int) -> tuple[int, int, int, int]:
    return x, y, x + one.ink.shape[1], y + one.ink.shape[0]


def _paste(shape: tuple[int, int], placed: list[tuple[Glyph, int, int]]) -> np.ndarray:
    """The inks together, the darker of two where they overlap; what lies outside is cut."""
    found = np.zeros(shape, np.uint8)
    for one, x, y in placed:
        height, width = one.ink.shape
        if not height:
            continue
        top, left = max(y, 0), max(x, 0)
        under = found[top : y + height, left : x + width]
        over = one.ink[top - y : top - y + under.shape[0], left - x : left - x + under.shape[1]]
        np.maximum(under, over, out=under)
    return found

"""Synthetic pages: lines of text on paper, as receipts, as documents and scattered, photographed from nearly above."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from opsin.data.text_engine.blending import MODES
from opsin.data.text_engine.distortion import Distortion, outline_points
from opsin.data.text_engine.engine import move_rects, sample_layers, sampling_grid
from opsin.data.text_engine.fonts import Choice, Face
from opsin.data.text_engine.lettering import Lettering, Style, paste, set_text
from opsin.data.text_engine.noise import degrade
from opsin.data.text_engine.photographs import crop
from opsin.data.text_engine.wording import Wording

_LINE = 1.25  # of the em, from one line to the next, at least
_SMALLEST = 11  # pixels of the em
_TRIES = 40  # places tried for a scattered line


@dataclass(frozen=True, eq=False)
class DrawnPage:
    """A page. image: uint8 (3, H, W). texts: of its lines, from the top. boxes: float32 (N, 4), xyxy. quads: float32
    (N, 4, 2), of each line its corners, clockwise from the upper left of the upright text.
    """

    image: Tensor
    texts: list[str]
    boxes: Tensor
    quads: Tensor


@dataclass(frozen=True, eq=False)
class _Line:
    """A text on the flat page. left, top: of its lettering, in pixels."""

    lettering: Lettering
    left: int
    top: int

    @property
    def rect(self) -> np.ndarray:
        rects = self.lettering.rects
        found = np.concatenate([rects[:, :2].min(axis=0), rects[:, 2:].max(axis=0)])
        return found + np.array([self.left, self.top, self.left, self.top])


@dataclass(frozen=True, eq=False)
class PageEngine:
    """Makes pages. side: the longer side of a page in pixels. The rest is as of `TextEngine`."""

    fonts: Choice
    wording: Wording
    side: int = 800
    strength: float = 0.5
    photographs: str = ""

    def draw(self, seed: int) -> DrawnPage:
        """The page that a seed decides."""
        draws, size, lines, distortion = self._plan(seed)
        ink, sheet = np.zeros(size, np.uint8), np.full(size, 255, np.uint8)
        for line in lines:
            paste(ink, line.lettering.placed, line.left, line.top)
        grid = sampling_grid(distortion, size, size)
        ink, sheet = sample_layers((ink, sheet), grid)
        under, paper = self._paper(draws, size)
        colour = np.array([draws.uniform(0, 0.3)] * 3, np.float32)
        if draws.random() < 0.3:
            colour = np.array([draws.uniform(0, 0.45) for _ in range(3)], np.float32)
        opacity = np.float32(1 - 0.35 * self.strength * draws.random())
        page = under + (paper - under) * sheet[..., None]
        page += (colour - page) * (ink * opacity)[..., None]
        pixels = degrade(page, draws, 0.6 * self.strength, unit=self.side / 800)
        return DrawnPage(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), *_places(lines, distortion))

    def places(self, seed: int) -> tuple[tuple[int, int], list[str], Tensor, Tensor]:
        """(height, width) of what `draw` gives, its texts, boxes and quads, without drawing it."""
        _, size, lines, distortion = self._plan(seed)
        return size, *_places(lines, distortion)

    def size(self, seed: int) -> tuple[int, int]:
        """(height, width) of what `draw` gives."""
        return self._size(random.Random(seed))

    def _size(self, draws: random.Random) -> tuple[int, int]:
        long, short = self.side, round(self.side * draws.uniform(0.55, 0.8))
        return (long, short) if draws.random() < 0.85 else (short, long)

    def _plan(self, seed: int) -> tuple[random.Random, tuple[int, int], list[_Line], Distortion]:
        draws = random.Random(seed)
        size = self._size(draws)
        lay = draws.choice((self._receipt, self._document, self._scattered))
        lines = lay(draws, size)
        distortion = self._distort(draws, size)
        corners = (outline_points(line.rect[None]).reshape(-1, 2) for line in lines)
        inside = [bool(((moved >= 0) & (moved <= size[::-1])).all()) for moved in map(distortion.apply, corners)]
        return draws, size, [line for line, whole in zip(lines, inside, strict=True) if whole], distortion

    def _distort(self, draws: random.Random, size: tuple[int, int]) -> Distortion:
        """The page turned a little, in perspective, and bent a little, within the image."""
        height, width = size
        turn = math.radians(draws.gauss(0, 2.0) * self.strength)
        along, down = (draws.uniform(-0.12, 0.12) * self.strength for _ in range(2))
        scale = draws.uniform(0.9, 1.02) if draws.random() < 0.6 else 1.0
        cos, sin = scale * math.cos(turn), scale * math.sin(turn)
        affine = np.array([[cos, -sin, width / 2], [sin, cos, height / 2], [0, 0, 1]])
        perspective = np.array([[1, 0, 0], [0, 1, 0], [2 * along / width, 2 * down / height, 1]])
        waves = np.zeros((0, 5))
        if draws.random() < 0.4 * self.strength:
            length = draws.uniform(0.8, 2.0) * width
            waves = np.array(
                [(0, draws.uniform(-1, 1) * 0.006 * height, 1 / length, 0.2 / length, draws.uniform(0, 6.3))]
            )
        return Distortion((width / 2, height / 2), 0.0, affine @ perspective, waves)

    def _paper(self, draws: random.Random, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """What lies below the page, and the page without its text: float32, (H, W, 3) or (3,)."""
        under = crop(self.photographs, draws, *size)
        light = draws.uniform(0.8, 1.0)
        colour = np.array([light * draws.uniform(0.9, 1.0) for _ in range(3)], np.float32)
        if draws.random() >= 0.7 * self.strength + 0.2:
            return under, colour
        texture = crop(self.photographs, draws, *size)
        mode = MODES[draws.choice(("multiply", "screen", "normal"))]
        return under, colour + (mode(colour, texture) - colour) * np.float32(draws.uniform(0.03, 0.25))

    def _receipt(self, draws: random.Random, size: tuple[int, int]) -> list[_Line]:
        """A heading in the middle, rows of an item at the left and an amount at the right, and a foot."""
        height, width = size
        face, em = self._face(draws), self._em(draws)
        left = round(width * draws.uniform(0.05, 0.15))
        right, middle, top = width - left, width // 2, round(height * draws.uniform(0.03, 0.08))
        step, lines = em * draws.uniform(_LINE, 1.9), []
        heading, foot = draws.randint(2, 5), height - draws.uniform(2, 6) * step
        amounts = [(f"{draws.uniform(0.5, 99):.2f}", f"{draws.uniform(0.5, 300):.2f}") for _ in range(100)]
        texts = self.wording.lines(draws.getrandbits(60))
        row = 0
        while top + step < height * 0.97:
            heads = row < heading or top > foot
            large = em * (1.4 if row == 0 else 1.0)
            lettering = self._fit(next(texts), face, large, (right - left) * (1 if heads else 0.6))
            across = lettering.shape[1]
            lines.append(_Line(lettering, middle - across // 2 if heads else left, round(top)))
            amount = amounts[row % 100][draws.random() < 0.1]
            if not heads and draws.random() < 0.75 and lettering.face in self.fonts.covering(amount):
                number = set_text(amount, lettering.face, lettering.style)
                lines.append(_Line(number, right - number.shape[1], round(top + lettering.baseline - number.baseline)))
            top += step * (1.5 if row == 0 or draws.random() < 0.12 else 1.0)
            row += 1
        return lines

    def _document(self, draws: random.Random, size: tuple[int, int]) -> list[_Line]:
        """One or two columns of paragraphs, some with a title."""
        height, width = size
        face, em = self._face(draws), self._em(draws)
        margin = round(width * draws.uniform(0.05, 0.12))
        columns = 2 if draws.random() < 0.3 else 1
        gap = round(width * 0.05)
        room = (width - 2 * margin - (columns - 1) * gap) // columns
        step, lines = em * draws.uniform(_LINE, 1.8), []
        texts, start = self.wording.lines(draws.getrandbits(60)), height * draws.uniform(0.04, 0.1)
        if draws.random() < 0.7:
            lettering = self._fit(next(texts), self._face(draws), em * draws.uniform(1.5, 2.2), width - 2 * margin)
            lines.append(
                _Line(lettering, margin if draws.random() < 0.5 else (width - lettering.shape[1]) // 2, round(start))
            )
            start += lettering.shape[0] + step
        for column in range(columns):
            top, left = start, margin + column * (room + gap)
            while top + step < height * 0.96:
                words = next(texts) if draws.random() < 0.12 else self._filled(texts, em, room)
                lettering = self._fit(words, face, em, room)
                lines.append(_Line(lettering, left, round(top + em - lettering.baseline)))
                top += step * (1.7 if draws.random() < 0.12 else 1.0)
        return lines

    def _scattered(self, draws: random.Random, size: tuple[int, int]) -> list[_Line]:
        """Lines of different fonts and sizes anywhere, none over another."""
        height, width = size
        lines: list[_Line] = []
        taken: list[tuple[float, float, float, float]] = []
        for text in islice(self.wording.lines(draws.getrandbits(60)), draws.randint(4, 25)):
            em = self._em(draws) * draws.uniform(0.9, 2.5)
            lettering = self._fit(text, self._face(draws), em, width * 0.9)
            h, w = lettering.shape
            for _ in range(_TRIES):
                x, y = draws.uniform(0, max(1, width - w)), draws.uniform(0, max(1, height - h))
                if all(x > x2 or x + w < x1 or y > y2 or y + h < y1 for x1, y1, x2, y2 in taken):
                    taken.append((x, y, x + w, y + h))
                    lines.append(_Line(lettering, round(x), round(y)))
                    break
        return lines

    def _em(self, draws: random.Random) -> float:
        return self.side * draws.uniform(0.018, 0.032)

    def _face(self, draws: random.Random) -> Face:
        return self.fonts.faces[int(draws.random() * len(self.fonts.faces))]

    def _filled(self, texts: Iterator[str], em: float, room: float) -> str:
        """Words that reach across a line of `room` pixels and beyond."""
        found = next(texts)
        while len(found) * em * 0.35 < room:
            found += (" " if " " in found or found.isascii() else "") + next(texts)
        return found

    def _fit(self, text: str, face: Face, em: float, room: float) -> Lettering:
        """As much of a text as there is room for, in a font that has its characters, that one if it can."""
        able = self.fonts.covering(text)
        chosen = face if face in able or not able else able[len(text) % len(able)]
        style = Style(size=max(_SMALLEST, round(em)), margin=1)
        lettering = set_text(text, chosen, style)
        if lettering.shape[1] <= room:
            return lettering
        count = max(1, int((lettering.rects[:, 2] <= room).sum()))
        kept = text[:count]
        if " " in kept.strip() and count < len(text) and text[count] != " ":
            kept = kept.rpartition(" ")[0]
        return set_text(kept.strip() or text[:1], chosen, style)


def _places(lines: list[_Line], distortion: Distortion) -> tuple[list[str], Tensor, Tensor]:
    """Texts, boxes and quads of lines in the image."""
    rects = np.array([line.rect for line in lines]).reshape(-1, 4)
    return [line.lettering.text for line in lines], *move_rects(rects, distortion)

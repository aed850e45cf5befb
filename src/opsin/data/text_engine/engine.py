"""The engine: one text, one seed, one image, and where its characters are."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from opsin.data.text_engine.blending import choose_colours, lay
from opsin.data.text_engine.distortion import Distortion, outline_points
from opsin.data.text_engine.fonts import Choice
from opsin.data.text_engine.lettering import Lettering, Style, set_text
from opsin.data.text_engine.noise import degrade

_NARROWEST, _WIDEST = 8, 64  # of an image, in pixels, and in heights
_CLEAR = 0.5  # of full ink: a pixel that belongs to a character


@dataclass(frozen=True, eq=False)
class Drawn:
    """An image of a text.

    image: uint8 (3, H, W). boxes: float32 (N, 4), xyxy, around the ink of each character, of a space around the room
    that it takes; they may leave the image where it is cut tightly. quads: float32 (N, 4, 2), the same as four points
    each, clockwise from the upper left of the upright character. lettering: the flat text, with its font. grid: where
    each pixel lies in it, as `grid_sample` has it.
    """

    image: Tensor
    boxes: Tensor
    quads: Tensor
    lettering: Lettering = field(repr=False)
    grid: Tensor = field(repr=False)

    def masks(self) -> Tensor:
        """The pixels of each character, bool (N, H, W)."""
        return _masks(self.lettering, self.grid)


@dataclass(frozen=True, eq=False)
class TextEngine:
    """Makes images of texts.

    fonts: what `choose_fonts` gives. height: of the images in pixels; their width follows from the text. strength: from
    0, black on white and straight, to 1, as in photographs of streets. photographs: a folder to take colours and
    textures from; the built-in ones if empty.
    """

    fonts: Choice
    height: int = 32
    strength: float = 1.0
    photographs: str = ""

    def draw(self, text: str, seed: int) -> Drawn:
        """The image of a text that a seed decides. Raises InputError for a text that no font can set."""
        draws, lettering, distortion, width = self._plan(text, seed)
        grid = sampling_grid(distortion, (self.height, width), lettering.shape)
        ink, *rest = sample_layers(_layers(lettering, draws, self.strength), grid)
        border = rest[0] if rest else None
        colours = choose_colours(self.photographs, draws, self.strength)
        image = lay(ink, border, colours, self.photographs, draws, self.strength)
        pixels = torch.from_numpy(np.ascontiguousarray(degrade(image, draws, self.strength).transpose(2, 0, 1)))
        return Drawn(pixels, *move_rects(lettering.rects, distortion), lettering, grid)

    def places(self, text: str, seed: int) -> tuple[tuple[int, int], Tensor, Tensor]:
        """(height, width) of what `draw` gives, its boxes and its quads, without drawing it."""
        _, lettering, distortion, width = self._plan(text, seed)
        return (self.height, width), *move_rects(lettering.rects, distortion)

    def masks(self, text: str, seed: int) -> Tensor:
        """The masks of what `draw` gives, without drawing it."""
        _, lettering, distortion, width = self._plan(text, seed)
        return _masks(lettering, sampling_grid(distortion, (self.height, width), lettering.shape))

    def _plan(self, text: str, seed: int) -> tuple[random.Random, Lettering, Distortion, int]:
        """What decides where everything is, and the width; and the numbers that are yet to be drawn."""
        draws = random.Random(seed)
        lettering = set_text(text, self.fonts.draw(draws, text), self._style(draws))
        return draws, lettering, *self._distort(lettering, draws)

    def _style(self, draws: random.Random) -> Style:
        much = self.strength
        unit = self.height / 32
        spaced = draws.random() < 0.3 * much
        return Style(
            size=max(8, round(self.height * draws.choice((0.9, 1.0, 1.15)))),
            stroke=draws.choice((0.5, 1.0, 1.5)) * unit if draws.random() < 0.2 * much else 0.0,
            spacing=draws.uniform(-0.03, 0.18) * self.height if spaced else 0.0,
            outline=draws.choice((1.0, 1.5, 2.5)) * unit if draws.random() < 0.18 * much else 0.0,
            underline=draws.random() < 0.03 * much,
        )

    def _distort(self, lettering: Lettering, draws: random.Random) -> tuple[Distortion, int]:
        """How a text is bent, turned and seen, so that it fills the image; and the image's width."""
        x1, y1 = lettering.rects[:, :2].min(axis=0).tolist()
        x2, y2 = lettering.rects[:, 2:].max(axis=0).tolist()
        across, down, much = x2 - x1, y2 - y1, self.strength
        radius = 0.0
        if draws.random() < 0.18 * much and across > 1.5 * down:
            # Radians of the whole arc: less of a long line, which would rise by more than it is high.
            bend = draws.uniform(0.25, 1.3) * min(1.0, across / down / 4, 5 * down / across)
            radius = across / bend * (1 if draws.random() < 0.7 else -1)
            radius = math.copysign(max(abs(radius), 1.5 * down), radius)
        matrix = _view(draws, across, down, much)
        centre = ((x1 + x2) / 2, lettering.baseline)
        flat = Distortion(centre, radius, matrix, np.zeros((0, 5)))
        points = flat.flat(outline_points(lettering.rects, 3).reshape(-1, 2))
        low, high = points.min(axis=0), points.max(axis=0)
        room = np.array([draws.uniform(-0.02, 0.16 + 0.1 * much) for _ in range(4)]).reshape(2, 2) * (high[1] - low[1])
        low, high = low - room[0], high + room[1]
        scale = self.height / (high[1] - low[1])
        stretch = scale * math.exp(draws.uniform(-0.25, 0.25) * much)
        width = min(max(_NARROWEST, round((high[0] - low[0]) * stretch)), _WIDEST * self.height)
        stretch = width / (high[0] - low[0])
        fit = np.array([[stretch, 0, -low[0] * stretch], [0, scale, -low[1] * scale], [0, 0, 1]])
        return Distortion(centre, radius, fit @ matrix, _waves(draws, self.height, much)), width


def _view(draws: random.Random, across: float, down: float, strength: float) -> np.ndarray:
    """A projective map about the middle of a text: turned, slanted, and seen from aside, (3, 3)."""
    turn = math.radians(draws.gauss(0, 3.5) * strength) * min(1.0, 4 * down / max(across, 1.0))
    slant = draws.uniform(-0.25, 0.25) * strength if draws.random() < 0.5 else 0.0
    cos, sin = math.cos(turn), math.sin(turn)
    affine = np.array([[cos, cos * slant - sin, 0], [sin, sin * slant + cos, 0], [0, 0, 1]])
    along, up = (draws.uniform(-0.22, 0.22) * strength if draws.random() < 0.6 else 0.0 for _ in range(2))
    along, up = (value * min(1.0, 5 * down / max(across, 1.0)) for value in (along, up))
    perspective = np.array([[1, 0, 0], [0, 1, 0], [2 * along / max(across, 1.0), 2 * up / max(down * 4, 1.0), 1]])
    return affine @ perspective


def _waves(draws: random.Random, height: int, strength: float) -> np.ndarray:
    """Smooth displacements: what Simard et al.'s elastic distortion gives, as a sum of two waves, (M, 5)."""
    if draws.random() >= 0.3 * strength:
        return np.zeros((0, 5))
    rows = []
    for _ in range(2):
        length, angle = draws.uniform(1.0, 3.0) * height, draws.uniform(0, 2 * math.pi)
        most = 0.04 * height * strength
        swing = (draws.uniform(-most, most), draws.uniform(-most, most))
        rows.append((*swing, math.cos(angle) / length, math.sin(angle) / length, draws.uniform(0, 2 * math.pi)))
    return np.array(rows)


def _layers(lettering: Lettering, draws: random.Random, strength: float) -> Sequence[np.ndarray]:
    """The covers of the text and of its border or shadow, uint8 (H, W) each; one alone where there is neither."""
    ink = lettering.ink()
    if lettering.style.outline:
        return ink, lettering.border()
    if draws.random() >= 0.2 * strength:
        return (ink,)
    most = lettering.style.margin - 1
    dx, dy = (draws.randint(1, most) * draws.choice((-1, 1)) for _ in range(2))
    return ink, np.roll(ink, (dy, dx), (0, 1))  # what comes round is of the empty margin


def _masks(lettering: Lettering, grid: Tensor) -> Tensor:
    """The pixels of each character in the image, bool (N, H, W). grid: as `sampling_grid` gives it."""
    count, (height, width) = len(lettering.placed), lettering.shape
    flat = torch.zeros(count, 1, height, width)
    for k, (one, x, y) in enumerate(lettering.placed):
        if one.ink.size:
            h, w = one.ink.shape
            flat[k, 0, y : y + h, x : x + w] = torch.from_numpy(one.ink.astype(np.float32) / 255)
    return F.grid_sample(flat, grid.expand(count, -1, -1, -1), align_corners=False)[:, 0] > _CLEAR


def move_rects(rects: np.ndarray, distortion: Distortion) -> tuple[Tensor, Tensor]:
    """Rectangles (N, 4) of the flat text in the image: boxes (N, 4) and quads (N, 4, 2), float32."""
    points = outline_points(rects)
    moved = distortion.apply(points.reshape(-1, 2)).reshape(points.shape).astype(np.float32)
    boxes = np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)
    return torch.from_numpy(boxes), torch.from_numpy(np.ascontiguousarray(moved[:, ::2]))


def sampling_grid(distortion: Distortion, size: tuple[int, int], flat: tuple[int, ...]) -> Tensor:
    """Where each pixel of the image lies in the flat text, as `grid_sample` wants it: float32 (1, H, W, 2)."""
    height, width = size
    x = np.arange(width, dtype=np.float32)[None] + np.float32(0.5)
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
    u, v = distortion.invert(x, y)
    grid = np.empty((1, height, width, 2), np.float32)
    grid[0, ..., 0] = u * (2 / flat[1]) - 1
    grid[0, ..., 1] = v * (2 / flat[0]) - 1
    return torch.from_numpy(grid)


def sample_layers(layers: Sequence[np.ndarray], grid: Tensor) -> np.ndarray:
    """Flat layers, uint8 (H, W) each, as they are seen: float32 (layers, H, W) in [0, 1]."""
    flat = torch.from_numpy(np.stack(layers).astype(np.float32) * np.float32(1 / 255))
    return F.grid_sample(flat[None], grid, align_corners=False)[0].numpy()

"""Colours of the layers of a synthetic image, and how they are laid over each other and over photographs."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from opsin.data.text_engine.photographs import crop, palettes

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_CONTRAST = 0.2  # of the range of brightness, at least between a text and its ground, so that it can be made out
_CLEAR = 0.24  # the same of the colours that the layers begin with
_PLAIN, _SATURATED = 0.18, 0.25  # shares: ink on paper or the reverse, and colours of signs instead of natural ones
_TRIES = 6

Blend = Callable[[np.ndarray, np.ndarray], np.ndarray]
MODES: dict[str, Blend] = {  # of a layer and a photograph, both in [0, 1]
    "normal": lambda layer, over: over,
    "add": lambda layer, over: np.minimum(layer + over, 1),
    "multiply": lambda layer, over: layer * over,
    "screen": lambda layer, over: 1 - (1 - layer) * (1 - over),
    "burn": lambda layer, over: 1 - np.minimum((1 - layer) / np.maximum(over, 0.05), 1),
    "maximum": np.maximum,
    "minimum": np.minimum,
}
_NAMES = tuple(MODES)


def choose_colours(folder: str, draws: random.Random, strength: float) -> np.ndarray:
    """Colours of ground, text and border: float32 (3, 3) in [0, 1]. Text and ground differ in brightness."""
    kind = draws.random()
    if kind < _PLAIN or kind > 0.6 + 0.4 * strength:
        dark, light = draws.uniform(0, 0.25), draws.uniform(0.8, 1)
        paper = [light, dark] if draws.random() < 0.75 else [dark, light]
        return np.array([[value] * 3 for value in (*paper, draws.random())], np.float32)
    known = palettes(folder)
    found = known[0]
    for _ in range(_TRIES):
        if kind < _PLAIN + _SATURATED:
            found = np.array([[draws.random() for _ in range(3)] for _ in range(3)], np.float32)
        else:
            found = known[int(draws.random() * len(known))][draws.sample(range(3), 3)]
        if abs(float((found[0] - found[1]) @ _LUMA)) >= _CLEAR:
            return found
    found = found.copy()
    found[1] = 0.1 if float(found[0] @ _LUMA) > 0.5 else 0.9
    return found


def lay(
    ink: np.ndarray, border: np.ndarray | None, colours: np.ndarray, folder: str, draws: random.Random, strength: float
) -> np.ndarray:
    """The layers as one image, float32 (H, W, 3) in [0, 1].

    ink, border: how much the text and its border or shadow cover each pixel, (H, W) in [0, 1]. colours: of ground, text
    and border. Each layer is blended with a part of a photograph; where the text could then hardly be made out, it is
    laid again without.
    """
    state = draws.getstate()
    ground = _textured(colours[0], folder, draws, 0.75 * strength, ink.shape)
    found = _over(ground, border, colours[2], folder, draws, strength)
    found = _over(found, ink, colours[1], folder, draws, strength)
    if contrast(found, ink) < _CONTRAST:
        draws.setstate(state)
        found = _over(_over(colours[0], border, colours[2], folder, draws, 0), ink, colours[1], folder, draws, 0)
    return found


def contrast(image: np.ndarray, ink: np.ndarray) -> float:
    """By how much the brightness of a text differs from that of the rest, in [0, 1]."""
    luma = image @ _LUMA
    covered, total = float(ink.sum()), float(luma.sum())
    inside = float((luma * ink).sum())
    rest = ink.size - covered
    return abs(inside / covered - (total - inside) / rest) if covered > 1 and rest > 1 else 1.0


def _over(
    under: np.ndarray, cover: np.ndarray | None, colour: np.ndarray, folder: str, draws: random.Random, strength: float
) -> np.ndarray:
    """A layer of one colour over another image."""
    if cover is None:
        return under
    layer = _textured(colour, folder, draws, 0.5 * strength, cover.shape)
    opacity = 1 - 0.3 * strength * draws.random() ** 2
    return under + (layer - under) * (cover * np.float32(opacity))[..., None]


def _textured(colour: np.ndarray, folder: str, draws: random.Random, share: float, size: tuple[int, ...]) -> np.ndarray:
    """A colour that is blended with a part of a photograph. share: of layers that are. float32 (H, W, 3), or (3,)."""
    if draws.random() >= share:
        return colour if draws.random() >= 0.2 * (share > 0) else _graded(colour, draws, size)
    over = crop(folder, draws, size[0], size[1])
    blended = MODES[_NAMES[int(draws.random() * len(_NAMES))]](colour, over)
    return colour + (blended - colour) * np.float32(draws.uniform(0.1, 0.9))


def _graded(colour: np.ndarray, draws: random.Random, size: tuple[int, ...]) -> np.ndarray:
    """A colour that grows lighter or darker across the image, as in uneven light."""
    down, along = draws.uniform(-0.3, 0.3), draws.uniform(-0.3, 0.3)
    rows = np.linspace(-down, down, size[0], dtype=np.float32)[:, None]
    columns = np.linspace(-along, along, size[1], dtype=np.float32)
    return np.clip(colour + (rows + columns)[..., None], 0, 1)

"""Built-in sequences: handwritten digits that move over photographs, with exact tracks and visible shares.

Each of five kinds is hard in its own way. The digits of a sequence are of two classes, so that class alone says little,
and are drawn as those of the built-in `scenes`, on which a detector can be trained, but are not among its training
digits. A sequence depends on its split, its kind and its place alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from opsin.data.formats.digit_scenes import INK, SIDE, contrasting_colour, digits_of, ink_digits, photographs
from opsin.errors import InputError
from opsin.track.tracks import Tracks

MOVING = re.compile(r"moving_scenes(?::(\d+))?")
LENGTH = 100  # frames of a sequence
KINDS = ("crossing", "occlusion", "crowd", "camera", "low_frame_rate")
PARTS = {"train": "val", "test": "test"}  # splits, and that of `scenes` whose digits and photographs they have
_RATE = 25.0  # frames a second
_SKIPPED = 5  # frames between two, at a low frame rate
_COUNTS = {"crossing": 4, "occlusion": 4, "crowd": 9, "camera": 4, "low_frame_rate": 4}  # digits of a sequence
_CLASSES = {"crossing": (6, 8), "occlusion": (2, 7), "crowd": (4, 9), "camera": (3, 5), "low_frame_rate": (0, 1)}
_EXTENT = (34.0, 46.0)  # pixels, of the sides of the squares that digits are drawn in
_SPEED = (0.8, 2.2)  # pixels a frame
_TURN = np.radians(12.0)  # either way
_WAVE = (2.0, 8.0)  # pixels, by which a path swings about its straight line
_PILLAR = 34  # pixels, the width of what hides others in the kind "occlusion"
_SHADE = 0.4  # of the photograph's brightness, what the pillar has
_PAN = 0.7  # pixels a frame, of the kind "camera"
_LUMA = torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class MovingScene:
    """One sequence, drawn when its frames are read. part: of `PARTS`. kind: of `KINDS`. num_frames: its length."""

    part: str
    kind: str
    num_frames: int = LENGTH

    @property
    def name(self) -> str:
        """As its files and folders are called."""
        return f"{self.kind}_{self.part}"

    @property
    def fps(self) -> float:
        """Frames a second."""
        return _RATE / _SKIPPED if self.kind == "low_frame_rate" else _RATE

    @cached_property
    def _plan(self) -> _Plan:
        return _draw_plan(self.part, self.kind, self.num_frames)

    def frame(self, frame: int) -> Tensor:
        """A frame, uint8 (3, 160, 160). Raises IndexError where there is none."""
        if not 0 <= frame < self.num_frames:
            raise IndexError(f"frame {frame} of {self.num_frames}")
        return self._plan.draw(frame)

    def truth(self) -> Tracks:
        """Every digit in every frame in which its box lies in the image, hidden or not, with the share that is seen."""
        plan = self._plan
        rows = [(frame, place) for frame in range(self.num_frames) for place in plan.present(frame)]
        shown = [plan.shown(frame) for frame in range(self.num_frames)]
        return Tracks.build(
            [frame for frame, _ in rows],
            [plan.box(place, frame) for frame, place in rows],
            [place + 1 for _, place in rows],
            labels=[plan.labels[place] for _, place in rows],
            visibility=[shown[frame][place] for frame, place in rows],
            classes=tuple(map(str, range(10))),
            num_frames=self.num_frames,
            fps=self.fps,
            size=(SIDE, SIDE),
            name=self.name,
        )


@dataclass(frozen=True, eq=False)
class _Plan:
    """What a sequence shows. inks, labels, colours: of each digit. paths: (digits, frames, 2), left and top in pixels
    of the ground, whole. ground: float (3, H, W). offsets: (frames, 2), where the image lies in the ground. pillar:
    left and right of what stands before the digits; None where nothing does.
    """

    inks: list[np.ndarray]
    labels: list[int]
    colours: list[Tensor]
    paths: np.ndarray
    ground: Tensor
    offsets: np.ndarray
    pillar: tuple[int, int] | None

    def box(self, place: int, frame: int) -> tuple[int, int, int, int]:
        left, top = (self.paths[place, frame] - self.offsets[frame]).tolist()
        height, width = self.inks[place].shape
        return left, top, left + width, top + height

    def present(self, frame: int) -> list[int]:
        """The digits whose boxes lie in the image as a whole, so that truth is exact."""
        found = []
        for place in range(len(self.inks)):
            x1, y1, x2, y2 = self.box(place, frame)
            if x1 >= 0 and y1 >= 0 and x2 <= SIDE and y2 <= SIDE:
                found.append(place)
        return found

    def draw(self, frame: int) -> Tensor:
        """The frame, uint8 (3, 160, 160): later digits before earlier ones, and the pillar before all."""
        left, top = self.offsets[frame].tolist()
        behind = self.ground[:, top : top + SIDE, left : left + SIDE]
        scene = behind.clone()
        for place in self.present(frame):
            x1, y1, x2, y2 = self.box(place, frame)
            under, ink = scene[:, y1:y2, x1:x2], torch.from_numpy(self.inks[place]).float()
            under += ink * (self.colours[place][:, None, None] - under)
        if self.pillar is not None:
            first, last = self.pillar
            scene[:, :, first:last] = behind[:, :, first:last] * _SHADE
        return scene.round().clamp(0, 255).to(torch.uint8)

    def shown(self, frame: int) -> dict[int, float]:
        """The share of each digit's ink that nothing hides."""
        owner = np.full((SIDE, SIDE), -1)
        present = self.present(frame)
        for place in present:
            x1, y1, x2, y2 = self.box(place, frame)
            owner[y1:y2, x1:x2][self.inks[place] > INK] = place
        if self.pillar is not None:
            owner[:, slice(*self.pillar)] = -1
        return {place: float((owner == place).sum()) / float((self.inks[place] > INK).sum()) for place in present}


@cache
def _draw_plan(part: str, kind: str, frames: int) -> _Plan:
    seed = np.random.SeedSequence((list(PARTS).index(part), KINDS.index(kind), 41))
    random = np.random.RandomState(np.random.MT19937(seed))  # frozen: the same with every NumPy
    labels = digits_of(PARTS[part])[1]
    fitting = [np.flatnonzero(labels == label) for label in _CLASSES[kind]]
    chosen = np.array([random.choice(fitting[place % 2]) for place in random.permutation(_COUNTS[kind])])
    extents = random.uniform(*_EXTENT, size=len(chosen))
    inks = ink_digits(PARTS[part], chosen, extents, random.uniform(-_TURN, _TURN, len(chosen)))
    skipped = _SKIPPED if kind == "low_frame_rate" else 1
    offsets = np.zeros((frames, 2), np.int64)
    if kind == "camera":
        swing = 1 - np.abs(np.arange(frames) / 80 % 2 - 1)  # there and back again, so that any length fits
        offsets[:, 0] = (swing * 80 * _PAN).round()
    ground = _ground(part, int(offsets[:, 0].max()), random)
    sides = [(SIDE - ink.shape[1], SIDE - ink.shape[0]) for ink in inks]
    paths = np.stack([_path(number, side, frames, skipped, kind, random) for number, side in enumerate(sides)])
    paths = paths + (offsets[None] if kind == "camera" else 0) * 0.5  # they go along with it half of the way
    colours = [contrasting_colour(float(ground.mean(dim=(1, 2)) @ _LUMA), random) for _ in inks]
    middle = SIDE // 2
    pillar = (middle - _PILLAR // 2, middle + _PILLAR // 2) if kind == "occlusion" else None
    return _Plan(inks, labels[chosen].tolist(), colours, paths.round().astype(np.int64), ground, offsets, pillar)


def _ground(part: str, extra: int, random: np.random.RandomState) -> Tensor:
    """A part of a photograph, float (3, 160, 160 + extra)."""
    known = photographs(PARTS[part])
    image = known[random.randint(len(known))]
    top, left = random.randint(image.shape[1] - SIDE + 1), random.randint(image.shape[2] - SIDE - extra + 1)
    return image[:, top : top + SIDE, left : left + SIDE + extra].float()


def _path(
    number: int, side: tuple[int, int], frames: int, skipped: int, kind: str, random: np.random.RandomState
) -> np.ndarray:
    """(frames, 2): left and top of a digit, which is thrown back where it would leave the image.

    side: the largest of both. Every second goes from right to left, so that they meet; where something hides them, they
    go straight across.
    """
    when = np.arange(frames) * float(skipped)
    speed = random.uniform(*_SPEED, size=2) * (1 if number % 2 else -1, random.choice((-0.4, 0.4)))
    start = np.array([random.uniform(0, 0.3) if number % 2 else random.uniform(0.7, 1), random.uniform(0.05, 0.95)])
    wave, turn = random.uniform(*_WAVE, size=2), random.uniform(0, 2 * np.pi, size=2)
    straight = start * side + speed * when[:, None]
    swung = straight + wave * np.sin(when[:, None] / 15 + turn) * (1.0 if kind != "occlusion" else 0.3)
    folded = np.abs((swung + np.array(side)) % (2 * np.array(side)) - np.array(side))
    return folded


def scenes_of(name: str) -> dict[str, list[MovingScene]]:
    """The sequences by their splits. name: "moving_scenes", or "moving_scenes:N" for N frames each.

    Raises InputError for another name.
    """
    match = MOVING.fullmatch(name)
    count = int(match[1] or LENGTH) if match else 0
    if not 2 <= count <= 100_000:
        raise InputError(f"data source {name!r}; expected moving_scenes, or moving_scenes:N of N frames, 2 to 100000")
    return {part: [MovingScene(part, kind, count) for kind in KINDS] for part in PARTS}

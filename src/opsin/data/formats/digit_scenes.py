"""Built-in scenes: handwritten digits on real photographs, with exact boxes, masks, and the class of each pixel.

scikit-learn's digits are scaled, turned and inked in a colour onto crops of scikit-image's photographs. Training,
validation and test scenes share neither digits nor photographs, and the digits of the test scenes are those of the test
split of `digits`. A scene depends on its split and its place alone, so `scenes:100` begins as `scenes` does.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from opsin.data.boxes import Boxes
from opsin.data.class_maps import ClassMaps, tally_map
from opsin.data.formats.digits import digits
from opsin.data.formats.format import Claim, Format
from opsin.data.inputs import Inputs
from opsin.data.map_counts import Tally
from opsin.data.preprocessing import Preprocessing
from opsin.data.sample_files import read_photograph
from opsin.data.source import Source, Split
from opsin.data.splits import divide
from opsin.errors import InputError
from opsin.structures import Instances

SCENES = re.compile(r"scenes(?::(\d+))?")
SIDE = 160  # pixels of a scene
_COUNT = 1000  # training scenes; a fifth of them for validation, a fifth for the test
_PHOTOGRAPHS = {
    "train": ("astronaut", "chelsea", "camera", "brick", "grass", "immunohistochemistry"),
    "val": ("rocket", "moon"),
    "test": ("coffee", "gravel", "retina"),
}
_MOST, _TRIES = 6, 20  # digits of a scene, and places tried for each
_EXTENT = (28.0, 64.0)  # pixels, of the side of the square that a digit is drawn in before it is turned
_TURN = 15.0  # degrees either way
_OVERLAP = 0.1  # of the smaller of two boxes, at most
_GAIN = 1.5  # of the ink: enlarged, the thin strokes of 8x8 pixels are pale
_FAINT, INK = 0.05, 0.35  # of full ink: what counts as none, and what counts as part of a digit
_CONTRAST = 0.4  # of the range of brightness, at least between ink and ground
_LUMA = torch.tensor([0.299, 0.587, 0.114])
_GROUND = Preprocessing(size=(SIDE, SIDE), channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)

Box = tuple[int, int, int, int]


def open_scenes(name: str = "scenes") -> Source:
    """1,000 training scenes of 160x160 pixels with 1 to 6 digits, 200 to validate on and 200 to test on.

    name: "scenes", or "scenes:N" for N training scenes and a fifth as many of the others, rounded up.
    """
    return Source("scenes", "built in", {part: _split(part, places) for part, places in _places(name).items()})


def open_scene_maps(name: str = "scenes") -> Source:
    """The same scenes with the class of each pixel: `background` or one of the ten digits."""
    splits = {part: _split_of_maps(part, places) for part, places in _places(name).items()}
    return Source("scenes", "built in", splits)


def _places(name: str) -> dict[str, np.ndarray]:
    """Of each split the numbers of its scenes. Raises InputError for another name."""
    match = SCENES.fullmatch(name)
    count = int(match[1] or _COUNT) if match else 0
    if not 1 <= count <= 1_000_000:
        raise InputError(f"data source {name!r}; expected scenes, or scenes:N with N training scenes, 1 to 1000000")
    fifth = math.ceil(count / 5)
    counts = {"train": count, "val": fifth, "test": fifth}
    return {part: np.arange(number) for part, number in counts.items()}


@dataclass(frozen=True, eq=False)
class Scenes(Inputs):
    """Scenes, drawn when they are read. places: the numbers of its scenes, which all randomness derives from."""

    part: str
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def read(self, i: int) -> Tensor:
        return _draw(self.part, int(self.places[i]))

    def name(self, i: int) -> str:
        return f"scenes/{self.part}[{self.places[i]}]"

    def size(self, i: int) -> tuple[int, int]:
        return SIDE, SIDE

    def select(self, places: np.ndarray) -> Scenes:
        return Scenes(self.part, self.places[places])


@dataclass(frozen=True, eq=False)
class SceneMasks:
    """The pixels of each digit of a scene, in the order of its boxes."""

    part: str
    places: np.ndarray

    def select(self, places: np.ndarray) -> SceneMasks:
        return SceneMasks(self.part, self.places[places])

    def draw(self, i: int, size: tuple[int, int]) -> Tensor:
        return _masks(_plan(self.part, int(self.places[i])))

    def lacking(self, i: int, labels: Tensor) -> bool:
        return False


@dataclass(frozen=True, eq=False)
class SceneMaps:
    """The class of each pixel of a scene: 0 where there is no digit, one more than the digit where there is."""

    part: str
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def select(self, places: np.ndarray) -> SceneMaps:
        return SceneMaps(self.part, self.places[places])

    def read(self, i: int, size: tuple[int, int] | None) -> np.ndarray:
        found = np.zeros((SIDE, SIDE), np.uint8)
        for digit in _plan(self.part, int(self.places[i])):
            x1, y1, x2, y2 = digit.box
            found[y1:y2, x1:x2][digit.ink > INK] = digit.label + 1
        return found

    def name(self, i: int) -> str:
        return f"scenes/{self.part}[{self.places[i]}]"

    def tally(self, i: int) -> Tally:
        return tally_map(self, i, 11)


def _split_of_maps(part: str, places: np.ndarray) -> Split:
    classes = ["background", *map(str, range(10))]
    return Split(Scenes(part, places), ClassMaps(SceneMaps(part, places), classes))


def _split(part: str, places: np.ndarray) -> Split:
    instances = [_truth(part, place) for place in places.tolist()]
    truth = Boxes.of(instances, [str(k) for k in range(10)], SceneMasks(part, places))
    return Split(Scenes(part, places), truth)


@dataclass(frozen=True)
class _Digit:
    """label: which. ink: how much of it covers each pixel of its box, (h, w) in [0, 1]. box: where the ink is."""

    label: int
    ink: np.ndarray
    box: Box


def _plan(part: str, place: int) -> list[_Digit]:
    """Which digits a scene holds and where; no two share a pixel."""
    random = _random(part, place, 0)
    images, labels = digits_of(part)
    count = random.randint(1, _MOST + 1)
    chosen = random.randint(len(images), size=count)
    extents = np.exp(random.uniform(*np.log(_EXTENT), size=count))
    inks = ink_digits(part, chosen, extents, np.radians(random.uniform(-_TURN, _TURN, size=count)))
    taken = np.zeros((SIDE, SIDE), bool)
    planned: list[_Digit] = []
    for label, ink in zip(labels[chosen].tolist(), inks, strict=True):
        height, width = ink.shape
        for _ in range(_TRIES):
            top, left = int(random.randint(SIDE - height + 1)), int(random.randint(SIDE - width + 1))
            box = (left, top, left + width, top + height)
            under = taken[top : top + height, left : left + width]
            crowded = any(_overlap(box, other.box) > _OVERLAP for other in planned)
            if not crowded and not under[ink > 0].any():
                under |= ink > 0
                planned.append(_Digit(label, ink, box))
                break
    return planned


def ink_digits(part: str, chosen: np.ndarray, extents: np.ndarray, angles: np.ndarray) -> list[np.ndarray]:
    """How much ink covers each pixel of a box that just holds a digit, (h, w) in [0, 1], of those chosen of a part.

    extents: pixels, of the sides of the squares that they are drawn in. angles: radians that they are turned by then.
    """
    found = []
    for ink in _turned(digits_of(part)[0][chosen], extents, angles):
        rows, columns = (np.flatnonzero((ink > INK).any(axis=axis)) for axis in (1, 0))
        found.append(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return found


def _turned(images: Tensor, extents: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Digits (N, 8, 8) scaled to squares of these sides and turned, amid nothing: (N, P, P) in [0, 1]."""
    side = math.ceil(_EXTENT[1] * (math.cos(math.radians(_TURN)) + math.sin(math.radians(_TURN))))
    cos, sin, zero = np.cos(angles), np.sin(angles), np.zeros(len(angles))
    matrix = np.stack([cos, sin, zero, -sin, cos, zero], axis=1).reshape(-1, 2, 3) * (side / extents)[:, None, None]
    grid = F.affine_grid(torch.from_numpy(matrix).float(), [len(images), 1, side, side], align_corners=False)
    ink = F.grid_sample(images[:, None] * (_GAIN / 255), grid, mode="bicubic", align_corners=False)[:, 0].numpy()
    return np.where(ink < _FAINT, 0, ink).clip(0, 1)


def _truth(part: str, place: int) -> Instances:
    planned = _plan(part, place)
    boxes = torch.tensor([digit.box for digit in planned], dtype=torch.float32)
    return Instances(boxes, torch.tensor([digit.label for digit in planned]))


def _masks(planned: list[_Digit]) -> Tensor:
    masks = torch.zeros(len(planned), SIDE, SIDE, dtype=torch.bool)
    for digit, mask in zip(planned, masks, strict=True):
        x1, y1, x2, y2 = digit.box
        mask[y1:y2, x1:x2] = torch.from_numpy(digit.ink > INK)
    return masks


def _draw(part: str, place: int) -> Tensor:
    """A scene: uint8 (3, 160, 160)."""
    random = _random(part, place, 1)
    scene = _ground(part, random)
    for digit in _plan(part, place):
        x1, y1, x2, y2 = digit.box
        under = scene[:, y1:y2, x1:x2]
        colour = contrasting_colour(float(under.mean(dim=(1, 2)) @ _LUMA), random)
        under += torch.from_numpy(digit.ink) * (colour[:, None, None] - under)
    return scene.round().to(torch.uint8)


def _ground(part: str, random: np.random.RandomState) -> Tensor:
    """A square of a photograph, half of them mirrored: (3, 160, 160) in [0, 255]."""
    known = photographs(part)
    image = known[random.randint(len(known))]
    height, width = image.shape[-2:]
    side = random.randint(SIDE, min(height, width, 2 * SIDE) + 1)
    top, left = random.randint(height - side + 1), random.randint(width - side + 1)
    square = _GROUND.prepare(image[:, top : top + side, left : left + side])
    return (square.flip(-1) if random.randint(2) else square).float()


def contrasting_colour(ground: float, random: np.random.RandomState) -> Tensor:
    """A random colour that is brighter or darker than its ground, of brightness 0..255, by enough to be seen."""
    colours = torch.from_numpy(random.uniform(0, 255, (100, 3))).float()
    fitting = ((colours @ _LUMA - ground).abs() >= 255 * _CONTRAST).nonzero()[:, 0]
    return colours[fitting[0]] if len(fitting) else torch.full((3,), 0.0 if ground > 127 else 255.0)


def _overlap(box: Box, other: Box) -> float:
    """The share of the smaller box that the other covers."""
    width, height = min(box[2], other[2]) - max(box[0], other[0]), min(box[3], other[3]) - max(box[1], other[1])
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (box, other)]
    return max(0, width) * max(0, height) / min(areas)


def _random(part: str, place: int, purpose: int) -> np.random.RandomState:
    """A stream of its own, frozen: the same scenes with every NumPy."""
    number = (place * len(_PHOTOGRAPHS) + list(_PHOTOGRAPHS).index(part)) * 2 + purpose
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(number)))


def digits_of(part: str) -> tuple[Tensor, np.ndarray]:
    """The digits that scenes of a part hold, uint8 (N, 8, 8), and their labels (N,)."""
    return _digits()[part]


@cache
def _digits() -> dict[str, tuple[Tensor, np.ndarray]]:
    """From splits to their digits, uint8 (N, 8, 8), and labels (N,)."""
    found = {}
    for key, split in divide(digits(), val_fraction=0.15).items():
        found[key] = torch.stack([split.read(i)[0] for i in range(len(split))]), split.kind.presence
    return found


@cache
def photographs(part: str) -> list[Tensor]:
    """uint8 (3, H, W) of each photograph."""
    arrays = [np.atleast_3d(read_photograph(name)) for name in _PHOTOGRAPHS[part]]
    return [torch.from_numpy(array).permute(2, 0, 1).expand(3, -1, -1) for array in arrays]


def _claims(path: Path) -> Claim:
    return 3 if SCENES.fullmatch(str(path)) and not path.exists() else 0


FORMAT = Format("scenes", "boxes", "", _claims, lambda path: open_scenes(str(path)), names=("scenes",))
MAPS = Format(
    "scenes",
    "a class of each pixel",
    "",
    _claims,
    lambda path: open_scene_maps(str(path)),
    names=("scenes",),
)

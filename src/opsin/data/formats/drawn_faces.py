"""Built-in faces, drawn: an oval with eyes, a nose and a mouth, turned and tinted, with the exact place of ten points.

Not faces of people, and learned in minutes: for trying what learns named points. A bar hides a part of every fourth
face, whose points are known and not visible. A face depends on its split and its place alone, so `drawn_faces:50`
begins as `drawn_faces` does. Left and right are the face's own.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.point_source import OPTIONS, PointRows, source_of_points
from opsin.data.inputs import Inputs
from opsin.data.source import Source
from opsin.errors import InputError

NAMES = (
    *("right_eye_outer", "right_eye_inner", "left_eye_inner", "left_eye_outer", "nose"),
    *("mouth_right", "mouth_left", "mouth_top", "mouth_bottom", "chin"),
)
SIDE = 96  # pixels of an image
_NAME = re.compile(r"drawn_faces(?::(\d+))?")
_COUNT = 500  # training faces; a fifth of them for validation, a fifth for the test
_PARTS = ("train", "val", "test")
_FINER = 3  # times as large an image is drawn before it is shrunk
_TURN = 25.0  # degrees either way


def open_faces(name: str = "drawn_faces", **options: Any) -> Source:
    """500 training faces of 96x96 pixels, 100 to validate on and 100 to test on.

    name: "drawn_faces", or "drawn_faces:N" for N training faces and a fifth as many of the others, rounded up.
    """
    match = _NAME.fullmatch(name)
    count = int(match[1] or _COUNT) if match else 0
    if not 1 <= count <= 100_000:
        raise InputError(
            f"data source {name!r}; expected drawn_faces, or drawn_faces:N with N training faces to 100000"
        )
    if given := [key for key, value in options.items() if value]:
        raise InputError(f"drawn_faces are divided already, whole, and show nobody; leave {', '.join(given)} out")
    rows = {}
    for part, number in zip(_PARTS, (count, math.ceil(count / 5), math.ceil(count / 5)), strict=True):
        faces = [_draw(part, place) for place in range(number)]
        inputs = DrawnFaces(part, np.arange(number))
        rows[part] = PointRows(inputs, [face.points for face in faces], [face.visible for face in faces])
    return source_of_points("drawn_faces", "built in", rows, NAMES)


@dataclass(frozen=True, eq=False)
class DrawnFaces(Inputs):
    """Faces, drawn when they are read. places: the numbers of its faces, which all randomness derives from."""

    part: str
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def read(self, i: int) -> Tensor:
        return _draw(self.part, int(self.places[i])).image.clone()

    def name(self, i: int) -> str:
        return f"drawn_faces/{self.part}[{self.places[i]}]"

    def size(self, i: int) -> tuple[int, int]:
        return SIDE, SIDE

    def select(self, places: np.ndarray) -> DrawnFaces:
        return DrawnFaces(self.part, self.places[places])


@dataclass(frozen=True, eq=False)
class Face:
    """image: uint8 (3, 96, 96). points: (10, 2) in its pixels. visible: (10,) bool."""

    image: Tensor
    points: np.ndarray
    visible: np.ndarray


@cache
def _draw(part: str, place: int) -> Face:
    seed = np.random.SeedSequence(3 * place + _PARTS.index(part))
    random = np.random.RandomState(np.random.MT19937(seed))  # a stream of its own, frozen
    eye, gap = random.uniform(0.16, 0.24), random.uniform(0.14, 0.24)  # in units of the half height of the face
    mouth, opened = random.uniform(0.22, 0.36), random.uniform(0.04, 0.14)
    turned = random.uniform(-0.12, 0.12)  # of the head to a side: what is in the middle moves along
    level, lips = random.uniform(-0.3, -0.18), random.uniform(0.42, 0.56)
    shape = np.array(
        [
            *((turned - gap - eye, level), (turned - gap, level), (turned + gap, level), (turned + gap + eye, level)),
            (1.6 * turned, random.uniform(0.05, 0.2)),
            *(
                (turned - mouth, lips),
                (turned + mouth, lips),
                (1.2 * turned, lips - opened),
                (1.2 * turned, lips + opened),
            ),
            (0.6 * turned, 1.0),
        ]
    )
    angle, half = math.radians(random.uniform(-_TURN, _TURN)), random.uniform(0.27, 0.38) * SIDE
    middle = SIDE / 2 + random.uniform(-0.1, 0.1, 2) * SIDE
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])

    def put(points: np.ndarray) -> np.ndarray:
        return points @ turn * half + middle

    points = put(shape)
    image, hidden = _paint(shape, put, random, place % 4 == 3)
    return Face(image, points.astype(np.float32), ~hidden(points))


def _paint(shape, put, random: np.random.RandomState, bar: bool):  # type: ignore[no-untyped-def]
    """The image of a face, and what says of points (P, 2) which of them the bar hides."""
    ground, skin = random.uniform(20, 235, 3), random.uniform(90, 240, 3)
    canvas = Image.new("RGB", (SIDE * _FINER, SIDE * _FINER), tuple(int(one) for one in ground))
    brush = ImageDraw.Draw(canvas)
    for _ in range(6):  # what else there is, as large as the parts of a face
        x, y, reach = random.uniform(0, SIDE, 3)
        box = [_FINER * one for one in (x - reach / 5, y - reach / 7, x + reach / 5, y + reach / 7)]
        brush.ellipse(box, fill=tuple(int(one) for one in random.uniform(0, 255, 3)))
    dark = tuple(int(one) for one in skin * random.uniform(0.15, 0.4))

    def fill(points, colour) -> None:  # type: ignore[no-untyped-def]
        brush.polygon([tuple(one) for one in (put(np.asarray(points)) * _FINER).tolist()], fill=colour)

    around = np.linspace(0, 2 * math.pi, 48)
    fill(np.stack([0.78 * np.cos(around), np.sin(around)], 1), tuple(int(one) for one in skin))
    for outer, inner in ((0, 1), (3, 2)):
        centre, reach = (shape[outer] + shape[inner]) / 2, abs(shape[outer, 0] - shape[inner, 0]) / 2
        fill(centre + np.stack([reach * np.cos(around), 0.55 * reach * np.sin(around)], 1), (250, 250, 250))
        fill(centre + 0.45 * reach * np.stack([np.cos(around), np.sin(around)], 1), dark)
    nose = shape[4]
    fill(nose + np.array([[0.0, 0.0], [-0.1, -0.02], [-0.02, -0.3], [0.1, -0.02]]), dark)
    fill(shape[[5, 7, 6, 8]], (int(skin[0] * 0.8), 40, 60))
    left = random.uniform(0.2, 0.6) * SIDE
    covered = (left, left + 0.14 * SIDE) if bar else (-1.0, -1.0)
    if bar:
        brush.rectangle((_FINER * covered[0], 0, _FINER * covered[1], _FINER * SIDE), fill=(60, 60, 60))
    small = canvas.resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32) + random.normal(0, 6, (SIDE, SIDE, 3))
    image = torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()
    return image, lambda points: (points[:, 0] >= covered[0]) & (points[:, 0] < covered[1])


def _claims(path: Path) -> Claim:
    return 3 if _NAME.fullmatch(str(path)) and not path.exists() else 0


FORMAT = Format(
    "drawn faces",
    "named points",
    "",
    _claims,
    lambda path, **options: open_faces(str(path), **options),
    OPTIONS,
    names=("drawn_faces",),
)

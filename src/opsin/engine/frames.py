"""The frames of an input in the order of time, and what a run finds in each: the first half of a pipeline over time.

A pipeline of two runs (see `opsin.engine.pipeline`) looks at one image; what follows objects through time is given the
frames of a video, a camera or a folder of images one after the other, each with the boxes that a run found in it, and
vectors that say how those look.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from opsin.engine.inputs import find_inputs, is_address, is_live, is_several, is_video
from opsin.engine.load_image import load_image
from opsin.engine.predict import Predictor
from opsin.engine.video import Damage, Frame, batched, frame_count, frame_rate, open_video
from opsin.errors import InputError
from opsin.structures import Instances

RATE = Fraction(25)  # frames a second of images that nobody says it of
_SPARSE = 100  # frames for each image, from which on the numbers in their names cannot be those of frames
_AT_ONCE = 64  # boxes that a run looks at together


@dataclass
class Frames:
    """Images in the order of time. `read` gives them; it may be called again, but of a camera.

    given: a video, a camera, or what the images were found by. rate: frames a second. count: how many there are; None
    where that is not known, or only by the file's own word. numbers: of images, the frame that each is; None of videos.
    damage: what of a video could not be read, known once it was read.
    """

    given: Any
    rate: Fraction
    count: int | None
    images: Sequence[Any] = ()
    numbers: Sequence[int] | None = None
    damage: Damage = field(default_factory=Damage)

    @property
    def name(self) -> str:
        """Of the video's file, or of the folder, without its ending."""
        path = Path(str(self.given))
        return (path.name if self.numbers is not None else path.stem) or "frames"

    @property
    def live(self) -> bool:
        """Whether they come from a camera, and so have no end."""
        return self.numbers is None and is_live(self.given)

    def read(self, every: int = 1) -> Iterator[Frame]:
        """The frames whose number is a multiple of `every`. Raises InputError for an image that cannot be read."""
        if self.numbers is not None:
            for number, image in zip(self.numbers, self.images, strict=True):
                if number % every == 0:
                    yield Frame(load_image(image).expand(3, -1, -1), number, float(number / self.rate))
            return
        self.damage = Damage()
        with open_video(self.given, every, self.damage) as video:
            yield from video


def open_frames(given: str | Path | int, rate: float | None = None) -> Frames:
    """The frames of a video, an http(s) or rtsp address, a webcam by its number, a folder, a pattern or one image.

    rate: frames a second; the video's own, and 25 of images, if None. Images are in the order of the numbers in their
    names, and 1.png, 2.png, 4.png are frames 0, 1 and 3. Raises InputError for what is not there.
    """
    if rate is not None and not 0 < rate <= 100_000:
        raise InputError(f"{rate:g} frames a second cannot be; expected a number above 0")
    stated = None if rate is None else Fraction(rate).limit_denominator(1001)
    if is_live(given) or is_video(given):
        return Frames(given, stated or frame_rate(given), None if is_live(given) else frame_count(given))
    if is_address(given):
        raise InputError(f"{given} is a single image; give a video, or a folder of the frames of one")
    images = sorted(find_inputs([str(given)], videos=False), key=_in_order)
    if not is_several(str(given)) and len(images) == 1:
        raise InputError(f"{given} is a single image; give a video, or the folder of its frames")
    numbers = _numbers(images)
    return Frames(given, stated or RATE, numbers[-1] + 1, images, numbers)


def _in_order(path: Any) -> tuple[Any, ...]:
    """So that 10.png comes after 9.png."""
    parts = re.split(r"(\d+)", str(path))
    return tuple((int(part), part) if place % 2 else (0, part) for place, part in enumerate(parts))


def _numbers(images: Sequence[Any]) -> list[int]:
    """Which frames images are: by the numbers in their names, the first 0, or one after the other without such."""
    found = [re.fullmatch(r"(.*?)(\d+)", Path(str(image)).stem) for image in images]
    if all(found):
        prefixes = {(str(Path(str(image)).parent), one[1]) for image, one in zip(images, found, strict=True) if one}
        numbers = [int(one[2]) for one in found if one]
        span = numbers[-1] - numbers[0] + 1
        if len(prefixes) == 1 and len(set(numbers)) == len(numbers) and span <= _SPARSE * len(numbers):
            return [number - numbers[0] for number in numbers]
    return list(range(len(images)))


def find_in_frames(
    predictor: Predictor, frames: Iterator[Frame], *, batch_size: int = 8, **options: Any
) -> Iterator[tuple[Frame, Instances]]:
    """Each frame with what a run finds in it: boxes in its pixels, labels and scores.

    No more than `batch_size` frames are held. options: of the run's predictions. Raises InputError for a run whose
    answers have no boxes.
    """
    for chunk in batched(frames, batch_size):
        answers = predictor.predict([frame.image for frame in chunk], batch_size=batch_size, **options)
        for frame, answer in zip(chunk, answers, strict=True):
            yield frame, _instances(predictor, answer)


def _instances(predictor: Predictor, answer: Any) -> Instances:
    if "instances" not in answer:
        raise InputError(
            f"a run of the task {predictor.recipe.task} finds no boxes in an image; give one that does, or a file of "
            "detections"
        )
    found = answer["instances"]
    boxes = torch.tensor([one["box"] for one in found], dtype=torch.float64).reshape(-1, 4)
    labels = torch.tensor([one["class_id"] for one in found], dtype=torch.int64)
    return Instances(boxes, labels=labels, scores=torch.tensor([one["score"] for one in found], dtype=torch.float64))


def look_of(predictor: Predictor, image: Tensor, boxes: Tensor) -> Tensor:
    """How the objects in boxes look: vectors of length 1, float32 (N, D), by what a run makes of each cut out.

    image: uint8 (3, H, W). boxes: (N, 4), xyxy; what lies outside of the image is cut off. Of a box that has no pixel
    inside the vector is zero. Raises InputError for a run that gives no vectors.
    """
    height, width = image.shape[-2:]
    limits = torch.tensor([width, height, width, height], dtype=torch.float64)
    inside = torch.minimum(boxes.double().clamp(min=0), limits)
    seen = ((inside[:, 2:] - inside[:, :2]) >= 1).all(dim=1)
    cuts = [_cut(image, box) for box in inside[seen].tolist()]
    parts = [predictor.embed(chunk).float().cpu() for chunk in batched(cuts, _AT_ONCE)]
    if not parts:
        return torch.zeros(len(boxes), 0)
    vectors = torch.nn.functional.normalize(torch.cat(parts), dim=1)
    looks = torch.zeros(len(boxes), vectors.shape[1])
    looks[seen] = vectors
    return looks


def _cut(image: Tensor, box: Sequence[float]) -> Tensor:
    """The pixels that a box touches."""
    x1, y1, x2, y2 = box
    return image[:, math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)]

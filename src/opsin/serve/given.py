"""What a client sent, as what a model takes: images, pages of PDF files, frames of videos. From memory alone.

A file is what its first bytes say, whatever it is called. Its size in pixels is known from its header before any of it
is decoded. In messages a file is called by its place in the request, never by a name that a stranger chose.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import Tensor

from opsin.data.images import MAX_PIXELS, UnreadableImage, decode, read_header
from opsin.engine.pdf_pages import count_pages, draw_page
from opsin.engine.predict import Predictor
from opsin.engine.video import Frame, container_of, open_bytes
from opsin.errors import InputError
from opsin.serve.limits import Limits, Refused

Kind = Literal["image", "pdf", "video"]
AUTO = "auto"  # every: so that no more than SHOWN frames of a video are answered
SHOWN = 60
_CHUNK = 8  # frames that are decoded, and answered, at once


def kind_of(data: bytes) -> Kind:
    """What a file is, by its first bytes; an image where they say nothing else."""
    if data[:5] == b"%PDF-":
        return "pdf"
    return "image" if container_of(data) is None else "video"


def measure(data: bytes, name: str, most: int) -> int:
    """The pixels of an image by its header. Raises Refused, 413, for more than `most`, InputError for what is none."""
    try:
        header = read_header(data, name)
    except UnreadableImage as error:
        if f"{MAX_PIXELS:,} pixels" in error.reason:
            raise Refused(413, str(error)) from None
        raise
    pixels = header.height * header.width
    if pixels > most:
        raise Refused(413, f"{name} has {header.width:,} x {header.height:,} pixels, more than the {most:,} allowed")
    return pixels


def read_image(data: bytes, name: str) -> Tensor:
    """An image, uint8 (C, H, W), contiguous, so that it holds no more memory than its pixels."""
    return decode(data, name).contiguous()


def pages_of(data: bytes, name: str, limits: Limits) -> int:
    """The pages of a PDF. Raises Refused, 413, for too many, InputError for what is none."""
    count = count_pages(data, name)
    if count > limits.inputs:
        raise Refused(413, f"{name} has {count:,} pages; a request may have {limits.inputs}")
    if not count:
        raise InputError(f"{name} has no pages")
    return count


def read_page(data: bytes, number: int, name: str, most: int) -> Tensor:
    """A page of a PDF as an image, uint8 (3, H, W), with no more pixels than `most`."""
    return torch.from_numpy(draw_page(data, number, name, most)).permute(2, 0, 1).contiguous()


class Film:
    """A video whose frames are decoded and answered a few at a time, so that other requests come between.

    `decode` may be called in any thread, `answer` in the model's; never both at once. Close it in the end.
    """

    def __init__(self, data: bytes, name: str, every: int | str, limits: Limits) -> None:
        """Raises InputError for what is no video, Refused for one with too many or too large frames."""
        self._open, self._limits, self.name = ExitStack(), limits, name
        count, frames = self._open.enter_context(open_bytes(data, name, limits.pixels))
        if every == AUTO:
            every = max(1, math.ceil((count or SHOWN) / min(SHOWN, limits.frames)))
        self.every = int(every)
        self._given = 0
        try:
            if count is not None and count > limits.frames * self.every:
                raise self._too_long(count)
            self._frames = frames(self.every)
        except BaseException:
            self.close()
            raise
        self._source: deque[Tensor] = deque()
        self._answers: Iterator[Any] | None = None

    def _too_long(self, count: int) -> Refused:
        least = math.ceil(count / self._limits.frames)
        return Refused(
            413, f"{self.name} has more than {self._limits.frames} frames to answer; look at fewer: every={least}"
        )

    def decode(self) -> list[Frame]:
        """The next frames, none at the end."""
        found: list[Frame] = []
        for frame in self._frames:
            self._given += 1
            if self._given > self._limits.frames:
                raise self._too_long((frame.index + 1) * 2)
            found.append(Frame(frame.image.contiguous(), frame.index, frame.time))
            if len(found) == _CHUNK:
                break
        return found

    def answer(self, predictor: Predictor, frames: list[Frame], options: Mapping[str, Any]) -> list[Any]:
        """The answers to frames, which follow those of the call before, as a model that remembers wants it."""
        if self._answers is None:
            self._answers = predictor.stream(self._images(), batch_size=_CHUNK, **options)
        self._source.extend(frame.image for frame in frames)
        return [next(self._answers) for _ in frames]

    def _images(self) -> Iterator[Tensor]:
        while self._source:
            yield self._source.popleft()

    def close(self) -> None:
        """Let the video go."""
        self._open.close()

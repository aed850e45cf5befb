"""Video, frame by frame: read for prediction, written with the answers drawn on it. By PyAV, or OpenCV without it."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from opsin import downloading
from opsin.engine.inputs import NEEDS_VIDEO, is_address, is_live, is_video, webcam_number
from opsin.errors import InputError, JobError
from opsin.files import atomic
from opsin.image_files import VIDEO_SUFFIXES

__all__ = ["VIDEO_SUFFIXES", "Frame", "batched", "frame_rate", "is_video", "open_video", "write_video"]
_PATIENCE = 10.0  # seconds that a camera or an address may keep silent

T = TypeVar("T")


class Frame(NamedTuple):
    """An image of a video. image: uint8 (3, H, W). index: from 0. time: in seconds from the video's beginning."""

    image: Tensor
    index: int  # type: ignore[assignment]  # the tuple's own method gives way
    time: float


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last maybe shorter; no more than one is held."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


@contextmanager
def open_video(path: str | Path | int, every: int = 1) -> Iterator[Iterator[Frame]]:
    """The frames of a video, decoded as they are asked for. Raises InputError for a file that is no video.

    path: a file, an http(s) address, an rtsp address, or a webcam as 0 or "webcam:0". every: of so many frames the
    first, with the index and the time that it has in the video.
    """
    path = _existing(path)
    av, cv2 = _import("av"), _import("cv2")
    webcam = webcam_number(path)
    if av is not None and (webcam is None or cv2 is None):  # PyAV knows webcams by names that differ between systems
        with _opened(av, path) as container:
            yield _frames_of_av(av, container, path, every)
    elif cv2 is not None:
        capture = cv2.VideoCapture(str(path) if webcam is None else webcam)
        try:
            yield _frames_of_cv2(cv2, capture, path, every)
        finally:
            capture.release()
    else:
        raise InputError(NEEDS_VIDEO)


def frame_rate(path: str | Path | int) -> Fraction:
    """Frames a second; 25 where the file does not say, and of cameras, which are not opened for it."""
    path = _existing(path)
    if is_live(path):
        return Fraction(25)
    if (av := _import("av")) is not None:
        with _opened(av, path) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
    elif (cv2 := _import("cv2")) is not None:
        capture = cv2.VideoCapture(str(path))
        rate = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
    else:
        raise InputError(NEEDS_VIDEO)
    return Fraction(rate).limit_denominator(1001) if rate else Fraction(25)


@contextmanager
def write_video(path: str | Path, rate: Fraction) -> Iterator[Callable[[Image.Image], None]]:
    """A function that appends an image to an MP4 file, which appears whole or not at all.

    Every image is set to the size of the first; an odd side loses a line, since the format halves the colours' sides.
    """
    with atomic(Path(path)) as temporary:
        if (av := _import("av")) is not None:
            with av.open(str(temporary), "w", format="mp4") as container:
                yield from _write_by_av(av, container, rate)
        elif (cv2 := _import("cv2")) is not None:
            yield from _write_by_cv2(cv2, temporary, rate)
        else:
            raise InputError(NEEDS_VIDEO)


def _import(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        return None


def _existing(path: str | Path | int) -> str | Path | int:
    if is_live(path) or is_address(path):
        if webcam_number(path) is None:
            downloading.check_online(str(path))
        return path
    file = None if isinstance(path, int) else Path(os.path.expanduser(path))  # noqa: PTH111
    if file is None or not file.is_file():
        raise InputError(f"no file at {path}")
    return file


@contextmanager
def _opened(av: Any, path: str | Path | int) -> Iterator[Any]:
    webcam = webcam_number(path)
    try:
        if webcam is not None:
            mac = sys.platform == "darwin"
            container = av.open(str(webcam) if mac else f"/dev/video{webcam}", format="avfoundation" if mac else "v4l2")
        elif isinstance(path, str) and (is_live(path) or is_address(path)):
            options = {"rtsp_transport": "tcp"} if is_live(path) else {}
            container = av.open(path, timeout=_PATIENCE, options=options)
        else:
            container = av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        shown = path if webcam is None else f"webcam {webcam}"
        raise InputError(f"{shown} cannot be read as a video: {getattr(error, 'strerror', None) or error}") from None
    with container:
        if not container.streams.video:
            raise InputError(
                f"{path} holds no images, only {', '.join(s.type for s in container.streams) or 'nothing'}"
            )
        yield container


def _frames_of_av(av: Any, container: Any, path: str | Path | int, every: int) -> Iterator[Frame]:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    rate = stream.average_rate or Fraction(25)
    index, start = -1, None
    try:
        for index, frame in enumerate(container.decode(stream)):
            if start is None:  # a camera has been running before
                start = (frame.time or 0.0) if is_live(path) else 0.0
            if index % every:
                continue
            array = frame.to_ndarray(format="rgb24")
            time = float(index / rate) if frame.time is None else float(frame.time) - start
            yield Frame(torch.from_numpy(array).permute(2, 0, 1), index, time)
    except av.error.FFmpegError as error:
        raise InputError(f"{path} is damaged: {error.strerror or error}") from None
    if index < 0:
        raise InputError(f"{path} holds no images")


def _frames_of_cv2(cv2: Any, capture: Any, path: str | Path | int, every: int) -> Iterator[Frame]:
    rate, start = capture.get(cv2.CAP_PROP_FPS) or 25.0, 0.0
    for index in itertools.count():
        read, array = capture.read()
        if not read:
            if index == 0:
                webcam = webcam_number(path)
                raise InputError(f"{path if webcam is None else f'webcam {webcam}'} cannot be read as a video")
            return
        if index == 0:
            start = time.monotonic()
        if index % every:
            continue
        seconds = time.monotonic() - start if is_live(path) else index / rate  # a camera gives what it has time for
        colours = np.ascontiguousarray(array[..., ::-1])  # OpenCV has blue first
        yield Frame(torch.from_numpy(colours).permute(2, 0, 1), index, seconds)


def _write_by_av(av: Any, container: Any, rate: Fraction) -> Iterator[Callable[[Image.Image], None]]:
    streams: list[Any] = []

    def write(image: Image.Image) -> None:
        if not streams:
            streams.append(_add_stream(av, container, rate, _even(image)))
        stream = streams[0]
        frame = av.VideoFrame.from_image(_fitting(image, (stream.width, stream.height)))
        container.mux(stream.encode(frame))

    yield write
    for stream in streams:
        container.mux(stream.encode())  # what the encoder still holds


def _add_stream(av: Any, container: Any, rate: Fraction, size: tuple[int, int]) -> Any:
    # H.264 plays everywhere; a build of FFmpeg without it has MPEG-4.
    name = next((codec for codec in ("libx264", "h264", "mpeg4") if _encodes(av, codec)), None)
    if name is None:
        raise JobError("this build of PyAV can encode neither H.264 nor MPEG-4, so no video can be written")
    stream = container.add_stream(name, rate=rate)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    if name == "mpeg4":
        stream.bit_rate = 8_000_000
    return stream


def _encodes(av: Any, name: str) -> bool:
    try:
        return av.codec.Codec(name, "w") is not None
    except (ValueError, av.error.FFmpegError):
        return False


def _write_by_cv2(cv2: Any, path: Path, rate: Fraction) -> Iterator[Callable[[Image.Image], None]]:
    named = path.with_suffix(".mp4")  # OpenCV knows the format by the ending
    writers: list[tuple[Any, tuple[int, int]]] = []

    def write(image: Image.Image) -> None:
        if not writers:
            size = _even(image)
            writers.append((cv2.VideoWriter(str(named), cv2.VideoWriter_fourcc(*"mp4v"), float(rate), size), size))
        writer, size = writers[0]
        writer.write(np.asarray(_fitting(image, size))[..., ::-1])

    yield write
    for writer, _ in writers:
        writer.release()
        named.replace(path)


def _even(image: Image.Image) -> tuple[int, int]:
    return max(2, image.width // 2 * 2), max(2, image.height // 2 * 2)


def _fitting(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    image = image.convert("RGB")
    if image.size == size:
        return image
    if (image.width // 2 * 2, image.height // 2 * 2) == size:
        return image.crop((0, 0, *size))
    return image.resize(size, Image.Resampling.BILINEAR)

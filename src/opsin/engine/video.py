"""Video, frame by frame: read for prediction, written with the answers drawn on it. By PyAV.

Frames are upright, as the container's display matrix says: phones film on their side, and the film is turned when it
is shown. Of a damaged film everything that can be decoded is given, and `Damage` says what is missing.
"""

from __future__ import annotations

import io
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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

__all__ = [
    "VIDEO_SUFFIXES",
    "Damage",
    "Frame",
    "batched",
    "container_of",
    "frame_count",
    "frame_rate",
    "is_video",
    "open_bytes",
    "open_video",
    "write_video",
]
_PATIENCE = 10.0  # seconds that a camera or an address may keep silent
_NO_VIDEOS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"jp2 ", b"crx ")  # images with an ftyp

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


class Damage:
    """What of a video could not be read, gathered while its frames are."""

    def __init__(self) -> None:
        self.missing: list[tuple[float, float]] = []  # seconds, [from, to)
        self.incomplete: list[float] = []  # seconds of images that were decoded in part
        self.undecoded = 0  # packets without an image whose place is not known
        self.end: tuple[float, float] | None = None  # seconds read, of so many in all

    def __bool__(self) -> bool:
        return bool(self.missing or self.incomplete or self.undecoded or self.end)

    def __str__(self) -> str:
        """In words: `2.80 s to 3.00 s cannot be decoded`."""
        parts = [_listed([f"{start:.2f} s to {end:.2f} s" for start, end in self.missing], "cannot be decoded")]
        parts.append(_listed([f"the image at {time:.2f} s" for time in self.incomplete], "decoded in part alone"))
        if self.undecoded and not self.missing:
            parts.append(f"{self.undecoded} packets of data cannot be decoded")
        if self.end is not None:
            parts.append("it ends at {:.2f} s of {:.2f} s".format(*self.end))
        return "; ".join(filter(None, parts))


def _listed(places: Sequence[str], what: str) -> str:
    """Up to five places, how many more there are, and what is said of them; nothing where there are none."""
    more = f" and {len(places) - 5} more" if len(places) > 5 else ""
    return f"{', '.join(places[:5])}{more} {what}" if places else ""


@contextmanager
def open_video(path: str | Path | int, every: int = 1, damage: Damage | None = None) -> Iterator[Iterator[Frame]]:
    """The frames of a video, upright, decoded as they are asked for. Raises InputError for a file that is no video.

    path: a file, an http(s) address, an rtsp address, or a webcam as 0 or "webcam:0". every: of so many frames the
    first, with the index and the time that it has in the video. damage: is filled while the frames are read.
    """
    path = _existing(path)
    webcam = webcam_number(path)
    cv2 = None if webcam is None else _import("cv2")
    if cv2 is not None:  # PyAV knows webcams by names that differ between systems
        capture = cv2.VideoCapture(webcam)
        try:
            yield _frames_of_webcam(capture, path, every)
        finally:
            capture.release()
        return
    av = _import_av()
    with _opened(av, path) as container:
        yield _frames(av, container, path, every, Damage() if damage is None else damage)


def container_of(data: bytes) -> str | None:
    """FFmpeg's name for the format of a video file, by its first bytes; None for what is no video.

    >>> container_of(b"\\0\\0\\0 ftypisom"), container_of(b"#EXTM3U")
    ('mov', None)
    """
    box = data[4:8]
    if (box == b"ftyp" and data[8:12] not in _NO_VIDEOS) or (box in (b"moov", b"mdat", b"wide") and data[:1] == b"\0"):
        return "mov"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    magic = {b"\x1a\x45\xdf\xa3": "matroska", b"\0\0\x01\xba": "mpeg", b"\x30\x26\xb2\x75": "asf"}
    return magic.get(data[:4])


@contextmanager
def open_bytes(data: bytes, name: str, most: int) -> Iterator[tuple[int | None, Callable[[int], Iterator[Frame]]]]:
    """The frames of a video file in memory: how many it says it has, and what gives them, of so many the first.

    name: in messages. most: pixels of a frame. The format is the one that the first bytes say and no other: one that
    names further files, such as a playlist, is refused, as is all that is no video, by an InputError.
    """
    av, format = _import_av(), container_of(data)
    if format is None:
        raise InputError(f"{name} is no video of a kind that is read: MP4, MOV, AVI, Matroska, WebM, MPEG or WMV")
    try:
        container = av.open(io.BytesIO(data), format=format)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name} cannot be read as a video: {reason}") from None
    with container:
        if not container.streams.video:
            raise InputError(f"{name} holds no images")
        codec = container.streams.video[0].codec_context
        if codec.width * codec.height > most:
            raise InputError(f"the frames of {name} have more than {most:,} pixels; make them smaller")
        codec.options = {**codec.options, "max_pixels": str(most)}  # as the stream itself may say another size
        yield _count(container), lambda every: _frames(av, container, name, every, Damage())


def frame_rate(path: str | Path | int) -> Fraction:
    """Frames a second; 25 where the file does not say, and of cameras, which are not opened for it."""
    path = _existing(path)
    if is_live(path):
        return Fraction(25)
    with _opened(_import_av(), path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
    return Fraction(rate).limit_denominator(1001) if rate else Fraction(25)


def frame_count(path: str | Path | int) -> int | None:
    """How many frames a file says it has, which need not be true; None where it does not, and of cameras."""
    path = _existing(path)
    if is_live(path):
        return None
    with _opened(_import_av(), path) as container:
        return _count(container)


def _count(container: Any) -> int | None:
    """The frames that a container says it has."""
    stream = container.streams.video[0]
    if stream.frames:
        return int(stream.frames)
    seconds = float(stream.duration * stream.time_base) if stream.duration is not None else None
    if seconds is None and container.duration is not None:
        seconds = container.duration / 1e6
    rate = stream.average_rate or stream.guessed_rate
    return round(seconds * float(rate)) if seconds is not None and rate else None


@contextmanager
def write_video(path: str | Path, rate: Fraction) -> Iterator[Callable[[Image.Image], None]]:
    """A function that appends an image to an MP4 file, which appears whole or not at all.

    Every image is set to the size of the first; an odd side loses a line, since the format halves the colours' sides.
    """
    av = _import_av()
    with atomic(Path(path)) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        yield from _write(av, container, rate)


def _import_av() -> Any:
    if (av := _import("av")) is None:
        raise InputError(NEEDS_VIDEO)
    return av


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


def _frames(av: Any, container: Any, path: str | Path | int, every: int, damage: Damage) -> Iterator[Frame]:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    rate = stream.average_rate or Fraction(25)
    index, start, last = -1, 0.0, None
    for frame in _decoded(av, container, stream, damage):
        if index < 0 and is_live(path):  # a camera has been running before
            start = frame.time or 0.0
        time = float((index + 1) / rate) if frame.time is None else float(frame.time) - start
        index += 1 if last is None else _steps_since(damage, last, time, rate)
        last = time
        if frame.is_corrupt and not is_live(path):
            damage.incomplete.append(time)
        if index % every == 0:
            yield Frame(_upright(frame), index, time)
    if last is None:
        raise InputError(f"{path} is damaged: no image of it can be decoded" if damage else f"{path} holds no images")
    if not is_live(path):
        _check_end(container, stream, last + float(1 / rate), 2 * float(1 / rate), damage)


def _decoded(av: Any, container: Any, stream: Any, damage: Damage) -> Iterator[Any]:
    """The frames of a stream; packets that cannot be decoded are counted, and so is an end before the end."""
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                damage.undecoded += 1
    except av.error.FFmpegError:
        damage.undecoded += 1


def _steps_since(damage: Damage, last: float, time: float, rate: Fraction) -> int:
    """By how much the index of a frame is above that of the one before, whose time is `last`, in seconds.

    1 unless a packet between them could not be decoded: then the images that are lacking count too.
    """
    steps = round((time - last) * float(rate))
    if not damage.undecoded or steps < 2:
        return 1
    start = last + float(1 / rate)
    damage.missing.append((start, time))
    damage.undecoded = 0
    return steps


def _check_end(container: Any, stream: Any, end: float, patience: float, damage: Damage) -> None:
    """Compare where a video ends, in seconds, with the length that its file states, if it does."""
    if stream.duration is not None and stream.time_base is not None:
        stated = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    elif (
        container.duration is not None and len(container.streams) == 1
    ):  # of another stream that may be the longer one's
        stated = container.duration / 1e6
    else:
        return
    if stated - end > patience:
        damage.end = (end, stated)


def _upright(frame: Any) -> Tensor:
    """The image of a frame, uint8 (3, H, W), turned and mirrored as its display matrix says."""
    image = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
    held = frame.side_data.get("DISPLAYMATRIX")
    if held is None:
        return image
    # ISO/IEC 14496-12, 6.2.2: (x, y) is shown at (a x + c y, b x + d y), and the corner moved back to (0, 0).
    a, b, _, c, d = np.frombuffer(held, np.int32)[:5].tolist()
    if abs(b) > abs(a):
        image, a, d = image.transpose(1, 2), c, b
    mirrored = [axis for axis, sign in ((2, a), (1, d)) if sign < 0]
    return image.flip(mirrored) if mirrored else image


def _frames_of_webcam(capture: Any, path: str | Path | int, every: int) -> Iterator[Frame]:
    start = 0.0
    for index in itertools.count():
        read, array = capture.read()
        if not read:
            if index == 0:
                raise InputError(f"webcam {webcam_number(path)} cannot be read as a video")
            return
        if index == 0:
            start = time.monotonic()
        if index % every:
            continue
        colours = np.ascontiguousarray(array[..., ::-1])  # OpenCV has blue first
        # A camera gives what it has time for.
        yield Frame(torch.from_numpy(colours).permute(2, 0, 1), index, time.monotonic() - start)


def _write(av: Any, container: Any, rate: Fraction) -> Iterator[Callable[[Image.Image], None]]:
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


def _even(image: Image.Image) -> tuple[int, int]:
    return max(2, image.width // 2 * 2), max(2, image.height // 2 * 2)


def _fitting(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    image = image.convert("RGB")
    if image.size == size:
        return image
    if (image.width // 2 * 2, image.height // 2 * 2) == size:
        return image.crop((0, 0, *size))
    return image.resize(size, Image.Resampling.BILINEAR)

"""Video as cameras and broken disks leave it: turned, mirrored, damaged in the middle, cut off."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from opsin.engine import video
from opsin.engine.video import Damage, open_video
from opsin.errors import InputError

av = pytest.importorskip("av")
WIDTH, HEIGHT = 96, 64


def write(path: Path, frames: int, *, noise: bool = False, codec: str = "libx264", **options: str) -> Path:
    """A film of 10 frames a second with a red square in the upper left corner, or of noise."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"g": "3"}
        for place in range(frames):
            array = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            if noise:
                array = np.random.RandomState(place).randint(0, 255, array.shape, dtype=np.uint8)
            array[:16, :32] = (230, 40, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    return path


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """The display matrix of an MP4's track, in the place of the identity."""
    data = bytearray(path.read_bytes())
    place = data.find(b"tkhd") + 44
    one = 0x10000
    data[place : place + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 0x40000000)
    path.write_bytes(data)
    return path


# Where the square of the upper left corner is seen, of an upright image: the corner, and Pillow's way to get there.
MATRICES = {
    "as it is": ((1, 0, 0, 1), None),
    "90 degrees clockwise": ((0, 1, -1, 0), Image.Transpose.ROTATE_270),
    "180 degrees": ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
    "90 degrees counter-clockwise": ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
    "mirrored": ((-1, 0, 0, 1), Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": ((1, 0, 0, -1), Image.Transpose.FLIP_TOP_BOTTOM),
    "transposed": ((0, 1, 1, 0), Image.Transpose.TRANSPOSE),
    "transposed the other way": ((0, -1, -1, 0), Image.Transpose.TRANSVERSE),
}


@pytest.mark.parametrize("name", MATRICES)
def test_frames_are_upright(name: str, tmp_path: Path) -> None:
    matrix, transpose = MATRICES[name]
    plain = write(tmp_path / "plain.mp4", 2)
    with av.open(str(plain)) as container:
        stored = next(container.decode(video=0)).to_image()
    upright = stored if transpose is None else stored.transpose(transpose)
    turned = with_matrix(write(tmp_path / "turned.mp4", 2), *matrix)
    with open_video(turned) as frames:
        seen = [frame.image.permute(1, 2, 0).numpy() for frame in frames]
    assert len(seen) == 2
    assert np.array_equal(seen[0], np.asarray(upright))


def damaged(path: Path, size: int = 200) -> Path:
    """A hole of zeros in the middle of the images' data."""
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat")
    length = struct.unpack(">I", data[start - 4 : start])[0]
    middle = start + 4 + length // 2
    data[middle : middle + size] = bytes(size)
    path.write_bytes(data)
    return path


def test_a_hole_is_said_and_the_rest_is_read(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mp4", 60)
    hole = damaged(write(tmp_path / "hole.mp4", 60))
    with open_video(whole) as frames:
        expected = {frame.index: frame.time for frame in frames}
    damage = Damage()
    with open_video(hole, damage=damage) as frames:
        read = {frame.index: frame.time for frame in frames}
    lacking = sorted(expected.keys() - read.keys())
    assert 0 < len(lacking) < 10
    assert read.items() <= expected.items()  # the frames behind the hole keep their index and time
    assert damage.missing
    covered = [i for i in lacking if any(start - 1e-6 <= expected[i] < end for start, end in damage.missing)]
    assert covered == lacking
    assert "cannot be decoded" in str(damage)


def test_an_end_before_the_end_is_said(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mp4", 60, noise=True, movflags="faststart")
    data = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    damage = Damage()
    with open_video(tmp_path / "cut.mp4", damage=damage) as frames:
        times = [frame.time for frame in frames]
    assert 20 < len(times) < 45
    assert damage.end is not None
    assert damage.end == pytest.approx((times[-1] + 0.1, 6.0))
    for complete in (whole, write(tmp_path / "a.avi", 20, codec="mpeg4"), write(tmp_path / "a.mkv", 20)):
        damage = Damage()
        with open_video(complete, damage=damage) as frames:
            assert len(list(frames)) in (20, 60)
        assert not damage, (complete.name, str(damage))


def test_a_film_without_an_index_is_no_video(tmp_path: Path) -> None:
    data = write(tmp_path / "whole.mp4", 20).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: data.find(b"moov") - 10])
    cut = tmp_path / "cut.mp4"
    with pytest.raises(InputError, match=r"cut\.mp4 cannot be read as a video"), open_video(cut) as frames:
        next(frames)


def test_frames_without_a_time_follow_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [SimpleNamespace(time=None, is_corrupt=False)] * 4
    monkeypatch.setattr(video, "_decoded", lambda *_: iter(frames))
    monkeypatch.setattr(video, "_upright", lambda frame: np.zeros((1, 1, 3), np.uint8))
    stream = SimpleNamespace(average_rate=Fraction(5), thread_type="", duration=None)
    container = SimpleNamespace(streams=SimpleNamespace(video=[stream]), duration=None)
    read = list(video._frames(av, container, "film.mp4", 1, Damage()))
    assert [(frame.index, frame.time) for frame in read] == [(0, 0.0), (1, 0.2), (2, 0.4), (3, 0.6)]

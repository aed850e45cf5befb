"""What libraries write while they decode stays off the terminal, and is said with the image's name."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.processes import run_python

from opsin import data
from opsin.data import decoder_messages
from opsin.data.images import UnreadableImage, decode, read_image

DECODE_ALL = """
import sys
from pathlib import Path
import torchvision.io
from opsin.data.images import UnreadableImage, read_header, read_image
for file in sorted(Path(sys.argv[1]).iterdir()):
    for read in (read_image, lambda one: read_header(one, str(one))):
        try:
            read(file)
        except UnreadableImage as error:
            print(error)
"""


def photograph() -> Image.Image:
    y, x = np.mgrid[0:48, 0:64]
    noise = np.random.default_rng(0).integers(0, 20, (48, 64, 3))
    return Image.fromarray((np.stack([x * 3, y * 4, x + y], -1) + noise).astype(np.uint8))


def encode(image: Image.Image, encoding: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, encoding, **options)
    return content.getvalue()


def noisy_jpeg() -> bytes:
    """One that every decoder reads, and libjpeg has a word to say of."""
    bad = bytearray(encode(photograph(), "JPEG"))
    place = len(bad) // 2 + 148
    bad[place : place + 2] = b"\xff\xd0"  # a marker amid the data
    return bytes(bad)


def noisy_tiff() -> bytes:
    """A fax that libtiff reads with a complaint a line."""
    good = bytearray(encode(photograph().convert("1"), "TIFF", compression="group4"))
    good[40:50] = bytes([255]) * 10
    return bytes(good)


def damaged(folder: Path, each: int) -> None:
    """Files of every encoding, some bytes of which were changed."""
    image, draw = photograph(), random.Random(1)
    kinds: dict[str, tuple[str, dict[str, object]]] = {
        "a.jpg": ("JPEG", {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\2\0\x99\0\0\0\xff\0\0\0\0\0\0\0"}),
        "b.jpg": ("JPEG", {"progressive": True}),
        **{name: (kind, {}) for name, kind in {"a.png": "PNG", "a.gif": "GIF", "a.bmp": "BMP"}.items()},
        **{name: (kind, {}) for name, kind in {"a.webp": "WEBP", "a.jp2": "JPEG2000", "a.ppm": "PPM"}.items()},
        **{f"{c}.tif": ("TIFF", {"compression": c}) for c in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "group4")},
    }
    for name, (encoding, options) in kinds.items():
        good = encode(image.convert("1") if "group4" in name else image, encoding, **options)
        for k in range(each):
            bad = bytearray(good[: draw.randrange(20, len(good))] if k % 4 == 0 else good)
            for _ in range(draw.choice((1, 3, 10))):
                bad[draw.randrange(len(bad) if k % 2 else min(len(bad), 400))] = draw.randrange(256)
            stem, dot, ending = name.partition(".")
            (folder / f"{stem}{k}{dot}{ending}").write_bytes(bad)


def test_nothing_but_our_own_lines_is_written(tmp_path: Path) -> None:
    damaged(tmp_path, 25)
    command = [sys.executable, "-W", "always", "-c", DECODE_ALL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    start = f"warning: damaged image: {tmp_path}/"
    assert done.stderr and all(line.startswith(start) for line in done.stderr.splitlines()), done.stderr[-2000:]
    assert all(line.startswith(f"cannot read {tmp_path}/") for line in done.stdout.splitlines())
    assert "its decoder says: Corrupt JPEG data" in done.stderr
    assert "ZIPDecode: Decoding error" in done.stdout and "TiffImagePlugin" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("a.jpg", noisy_jpeg(), "Corrupt JPEG data: premature end"), ("a.tif", noisy_tiff(), "Fax4Decode: Bad code word")],
)
def test_an_image_that_is_read_all_the_same(
    name: str, content: bytes, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import torchvision.io  # noqa: F401  # or Pillow reads the JPEG, and says nothing

    (tmp_path / name).write_bytes(content)
    first, second = read_image(tmp_path / name), read_image(tmp_path / name)
    assert first.shape[-2:] == (48, 64) and first.equal(second)
    (line,) = capfd.readouterr().err.splitlines()  # once
    assert line.startswith(f"warning: damaged image: {tmp_path / name}: its decoder says: {words}")


def test_an_image_that_is_refused_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = bytearray(encode(photograph(), "TIFF", compression="tiff_deflate"))
    good[60:90] = bytes(30)
    with pytest.raises(UnreadableImage, match=r"damaged or truncated TIFF: .* \(ZIPDecode: Decoding error"):
        decode(bytes(good), "x.tif")
    assert capfd.readouterr().err == ""


def test_of_many_threads_each_image_has_its_own_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import torchvision.io  # noqa: F401

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(40):
            photograph().rotate(i).save(tmp_path / name / f"{i}.jpg")
    for place in ("cat/7.jpg", "dog/31.jpg"):
        (tmp_path / place).write_bytes(noisy_jpeg())
    found = data.inspect(tmp_path, workers=8).problems
    heard = {problem.path: problem.reason for problem in found if problem.kind == "damaged_image"}
    assert set(heard) == {str(tmp_path / "cat/7.jpg"), str(tmp_path / "dog/31.jpg")}
    assert all("premature end" in reason for reason in heard.values())
    assert capfd.readouterr().err == ""


def test_others_are_heard_all_the_while(capfd: pytest.CaptureFixture[str]) -> None:
    with decoder_messages.listening():
        os.write(2, b"a library of another kind\n")
        print("a line of ours", file=sys.stderr)
        assert capfd.readouterr().err == "a line of ours\n"  # at once
        with pytest.warns(UserWarning, match="of the user's own"):
            warnings.warn("of the user's own", UserWarning, stacklevel=1)
    assert capfd.readouterr().err == "a library of another kind\n"
    print("and after", file=sys.stderr)
    assert capfd.readouterr().err == "and after\n"


def test_the_commands_say_it_with_the_name(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(30):  # so many that the faster decoder is used
            photograph().rotate(i * (1 + (name == "cat"))).save(tmp_path / "d" / name / f"{i}.jpg")
    (tmp_path / "d/dog/9.jpg").write_bytes(noisy_jpeg())

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return run_python(["-m", "opsin", *words], tmp_path)

    done = run("data", str(tmp_path / "d"), "--json")
    kinds = {one["kind"]: one["path"] for one in json.loads(done.stdout)["problems"]}
    assert done.stderr == "" and kinds["damaged_image"].endswith("dog/9.jpg")

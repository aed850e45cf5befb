"""Everything that a person may give to predict on, against Pillow's own reading of the same pixels; and junk."""

from __future__ import annotations

import http.server
import io
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from opsin.data.images import read_image
from opsin.downloading import read_address
from opsin.engine.inputs import check_inputs, expand, find_inputs, is_live, is_video, webcam_number
from opsin.engine.load_image import from_bgr, load_image
from opsin.errors import InputError

RGB = np.random.RandomState(0).randint(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = np.linspace(0, 255, 35).reshape(5, 7).astype(np.uint8)
EXPECTED = torch.from_numpy(RGB).permute(2, 0, 1)


def encoded(image: Image.Image, encoding: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, encoding, **options)
    return stream.getvalue()


PNG = encoded(Image.fromarray(RGB))


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


FORMS = {
    "array": RGB,
    "read-only": read_only(RGB),
    "negative strides": RGB[::-1, ::-1].copy()[::-1, ::-1],
    "not contiguous": np.repeat(RGB, 2, axis=1)[:, ::2],
    "column-major": np.asfortranarray(RGB),
    "uint16": RGB.astype(np.uint16) * 257,
    "big-endian": (RGB.astype(np.uint16) * 257).astype(">u2"),
    "float32": RGB.astype(np.float32) / 255,
    "float64": RGB / 255,
    "opaque": np.dstack([RGB, np.full((5, 7), 255, np.uint8)]),
    "tensor": EXPECTED,
    "tensor of floats": EXPECTED / 255,
    "tensor with gradient": (EXPECTED / 255).requires_grad_(),
    "PIL": Image.fromarray(RGB),
    "bytes": PNG,
    "bytearray": bytearray(PNG),
    "memoryview": memoryview(PNG),
    "BytesIO": io.BytesIO(PNG),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_pixels(form: str) -> None:
    given = FORMS[form]
    for _ in range(2):  # an open file can be read again
        image = load_image(given)
        assert image.dtype == torch.uint8
        assert torch.equal(image, EXPECTED)
    assert expand(given)[1]


def test_grey_bool_and_alpha() -> None:
    grey = torch.from_numpy(RGB[..., 0])[None]
    for given in (RGB[..., 0], RGB[..., :1], grey, grey[0], Image.fromarray(RGB[..., 0])):
        assert torch.equal(load_image(given), grey)
    assert torch.equal(load_image(RGB[..., 0] > 99), (grey > 99).byte() * 255)
    rgba = np.dstack([RGB, ALPHA])
    share = ALPHA[..., None] / 255
    expected = torch.from_numpy(RGB * share + 255 * (1 - share)).permute(2, 0, 1)
    for given in (rgba, torch.from_numpy(rgba).permute(2, 0, 1), Image.fromarray(rgba), encoded(Image.fromarray(rgba))):
        assert (load_image(given).double() - expected).abs().max() <= 1
        assert torch.equal(load_image(given), load_image(rgba))


def test_pil_images_follow_the_rules_of_files(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"):
        image = Image.fromarray(RGB).convert("L" if mode == "I;16" else "RGB").convert(mode)
        assert load_image(image).shape[1:] == (5, 7), mode
    (tmp_path / "x.png").write_bytes(encoded(Image.fromarray(RGB), exif=exif))
    opened = Image.open(tmp_path / "x.png")
    assert torch.equal(load_image(opened), read_image(tmp_path / "x.png"))
    assert load_image(opened).shape == (3, 7, 5)
    moving = io.BytesIO(encoded(Image.fromarray(RGB), "GIF", save_all=True, append_images=[Image.new("RGB", (7, 5))]))
    with pytest.raises(InputError, match="2 frames"):
        load_image(Image.open(moving))
    with pytest.raises(InputError, match="unknown range"):
        load_image(Image.new("F", (4, 4)))


def test_opencv_has_blue_first() -> None:
    cv2 = pytest.importorskip("cv2")
    bgr = cv2.imdecode(np.frombuffer(PNG, np.uint8), cv2.IMREAD_COLOR)
    assert torch.equal(load_image(from_bgr(bgr)), EXPECTED)
    assert torch.equal(load_image(from_bgr(torch.from_numpy(bgr).permute(2, 0, 1))), EXPECTED)
    assert torch.equal(load_image(from_bgr(np.dstack([bgr, np.full((5, 7), 255, np.uint8)]))), EXPECTED)
    assert not torch.equal(load_image(bgr), EXPECTED)
    assert from_bgr(PNG) is PNG


class _Broken:
    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise OSError("two\nlines")


SHAPES = [(), (5,), (0, 4, 3), (4, 0), (4, 4, 2), (4, 4, 5), (3, 4, 9), (1, 1, 4, 4, 3), (0, 0, 0)]
JUNK: list[Any] = [
    None, 3.5, 7, -1, True, 1j, {}, {"a": 1}, object(), object, [], [[1, 2], [3, 4]], (), len, _Broken(), b"", b"junk",
    bytearray(), "", "\0", "x" * 5000, "gone.png", Path("gone.png"), "~nobody-of-this-name/x.png", io.StringIO("text"),
    io.BytesIO(), io.BytesIO(b"junk"), np.empty(3, object), np.empty((2, 2, 3), object), np.array("text"),
    *(np.zeros(shape, np.uint8) for shape in SHAPES), *(torch.zeros(shape) for shape in [*SHAPES[:4], *SHAPES[7:]]),
    *(np.zeros((4, 4, 3), kind) for kind in ("i8", "i4", "u4", "c16", "M8[s]", "m8[s]", "V3", "S3", "U3")),
    *(torch.zeros(3, 4, 4, dtype=kind) for kind in (torch.int64, torch.int8, torch.complex64)),
    torch.zeros(3, 4, 4, device="meta"), torch.zeros(3, 4, 4).to_sparse(), np.full((4, 4), np.nan),
    np.full((4, 4), np.inf), np.full((4, 4), 1.01), np.full((4, 4), -0.01), Image.new("RGB", (0, 4)),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(JUNK)))
def test_junk_is_an_input_error_of_one_line(place: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load_image(JUNK[place])
    assert len(str(caught.value)) > 10
    assert "\n" not in str(caught.value)
    expand(JUNK[place] if JUNK[place] is not object else None)  # raises nothing: each task reads what it takes


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\) and type uint8"),
        (np.zeros((3, 4, 9), np.uint8), r"transpose\(1, 2, 0\)"),
        (torch.zeros(9, 4, 3), r"permute\(2, 0, 1\)"),
        (np.full((4, 4), 200.0), "from 200 to 200"),
        (None, "None is no image; taken are a path"),
        ({}, "a dict is no image"),
        (io.StringIO("x"), "opened as text"),
    ],
)
def test_what_was_given_is_named_with_the_way_out(given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_image(given)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("p/1.png", "p/in/2.png", "p/.hidden/3.png", "p/notes.txt", "a[1].png", "0"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("p", ["p/1.png", "p/in/2.png"]),
        ("p/*", ["p/1.png"]),
        ("p/**/*.png", ["p/1.png", "p/in/2.png"]),
        ("p/**", ["p/1.png", "p/in/2.png"]),
        ("*/i?/[12].png", ["p/in/2.png"]),
        ("p/*.txt", ["p/notes.txt"]),
        ("p/.hidden/*.png", ["p/.hidden/3.png"]),
        ("a[1].png", ["a[1].png"]),
        ("0", ["0"]),
    ],
)
def test_folders_and_patterns(folder: Path, given: str, expected: list[str]) -> None:
    (folder / "p/up").symlink_to(folder / "p")
    assert [one.as_posix() for one in find_inputs([given])] == expected
    check_inputs([given])


def test_home_and_mixtures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert find_inputs(["~/p/1.png"]) == [folder / "p/1.png"]
    items, single = expand(["p", "~/p/1.png", RGB, PNG])
    assert not single
    assert [load_image(item).shape for item in items] == [(3, 5, 7)] * 5
    batch, single = expand(np.stack([RGB, RGB]))
    assert not single and len(batch) == 2
    assert len(expand(torch.stack([EXPECTED] * 3))[0]) == 3
    assert expand(iter(["p/1.png"])) == (["p/1.png"], False)


@pytest.mark.parametrize(
    ("given", "said"),
    [("gone.png", "no file or folder at gone"), ("p/*.bmp", "no file matches"), ("gone/*.png", "no folder gone"),
     ("*/in", r"no file matches \*/in"),
     ("s3://b/x.png", "by s3 are not read"), ("", "empty text")],
)  # fmt: skip
def test_what_is_not_there_is_said(folder: Path, given: str, said: str) -> None:
    for call in (check_inputs, find_inputs):
        with pytest.raises(InputError, match=said):
            call([given])


def test_cameras_and_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [webcam_number(one) for one in (0, "1", "webcam:2", "/dev/video3", True, "x", 1.0)] == [
        0, 1, 2, 3, None, None, None
    ]  # fmt: skip
    assert is_live("rtsp://camera/1") and is_video("http://a.org/clip.mp4?x=1") and not is_video("http://a.org/a.jpg")
    (tmp_path / "0").write_bytes(PNG)
    (tmp_path / "folder.mp4").mkdir()
    assert webcam_number("0") is None and not is_video("folder.mp4")


def test_standard_input_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PNG)))
    (item,) = find_inputs(["-"])
    assert item == "-"
    assert torch.equal(load_image(item), EXPECTED)
    assert torch.equal(load_image(item), EXPECTED)  # for whoever draws on it
    with pytest.raises(InputError, match="nothing came in"):
        load_image(find_inputs(["-"])[0])
    with pytest.raises(InputError, match="twice"):
        check_inputs(["-", "-"])


class _Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind = self.path.strip("/")
        self.send_response({"gone": 404, "away": 302}.get(kind, 200))
        if kind == "away":
            self.send_header("Location", "ftp://localhost/x.png")
        if kind in ("x.png", "short"):
            self.send_header("Content-Length", str(len(PNG) + (9 if kind == "short" else 0)))
        if kind == "large":
            self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(bytes(5000) if kind == "endless" else PNG)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPSIN_OFFLINE", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()


def test_addresses_are_fetched_and_limited(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.equal(load_image(f"{server}/x.png"), EXPECTED)
    assert torch.equal(load_image(find_inputs([f"{server}/unannounced.png"])[0]), EXPECTED)
    for name, said in {
        "gone": "404", "away": "unknown url type: ftp", "short": "broke after", "large": "it has", "endless": "arrive"
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=said):
            read_address(f"{server}/{name}", largest=4000)
    with pytest.raises(InputError, match="cannot be reached"):
        load_image("http://127.0.0.1:9/x.png")
    monkeypatch.setenv("OPSIN_OFFLINE", "1")
    for call in (load_image, lambda given: check_inputs([given])):
        with pytest.raises(InputError, match="offline"):
            call(f"{server}/x.png")

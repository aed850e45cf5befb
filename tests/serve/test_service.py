"""What a server answers, in this process: the same as predict, JSON for every refusal, nothing of this machine."""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import io
import json
import re
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import opsin
from opsin import rooms
from opsin.engine.predict import Predictor

pytest.importorskip("fastapi", reason="the extra serve is not installed")


from opsin.serve.app import create_app
from opsin.serve.limits import Limits
from opsin.serve.service import Service, run_name

from .asgi import Heard, ask, form, together

COMPATIBILITY = Path(__file__).parents[1] / "compatibility"


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    """PNG files."""
    with np.load(COMPATIBILITY / "images.npz") as held:
        return {name: png(held[name]) for name in held.files}


@pytest.fixture(scope="module")
def detector() -> Predictor:
    return opsin.load(COMPATIBILITY / "detect", "cpu")


@pytest.fixture(scope="module")
def classifier() -> Predictor:
    return opsin.load(COMPATIBILITY / "classify", "cpu")


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that states a huge size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


def served(predictor: Predictor, talk: Callable[[Any, Service], Any], *, options: Any = None, token: str | None = None,
           closed: bool = False, local: bool = True, **limits: Any) -> Any:  # fmt: skip
    """What `talk` gives, of an application that serves a model while it runs."""

    async def run() -> Any:
        service = Service(predictor, "run", Limits(**limits), options, closed=closed)
        try:
            return await talk(create_app(service, token=token, local=local), service)
        finally:
            service.close()

    return asyncio.run(run())


def post(predictor: Predictor, path: str, body: bytes, kind: str = "image/png", **more: Any) -> Heard:
    return served(predictor, lambda app, _: ask(app, "POST", path, body, content_type=kind), **more)


# The same answers


def test_answers_are_those_of_predict(detector: Predictor, images: dict[str, bytes]) -> None:
    scenes = [images["scene_0"], images["scene_1"]]
    body, kind = form(scenes)
    heard = post(detector, "/predict?threshold=0.2&limit=3", body, kind)
    assert heard.status == 200 and heard.headers["content-type"] == "application/json"
    assert heard.json["run"] == "run" and heard.json["opsin"] == opsin.__version__
    for found, data in zip(heard.json["answers"], scenes, strict=True):
        expected = dict(detector.predict(data, threshold=0.2, limit=3))
        assert len(found["instances"]) == 3
        for one, other in zip(found["instances"], expected["instances"], strict=True):
            assert one["label"] == other["label"] and one["box"] == pytest.approx(other["box"], abs=0.02)
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)
    # a single file without a form, and the same as JSON
    (alone,) = post(detector, "/predict?threshold=0.2&limit=3", scenes[0]).json["answers"]
    assert alone == dict(detector.predict(scenes[0], threshold=0.2, limit=3))
    text = json.dumps({"images": [base64.b64encode(scenes[0]).decode()], "threshold": 0.2, "limit": 3})
    assert post(detector, "/predict", text.encode(), "application/json").json["answers"] == [alone]


def test_arrays_and_drawings_on_request(classifier: Predictor, images: dict[str, bytes]) -> None:
    data = images["digit_1"]
    (found,) = post(classifier, "/predict?include=probabilities,described&include=drawn", data).json["answers"]
    held, expected = found["probabilities"], classifier.predict(data)
    array = np.frombuffer(base64.b64decode(held["base64"]), held["dtype"]).reshape(held["shape"])
    assert np.array_equal(array, expected.probabilities)
    assert found["described"] == classifier.describe(expected)
    drawn = Image.open(io.BytesIO(base64.b64decode(found["drawn"].partition(",")[2])))
    assert drawn.size == expected.plot().size
    assert "probabilities" not in post(classifier, "/predict", data).json["answers"][0]


def test_a_video_is_answered_frame_by_frame(detector: Predictor) -> None:
    av = pytest.importorskip("av")
    file, draw = io.BytesIO(), np.random.default_rng(0)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(12):
            frame = av.VideoFrame.from_ndarray(draw.integers(0, 255, (48, 64, 3), np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    answers = post(detector, "/predict?every=5&threshold=0", file.getvalue(), "video/mp4").json["answers"]
    assert [(one["frame"], one["time"]) for one in answers] == [(0, 0.0), (5, 0.5), (10, 1.0)]
    heard = post(detector, "/predict", file.getvalue(), "video/mp4", frames=5)
    assert heard.status == 413 and "every=3" in heard.json["error"]
    assert post(detector, "/predict", file.getvalue(), "video/mp4", pixels=1000).status == 400
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n"
    assert post(detector, "/predict", playlist, "video/mp4").status == 400


def test_requests_are_answered_in_one_batch(classifier: Predictor, images: dict[str, bytes]) -> None:
    """Eight requests of equal options at once, and two of others: no answer goes to somebody else."""
    digits = [images[f"digit_{n % 4}"] for n in range(8)]

    async def talk(app: Any, service: Service) -> tuple[list[Heard], list[int]]:
        gate = threading.Event()
        service.batcher.call(gate.wait)  # until all are there
        asked = [ask(app, "POST", "/predict?top=2", one, content_type="image/png") for one in digits]
        asked += [ask(app, "POST", "/predict?top=1", one, content_type="image/png") for one in digits[:2]]
        task = asyncio.ensure_future(together(*asked))
        while len(service.batcher._waiting) < 10 and not task.done():
            await asyncio.sleep(0.01)
        gate.set()
        return await task, list(service.batcher.batches)

    heard, batches = served(classifier, talk)
    assert sorted(batches) == [2, 8]
    for one, data, top in zip(heard, [*digits, *digits[:2]], [2] * 8 + [1] * 2, strict=True):
        expected = classifier.predict(data, top=top)
        found = one.json["answers"][0]
        assert found["label"] == expected["label"] and len(found["top"]) == top
        assert found["score"] == pytest.approx(expected["score"], abs=1e-5)


def test_one_that_fails_spoils_no_other(classifier: Predictor, images: dict[str, bytes]) -> None:
    body, kind = form([images["digit_0"], b"no image", images["digit_1"][:60], images["digit_1"]])
    answers = post(classifier, "/predict", body, kind).json["answers"]
    assert ["error" in one for one in answers] == [False, True, True, False]
    broken = copy.copy(classifier)

    def read(given: Any) -> Any:
        if given.shape[-1] == 7:
            raise RuntimeError("secret")
        return given

    broken.read = read  # type: ignore[method-assign]

    async def talk(app: Any, _: Service) -> list[Heard]:
        files = [images["digit_0"], png(np.zeros((7, 7), np.uint8)), images["digit_1"]]
        return await together(*(_caught(ask(app, "POST", "/predict", one, content_type="image/png")) for one in files))

    assert [one if isinstance(one, str) else one.status for one in served(broken, talk)] == [200, "secret", 200]


async def _caught(asked: Any) -> Any:
    """What is heard, or what the application raises after it has answered 500, for the log."""
    try:
        return await asked
    except RuntimeError as error:
        return str(error)


# Refusals


@pytest.mark.parametrize(
    ("status", "path", "body", "kind", "limits"),
    [
        (400, "/predict", b"", "image/png", {}),
        (400, "/predict", b"junk", "image/png", {}),
        (400, "/predict?thresold=1", b"x", "image/png", {}),
        (400, "/predict?threshold=1&threshold=1", b"x", "image/png", {}),
        (400, "/predict?threshold=2", b"x", "image/png", {}),
        (400, "/predict?threshold=nan", b"x", "image/png", {}),
        (400, "/predict?limit=1.5", b"x", "image/png", {}),
        (400, "/predict?include=password", b"x", "image/png", {}),
        (400, "/predict?every=0", b"x", "image/png", {}),
        (400, "/predict", b'{"inputs": ["/etc/passwd"]}', "application/json", {}),
        (413, "/predict", bomb(60_000, 60_000), "image/png", {}),
        (413, "/predict", bomb(9_000, 9_000), "image/png", {}),
        (413, "/predict", b"x" * 1001, "image/png", {"upload": 1000}),
        (413, "/predict", form([b"x", b"y", b"z"])[0], form([])[1], {"inputs": 2}),
        (415, "/predict", b"x", "text/plain", {}),
        (404, "/compare", b"x", "image/png", {}),
        (404, "/../etc/passwd", b"x", "image/png", {}),
    ],
)  # fmt: skip
def test_refusals_are_json(
    status: int, path: str, body: bytes, kind: str, limits: Any, detector: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsin.serve.bodies._LINGER", 0.01)
    decoded: list[str] = []
    monkeypatch.setattr("opsin.serve.given.decode", lambda data, name: decoded.append(name) or (_ for _ in ()).throw(
        opsin.errors.InputError("not an image")))  # fmt: skip
    heard = post(detector, path, body, kind, **limits)
    assert heard.status == status, heard
    assert not (decoded and body[1:4] == b"PNG")  # of a bomb the header alone was looked at
    assert set(heard.json) == {"error"} and heard.json["error"]
    assert "/" not in heard.json["error"] or status in (404, 415)


def test_other_methods_get_405(detector: Predictor) -> None:
    heard = served(detector, lambda app, _: ask(app, "GET", "/predict"))
    assert (heard.status, heard.headers["allow"]) == (405, "POST") and "POST" in heard.json["error"]


def test_a_full_queue_gets_503(classifier: Predictor, images: dict[str, bytes]) -> None:
    async def talk(app: Any, service: Service) -> list[Heard]:
        gate = threading.Event()
        service.batcher.call(gate.wait)
        asked = [asyncio.ensure_future(ask(app, "POST", "/predict", images["digit_0"], content_type="image/png"))
                 for _ in range(3)]  # fmt: skip
        third = await asked[2]
        gate.set()
        return [await asked[0], await asked[1], third]

    heard = served(classifier, talk, queue=2)
    assert [one.status for one in heard] == [200, 200, 503] and heard[2].headers["retry-after"] == "1"


def test_what_takes_too_long_and_what_is_under_way_at_the_end_get_503(
    classifier: Predictor, images: dict[str, bytes]
) -> None:
    async def talk(app: Any, service: Service) -> list[Heard]:
        gate = threading.Event()
        service.batcher.call(gate.wait)
        late = await ask(app, "POST", "/predict", images["digit_0"], content_type="image/png")
        under_way = asyncio.ensure_future(ask(app, "POST", "/predict", images["digit_0"], content_type="image/png"))
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        service.stop()
        ended = await under_way
        assert time.monotonic() - begun < 0.5
        gate.set()
        return [late, ended, await ask(app, "GET", "/healthz"), await ask(app, "GET", "/meta")]

    heard = served(classifier, talk, seconds=0.3)
    assert [one.status for one in heard] == [503] * 4
    assert "0.3 seconds" in heard[0].json["error"] and "ends" in heard[1].json["error"]


def test_a_slow_sender_holds_nobody_up(classifier: Predictor, images: dict[str, bytes]) -> None:
    async def slow() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    async def talk(app: Any, _: Service) -> list[Heard]:
        asked = [ask(app, "POST", "/predict", slow(), content_type="image/png", content_length="9") for _ in range(20)]
        tasks = [asyncio.ensure_future(one) for one in asked]
        await asyncio.sleep(0.05)
        heard = await ask(app, "POST", "/predict", images["digit_0"], content_type="image/png")
        assert not any(task.done() for task in tasks)
        return [heard, *await asyncio.gather(*tasks)]

    heard = served(classifier, talk, arrival=1.0)
    assert [one.status for one in heard] == [200] + [408] * 20


def test_tokens_and_other_origins(classifier: Predictor, images: dict[str, bytes]) -> None:
    async def talk(app: Any, _: Service) -> list[Heard]:
        return [
            await ask(app, "GET", "/"),
            await ask(app, "GET", "/healthz"),
            await ask(app, "GET", "/meta"),
            await ask(app, "GET", "/meta", authorization="Bearer wrong"),
            await ask(app, "GET", "/meta", authorization="Bearer s3cret"),
            await ask(app, "GET", "/meta", authorization="Bearer s3cret", host="evil.example"),
            await ask(app, "GET", "/meta", authorization="Bearer s3cret", sec_fetch_site="cross-site"),
            await ask(app, "GET", "/meta", authorization="Bearer s3cret", origin="https://evil.example"),
        ]

    heard = served(classifier, talk, token="s3cret")
    assert [one.status for one in heard] == [200, 200, 401, 401, 200, 403, 403, 200]
    assert not any("access-control" in name for one in heard for name in one.headers)
    assert served(classifier, lambda app, _: ask(app, "GET", "/meta", host="gpu.example"), local=False).status == 200


# Nothing of this machine


def test_options_that_name_files_here_are_not_for_clients() -> None:
    """Every built-in option of predict that takes a file or folder is marked as local."""
    for room in rooms.built_in_rooms():
        for one in room.options.get("predict", ()):
            assert (one.metavar in ("FILE", "FOLDER")) == (one.local or one.writes), (room.task, one.name)


def test_nothing_is_written_and_no_path_is_answered(
    detector: Predictor, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", refuse)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    big = png(np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8))
    assert len(big) > 2_000_000  # where form parsers begin to write files
    body, kind = form([big, images["scene_0"]])
    heard = post(detector, "/predict?include=drawn", body, kind)
    assert heard.status == 200 and b"/etc" not in heard.body and b"path" not in heard.body


def test_meta_and_openapi(detector: Predictor) -> None:
    async def talk(app: Any, _: Service) -> list[Any]:
        return [(await ask(app, "GET", path)).json for path in ("/meta", "/openapi.json")]

    meta, described = served(detector, talk)
    assert meta["task"] == "detect" and meta["classes"] == detector.classes and meta["run"] == "run"
    assert meta["preprocessing"] == json.loads(json.dumps(detector.preprocessing.to_dict()))
    assert str(COMPATIBILITY.parent) not in json.dumps(meta)
    assert set(described["paths"]) == {"/predict", "/meta", "/healthz"}
    asked = {one["name"]: one["schema"] for one in described["paths"]["/predict"]["post"]["parameters"]}
    assert asked["threshold"] == {"type": "number", "minimum": 0.0, "maximum": 1.0}
    assert set(asked) == {"threshold", "iou_threshold", "limit", "include", "every"}
    assert run_name(COMPATIBILITY / "detect") == "detect" and run_name("resnet50:imagenet1k") == "resnet50:imagenet1k"


def test_options_of_the_server(classifier: Predictor, images: dict[str, bytes]) -> None:
    data = images["digit_0"]
    assert len(post(classifier, "/predict", data, options={"top": 2}).json["answers"][0]["top"]) == 2
    assert len(post(classifier, "/predict?top=3", data, options={"top": 2}).json["answers"][0]["top"]) == 3
    assert post(classifier, "/predict?top=3", data, options={"top": 2}, closed=True).status == 400


def test_the_page_asks_nobody_else(classifier: Predictor) -> None:
    heard = served(classifier, lambda app, _: ask(app, "GET", "/"))
    text = heard.body.decode()
    assert heard.headers["content-type"].startswith("text/html") and "default-src 'none'" in heard.headers[
        "content-security-policy"]  # fmt: skip
    for tag in ("script", "style"):  # as browsers compare it
        own = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(own[0].encode()).digest()).decode()
        assert len(own) == 1 and f"'sha256-{digest}'" in heard.headers["content-security-policy"]
    assert "http" not in text.replace("</", "") and "innerHTML" not in text and 'name="viewport"' in text

"""A trained detector in use: images, folders and video, in Python and on the command line."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import opsin
from opsin.cli import app_for, main
from opsin.data.masks import decode_mask
from opsin.engine.video import batched, frame_rate, open_video, write_video
from opsin.errors import InputError, JobError


def make_image(height: int = 128, width: int = 256) -> torch.Tensor:
    """Black, with one bright spot in the middle of cell (3, 5) of the 64x64 input."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, 24 * height // 64 : 32 * height // 64, 40 * width // 64 : 48 * width // 64] = 255
    return image


def save(image: torch.Tensor, path: Path) -> Path:
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return path


def test_boxes_are_in_the_images_pixels(run: Path) -> None:
    found = opsin.load(run).predict(make_image())["instances"]
    assert {one["label"] for one in found} == {"dot"}
    # The cell's middle (44, 28) and a reach of 8 pixels each way, in an input that is 4 and 2 times smaller.
    assert found[0]["box"] == pytest.approx([(44 - 8) * 4, (28 - 8) * 2, (44 + 8) * 4, (28 + 8) * 2])
    assert found == sorted(found, key=lambda one: -one["score"])


def test_the_threshold_is_the_fitted_one_unless_asked(run: Path) -> None:
    predictor = opsin.load(run)
    assert all(one["score"] >= 0.4 for one in predictor.predict(make_image())["instances"])
    assert len(predictor.predict(make_image(), score_threshold=0.001)["instances"]) > 5
    assert predictor.predict(make_image(), score_threshold=1.0)["instances"] == []
    assert len(predictor.predict(make_image(), score_threshold=0.001, limit=2)["instances"]) == 2
    with pytest.raises(InputError, match="score_threshold"):
        predictor.predict(make_image(), scorethreshold=0.1)


def test_masks_are_in_the_images_pixels(run: Path) -> None:
    """A detector whose masks are the left halves of its boxes, in an input that is 2 times lower, 4 times narrower."""
    predictor = opsin.load(run)
    model: Any = predictor.model
    decode = model.decode

    def with_masks(*given: Any) -> list[Any]:
        found = decode(*given)
        for one in found:
            x, y = torch.arange(64)[None, None], torch.arange(64)[None, :, None]
            x1, y1, x2, y2 = one.boxes.T[:, :, None, None]
            one.masks = (x >= x1) & (x < (x1 + x2) / 2) & (y >= y1) & (y < y2)
        return found

    model.decode = with_masks
    (found, *_) = predictor.predict(make_image())["instances"]
    mask = decode_mask(json.loads(json.dumps(found["mask"])))
    assert mask.shape == (128, 256)
    rows, columns = mask.nonzero().T
    assert mask.sum() == 32 * 32 and found["box"] == [144, 40, 208, 72]
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 71, 144, 175)


def test_several_sizes_in_one_batch(run: Path) -> None:
    predictor = opsin.load(run)
    images = [make_image(), make_image(64, 64), make_image(200, 90)]
    assert predictor.predict(images) == [predictor.predict(one) for one in images]


def test_the_command_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images" / "inner"
    folder.mkdir(parents=True)
    save(make_image(), folder / "one.png")
    save(torch.zeros_like(make_image()), folder / "two.jpg")
    call = ["predict", str(run), str(tmp_path / "images"), "--out", str(tmp_path / "drawn")]
    told = CliRunner().invoke(app_for(call), call, catch_exceptions=False)
    assert told.stdout.splitlines()[0].endswith("1 dot")
    assert told.stdout.splitlines()[1].endswith("nothing")
    drawn = np.asarray(Image.open(tmp_path / "drawn/inner/one.png"))
    assert (drawn != make_image().permute(1, 2, 0).repeat_interleave(2, 0).repeat_interleave(2, 1).numpy()).any()
    answers = json.loads(CliRunner().invoke(app_for(call), [*call, "--json"], catch_exceptions=False).stdout)
    assert [len(answer["instances"]) for answer in answers] == [1, 0]
    assert set(answers[0]["instances"][0]) == {"label", "class_id", "score", "box"}
    none = CliRunner().invoke(app_for(call), [*call[:3], "--score-threshold", "1.0"], catch_exceptions=False)
    assert [line.split()[-1] for line in none.stdout.splitlines()] == ["nothing", "nothing"]
    monkeypatch.setattr("sys.argv", ["opsin", *call[:3], "--top", "3"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "--top is an option of classify, embed, adapt, and this is detect" in capsys.readouterr().err


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Seven frames of which only the even ones have a spot."""
    pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with write_video(path, Fraction(10)) as write:
        for index in range(7):
            image = make_image() if index % 2 == 0 else torch.zeros_like(make_image())
            write(Image.fromarray(image.permute(1, 2, 0).numpy()))
    return path


def test_a_video_is_read_as_it_was_written(clip: Path) -> None:
    assert frame_rate(clip) == 10
    with open_video(clip) as video:
        frames = list(video)
    assert [frame.index for frame in frames] == list(range(7))
    assert [frame.time for frame in frames] == pytest.approx([k / 10 for k in range(7)])
    for frame in frames:
        expected = make_image() if frame.index % 2 == 0 else torch.zeros_like(make_image())
        assert frame.image.shape == expected.shape
        assert (frame.image.float() - expected.float()).abs().mean() < 6


def test_a_video_is_answered_frame_by_frame(run: Path, clip: Path, tmp_path: Path) -> None:
    answers = opsin.load(run).predict(clip, batch_size=3)
    assert [len(answer["instances"]) for answer in answers] == [1, 0, 1, 0, 1, 0, 1]
    assert [answer["frame"] for answer in answers] == list(range(7))
    call = ["predict", str(run), str(clip), "--out", str(tmp_path / "drawn"), "--json"]
    told = json.loads(CliRunner().invoke(app_for(call), call, catch_exceptions=False).stdout)
    drawn = tmp_path / "drawn" / "clip.mp4"
    assert {answer.pop("drawn") for answer in told} == {str(drawn)}
    assert told == answers
    with open_video(drawn) as video:
        assert len(list(video)) == 7
    assert [p.name for p in drawn.parent.iterdir()] == ["clip.mp4"]  # no temporary file is left


def test_of_a_damaged_video_what_can_be_read_is_kept(run: Path, clip: Path, tmp_path: Path) -> None:
    with write_video(tmp_path / "long.mp4", Fraction(10)) as write:
        for index in range(40):
            write(Image.fromarray(np.random.RandomState(index).randint(0, 255, (64, 128, 3), dtype=np.uint8)))
    data = bytearray((tmp_path / "long.mp4").read_bytes())
    middle = (data.find(b"mdat") + len(data)) // 2
    data[middle : middle + 20_000] = bytes(20_000)
    damaged, empty = tmp_path / "damaged.mp4", tmp_path / "empty.mp4"
    damaged.write_bytes(data)
    empty.write_bytes(b"")
    call = ["predict", str(run), str(damaged), str(clip), "--out", str(tmp_path / "drawn"), "--json"]
    result = CliRunner().invoke(app_for(call), call)
    assert isinstance(result.exception, JobError)
    assert "1 of 2 videos could not be read whole" in str(result.exception)
    assert f"opsin: {damaged} is damaged: " in result.stderr
    told = json.loads(result.stdout)
    assert [one["frame"] for one in told if one["path"] == str(clip)] == list(range(7))
    kept = sum(one["path"] == str(damaged) for one in told)
    assert 20 < kept <= 40
    with open_video(tmp_path / "drawn" / "damaged.mp4") as video:
        assert len(list(video)) == kept
    with pytest.warns(UserWarning, match=r"damaged\.mp4 is damaged"):
        assert len(opsin.load(run).predict(damaged)) == kept
    call = ["predict", str(run), str(empty), str(clip)]
    result = CliRunner().invoke(app_for(call), call)
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == "1 of 2 inputs could not be read"
    assert result.stdout.count(str(clip)) == 7


def test_every_third_frame_keeps_its_time(run: Path, clip: Path, tmp_path: Path) -> None:
    predictor = opsin.load(run)
    answers = predictor.predict(clip, every=3)
    assert answers == predictor.predict(clip)[::3]
    assert [(a["frame"], a["time"]) for a in answers] == [(k, pytest.approx(k / 10)) for k in (0, 3, 6)]
    call = ["predict", str(run), str(clip), "--every", "3", "--out", str(tmp_path / "drawn")]
    CliRunner().invoke(app_for(call), call, catch_exceptions=False)
    assert frame_rate(tmp_path / "drawn" / "clip.mp4") == Fraction(10, 3)  # it takes as long as the video
    with pytest.raises(InputError, match="every"):
        predictor.predict(clip, every=0)
    with pytest.raises(InputError, match="alone"):
        predictor.predict([clip])


def test_a_webcam_gives_frames_as_they_come(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")
    frames = [np.ascontiguousarray(make_image().permute(1, 2, 0).numpy())] * 3

    class Webcam:
        def __init__(self, number: int) -> None:
            assert number == 1
            self.left = list(frames)

        def get(self, _: int) -> float:
            return 30.0

        def read(self) -> tuple[bool, Any]:
            return (True, self.left.pop()) if self.left else (False, None)

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Webcam)
    predictor = opsin.load(run)
    with pytest.raises(InputError, match="no end"):
        predictor.predict(1)
    answers = [answer for _, answer in predictor.stream_video("webcam:1")]
    assert [len(answer["instances"]) for answer in answers] == [1, 1, 1]
    assert [answer["frame"] for answer in answers] == [0, 1, 2]


def test_standard_input_and_a_jpeg_keep_what_they_are(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(make_image(), tmp_path / "one.JPG")
    data = (tmp_path / "one.JPG").read_bytes()
    out = tmp_path / "drawn"
    call = ["predict", str(run), "-", str(tmp_path / "*.JPG"), "--out", str(out), "--json"]
    result = CliRunner().invoke(app_for(call), call, input=data, catch_exceptions=False)
    assert [Path(answer["drawn"]).name for answer in json.loads(result.stdout)] == ["stdin.png", "one.JPG"]
    assert [Image.open(out / name).format for name in ("stdin.png", "one.JPG")] == ["PNG", "JPEG"]
    for wrong in ([str(tmp_path)], [str(tmp_path / "gone.png")]):
        call = ["predict", "no-such-run", *wrong, "--out", str(tmp_path / "drawn")]
        with pytest.raises(InputError, match=r"second run|no file"):  # before the run is looked for
            CliRunner().invoke(app_for(call), call, catch_exceptions=False)


def test_a_file_that_is_no_video_is_refused(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"nothing of the kind" * 99)
    with pytest.raises(InputError, match=r"broken\.mp4"):
        opsin.load(run).predict(path)
    with pytest.raises(InputError, match="no file"):
        opsin.load(run).predict(tmp_path / "absent.mp4")


def test_without_a_decoder_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsin.engine.video._import", lambda name: None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"opsin\[video\]"), open_video(tmp_path / "clip.mp4"):
        pass
    with (
        pytest.raises(InputError, match=r"opsin\[video\]"),
        write_video(tmp_path / "out.mp4", Fraction(25)) as write,
    ):
        write(Image.new("RGB", (8, 8)))


def test_batches_hold_no_more_than_they_should() -> None:
    seen: list[int] = []
    chunks = batched((seen.append(k) or k for k in range(5)), 2)  # type: ignore[func-returns-value]
    assert next(chunks) == [0, 1]
    assert seen == [0, 1]
    assert list(chunks) == [[2, 3], [4]]

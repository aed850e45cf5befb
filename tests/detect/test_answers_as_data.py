"""Predictions written as a data set: what is read back is what was found, beside the images as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import opsin
from opsin import data
from opsin.cli import app_for, main
from opsin.data.formats.write_boxes import write_coco
from opsin.engine.answers import Answer
from opsin.engine.video import write_video
from opsin.errors import InputError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two files of one name, one without any object, and one that is no image."""
    for name in ("a/1.png", "b/1.png", "dark.png"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((128, 256, 3), np.uint8)
        pixels[48:64, 160:192] = 0 if name == "dark.png" else 255
        Image.fromarray(pixels).save(file)
    return tmp_path / "photos"


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_what_the_command_writes_opens_as_what_was_found(run: Path, photos: Path, tmp_path: Path, form: str) -> None:
    call = ["predict", str(run), str(photos), "--threshold", "0.02", "--as", form, str(tmp_path / "out")]
    done = CliRunner().invoke(app_for(call), call, catch_exceptions=False)
    assert done.exit_code == 0
    answers = {str(one.path): one for one in opsin.load(run, "cpu").predict(photos, threshold=0.02)}
    source = data.open(tmp_path / "out", "detect")
    split = source.splits["all"]
    assert source.classes == next(iter(answers.values())).classes and len(split) == len(answers) == 3
    wanted = {"1.png": "a/1.png", "1-2.png": "b/1.png", "dark.png": "dark.png"}
    assert sum(len(split.kind.at(i)) for i in range(3)) >= 2
    for i in range(3):
        file = photos / wanted[Path(split.name(i)).name]
        assert Path(split.name(i)).read_bytes() == file.read_bytes()
        found, answer = split.kind.at(i), answers[str(file)]
        assert found.labels.tolist() == answer.class_ids.tolist()
        np.testing.assert_allclose(found.boxes.numpy(), answer.boxes, atol=0.02)


def test_frames_and_images_from_memory_are_written_as_pixels(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from fractions import Fraction

    bright = torch.zeros(3, 128, 256, dtype=torch.uint8)
    bright[:, 48:64, 160:192] = 255
    with write_video(tmp_path / "clip.mp4", Fraction(5)) as write:
        for _ in range(3):
            write(Image.fromarray(bright.permute(1, 2, 0).numpy()))
    predictor = opsin.load(run, "cpu")
    answers: Any = predictor.answer_class.list_class([
        predictor.predict(bright), *predictor.predict(tmp_path / "clip.mp4"), Answer({"path": "x", "error": "broken"}),
    ])  # fmt: skip
    write_coco(answers.to_source(), tmp_path / "out")
    split = data.open(tmp_path / "out", "detect").splits["all"]
    names = [Path(split.name(i)).name for i in range(len(split))]
    assert names == ["image-1.png", "clip-000000.png", "clip-000001.png", "clip-000002.png"]
    for i, answer in enumerate(answers[:4]):
        assert np.array_equal(split.read(i).permute(1, 2, 0).numpy(), answer.image)
        np.testing.assert_allclose(split.kind.at(i).boxes.numpy(), answer.boxes, atol=0.01)


def test_masks_are_written_too(run: Path, tmp_path: Path) -> None:
    predictor = opsin.load(run, "cpu")
    model: Any = predictor.model
    decode = model.decode

    def with_masks(*given: Any) -> list[Any]:
        found = decode(*given)
        for one in found:
            one.masks = torch.zeros(len(one.boxes), 64, 64, dtype=torch.bool)
            one.masks[:, 20:36, 36:52] = True
        return found

    model.decode = with_masks
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[:, 24:32, 40:48] = 255
    answers: Any = predictor.answer_class.list_class([predictor.predict(image)])
    write_coco(answers.to_source(), tmp_path / "out")
    split = data.open(tmp_path / "out", "detect").splits["all"]
    drawn = split.kind.drawn.draw(0, (64, 64)).numpy()
    assert len(drawn) and np.array_equal(drawn, answers[0].masks)


def test_what_cannot_be_written_is_said_first(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for form, out, said in (
        ("kitti", tmp_path / "new", "--as kitti: data of the task detect takes voc, coco, yolo"),
        ("coco", photos, "is not empty; name a new folder"),
    ):
        monkeypatch.setattr("sys.argv", ["opsin", "predict", str(run), str(photos), "--as", form, str(out)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2 and said in capsys.readouterr().err
    with pytest.raises(InputError, match="no image was read"):
        opsin.load(run, "cpu").answer_class.list_class([Answer({"error": "broken"})]).to_source()  # type: ignore[attr-defined]

"""Frames in the order of time from videos and folders, what a run finds in them, and how that looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from opsin.classify.predict import ClassifyPredictor
from opsin.data import Preprocessing
from opsin.engine.checkpoint import Facts
from opsin.engine.frames import find_in_frames, look_of, open_frames
from opsin.engine.predict import Predictor
from opsin.engine.recipe import Recipe, load_recipe
from opsin.engine.video import frame_count, write_video
from opsin.errors import InputError
from opsin.registry import create_model


def recipe(task: str, model: str) -> Recipe:
    return load_recipe({"task": task, "model": {"name": model}, "data": {"source": "digits"}})


class RedFinder(Predictor):
    """Finds the red rectangle of an image."""

    def __init__(self) -> None:
        super().__init__(None, Facts(recipe("detect", "yolov3_tiny"), None))
        self.most_at_once = 0

    def answers(
        self, outputs: Any, sizes: Sequence[tuple[int, int]], originals: Sequence[Tensor], **options: Any
    ) -> list[dict[str, Any]]:
        self.most_at_once = max(self.most_at_once, len(originals))
        return [{"instances": self._find(image)} for image in originals]

    def _find(self, image: Tensor) -> list[Mapping[str, Any]]:
        y, x = ((image[0] > 150) & (image[1] < 100)).nonzero(as_tuple=True)
        if not len(x):
            return []
        box = [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
        return [{"label": "red", "class_id": 0, "score": 1.0, "box": box}]


class Nothing(Predictor):
    def answers(self, outputs: Any, sizes: Any, originals: Sequence[Any], **options: Any) -> list[dict[str, Any]]:
        return [{"label": "cat"} for _ in originals]


def frame(x: int) -> Image.Image:
    array = np.full((48, 64, 3), 60, np.uint8)
    array[10:20, x : x + 8] = (220, 0, 0)
    return Image.fromarray(array)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    pytest.importorskip("av")
    with write_video(tmp_path / "walk.mp4", Fraction(10)) as write:
        for x in range(0, 40, 4):
            write(frame(x))
    return tmp_path / "walk.mp4"


def save(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        frame(4 * place).save(folder / name)
    return folder


def test_a_video_has_its_own_rate_and_count(video: Path) -> None:
    frames = open_frames(video)
    assert (frames.name, frames.rate, frames.count, frame_count(video)) == ("walk", 10, 10, 10)
    read = list(frames.read(every=3))
    assert [one.index for one in read] == [0, 3, 6, 9]
    assert [one.time for one in read] == pytest.approx([0, 0.3, 0.6, 0.9])


def test_images_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    frames = open_frames(save(tmp_path / "img1", "1.png", "2.png", "10.png", "9.png"), rate=5)
    assert [one.index for one in frames.read()] == [0, 1, 8, 9]  # of 1, 2, 9 and 10
    assert [Path(one).name for one in frames.images] == ["1.png", "2.png", "9.png", "10.png"]
    assert frames.count == 10 and frames.name == "img1"
    assert [one.time for one in frames.read(every=3)] == [0.0, 1.8]


def test_names_that_are_no_numbers_of_frames_are_counted(tmp_path: Path) -> None:
    frames = open_frames(save(tmp_path / "a", "1403636579763.png", "1403636579813.png", "1403636580863.png"))
    assert [one.index for one in frames.read()] == [0, 1, 2] and frames.rate == 25
    frames = open_frames(save(tmp_path / "b", "door.png", "garden.png"))
    assert [one.index for one in frames.read()] == [0, 1]


def test_a_run_finds_boxes_frame_by_frame(video: Path) -> None:
    run = RedFinder()
    found = list(find_in_frames(run, open_frames(video).read(), batch_size=4))
    assert run.most_at_once == 4 and len(found) == 10
    for place, (_, instances) in enumerate(found):
        assert instances.boxes[0].tolist() == pytest.approx([4 * place, 10, 4 * place + 8, 20], abs=1.5)
        assert instances.labels is not None and instances.labels.tolist() == [0]


def test_a_frame_without_anything_has_no_boxes(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(save(tmp_path / "a", "1.png") / "2.png")
    (_, first), (_, second) = find_in_frames(RedFinder(), open_frames(tmp_path / "a").read())
    assert first.boxes.shape == (1, 4) and second.boxes.shape == (0, 4)


def test_what_is_no_video_and_no_detector_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", "1.png", "2.png")
    with pytest.raises(InputError, match="is a single image"):
        open_frames(folder / "1.png")
    with pytest.raises(InputError, match="no file or folder"):
        open_frames(tmp_path / "none")
    with pytest.raises(InputError, match="frames a second cannot be"):
        open_frames(folder, rate=0)
    other = Nothing(None, Facts(recipe("classify", "resnet20"), None))
    with pytest.raises(InputError, match="run of the task classify finds no boxes"):
        next(find_in_frames(other, open_frames(folder).read()))
    with pytest.raises(InputError, match="gives no vectors"):
        look_of(other, torch.zeros(3, 9, 9, dtype=torch.uint8), torch.tensor([[0, 0, 9, 9]]))


def test_looks_are_the_features_of_what_is_cut_out() -> None:
    torch.manual_seed(0)
    network: Any = create_model("resnet20", num_classes=3, in_channels=3).eval()
    facts = Facts(
        recipe("classify", "resnet20"), Preprocessing(size=(32, 32), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    )
    run = ClassifyPredictor(network, facts)
    image = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 5.0, 42.0, 37.0], [-20.0, -20.0, -5.0, -5.0], [70.0, 50.0, 99.0, 99.0]])
    looks = look_of(run, image, boxes)
    with torch.inference_mode():
        prepared = run.preprocessing.normalize(image[None, :, 5:37, 10:42])
        plain = network.features(prepared)[-1].mean(dim=(2, 3))[0]
    assert torch.allclose(looks[0], plain / plain.norm(), atol=1e-5)
    assert not looks[1].any()  # outside of the image
    assert looks.norm(dim=1).tolist() == pytest.approx([1, 0, 1], abs=1e-5)
    assert look_of(run, image, torch.zeros(0, 4)).shape[0] == 0

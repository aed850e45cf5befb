"""A detector that looks at large images in tiles: in Python, on the command line, in files and video."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import opsin
from opsin.cli import app_for
from opsin.data.drawing import to_pil
from opsin.engine.checkpoint import read_model, save_model
from opsin.engine.export import describe
from opsin.engine.tiles import ObjectSizes, Place
from opsin.engine.video import write_video
from opsin.errors import InputError

SIZES = ObjectSizes(5, (1.0, 1.0), [(16.0, 16.0)] * 5, [(16.0, 16.0)] * 5).to_dict()


def save(image: torch.Tensor, path: Path) -> Path:
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return path


@pytest.fixture
def sized(run: Path) -> Path:
    """The detector of squares, which knows that they were 16 pixels in images of 64."""
    saved = read_model(run)
    saved.objects = SIZES
    save_model(run / "model.safetensors", saved.build(), saved, {})
    return run


def spots(height: int = 150, width: int = 200) -> torch.Tensor:
    """A large image with bright spots of 8 pixels; one in the corner of four tiles."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for top, left in ((8, 8), (56, 60), (96, 130), (120, 20)):
        image[:, top : top + 8, left : left + 8] = 255
    return image


def test_small_images_get_the_same_answers_to_the_bit(sized: Path) -> None:
    predictor = opsin.load(sized)
    images = [spots(64, 64), spots(32, 64)]
    assert predictor.predict(images, tile="auto") == predictor.predict(images)
    # Also beside large ones.
    mixed = predictor.predict([images[0], spots(), images[1]], tile="auto")
    assert [mixed[0], mixed[2]] == [predictor.predict([images[0], spots(), images[1]])[k] for k in (0, 2)]


def test_it_equals_tiles_that_are_looked_at_one_by_one(sized: Path) -> None:
    predictor, image = opsin.load(sized), spots()
    tiles = predictor.tiles("auto")
    assert tiles is not None
    tiling = tiles.tiling
    assert (tiling.size, tiling.overlap) == ((64, 64), (16, 16))
    places = tiling.places((150, 200))
    parts = [image[:, p.top : p.top + p.height, p.left : p.left + p.width] for p in places]
    answers = [predictor.predict(image), *(predictor.predict(part) for part in parts)]
    assert len({(p.top, p.left) for p in places}) == 12
    expected = predictor.merge(answers, [Place(0, 0, 150, 200), *places], (150, 200))
    found = predictor.predict(image, tile="auto")
    assert len(found["instances"]) == len(expected["instances"]) >= 4
    for one, other in zip(found["instances"], expected["instances"], strict=True):
        assert one["box"] == other["box"] and one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_no_more_tiles_at_once_than_asked(sized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, batches = opsin.load(sized), []
    before = type(predictor).run

    def counted(self: Any, batch: torch.Tensor, originals: Any) -> Any:
        batches.append(len(batch))
        return before(self, batch, originals)

    monkeypatch.setattr(type(predictor), "run", counted)
    predictor.predict([spots()], tile="auto", batch_size=5)
    assert batches == [1, 5, 5, 2]


def test_files_video_and_the_command(sized: Path, tmp_path: Path) -> None:
    image, predictor = spots(), opsin.load(sized)
    path = save(image, tmp_path / "spots.png")
    expected = predictor.predict(image, tile="auto")["instances"]
    assert predictor.predict(path, tile="auto")["instances"] == expected
    done = CliRunner().invoke(
        app_for(["predict", str(sized)]), ["predict", str(sized), str(path), "--tile", "auto", "--json"]
    )
    assert json.loads(done.stdout)[0]["instances"] == expected
    pytest.importorskip("av")
    with write_video(tmp_path / "clip.mp4", Fraction(5)) as write:
        write(to_pil(image))
    (frame,) = predictor.predict(tmp_path / "clip.mp4", tile="auto")
    assert len(frame["instances"]) >= len(expected) - 1 > len(predictor.predict(image)["instances"])


def test_a_model_without_sizes_asks_for_one(run: Path) -> None:
    with pytest.raises(InputError, match="give the side of a tile in pixels"):
        opsin.load(run).predict(spots(), tile="auto")
    assert len(opsin.load(run).predict(spots(), tile=64)["instances"]) >= 4


def evaluated(*arguments: str) -> Any:
    return CliRunner().invoke(app_for(["eval", *arguments]), ["eval", *arguments])


def test_it_is_evaluated_saved_and_printed(sized: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "val").mkdir(parents=True)
    save(spots(), data / "val" / "a.png")
    rows = [
        "path,x1,y1,x2,y2,label,split",
        *(f"val/a.png,{x},{y},{x + 16},{y + 16},dot,val" for x, y in ((4, 4), (56, 52))),
    ]
    (data / "boxes.csv").write_text("\n".join([*rows, "val/a.png,16,116,32,132,line,test"]))
    call = (str(sized), "--data", str(data / "boxes.csv"), "--split", "val")
    whole, tiled = (json.loads(evaluated(*call, "--tile", tile, "--json").stdout) for tile in ("off", "auto"))
    assert tiled["map_50"] > whole["map_50"] and "loss" in whole and "loss" not in tiled
    assert tiled["tile"] == {"size": [64, 64], "overlap": [16, 16], "whole": True, "images": 1, "cut": 1, "tiles": 12}
    refused = evaluated(str(sized), "--data", str(data / "boxes.csv"), "--split", "test", "--tile", "auto", "--save")
    assert isinstance(refused.exception, InputError) and "--split val" in str(refused.exception)
    before = read_model(sized)
    assert opsin.load(sized).predict(spots()) != opsin.load(sized).predict(spots(), tile="auto")
    said = evaluated(*call, "--tile", "auto", "--save").stdout
    assert "tiles of 64x64 pixels that overlap by 16, beside the whole image: 1 of 1 images were cut, into 12" in said
    assert "saved with" in said
    predictor = opsin.load(sized)
    assert predictor.predict(spots()) == predictor.predict(spots(), tile="auto")
    assert predictor.predict(spots(), tile="off") != predictor.predict(spots())
    after = read_model(sized)
    assert all(torch.equal(after.state[name], tensor) for name, tensor in before.state.items())
    assert (after.tile, after.objects, after.meaning) == ("auto", before.objects, before.meaning)
    written = describe(predictor, predictor.programs()[0])
    assert json.loads(written["tile"]) == {"size": [64, 64], "overlap": [16, 16], "whole": True}


def test_the_size_of_the_objects_is_saved_by_a_training(tmp_path: Path, cells: str) -> None:
    settings = {"train.max_steps": 1, "train.tensorboard": False, "train.batch_size": 4}
    recipe = {"task": "detect", "model": {"name": cells}, "data": {"source": "scenes:5", "size": 64}}
    opsin.train(recipe, settings, out=tmp_path / "run", say=lambda line: None)
    saved = read_model(tmp_path / "run")
    assert saved.objects["scale"] == [0.4, 0.4] and 20 < saved.objects["image"][2][0] < 70 and saved.tile is None


def test_answers_about_the_whole_image_take_no_tiles(tmp_path: Path) -> None:
    settings = {"train.max_steps": 1, "data.limit": 60, "train.tensorboard": False}
    opsin.train("lenet5_digits", settings, out=tmp_path / "run", say=lambda line: None)
    path = save(spots(), tmp_path / "spots.png")
    for verb in (["predict", str(tmp_path / "run"), str(path)], ["eval", str(tmp_path / "run")]):
        done = CliRunner().invoke(app_for(verb), [*verb, "--tile", "auto"])
        assert str(done.exception) == "answers of classify are about the whole image: it takes no tiles, leave tile out"
    assert "tile" not in describe(opsin.load(tmp_path / "run"), opsin.load(tmp_path / "run").programs()[0])

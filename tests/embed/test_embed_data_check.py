"""Near-duplicates between splits, and labels that their neighbours deny."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from opsin import data
from opsin.embed.data_check import check
from opsin.errors import InputError

from .tiny_people import draw_person, write_people


@pytest.fixture
def people(tmp_path: Path) -> Path:
    write_people(tmp_path / "train", range(5))
    return write_people(tmp_path / "test", range(20, 24)).parent


def test_a_copy_that_was_scaled_and_lightened_is_found(people: Path) -> None:
    found = check(data.open(people, "embed"), "", None, {"near": True})["near_duplicates"]
    assert found.to_dict() == {"count": 0, "bits": 12} and not found.problems
    photograph = draw_person(3, 1).resize((96, 96), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(3))
    photograph.save(people / "train/p3/1.png")
    lighter = [min(255, round(v * 0.9 + 20)) for v in range(256)] * len(photograph.getbands())
    copy = photograph.resize((60, 60), Image.Resampling.BILINEAR).point(lighter)
    copy.save(people / "test/p21/copy.jpg", quality=80)
    (problem,) = check(data.open(people, "embed"), "", None, {"near": True})["near_duplicates"].problems
    assert problem.kind == "near_duplicate" and problem.path.endswith("test/p21/copy.jpg")
    assert "almost the image" in problem.reason and "p3/1.png of p3 in train" in problem.reason


def test_an_image_in_the_wrong_folder_is_found(people: Path) -> None:
    assert not check(data.open(people, "embed"), "", None, {"neighbours": "pixels"})["contradicted"].problems
    shutil.move(people / "train/p2/0.png", people / "train/p4/moved.png")
    (problem,) = check(data.open(people, "embed"), "", None, {"neighbours": "pixels"})["contradicted"].problems
    assert problem.path.endswith("p4/moved.png")
    assert problem.reason == "labelled p4, but its 3 nearest images by pixels are all of p2"


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    write_people(tmp_path, range(2), images=1)
    with pytest.raises(InputError, match="2 images, too few"):
        check(data.open(tmp_path, "embed"), "", None, {"neighbours": "pixels"})

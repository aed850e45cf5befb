"""Segmenters on the command line: maps, overlays, COCO files and tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import opsin
from opsin import data
from opsin.cli import app_for
from opsin.errors import InputError

from .tiny_blobs import draw


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(draw(3, 40, seed=5)[0]):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number}.png")
    return folder


def call(*args: object) -> str:
    words = ["predict", *map(str, args)]
    result = CliRunner().invoke(app_for(words), words)
    assert result.exit_code == 0, result.output
    return result.output


def test_answers_are_written_in_every_form(run: Path, photos: Path, tmp_path: Path) -> None:
    answers = opsin.load(run).predict(str(photos))
    table = tmp_path / "table.csv"
    shown = json.loads(call(run, photos, "--json", "--out", tmp_path / "index", "--format", "index", "--csv", table))
    for number, (answer, one) in enumerate(zip(answers, shown, strict=True)):
        written = np.array(Image.open(tmp_path / "index" / f"{number}.png"))
        assert written.shape == (40, 40) and (written == answer.class_map).all()
        assert one["drawn"] == str(tmp_path / "index" / f"{number}.png")
        assert one["classes"] == answer["classes"] and set(one) == {"path", "classes", "drawn"}
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert sum(int(row["pixels"]) for row in rows) == 3 * 40 * 40 and {"components", "share"} <= rows[0].keys()
    assert "ground" in call(run, photos, "--out", tmp_path / "drawn")
    assert Image.open(tmp_path / "drawn" / "0.png").width == 320  # enlarged, over a legend
    for form in ("polygons", "runs"):
        call(run, photos, "--out", tmp_path / form, "--format", form)
        found = json.loads((tmp_path / form / "annotations.json").read_text())
        assert found == answers.to_coco(form=form) and list((tmp_path / form).iterdir()) != []
    call(run, photos, "--coco", tmp_path / "runs.json")
    assert json.loads((tmp_path / "runs.json").read_text()) == answers.to_coco()


@pytest.mark.parametrize("form", ["voc", "masks", "coco"])
def test_answers_become_data_to_correct(form: str, run: Path, photos: Path, tmp_path: Path) -> None:
    answers = opsin.load(run).predict(str(photos))
    assert "all 3" in call(run, photos, "--as", form, tmp_path / "out")
    split = data.open(tmp_path / "out", "segment").splits["all"]
    assert [Path(split.name(i)).stem for i in range(3)] == ["0", "1", "2"]
    for i, answer in enumerate(answers):
        truth = split.kind
        own = [list(truth.classes).index(name) for name in answer.classes]
        assert (truth.maps.read(i, (40, 40)) == np.array(own)[answer.class_map]).all()


def test_wrong_forms_are_refused(run: Path, photos: Path, tmp_path: Path) -> None:
    for words, said in (
        (["--format", "indx", "--out", str(tmp_path / "out")], "unknown form 'indx'"),
        (["--format", "index"], "give --out FOLDER too"),
    ):
        words = ["predict", str(run), str(photos), *words]
        with pytest.raises(InputError, match=said):
            CliRunner().invoke(app_for(words), words, catch_exceptions=False)


def test_explain_of_a_segmenter_is_a_page_with_all_but_class_evidence(run: Path, photos: Path, tmp_path: Path) -> None:
    """A class of the whole image, which Grad-CAM would explain, there is not; the page says so and has the rest."""
    words = ["explain", str(run), "--html", str(tmp_path / "page.html"), "--images", str(photos / "0.png")]
    result = CliRunner().invoke(app_for(words), words)
    assert result.exit_code == 0, result.output
    assert "head" in result.output
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Not shown: class evidence needs a classifier" in page and "Feature maps" in page

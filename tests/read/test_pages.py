"""Whole pages: what is found is cut out, read, ordered and written, whichever way the page lies."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from opsin.engine.pipeline import region_of
from opsin.errors import InputError
from opsin.ops.quads import quad_of_box, turn_points

from .fake_pages import draw_page, page_reader

LINES = [(10, 8, "bills cafe"), (10, 40, "tea"), (150, 41, "two"), (10, 70, "total due"), (150, 71, "nine")]
TEXT = "bills cafe\ntea two\ntotal due nine"


def test_lines_are_read_in_order() -> None:
    predictor, finder, _ = page_reader()
    answer = predictor.predict(draw_page(LINES))
    assert answer.text == TEXT and answer["turned"] == 0
    assert answer.texts == ["bills cafe", "tea", "two", "total due", "nine"]
    assert [line["row"] for line in answer.lines] == [0, 1, 1, 2, 2]
    assert answer.quads[2].tolist() == quad_of_box((150, 41, 186, 57)).tolist()
    assert answer.boxes[0].tolist() == [10, 8, 130, 24]
    assert answer.scores.tolist() == pytest.approx([0.95] * 5)  # not the product, which falls with the length
    words = answer.lines[0]["words"]
    assert [(word["text"], word["characters"]) for word in words] == [("bills", 5), ("cafe", 4)]
    assert words[1]["quad"] == quad_of_box((82, 8, 130, 24)).tolist()  # after six letters of twelve pixels
    second = {"text": "e", "score": 0.95, "quad": quad_of_box((22, 40, 34, 56)).tolist()}
    assert answer.lines[1]["characters"][1] == second
    assert len(finder.asked) == 1  # a page that is read with certainty is looked at once
    assert json.loads(json.dumps(answer)) == answer


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_page_is_noticed(turns: int) -> None:
    page = draw_page(LINES)
    turned = page.rot90(turns, (-2, -1)).contiguous()
    predictor, finder, _ = page_reader()
    upright, answer = predictor.predict(page), predictor.predict(turned)
    assert answer.text == TEXT and answer["turned"] == 90 * turns  # so far clockwise it is brought back
    assert np.allclose(answer.quads, turn_points(upright.quads, turns, (160, 240)), atol=0.01)
    assert len(finder.asked) == {1: 4, 2: 3, 3: 3}[turns]  # one was for the upright page
    as_given = predictor.predict(turned, turn="off")
    assert as_given["turned"] == 0
    stated = predictor.predict(turned, turn=str(90 * turns))
    assert stated == answer
    with pytest.raises(InputError, match="turn is '45'; expected auto, off, 90, 180 or 270"):
        predictor.predict(page, turn="45")


def test_a_few_letters_turn_no_page() -> None:
    predictor, _, _ = page_reader()
    turned = draw_page([(10, 8, "tea")]).rot90(2, (-2, -1)).contiguous()
    assert predictor.predict(turned)["turned"] == 0
    turned = draw_page([(10, 8, "teas")]).rot90(2, (-2, -1)).contiguous()
    assert predictor.predict(turned)["turned"] == 180


@pytest.mark.parametrize("turns", [1, 3])
def test_a_line_that_runs_down_or_up(turns: int) -> None:
    page = draw_page(LINES)
    sideways = draw_page([(0, 0, "margin note")], (16, 132)).rot90(turns, (-2, -1))
    page[:, 20:152, 210:226] = sideways
    predictor, _, _ = page_reader()
    answer = predictor.predict(page)
    found = next(line for line in answer.lines if line["text"] == "margin note")
    expected = turn_points(quad_of_box((0, 0, 132, 16)), turns, (16, 132)) + np.array([210, 20])
    assert found["quad"] == expected.tolist()
    assert answer.text.startswith("bills cafe") and answer["turned"] == 0


def test_options_reach_the_run_they_are_for() -> None:
    predictor, finder, reader = page_reader()
    page = draw_page(LINES)
    predictor.predict(page, threshold=0.7, batch_size=3, turn="off")
    assert finder.asked[-1] == {"size": (1, 160, 240), "batch_size": 1, "threshold": 0.7}
    assert reader.asked[-1]["batch_size"] == 3
    widths = [size[-1] / size[-2] for size in reader.asked[-1]["sizes"]]
    assert widths == sorted(widths)  # so that those of one batch are alike
    assert predictor.predict(page, least_score=0.96)["lines"] == []
    assert predictor.predict(page, order="columns").texts[:3] == ["bills cafe", "tea", "total due"]
    with pytest.raises(InputError, match="did you mean"):
        predictor.predict(page, tresholds=0.7)
    with pytest.raises(InputError, match="order"):
        predictor.predict(page, order="up")


@pytest.mark.parametrize("size", [(1, 1), (160, 240), (3, 500)])
def test_a_page_without_text(size: tuple[int, int]) -> None:
    predictor, finder, _ = page_reader()
    answer = predictor.predict(draw_page([], size))
    assert [one["size"] for one in finder.asked] == [(1, *size), (1, *size[::-1])]  # once each way
    assert answer == {"turned": 0, "lines": []} and answer.text == ""
    assert answer.quads.shape == (0, 4, 2) and answer.boxes.shape == (0, 4)
    assert predictor.describe(answer) == "0 lines"
    assert answer.plot().size == (2 * size[1], size[0])
    ElementTree.fromstring(answer.to_hocr())


def test_pages_come_one_at_a_time() -> None:
    predictor, _, _ = page_reader()
    taken: list[int] = []

    def pages() -> Any:
        for number in range(4):
            taken.append(number)
            yield draw_page(LINES)

    for number, answer in enumerate(predictor.stream(pages(), batch_size=16)):
        assert answer.text == TEXT and taken == list(range(number + 1))


def test_what_is_found_may_be_a_polygon() -> None:
    box, polygon = [1.0, 2.0, 9.0, 4.0], [[1, 2], [9, 1], [9, 3], [1, 4]]
    assert region_of({"box": box, "score": 0.5}).quad.tolist() == quad_of_box(box).tolist()
    assert region_of({"box": box, "polygon": polygon}).quad.tolist() == polygon
    assert region_of({"box": box, "polygon": None}).score == 1.0


def test_hocr(tmp_path: Path) -> None:
    predictor, _, _ = page_reader()
    Image.fromarray(draw_page([(10, 8, "a b"), (10, 40, "c")])[0].numpy()).save(tmp_path / "a & b.png")
    answer = predictor.predict(tmp_path / "a & b.png")
    root = ElementTree.fromstring(answer.to_hocr())
    elements = {one.get("id"): one for one in root.iter() if one.get("id")}
    page = elements["page_1"].get("title")
    assert page == f'image "{tmp_path / "a & b.png"}"; bbox 0 0 240 160; ppageno 0'
    assert elements["line_1_1_1"].get("title") == "bbox 10 8 46 24; poly 10 8 46 8 46 24 10 24; x_wconf 95"
    assert elements["word_1_1_1_2"].get("title") == "bbox 34 8 46 24; x_wconf 95; x_confs 95"
    assert "".join(elements["word_1_1_1_2"].itertext()) == "b"
    kinds = [one.get("class") for one in root.iter() if one.get("class")]
    assert kinds == ["ocr_page", "ocr_carea", "ocr_line", "ocrx_word", "ocrx_word", "ocr_line", "ocrx_word"]
    sideways = predictor.predict(draw_page(LINES).rot90(1, (-2, -1)).contiguous())
    assert "textangle 90" in sideways.to_hocr()  # against the clock, as hOCR has it


def test_hocr_holds_no_character_that_xml_cannot() -> None:
    from opsin.read.hocr import hocr_document, hocr_page

    quad = quad_of_box((0, 0, 5, 5)).tolist()
    word = {"text": "<a&\x07\ud800>", "score": None, "quad": quad, "characters": 0}
    line = {"text": word["text"], "score": 0.5, "quad": quad, "block": 0, "row": 0, "words": [word], "characters": []}
    document = hocr_document([hocr_page({"lines": [line]}, (9, 9), 0, 'x" onload="y')])
    found = ElementTree.fromstring(document)
    assert "<a&>" in "".join(found.itertext())


def test_answers_are_written_in_every_form(tmp_path: Path) -> None:
    predictor, _, _ = page_reader()
    answers = predictor.predict([draw_page(LINES), draw_page([])])
    assert answers[0].write("text", tmp_path / "a.jpg").read_text("utf-8") == TEXT + "\n"
    assert json.loads(answers[0].write("json", tmp_path / "a.jpg").read_text("utf-8")) == answers[0]
    assert answers[0].write("hocr", tmp_path / "a.jpg").suffix == ".hocr"
    with Image.open(answers[0].write("drawn", tmp_path / "a.png")) as drawn:
        assert drawn.size == (480, 160)
    assert answers.text == TEXT + "\n\f"
    rows = answers.rows()
    assert len(rows) == 5 and rows[2]["text"] == "two" and (rows[2]["x1"], rows[2]["y3"]) == (150, 57)
    with pytest.raises(InputError, match="form"):
        answers[0].write("pdf", tmp_path / "a.png")


def test_a_drawn_page_shows_lines_and_texts() -> None:
    predictor, _, _ = page_reader()
    page = draw_page(LINES)
    drawn = np.array(predictor.annotate(page, predictor.predict(page)))
    changed = (drawn[:, :240] != page[0].numpy()[..., None]).any(axis=-1)
    assert changed[8, 10:130].all() and not changed[100:].any()  # the outline of the first line, nothing below
    written = drawn[:, 240:].min(axis=-1) < 128
    for x, y, text in LINES:
        assert written[y : y + 16, x : x + 12 * len(text)].any(), text


def test_runs_are_of_the_tasks_that_their_places_want() -> None:
    from opsin.engine.pipeline import load_pipeline
    from opsin.read.pages import PagePredictor

    _, finder, reader = page_reader()
    parts: dict[str, Any] = {"detector": reader, "recognizer": finder}
    with pytest.raises(InputError, match="the detector is of the task read; it has to be a run of detect"):
        PagePredictor.of_parts("pages", parts)
    with pytest.raises(InputError, match="no task is made of detector alone; detector and recognizer make pages"):
        load_pipeline(detector="runs/x")

"""The report: one file, offline, escaped; what its tables, galleries and charts show."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from opsin.engine import charts
from opsin.engine.report import (
    Code,
    Figure,
    Frames,
    Gallery,
    GalleryItem,
    Section,
    Table,
    Text,
    curves,
    environment,
    profile_section,
    render,
    write_report,
)
from opsin.errors import JobError

pytestmark = pytest.mark.rendered

HOSTILE = "<script>alert('1')</script> & \"quotes\""
HISTORY = [
    {"epoch": e, "step": 10 * e, "lr": 0.1 / e, "train_loss": 2 / e, "val_loss": 1 + 1 / e, "val_accuracy": accuracy}
    for e, accuracy in enumerate([0.5, 0.75, 0.7], start=1)
]


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name)) is not None]

    def images(self) -> list[bytes]:
        return [base64.b64decode(source.partition("base64,")[2]) for source in self.all("src")]


def every_section(name: str = "name") -> list[Section]:
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    return [
        *curves(HISTORY),
        Table(name, [name, "value"], [[name, 0.5], [name, None]], note=name, bars=["value"]),
        Figure(name, charts.lines({name: ([1, 2], [3, 4])}), caption=name, wide=True),
        Gallery(name, [GalleryItem(image, f"{name}\n{name}", wrong=True)], note=name),
        Text(name, f"{name}\n\n{name}"),
        Code(name, f"{name}: 1\n  {name}: 2"),
    ]


def page_of(*sections: Section, headline: dict[str, str] | None = None) -> Page:
    return Page(render("title", headline or {}, sections))


class TestPage:
    def test_refers_to_nothing_outside(self) -> None:
        html = render("title", {"accuracy": "98 %"}, every_section())
        page = Page(html)
        assert all(
            link.startswith(("#", "data:")) for name in ("src", "href", "srcset", "data") for link in page.all(name)
        )
        assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[\w+/=]+", "", html))
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
        for image in page.images():
            if b"<svg" in image:
                text = re.sub(r'xmlns(:\w+)?="[^"]*"', "", image.decode())
                assert not re.search(r"https?:|@import|<script|url\((?!#)", text)

    def test_shows_names_as_they_are(self) -> None:
        page = Page(render(HOSTILE, {HOSTILE: HOSTILE}, every_section(HOSTILE), HOSTILE))
        assert "script" not in {tag for tag, _ in page.tags}
        assert page.text.count(HOSTILE) >= 20
        assert HOSTILE in page.all("alt")

    def test_contents_lead_to_every_section(self) -> None:
        sections = every_section() + every_section("狗")
        page = page_of(*sections)
        anchors = [a["id"] for tag, a in page.tags if tag == "section"]
        assert len(anchors) == len(set(anchors)) == len(sections)
        assert [link[1:] for link in page.all("href")][: len(sections)] == anchors

    def test_tags_are_closed_in_order(self) -> None:
        html = render("title", {"a": "b"}, every_section())
        body = html[html.index("<body") :]
        body = re.sub(r"<(img|path|circle)\b[^>]*>", "", body)
        ElementTree.fromstring(body.removesuffix("\n").removesuffix("</html>").replace("&#34;", "'"))

    def test_follows_the_colour_scheme(self) -> None:
        html = render("title", {}, every_section())
        assert "prefers-color-scheme: dark" in html
        for image in Page(html).images():
            assert b"<svg" not in image or b"prefers-color-scheme:dark" in image

    def test_without_anything(self) -> None:
        assert "title" in page_of().text

    def test_many_sections(self) -> None:
        page = page_of(*[Text(f"part {i}", "body") for i in range(200)])
        assert len([1 for tag, _ in page.tags if tag == "section"]) == 200


class TestFrames:
    def test_are_a_strip_that_a_script_makes_a_slider(self) -> None:
        frames = [torch.full((3, 700, 1400), shade, dtype=torch.uint8) for shade in (0, 120, 240)]
        html = render("title", {}, [Frames(HOSTILE, frames, note=HOSTILE, noun=HOSTILE)])
        (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\"" in html
        page = Page(html)
        images = [Image.open(io.BytesIO(image)) for image in page.images()]
        assert [image.size for image in images] == [(480, 240)] * 3
        assert [round(np.asarray(image).mean() / 120) for image in images] == [0, 1, 2]
        assert page.all("alt") == [f"{HOSTILE} {place} of 3" for place in (1, 2, 3)] and page.text.count(HOSTILE) == 3
        (slider,) = [attributes for tag, attributes in page.tags if tag == "input"]
        assert (slider["type"], slider["min"], slider["max"], slider["value"]) == ("range", "0", "2", "0")
        (controls,) = [attributes for _, attributes in page.tags if attributes.get("class") == "controls"]
        assert controls["hidden"] is not None  # until the script shows them
        assert not any("hidden" in attributes for tag, attributes in page.tags if tag == "img")

    def test_so_many_at_most_are_within_the_page(self) -> None:
        frames = [torch.zeros(1, 2, 2, dtype=torch.uint8)] * 130
        page = page_of(Frames("orbit", frames, noun="view"))
        alts = page.all("alt")
        assert len(alts) == 44 and alts[:2] == ["view 1 of 130", "view 4 of 130"] and alts[-1] == "view 130 of 130"


class TestFile:
    def test_is_written_whole_or_not_at_all(self, tmp_path: Path) -> None:
        path = write_report(tmp_path / "report.html", "title", {"accuracy": "98 %"}, every_section())
        assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
        before = path.read_bytes()
        broken: list[Section] = [Table("broken", ["one"], [[1, 2]])]
        with pytest.raises(ValueError, match="zip"):
            write_report(path, "title", {}, broken)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["report.html"]

    def test_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(JobError, match="nowhere"):
            write_report(tmp_path / "nowhere" / "report.html", "title", {}, [])


class TestTable:
    def test_cells(self) -> None:
        row = ["text", 1234567, 0.123456, None, True, math.nan, 0.5, None]
        page = page_of(Table("t", list("abcdefgh"), [row], bars=["g", "h"]))
        for shown in ("text", "1,234,567", "0.1235", "True", "nan", "50.0 %"):
            assert shown in page.text
        assert page.all("style") == ["width:50.0%"]

    def test_numbers_stand_to_the_right(self) -> None:
        rows = [["7", 1, "12.5 %", "2.0.1", "-", "0.25"], ["8", 2, "-", "3", "-", "0.5"]]
        page = page_of(Table("t", ["class", "n", "share", "version", "empty", "loss"], rows))
        heads = [a.get("class") for tag, a in page.tags if tag == "th"]
        assert heads == [None, "number", "number", None, None, "number"]

    def test_shares_beyond_the_bar_are_clipped(self) -> None:
        page = page_of(Table("t", ["a"], [[1.5], [-1.0], [math.nan]], bars=["a"]))
        assert page.all("style") == ["width:100.0%", "width:0.0%"]


class TestGallery:
    def test_tiny_images_stay_sharp(self) -> None:
        image = torch.randint(0, 255, (3, 8, 8), dtype=torch.uint8)
        page = page_of(Gallery("g", [GalleryItem(image, "7")]))
        np.testing.assert_array_equal(Image.open(io.BytesIO(page.images()[0])), image.permute(1, 2, 0).numpy())
        assert [a.get("class") for tag, a in page.tags if tag == "img"] == ["tiny"]

    def test_large_images_are_shrunk(self) -> None:
        page = page_of(Gallery("g", [GalleryItem(torch.zeros(1, 600, 1200, dtype=torch.uint8), "7", wrong=True)]))
        assert Image.open(io.BytesIO(page.images()[0])).size == (256, 128)
        assert "wrong" in page.all("class")


class TestCurves:
    def test_what_is_drawn(self) -> None:
        loss, accuracy, rate = curves(HISTORY)
        assert (loss.title, accuracy.title, rate.title) == ("Loss", "Validation accuracy", "Learning rate")
        assert accuracy.caption == "Best validation accuracy 75.00 %, after epoch 2 (dashed line)."
        assert b"training loss" in loss.image
        assert b"validation loss" in loss.image
        for figure in (loss, accuracy, rate):
            ElementTree.fromstring(figure.image)

    def test_the_lowest_loss_is_best_where_nothing_else_is_known(self) -> None:
        (loss,) = curves([{"epoch": 1, "val_loss": 2.0}, {"epoch": 2, "val_loss": 1.0}, {"epoch": 3, "val_loss": 1.0}])
        assert loss.caption == "Best validation loss 1, after epoch 2 (dashed line)."

    def test_training_alone_has_no_best(self) -> None:
        (loss,) = curves([{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0}])
        assert loss.caption == ""

    def test_what_is_missing_or_not_finite_is_left_out(self) -> None:
        rows = [
            {"epoch": 1, "train_loss": math.nan, "val_loss": "", "val_accuracy": 0.5},
            {"epoch": 2, "train_loss": 1.0, "val_loss": None},
            {"epoch": 3, "train_loss": math.inf, "val_accuracy": math.nan},
        ]
        loss, accuracy = curves(rows)
        assert b"validation loss" not in loss.image
        assert "50.00 %, after epoch 1" in accuracy.caption

    @pytest.mark.parametrize("rows", [[], [{}], [{"epoch": 1}], [{"epoch": 1, "train_loss": math.nan}]])
    def test_no_history_has_no_charts(self, rows: list[dict[str, float]]) -> None:
        assert curves(rows) == []

    def test_one_epoch(self) -> None:
        assert len(curves(HISTORY[:1])) == 3

    def test_a_wide_range_is_logarithmic(self) -> None:
        steep = [{"epoch": e, "train_loss": 10.0**-e} for e in range(1, 6)]
        assert b">0.001<" in curves(steep)[0].image

    def test_constant_and_zero_values(self) -> None:
        assert len(curves([{"epoch": e, "train_loss": 0.0, "lr": 0.0, "val_accuracy": 1.0} for e in (1, 2)])) == 3

    def test_the_same_history_is_the_same_bytes(self) -> None:
        assert [f.image for f in curves(HISTORY)] == [f.image for f in curves(HISTORY)]


def test_profile() -> None:
    conv = {"name": "stem", "type": "Conv2d", "output_shape": (6, 28, 28), "params": 150, "macs": 300}
    linear = SimpleNamespace(name="head", type="Linear", output_shape=(10,), params=50, macs=100)
    table = profile_section([conv, linear], {"parameters": 200, "macs": 400})
    assert table.rows == [
        ["stem", "Conv2d", "6 x 28 x 28", 150, 0.75, 300, 0.75],
        ["head", "Linear", "10", 50, 0.25, 100, 0.25],
    ]
    assert table.note == "In total 200 parameters, 400 multiply-adds, for one input."
    assert profile_section([], {}).rows == []


def test_environment() -> None:
    found = environment()
    assert {"opsin", "python", "torch", "torchvision", "lightning", "devices", "cpu cores", "system"} <= set(found)
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert all(isinstance(value, str) and value for value in found.values())

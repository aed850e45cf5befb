"""The image of a text: its characters stand where the boxes, quads and masks say, and a seed decides all of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from opsin.data.text_engine.distortion import Distortion, outline_points
from opsin.data.text_engine.engine import TextEngine
from opsin.data.text_engine.fonts import choose_fonts
from opsin.data.text_engine.lettering import Style, set_text
from opsin.data.text_engine.noise import degrade
from opsin.data.text_engine.pages import PageEngine
from opsin.data.text_engine.photographs import crop, palettes
from opsin.data.text_engine.wording import Wording, alphabet

TEXTS = ["Hamburg", "illicit", "WAVY-96%", "q", "two words", "JjgyQ", "incomprehensible"]


@pytest.fixture(scope="module")
def engine() -> TextEngine:
    return TextEngine(choose_fonts("built-in", alphabet("ascii")), height=48)


def polygon(quad: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels whose middle is in a quad, by Pillow at four times the size."""
    canvas = Image.new("L", (size[1] * 4, size[0] * 4))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in quad * 4], fill=1)
    return np.asarray(canvas)[2::4, 2::4] > 0


def test_the_way_back_of_a_distortion_is_its_inverse() -> None:
    matrix = np.array([[1.1, 0.1, 80], [-0.05, 0.9, 40], [0.001, -0.0005, 1]])
    waves = np.array([(1.2, -0.8, 0.01, 0.02, 0.3), (-0.5, 1.0, 0.015, -0.01, 2.0)])
    points = np.random.default_rng(0).uniform((0, 0), (160, 50), (200, 2))
    for radius in (0.0, 150.0, -150.0):
        for wave in (waves, np.zeros((0, 5))):
            bent = Distortion((80, 40), radius, matrix, wave)
            moved = bent.apply(points)
            x, y = bent.invert(moved[:, 0], moved[:, 1])
            np.testing.assert_allclose(np.stack([x, y], 1), points, atol=2e-2)
    arch = Distortion((0, 0), 100.0, np.eye(3), waves[:0])  # a quarter of the circle about (0, 100)
    np.testing.assert_allclose(arch.apply(np.array([[50 * np.pi, 0.0], [0, -7.0]])), [[100, 100], [0, -7]], atol=1e-9)


def test_points_go_round_a_rectangle_clockwise() -> None:
    found = outline_points(np.array([[1, 2, 5, 8.0]]))
    expected = [(1, 2), (3, 2), (5, 2), (5, 5), (5, 8), (3, 8), (1, 8), (1, 5)]
    np.testing.assert_allclose(found[0], expected)


@pytest.mark.parametrize("text", TEXTS)
def test_the_ink_of_each_character_is_in_its_quad(engine: TextEngine, text: str) -> None:
    overlaps = []
    for seed in range(12):
        drawn = engine.draw(text, seed)
        height, width = drawn.image.shape[-2:]
        masks = drawn.masks().numpy()
        assert masks.shape == (len(text), height, width) and drawn.boxes.shape == (len(text), 4)
        for mask, box, quad, letter in zip(masks, drawn.boxes.numpy(), drawn.quads.numpy(), text, strict=True):
            assert (quad.min(0) >= box[:2] - 1e-3).all() and (quad.max(0) <= box[2:] + 1e-3).all()
            if letter == " ":
                assert not mask.any()
                continue
            grown = quad + 1.5 * np.sign(quad - quad.mean(0))  # a pixel of blur, and bent edges
            assert (mask & ~polygon(grown, (height, width))).sum() <= 0.03 * mask.sum() + 2, (seed, letter)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if len(rows) and mask.sum() > 60:
                tight = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                over = np.minimum(tight[2:], box[2:]) - np.maximum(tight[:2], box[:2])
                areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (tight, box)]
                overlaps.append(over.prod() / (sum(areas) - over.prod()))
    assert not overlaps or np.mean(overlaps) > 0.75


def test_plain_images_are_black_where_the_masks_are(engine: TextEngine) -> None:
    plain = TextEngine(engine.fonts, height=48, strength=0.0)
    for seed, text in enumerate(TEXTS):
        drawn = plain.draw(text, seed)
        image, covered = drawn.image.float().mean(0), drawn.masks().any(0)
        paper, ink = image[~covered].median(), image[covered].median()
        middle = (paper + ink) / 2
        seen = (image < middle) if ink < paper else (image > middle)
        assert (seen ^ covered).sum() <= 0.03 * covered.sum() + 2


def test_a_seed_decides_everything(engine: TextEngine) -> None:
    first, again, other = engine.draw("seeded", 5), engine.draw("seeded", 5), engine.draw("seeded", 6)
    assert torch.equal(first.image, again.image) and torch.equal(first.quads, again.quads)
    assert first.image.dtype is torch.uint8 and first.image.shape[:2] == (3, 48)
    assert first.image.shape != other.image.shape or not torch.equal(first.image, other.image)
    size, boxes, quads = engine.places("seeded", 5)
    assert size == first.image.shape[-2:] and torch.equal(boxes, first.boxes) and torch.equal(quads, first.quads)
    assert torch.equal(engine.masks("seeded", 5), first.masks()) and first.masks().any()


def test_texts_can_be_told_from_their_ground(engine: TextEngine) -> None:
    dim = 0
    for seed in range(60):
        drawn = engine.draw("Contrast", seed)
        luma = drawn.image.float().permute(1, 2, 0) @ torch.tensor([0.299, 0.587, 0.114])
        covered = drawn.masks().any(0)
        dim += bool((luma[covered].mean() - luma[~covered].mean()).abs() < 0.1 * 255)
    assert dim <= 6  # blurred, noisy or in the shade


def test_a_text_is_set_as_pillow_sets_it(engine: TextEngine) -> None:
    text = "Avalanche Tofu"
    for face in engine.fonts.faces[:5]:
        found = set_text(text, face, Style(size=40, margin=0))
        font = ImageFont.truetype(face.path, 40, layout_engine=ImageFont.Layout.BASIC)
        pens = np.array([x - one.left for one, x, _ in found.placed])
        ends = np.array([font.getlength(text[:k]) - font.getlength(text[k - 1]) for k in range(1, len(text) + 1)])
        np.testing.assert_allclose(pens - pens[0], ends, atol=1.0)
        canvas = Image.new("L", (500, 100))
        ImageDraw.Draw(canvas).text((20, 20), text, font=font, fill=255)
        box = canvas.getbbox()
        assert box is not None and found.shape[0] == box[3] - box[1]
        first = np.asarray(canvas)[box[1] : box[3], box[0] : box[0] + 20]
        assert np.abs(found.ink()[:, :20].astype(int) - first).mean() < 4


def test_kerning_and_spacing_move_the_pen(engine: TextEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(spacing: float = 0.0) -> float:
        return float(set_text("AV", engine.fonts.faces[0], Style(size=40, spacing=spacing)).rects[1, 0])

    plain = second()
    assert second(spacing=6) == plain + 6
    monkeypatch.setattr("opsin.data.text_engine.lettering.kerning", lambda *pair: -5.0)
    assert second() == plain - 5


def test_borders_and_lines_below_are_around_the_ink(engine: TextEngine) -> None:
    face = engine.fonts.faces[0]
    bordered = set_text("Bo", face, Style(size=40, outline=2.5))
    ink, border = bordered.ink() > 127, bordered.border() > 127
    assert (border | ~ink).all() and border.sum() > 1.3 * ink.sum()
    reach = np.flatnonzero(ink.any(0))[0] - np.flatnonzero(border.any(0))[0]
    assert 2 <= reach <= 3
    under = set_text("Bo", face, Style(size=40, underline=True)).ink()
    row = under[set_text("Bo", face, Style(size=40, underline=True)).baseline + 2]
    assert (row[4:-4] == 255).all() and not row[:4].any()


def test_nothing_moves_in_the_noise() -> None:
    import random

    image = np.zeros((32, 96, 3), np.float32)
    image[8:24, 40:60] = 1
    for seed in range(40):
        seen = degrade(image, random.Random(seed), 1.0)[..., 1].astype(float)
        assert seen.shape == (32, 96) and degrade(image, random.Random(seed), 1.0).dtype == np.uint8
        rows, columns = np.nonzero(seen > 127)
        assert abs(columns.mean() - 49.5) < 0.7 and abs(rows.mean() - 15.5) < 0.7
    np.testing.assert_array_equal(degrade(image, random.Random(0), 0.0), (image * 255).astype(np.uint8))


def test_photographs_give_parts_of_any_size_and_their_colours() -> None:
    import random

    part = crop("", random.Random(1), 40, 3000)
    assert part.shape == (40, 3000, 3) and part.dtype == np.float32 and part.min() >= 0 and part.max() <= 1
    assert palettes().shape == (256, 3, 3) and np.all(palettes().sum(2).argsort(1) == [0, 1, 2], axis=1).mean() > 0.95


def test_the_lines_of_a_page_are_where_its_quads_are() -> None:
    letters = alphabet("ascii")
    pages = PageEngine(choose_fonts("built-in", letters), Wording(letters), side=500, strength=0.0)
    for seed in range(6):
        page = pages.draw(seed)
        size, texts, boxes, quads = pages.places(seed)
        assert size == page.image.shape[-2:] == pages.size(seed)
        assert texts == page.texts and torch.equal(boxes, page.boxes) and torch.equal(quads, page.quads)
        assert len(texts) == len(boxes) == len(quads) > 2
        dark = page.image.float().mean(0).numpy() < 128
        inside = np.zeros(size, bool)
        for quad, text in zip(quads.numpy(), texts, strict=True):
            own = polygon(quad + 1.0 * np.sign(quad - quad.mean(0)), size)
            assert dark[own].mean() > 0.04, text  # no line without ink
            inside |= own
        (x1, y1), (x2, y2) = boxes[:, :2].min(0).values.int().tolist(), boxes[:, 2:].max(0).values.int().tolist()
        stray = (dark & ~inside)[y1:y2, x1:x2]  # around the lines is paper, and beyond it what it lies on
        assert stray.sum() <= 0.02 * dark[y1:y2, x1:x2].sum(), seed

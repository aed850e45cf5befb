"""What is drawn on images: text that fits, boxes and masks where they belong, captions, and whole files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import opsin
from opsin.data.drawing import (
    DARK,
    IGNORED,
    PALETTE,
    Line,
    Mark,
    add_caption,
    add_legend,
    color_of,
    cut_out,
    draw_boxes,
    draw_marks,
    enlarge,
    fit,
    font,
    save_image,
    shorten,
    stack,
    tint,
    to_pil,
    to_tensor,
)
from opsin.data.labels import ClassLabels
from opsin.detect.drawing import annotate
from opsin.errors import InputError, JobError
from opsin.structures import Instances


def blank(height: int = 240, width: int = 400) -> torch.Tensor:
    return torch.full((3, height, width), 90, dtype=torch.uint8)


def colored(image: Image.Image, color: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(image) == color).all(axis=2)


def run_fresh(program: str) -> str:
    """What a program prints in an interpreter of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(opsin.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


# Words


def test_shorten() -> None:
    assert shorten("a  long\nname", 20) == "a long name"
    assert shorten("a long name", 7) == "a long…"
    assert shorten("abc", 3) == "abc"


@pytest.mark.parametrize("room", [30, 60, 90, 1000])
def test_fit_takes_the_longest_beginning(room: int) -> None:
    letters, text = font(14), "seventeen white swans"
    shown = fit(text, letters, room)
    assert letters.getlength(shown) <= room
    longer = [words for n in range(len(text)) if len(words := shorten(text, n)) > len(shown)]
    assert all(letters.getlength(words) > room for words in longer)


def test_the_font_has_greek_and_cyrillic() -> None:
    def drawn(letter: str) -> bytes:
        image = Image.new("L", (30, 30))
        ImageDraw.Draw(image).text((2, 2), letter, 255, font(20))
        return image.tobytes()

    missing = drawn("\uffff")
    assert drawn("Δ") != missing and drawn("ж") != missing


def test_drawing_words_does_not_import_matplotlib() -> None:
    program = (
        "import sys; from PIL import Image; from opsin.data.drawing import Mark, draw_marks; "
        "draw_marks(Image.new('RGB', (99, 99)), [Mark((1, 1, 50, 50), 'cat', (9, 9, 9))]); "
        "print('matplotlib' in sys.modules)"
    )
    assert run_fresh(program) == "False"


def test_without_matplotlib_words_are_drawn_in_pillows_font() -> None:
    program = (
        "import importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name, *a: None if name == 'matplotlib' else find(name, *a); "
        "from opsin.data.drawing import font; print(font(20).getlength('word') > 20, 'DejaVu' in font(20).getname()[0])"
    )
    assert run_fresh(program) == "True False"


# Images


@pytest.mark.parametrize("channels", [1, 3])
def test_pil_and_back(channels: int) -> None:
    image = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    assert to_pil(image).size == (7, 5)
    assert to_pil(image).mode == ("L" if channels == 1 else "RGB")
    torch.testing.assert_close(to_tensor(to_pil(image)), image.expand(3, -1, -1))


@pytest.mark.parametrize(("size", "factor"), [((8, 8), 40), ((319, 10), 2), ((320, 10), 1), ((8, 800), 1)])
def test_enlarge(size: tuple[int, int], factor: int) -> None:
    image, found = enlarge(Image.new("RGB", size), 320)
    assert found == factor and image.size == (factor * size[0], factor * size[1])


def test_stack() -> None:
    upper, lower = Image.new("RGB", (4, 2), "red"), Image.new("RGB", (10, 3), "blue")
    left, centred = np.asarray(stack(upper, lower)), np.asarray(stack(upper, lower, DARK, centred=True))
    assert left.shape == centred.shape == (5, 10, 3)
    assert (left[:2, :4] == (255, 0, 0)).all() and (left[:2, 4:] == 255).all() and (left[2:] == (0, 0, 255)).all()
    assert (centred[:2, 3:7] == (255, 0, 0)).all() and (centred[:2, :3] == DARK).all()


@pytest.mark.parametrize(("ending", "kind"), [("png", "PNG"), ("JPG", "JPEG"), ("jpeg", "JPEG"), ("bmp", "BMP")])
def test_a_saved_image_has_its_endings_format(tmp_path: Path, ending: str, kind: str) -> None:
    path = tmp_path / f"new/folder/image.{ending}"
    assert save_image(Image.new("RGB", (9, 9), "red"), path) == path
    with Image.open(path) as image:
        assert image.format == kind and image.size == (9, 9)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["image.xyz", "image", "image.psd"])  # Pillow reads .psd and cannot write it
def test_an_ending_of_no_image_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="end its name in"):
        save_image(Image.new("RGB", (9, 9)), tmp_path / "new" / name)
    assert not any(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_image(Image.new("RGB", (9, 9), "red"), tmp_path / "image.png")
    before = path.read_bytes()

    def fail(self: Image.Image, target: Path, format: str) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(JobError, match=r"cannot write .*No space left"):
        save_image(Image.new("RGB", (9, 9), "blue"), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_file_is_no_folder_for_images(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match="cannot write"):
        save_image(Image.new("RGB", (9, 9)), tmp_path / "file/image.png")


@pytest.mark.parametrize(
    "box", [(10, 10, 20, 20), (0, 0, 400, 240), (395, 235, 400, 240), (-40, -40, -10, -10), (500, 300, 600, 400)]
)
def test_a_cut_lies_within_the_image(box: tuple[float, ...]) -> None:
    cut, (left, top) = cut_out(blank(), [box])
    assert 1 <= cut.shape[-1] <= 400 - left
    assert 1 <= cut.shape[-2] <= 240 - top
    assert left >= 0 and top >= 0


def test_a_cut_shows_what_is_around() -> None:
    cut, corner = cut_out(blank(), [(100, 100, 140, 140), (120, 110, 150, 130)])
    assert corner[0] < 90 and corner[1] < 90
    assert cut.shape[-1] > 80


# Boxes and masks


def test_a_class_has_one_colour_for_truth_and_predictions() -> None:
    classes, box = [f"class {k}" for k in range(30)], [100.0, 60.0, 200.0, 160.0]
    for label in (0, 3, 11, 12, 29):
        truth = draw_boxes(to_pil(blank()), Instances(torch.tensor([box]), torch.tensor([label])), classes)
        found = annotate(blank(), {"instances": [{"label": classes[label], "score": 0.9, "box": box}]}, classes)
        color = color_of(classes[label], classes)
        for image in (truth, found):
            assert colored(image, color)[60:160, 100].all() and colored(image, color)[159, 100:200].all()


def test_the_palettes_colours_differ() -> None:
    assert len({*PALETTE, IGNORED}) == len(PALETTE) + 1


def test_drawn_boxes_keep_the_images_size_and_pixels() -> None:
    """What no line and no words cover is as it was, and the image given is left alone."""
    given = to_pil(blank(40, 60))
    drawn = draw_boxes(given, Instances(torch.tensor([[10.0, 20, 30, 38]]), torch.tensor([0])), ["cat"])
    assert drawn.size == (60, 40)
    assert (np.asarray(given) == 90).all()
    rows, columns = (np.asarray(drawn) != 90).any(axis=2).nonzero()
    assert rows.max() == 37 and columns.min() == 10  # x2 and y2 are exclusive; the name is above


def test_instances_without_labels_are_grey() -> None:
    drawn = draw_boxes(to_pil(blank()), Instances(torch.tensor([[10.0, 50, 90, 90]])), ["cat"])
    assert colored(drawn, IGNORED)[50:90, 10].all()


def test_the_first_mark_lies_on_top() -> None:
    box = (50, 60, 150, 160)
    drawn, complete = draw_marks(to_pil(blank()), [Mark(box, "", PALETTE[0]), Mark(box, "", PALETTE[1])])
    assert complete
    assert colored(drawn, PALETTE[0])[60:160, 50].all() and not colored(drawn, PALETTE[1]).any()


def test_words_without_room_are_missing() -> None:
    marks = [Mark((0, 0, 400, 240), "one", PALETTE[0])] * 30
    assert not draw_marks(to_pil(blank()), marks)[1]
    assert draw_marks(to_pil(blank()), marks[:2])[1]


@pytest.mark.parametrize("width", [1, 3])
def test_the_lines_width(width: int) -> None:
    drawn, _ = draw_marks(to_pil(blank()), [Mark((50, 60, 150, 160), "", PALETTE[0])], width=width)
    assert int(colored(drawn, PALETTE[0])[100].sum()) == 2 * width


def test_a_tinted_mask_is_half_its_colour() -> None:
    mask = torch.zeros(240, 400, dtype=torch.bool)
    mask[5:9, 7:20] = True
    tinted = tint(blank()[:1], mask, (200, 0, 100))
    assert tinted.shape == (3, 240, 400) and tinted.dtype == torch.uint8
    assert (tinted[:, ~mask] == 90).all()
    assert (tinted[:, mask] == torch.tensor([145, 45, 95])[:, None]).all()


# Strips under an image


def test_a_caption_has_a_row_for_each_line_and_bars_for_shares() -> None:
    image = to_pil(blank())
    one, three = (add_caption(image, [Line("cat", "50.0 %", 0.5)] * rows) for rows in (1, 3))
    assert three.height - 240 == 3 * (one.height - 240)
    bars = colored(three, (86, 180, 233)).sum(axis=1)
    assert set(bars[bars > 0].tolist()) == {200} and int((bars > 0).sum()) == 9
    assert not colored(add_caption(image, [Line("cat", "2.5 m")]), (86, 180, 233)).any()
    np.testing.assert_array_equal(np.asarray(three)[:240], np.asarray(image))


def test_the_caption_of_labels_has_the_largest_shares_first() -> None:
    image = to_pil(blank())
    truth = ClassLabels(np.zeros((2, 5), np.float32), ["ant", "bee", "cat", "dog", "eel"])
    shares = torch.tensor([[0.1, 0.0, 0.5, 0.15, 0.25], [0.0] * 5])
    expected = ([Line("cat", "50 %"), Line("eel", "25 %"), Line("dog", "15 %")], [Line("no label")])
    for k, lines in enumerate(expected):
        drawn = truth.draw_batch(image, {"label": shares}, k)
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(add_caption(image, lines, narrowest=400)))


@pytest.mark.parametrize("width", [40, 400])
def test_a_legend_names_every_class(width: int) -> None:
    entries = [(f"class {k}", color) for k, color in enumerate(PALETTE)]
    drawn = add_legend(to_pil(blank(240, width)), entries)
    assert drawn.width == width
    assert all(colored(drawn, color)[240:].sum() >= 144 for color in PALETTE)  # squares of 12 pixels

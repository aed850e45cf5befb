"""Which fonts there are for some characters: those that have them, by the ink and not by a promise."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font

from opsin.data.text_engine.fonts import Choice, Face, choose_fonts, glyph, missing_characters
from opsin.data.text_engine.wording import alphabet
from opsin.errors import InputError

TTF = Path(get_data_path()) / "fonts" / "ttf"


def test_what_a_font_lacks_is_what_its_table_of_characters_lacks() -> None:
    wanted = "".join(map(chr, [*range(33, 127), *range(161, 1500, 7), *range(0x4E00, 0x4E40), 0x2603, 0x1F600]))
    for name in ("DejaVuSans", "DejaVuSansMono-Bold", "STIXGeneral"):
        table = FT2Font(str(TTF / f"{name}.ttf")).get_charmap()
        missing = missing_characters(Face(str(TTF / f"{name}.ttf"), 0, name), wanted)
        blank = {"\u00ad", "\u034f"}  # in the table, and drawn as nothing
        assert set(missing) - blank == {one for one in wanted if ord(one) not in table} - blank


def test_pillows_own_font_needs_no_file() -> None:
    own = choose_fonts("built-in", alphabet("ascii")).faces[-1]
    assert own.path == "" and missing_characters(own, "Az9啊") == "啊"
    assert glyph(own, 40, "I").ink.any() and not glyph(own, 40, " ").ink.size


def test_a_font_that_lacks_a_character_is_left_out_for_it_and_that_is_noted(tmp_path: Path) -> None:
    chosen = choose_fonts("built-in", alphabet("ascii") + "Жя")
    lacking = {face.name for face, lacks in zip(chosen.faces, chosen.lacks, strict=True) if lacks}
    assert lacking == {"Aileron Regular"}
    assert [one.reason for one in chosen.problems] == [
        "Aileron Regular lacks 2 of 96 characters, Ж я; used for texts without them"
    ]
    assert "Aileron Regular" not in {face.name for face in chosen.covering("Жук")}
    assert len(chosen.covering("plain")) == len(chosen.faces)
    draws = random.Random(0)
    assert "Aileron Regular" not in {chosen.draw(draws, "Ж").name for _ in range(200)}
    assert "Aileron Regular" in {chosen.draw(draws, "a").name for _ in range(200)}


def test_a_text_that_no_one_font_sets_loses_the_fewest_characters() -> None:
    faces = (Face("a", 0, "a"), Face("b", 0, "b"))
    choice = Choice(faces, (frozenset("xyz"), frozenset("c")))
    assert choice.settable("abc") == "abc" and choice.settable("xyzc") == "xyz" and choice.settable("axc") == "ac"
    with pytest.raises(InputError, match="no font has all characters of 'xc'"):
        choice.draw(random.Random(0), "xc")


def test_characters_that_no_font_has_are_refused_by_name() -> None:
    with pytest.raises(
        InputError, match=r"no font of built-in has 3,755 of 3,755 characters, such as 啊 阿 .*fonts=FILE"
    ):
        choose_fonts("built-in", alphabet("gb2312-1"))
    with pytest.raises(InputError, match=r"has 1 of 95 characters, such as 啊"):
        choose_fonts("built-in", alphabet("ascii+啊"))


def test_a_broken_font_is_said_and_refused_where_it_is_the_only_one(tmp_path: Path) -> None:
    whole = (TTF / "DejaVuSerif.ttf").read_bytes()
    (tmp_path / "serif.ttf").write_bytes(whole)
    (tmp_path / "broken.ttf").write_bytes(whole[:3000])
    (tmp_path / "text.otf").write_text("no font")
    chosen = choose_fonts(str(tmp_path), alphabet("ascii"))
    assert [face.name for face in chosen.faces] == ["DejaVu Serif Book"]
    broken = {Path(one.path).name for one in chosen.problems if one.severity == "warning"}
    assert broken == {"broken.ttf", "text.otf"}
    assert choose_fonts(str(tmp_path / "ser*.ttf"), "A").faces == chosen.faces
    with pytest.raises(InputError, match=r"broken.ttf.*cannot be used"):
        choose_fonts(str(tmp_path / "broken.ttf"), "A")
    for nothing in ("nowhere.ttf", str(tmp_path / "serif.ttf") + "#7"):
        with pytest.raises(InputError, match=r"expected built-in, cjk, system, all, a font file or a folder"):
            choose_fonts(nothing, "A")


def test_a_font_of_boxes_is_no_font() -> None:
    names = {face.name for face in choose_fonts(str(TTF), alphabet("ascii")).faces}
    assert not [name for name in names if "LastResort" in name]


def test_the_extra_has_all_characters_of_gb2312() -> None:
    pytest.importorskip("pylopdf_fonts_zh_cn")
    chosen = choose_fonts("cjk", alphabet("gb2312"))
    assert {face.name for face in chosen.faces} == {"Noto Sans SC Regular", "Noto Serif SC Regular"}
    assert not any(chosen.lacks)


def test_without_the_extra_its_fonts_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsin.data.text_engine.fonts.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'opsin\[cjk\]'"):
        choose_fonts("cjk", "A")
    with pytest.raises(InputError, match=r"pip install 'opsin\[cjk\]' brings fonts for Chinese"):
        choose_fonts("built-in", "啊")


def test_a_wider_stroke_adds_ink_on_every_side() -> None:
    face = Face(str(TTF / "DejaVuSans.ttf"), 0, "DejaVu Sans")
    thin, wide = glyph(face, 40, "O"), glyph(face, 40, "O", 2.0)
    assert (thin.left - wide.left, thin.top - wide.top) == (2, 2)
    assert (np.array(wide.ink.shape) - thin.ink.shape).tolist() == [4, 4] and wide.advance == thin.advance

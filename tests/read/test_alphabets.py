"""Alphabets with a name."""

from __future__ import annotations

import pytest

from opsin.errors import InputError
from opsin.read.alphabet import Alphabet
from opsin.read.alphabets import NAMES, is_named, named


def test_the_levels_of_gb2312() -> None:
    """Counts and ends of both levels as GB 2312-80 has them."""
    one, both = named("gb2312-1"), named("gb2312")
    assert (len(one), len(both)) == (3755, 3755 + 3008)
    assert (one[0], one[-1], both[3755], both[-1]) == ("啊", "座", "亍", "齄")
    assert both.startswith(one)
    assert all("\u4e00" <= sign <= "\u9fff" for sign in both)
    codes = [sign.encode("gb2312") for sign in both]
    assert codes == sorted(codes)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_an_alphabet(name: str) -> None:
    assert Alphabet(named(name)).text_of(Alphabet(named(name)).encode(named(name))) == named(name)


def test_names_are_joined_each_character_once() -> None:
    assert named("digits+alphanumeric") == named("alphanumeric")
    assert len(named("ascii+gb2312-1")) == 95 + 3755
    assert is_named("ascii + gb2312")
    assert not is_named("abc")
    with pytest.raises(InputError, match="ascii"):
        named("asci")

"""The part of a recipe that reading alone has."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from opsin.data.texts import Texts
from opsin.engine.recipe import RecipeSection
from opsin.read.alphabet import ALPHANUMERIC, Alphabet

NAMED = {"alphanumeric": ALPHANUMERIC, "ascii": "".join(map(chr, range(32, 127)))}


class ReadSection(RecipeSection):
    """What a text is: its characters, and how it is compared."""

    alphabet: str = Field(
        default="data",
        description="The characters in the order of their labels; or a name: data (those of the training's texts), "
        "alphanumeric (0-9 a-z), ascii, gb2312-1, gb2312.",
    )
    fold_case: bool | None = Field(
        default=None, description="Upper and lower case are one; null for true with the alphanumeric alphabet alone."
    )
    only: bool | None = Field(
        default=None,
        description="What the alphabet lacks is left out of texts; null for true with the alphanumeric alphabet alone.",
    )


def choose_alphabet(section: ReadSection, truth: Texts) -> dict[str, Any]:
    """What labels mean, as a recipe says, for training texts: {"alphabet", "fold_case", "only"}."""
    plain = section.alphabet == "alphanumeric"
    fold_case = plain if section.fold_case is None else section.fold_case
    only = plain if section.only is None else section.only
    if section.alphabet == "data":
        characters = truth.characters
        if fold_case:
            characters = "".join(sorted(set(characters.lower())))
    else:
        characters = NAMED.get(section.alphabet, section.alphabet)
    return {"alphabet": Alphabet(characters, fold_case, only).characters, "fold_case": fold_case, "only": only}

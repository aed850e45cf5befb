"""The part of a recipe that reading alone has."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from opsin.data.texts import Texts
from opsin.engine.recipe import RecipeSection
from opsin.read.alphabet import Alphabet
from opsin.read.alphabets import is_named, named


class ReadSection(RecipeSection):
    """What a text is: its characters, and how it is compared."""

    alphabet: str = Field(
        default="data",
        description="The characters in the order of their labels; or a name: data (those of the data's texts), "
        "alphanumeric (0-9 a-z), ascii, latin, gb2312-1, gb2312; several joined by +.",
    )
    fold_case: bool | None = Field(
        default=None, description="Upper and lower case are one; null for true with the alphanumeric alphabet alone."
    )
    only: bool | None = Field(
        default=None,
        description="What the alphabet lacks is left out of texts; null for true with the alphanumeric alphabet alone.",
    )
    learn_to_augment: bool = Field(
        default=False,
        description="An agent beside the recognizer learns where to move points on the borders of training images.",
    )
    augment_patches: int = Field(default=3, ge=1, description="Patches of an image between those points.")
    augment_radius: float = Field(
        default=10.0, ge=0, lt=16, description="How far a point moves at most, in pixels of an image 32 high."
    )
    agent_lr: float | None = Field(default=None, gt=0, description="The agent's learning rate; null for optim.lr.")
    encoding: str | None = Field(
        default=None, description="Of files with texts, for example gb18030 or cp1252; UTF-8 if null."
    )
    subset: Literal["alphanumeric", "alphanumeric-3"] | None = Field(
        default=None,
        description="Which test texts count: those of letters and digits, or of them those of three and more; all if "
        "null.",
    )
    level: Literal["words", "lines"] | None = Field(
        default=None, description="What is read of data that has both words and lines, as IAM."
    )
    word_lists: Literal["small", "medium"] | None = Field(
        default=None, description="Which word lists of IIIT 5K-word are taken, of 50 or 1,000 words; none if null."
    )

    def opening(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in ("encoding", "subset", "level", "word_lists")}
        return {name: value for name, value in given.items() if value is not None}


def choose_alphabet(section: ReadSection, truth: Texts) -> dict[str, Any]:
    """What labels mean, as a recipe says, for training texts: {"alphabet", "fold_case", "only"}."""
    plain = section.alphabet == "alphanumeric"
    fold_case = plain if section.fold_case is None else section.fold_case
    only = plain if section.only is None else section.only
    characters = section.alphabet
    if characters == "data":
        characters = truth.characters
    elif is_named(characters):
        characters = named(characters)
    if fold_case:
        folded = dict.fromkeys(characters.lower())
        characters = "".join(sorted(folded) if section.alphabet == "data" else folded)
    return {"alphabet": Alphabet(characters, fold_case, only).characters, "fold_case": fold_case, "only": only}

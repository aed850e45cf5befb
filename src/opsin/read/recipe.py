"""The part of a recipe that reading alone has."""

from __future__ import annotations

from pydantic import Field

from opsin.engine.recipe import RecipeSection


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

"""The part of a recipe that sequences alone have."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from opsin.engine.recipe import RecipeSection


class SequenceSection(RecipeSection):
    """What a text is divided into, and how its data is read."""

    unit: Literal["characters", "words", "bpe"] = Field(
        default="characters",
        description="What a text is divided into: characters, words at white space, or bpe, pairs of bytes.",
    )
    target_unit: Literal["characters", "words", "bpe"] | None = Field(
        default=None, description="The same of the texts that are written; as unit if null."
    )
    size: int | None = Field(
        default=None, ge=1, description="Symbols of a vocabulary, the most frequent; all if null, of bpe 8,000."
    )
    min_count: int = Field(default=1, ge=1, description="How often a symbol must occur to be in the vocabulary.")
    shared: bool | None = Field(
        default=None,
        description="One vocabulary of both texts; null for true where the network has one embedding for both.",
    )
    normalize: bool = Field(
        default=False,
        description="Of numbers, those that are read and those that are answered: subtract the mean of each and divide "
        "by its deviation; answers and errors stay in the units of the data.",
    )
    max_length: int | None = Field(
        default=None, ge=1, description="The most symbols that are written; twice the longest training text if null."
    )
    buckets: bool = Field(default=True, description="Examples of about the same length make up a batch of a training.")
    form: Literal["pairs", "language", "labels", "classes", "values"] | None = Field(
        default=None, description="What a file holds, where it does not show it; see the page on data of sequences."
    )
    window: int | None = Field(
        default=None,
        ge=2,
        description="Characters of the pieces of a text, 200 if null; of a table of numbers steps, 50.",
    )
    horizon: int | None = Field(
        default=None, ge=1, description="Of a table of numbers: the steps that follow a piece; 1 if null."
    )
    into: str | None = Field(
        default=None, description="Of parallel files: the ending of those that are written, such as en."
    )
    encoding: str | None = Field(default=None, description="Of files with texts, for example cp1252; UTF-8 if null.")

    def opening(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in ("form", "window", "horizon", "into", "encoding")}
        return {name: value for name, value in given.items() if value is not None}

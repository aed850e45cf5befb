"""The part of a recipe that adaptation alone has."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from opsin.engine.recipe import RecipeSection

Selection = Literal["last", "source", "entropy", "dev", "snd"]


class AdaptSection(RecipeSection):
    """The domains beside `data.source`, which is the first labelled one, and how what it teaches reaches the others."""

    method: str = Field(default="source_only", description="How it is adapted, by name: opsin adapt --list.")
    sources: list[str] = Field(default=[], description="Further labelled domains, with the classes of data.source.")
    target: str | None = Field(
        default=None,
        description="The domain to adapt to; its labels, if it has any, are not used. null for generalisation.",
    )
    bridges: list[str] = Field(
        default=[], description="Domains between source and target, in order, adapted to one after the other."
    )
    weight: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Of the method's loss beside the classification loss; the method's own if null."
    )
    selection: Selection = Field(
        default="last",
        description="Which epoch is kept: the last; the best by the sources' validation accuracy (source); or by what "
        "needs no labels of the target: entropy, dev or snd.",
    )
    target_labels: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        default=0,
        description="Of how many target images of a class the labels are used: 0 unsupervised, some semi-supervised, "
        "all supervised.",
    )
    options: dict[str, Any] = Field(default={}, description="Of the method, by its own names.")

"""The part of a recipe that segmentation alone has."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from opsin.engine.recipe import RecipeSection


class SegmentSection(RecipeSection):
    """How masks are read and what their pixels count in training."""

    ignore: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="The value of masks that says that nothing is known; null for what the data says, else 255.",
    )
    names: list[str] | None = Field(
        default=None, description="Names of the classes by their numbers, where the data does not say them."
    )
    overlapping: bool = Field(default=False, description="A pixel may be of several classes, or of none.")
    border_weights: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="How much more, at most, the pixels between two things count that touch; 10 in U-Net's paper.",
    )
    border_sigma: Annotated[float, Field(gt=0)] = Field(
        default=5.0, description="Pixels by whose distance from two things that falls."
    )
    background: str | None = Field(
        default=None, description="The class that is between things, for border_weights; the first one if null."
    )

    staged: bool = Field(
        default=False,
        description="Train an FCN in turn: at stride 32, then with the skip of 16, then of 8, each for train.epochs.",
    )

    def opening(self) -> dict[str, Any]:
        given = {"ignore": self.ignore, "names": self.names, "overlapping": self.overlapping or None}
        return {key: value for key, value in given.items() if value is not None}

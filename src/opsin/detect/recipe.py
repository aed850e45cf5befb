"""The part of a recipe that detection alone has."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from opsin.engine.recipe import Positive, RecipeSection


class DetectSection(RecipeSection):
    """Other images to learn from, and the sizes of the input in training."""

    joint: str | None = Field(
        default=None, description="Images with a class and without boxes that a detector is trained on as well."
    )
    joint_ratio: Annotated[float, Field(gt=0)] = Field(
        default=4.0, description="So many of them, at most, for each image with boxes."
    )
    joint_multi_label: bool = Field(default=False, description="Those images may have several classes.")
    multi_scale: list[Positive | tuple[Positive, Positive]] | None = Field(
        default=None, description="Sizes of the input that a training changes between; the one of data.size if null."
    )

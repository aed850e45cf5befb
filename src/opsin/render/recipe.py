"""The part of a recipe that view synthesis alone has."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from opsin.engine.recipe import RecipeSection

_OPENING = ("near", "far", "background", "alpha", "hold_out")


class RenderSection(RecipeSection):
    """How many rays a step takes, how many views are rendered on the way, and how the data is read."""

    rays: int = Field(
        default=1024,
        ge=1,
        description="Rays of a step, drawn from all pixels of all training views; of a shape, points.",
    )
    epoch_steps: int = Field(
        default=500, ge=1, description="Steps of an epoch, after which views of the validation are rendered."
    )
    val_views: int = Field(default=4, ge=1, description="Views that are rendered after each epoch, evenly spread.")
    test_views: int | None = Field(
        default=None, ge=1, description="Views of the test that are rendered after a training; all if null."
    )
    near: float | None = Field(default=None, ge=0, description="The least depth of the scene; found if null.")
    far: float | None = Field(default=None, ge=0, description="The largest depth of the scene; found if null.")
    background: Literal["white", "black"] | None = Field(
        default=None, description="What images with alpha are laid over; white if null."
    )
    alpha: Literal["straight", "premultiplied"] | None = Field(
        default=None, description="How colours and alpha of images go together; found if null."
    )
    hold_out: int | None = Field(
        default=None, ge=2, description="Of views that are not divided, each so many-th is for testing; none if null."
    )

    def opening(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _OPENING if getattr(self, name) is not None}

"""The part of a recipe that the task of named points alone has."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from opsin.engine.recipe import RecipeSection

_SCALE = 1.25


class LandmarkSection(RecipeSection):
    """How points are read, which of them change places in a mirror image, and what errors are divided by."""

    flip_pairs: list[tuple[str | int, str | int]] | None = Field(
        default=None,
        description="Points that change places in a mirror image, two and two, by name or number; found if null.",
    )
    normalizer: Literal["inter_ocular", "inter_pupil", "box_diagonal", "box_size", "image_diagonal"] | None = Field(
        default=None,
        description="What errors are divided by in curves and failures; the first that the points say if null.",
    )
    pool_splits: bool = Field(default=False, description="Put the data's own splits together and divide them anew.")
    person_before: str | None = Field(
        default=None,
        min_length=1,
        description="The sign behind a person in images' names, whose images stay in one split; no people if null.",
    )
    crop: Literal["box", "points", "none"] | None = Field(
        default=None,
        description="Examples are squares around the data's own boxes, around the true points, or whole images; boxes "
        "where the data has some if null.",
    )
    box_scale: float = Field(default=_SCALE, ge=0.1, le=10, description="How much larger a square is than its box.")
    balance_poses: int | None = Field(
        default=None,
        ge=2,
        le=100,
        description="Pose-based balancing: bins of the first principal pose, filled up to the largest; none if null.",
    )

    def opening(self) -> dict[str, Any]:
        return {
            key: value
            for key, value in {
                "pool_splits": self.pool_splits,
                "person_before": self.person_before,
                "crop": self.crop,
                "box_scale": None if self.box_scale == _SCALE else self.box_scale,
            }.items()
            if value
        }

"""The part of a recipe that embedding alone has."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from opsin.engine.recipe import RecipeSection


class EmbedSection(RecipeSection):
    """What a batch is made of, and who is met in use."""

    images_per_identity: Annotated[int, Field(gt=0)] | None = Field(
        default=4,
        description="Images of each identity in a batch, which has train.batch_size / this many identities; null for "
        "batches at random.",
    )
    closed: bool | None = Field(
        default=None,
        description="Those met in use are those of the training, as classes are, and splits cut within each; if null "
        "so where the data's own splits show the same identities.",
    )

    fold: str | None = Field(
        default=None,
        description="Join all splits of the data, and make the k-th of n folds of its identities the test split: 1/5.",
    )

    def opening(self) -> dict[str, Any]:
        given = {"closed": self.closed, "fold": self.fold}
        return {key: value for key, value in given.items() if value is not None}

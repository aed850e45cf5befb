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

    def opening(self) -> dict[str, Any]:
        return {} if self.closed is None else {"closed": self.closed}

"""The part of a recipe that classification alone has."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from opsin.engine.recipe import RecipeSection


class ClassifySection(RecipeSection):
    """Whether an image has one class or any number."""

    multi_label: bool = Field(default=False, description="An image may have several classes, or none.")

    def opening(self) -> dict[str, Any]:
        return {"multi_label": self.multi_label}

"""The part of a recipe that classification alone has."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from opsin.engine.recipe import RecipeSection


class ClassifySection(RecipeSection):
    """Whether an image has one class or any number, and what says which."""

    multi_label: bool = Field(default=False, description="An image may have several classes, or none.")
    class_folders: bool = Field(
        default=False, description="Each folder is a class, also where it looks like data with other annotations."
    )

    def opening(self) -> dict[str, Any]:
        return {"multi_label": self.multi_label, "class_folders": self.class_folders}

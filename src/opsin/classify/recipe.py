"""The part of a recipe that classification alone has."""

from __future__ import annotations

from typing import Any

from opsin.engine.recipe import RecipeSection


class ClassifySection(RecipeSection):
    """Whether an image has one class or any number."""

    multi_label: bool = False

    def opening(self) -> dict[str, Any]:
        return {"multi_label": self.multi_label}

"""What an adaptation begins with where its flags leave it open: what a classifier does, and batches of two domains."""

from __future__ import annotations

from collections.abc import Collection

from opsin import rooms
from opsin.data import Preprocessing, Source
from opsin.engine.recipe import Recipe
from opsin.engine.starting import Choose, Start


def choose(recipe: Recipe, source: Source, preprocessing: Preprocessing | None, given: Collection[str]) -> Start:
    """The keys that the flags left open, for this data. See `opsin.engine.starting`."""
    of_classifier: Choose = rooms.load(rooms.find_room("classify").starts or "")
    # A training in stages takes no frozen start; linear_probe and gradual_unfreezing are there for that.
    return of_classifier(recipe, source, preprocessing, {*given, "train.freeze_epochs"})

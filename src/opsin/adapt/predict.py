"""Adapted classifiers in use: they answer as classifiers do."""

from __future__ import annotations

from typing import Any

from opsin import rooms

_CLASSIFIER: Any = rooms.load(rooms.find_room("classify").predicts or "")


class AdaptPredictor(_CLASSIFIER):
    """Names the classes of an image with their probabilities, as a classifier's does."""

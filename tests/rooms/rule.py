"""Whether an image is dark or bright, by a rule: a task that trains nothing and has no network."""

from __future__ import annotations

from opsin import Room, register

ROOM = register(Room(task="rule", help="whether an image is dark or bright", predicts="rule_predict:RulePredictor"))

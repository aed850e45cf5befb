"""The list of keys, and the schema: complete, true, and what an editor can check recipes by."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from opsin import rooms
from opsin.engine.recipe import RECIPES, load_recipe, recipe_class
from opsin.engine.recipe_keys import list_keys, list_parts, recipe_schema


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The keys of a nested mapping, down to sections that are models."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{key}.") if isinstance(value, dict) and not prefix else {f"{prefix}{key}": value}
    return found


@pytest.mark.parametrize("task", ["classify", "detect"])
def test_every_key_of_a_recipe_has_its_default_and_a_meaning(task: str):
    room = rooms.find_room(task)
    whole = recipe_class(room)(model={"name": "m"}, data={"source": "s"}, task=task)  # type: ignore[arg-type]
    listed = {key.key: key for key in list_keys()}
    for key, value in flat(whole.model_dump(mode="json")).items():
        assert key in listed and listed[key].meaning.endswith(".")
        if not listed[key].required and key != "task":
            assert listed[key].default == value, key
    assert [key.key for key in list_keys() if key.required] == ["model.name", "data.source"]


def test_types_are_in_words():
    types = {key.key: key.type for key in list_keys()}
    assert types["train.epochs"] == "whole number above 0"
    assert types["data.val_fraction"] == "number at least 0 and below 1"
    assert types["data.fit"] == "squash or crop or pad or null"
    side = "whole number above 0"
    assert types["data.size"] == f'{side} or [{side}, {side}] or "auto" or null'
    assert types["data.mean"] == "list of numbers or null"
    assert types["classify.multi_label"] == "true or false"


def test_keys_are_found_by_part_pattern_and_meaning():
    assert [key.key for key in list_keys("optim.LR")] == ["optim.lr"]
    assert {key.key for key in list_keys("mixing.*")} == {
        f"mixing.{key}" for key in ("mixup", "cutmix", "by", "partners")
    }
    assert [key.key for key in list_keys("unreadable")] == ["data.skip_bad"]
    assert not list_keys("nothing like it")
    assert {part.name for part in list_parts() if part.open} == {"model", "loss", "optim", "schedule"}


def test_every_shipped_recipe_holds_to_the_schema_and_slips_do_not():
    schema = pytest.importorskip("jsonschema").Draft202012Validator(recipe_schema())
    for path in sorted(RECIPES.glob("*/*.yaml")):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert not list(schema.iter_errors(values)), path
        assert not list(schema.iter_errors(json.loads(load_recipe(path).model_dump_json())))
    good = {"model": {"name": "lenet5"}, "data": {"source": "digits"}}
    assert not list(schema.iter_errors(good | {"optim": {"name": "sgd", "momentum": 0.9}}))
    for wrong in (
        {"train": {"epoch": 3}},
        {"train": {"epochs": 0}},
        {"optim": {"lr": -1}},
        {"data": {}},
        {"trian": {}},
    ):
        assert list(schema.iter_errors(good | wrong)), wrong

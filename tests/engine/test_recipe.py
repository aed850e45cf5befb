"""Recipes: what is refused, and what the refusal says."""

from __future__ import annotations

import pytest
import yaml

from opsin.engine.recipe import list_recipes, load_recipe, parse_setting, read_recipe
from opsin.errors import InputError

SMALL = {"model": {"name": "lenet5"}, "data": {"source": "digits"}}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optim.lrr": 1}, r"unknown option of sgd 'lrr'|unknown recipe key"),
        ({"train.epoch": 3}, r"unknown recipe key 'train.epoch'; did you mean train.epochs"),
        ({"trian.epochs": 3}, r"unknown recipe key 'trian'; did you mean train"),
        ({"train.epochs": 0}, r"recipe key train.epochs: .*greater than 0, got 0"),
        ({"train.epochs": "many"}, r"recipe key train.epochs: .*integer.*, got 'many'"),
        ({"optim.lr": float("nan")}, r"recipe key optim.lr: .*finite"),
        ({"optim.lr": -1}, r"recipe key optim.lr"),
        ({"data.fit": "stretch"}, r"recipe key data.fit: .*'squash', 'crop' or 'pad'"),
        ({"data.val_fraction": 1.5}, r"recipe key data.val_fraction"),
        ({"model.name": "lenet6"}, r"unknown model 'lenet6'; did you mean lenet5"),
        ({"model.widht": 2}, r"unknown option of lenet5 'widht'"),
        ({"model.num_classes": 3}, r"model.num_classes follows from the data"),
        ({"task": "clasify"}, r"unknown task 'clasify'; did you mean classify|known: classify"),
        ({"schedule.steps": 3}, r"schedule.steps follows from the training"),
        ({"model.name.x": 3}, r"cannot set model.name.x"),
    ],
)
def test_refuses(overrides: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        recipe = load_recipe(SMALL, overrides)
        from opsin import optim
        from opsin.registry import create_model

        optim.create_optimizer(create_model("lenet5"), recipe.optim.name, lr=0.1, **recipe.optim.options)


def test_names_the_missing_flag():
    with pytest.raises(InputError, match=r"lacks data.*--data"):
        load_recipe({"model": {"name": "lenet5"}})
    with pytest.raises(InputError, match=r"lacks model.*--model"):
        load_recipe({"data": {"source": "digits"}})


def test_unknown_recipe_lists_the_nearest():
    with pytest.raises(InputError, match=r"unknown recipe 'lenet5_digit'; did you mean lenet5_digits"):
        load_recipe("lenet5_digit")


def test_settings_are_yaml():
    assert parse_setting("optim.lr=1e-3") == ("optim.lr", 0.001)
    assert parse_setting("loss.class_weights=[1, 2]") == ("loss.class_weights", [1, 2])
    assert parse_setting("train.init=null") == ("train.init", None)
    assert parse_setting("data.source=a=b") == ("data.source", "a=b")
    for wrong in ("optim.lr", "=3", "a=[1"):
        with pytest.raises(InputError):
            parse_setting(wrong)


def test_yaml_cannot_build_objects(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text(f"model: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n")
    with pytest.raises(InputError, match="not valid YAML"):
        read_recipe(path)
    assert not (tmp_path / "ran").exists()


def test_saved_recipe_reads_back_equal():
    recipe = load_recipe("resnet20_fashion", {"model.shortcut": "B", "data.size": [28, 28]})
    assert load_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_valid_and_says_what_it_reaches(name: str):
    load_recipe(name)
    header = [line for line in list_recipes()[name].read_text().splitlines() if line.startswith("#")]
    text = " ".join(header)
    assert f"opsin train {name}" in text or "Not trained here" in text

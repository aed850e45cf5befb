from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from opsin import registry, rooms
from opsin.errors import InputError
from opsin.registry import Published

FACTS = Published(paper="none", year=2000, input=(1, 1, 1), params=6)


class Line(nn.Linear):
    def __init__(self, width: int, *, num_classes: int = 2, bias: bool = False) -> None:
        if num_classes > 9:
            raise ValueError("num_classes must be below ten")
        super().__init__(width, num_classes, bias)


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_models", {})
    monkeypatch.setattr(registry, "_aliases", {})
    monkeypatch.setattr(registry, "_tried", {room.networks for room in rooms.built_in_rooms()})

    @registry.register("line3", task="classify", network=Line, published=FACTS)
    def line3(*, extra: int = 1, **options: Any) -> Line:
        return Line(3, **options)

    @registry.register("plane", task="classify", published=FACTS)
    def plane(size: int = 1) -> nn.Linear:
        return nn.Linear(size, size)


def test_create_model() -> None:
    model = registry.create_model("line3", num_classes=4, bias=True)
    assert isinstance(model, Line)
    assert model.weight.shape == (4, 3) and model.bias is not None


def test_options_are_those_of_the_builder_and_the_choices_of_the_class() -> None:
    assert list(registry.find_model("line3").options) == ["extra", "num_classes", "bias"]  # width is fixed by the name
    assert list(registry.find_model("plane").options) == ["size"]


def test_a_class_is_its_own_builder_and_needs_no_published_facts() -> None:
    registry.register("line", task="classify")(Line)
    entry = registry.find_model("line")
    assert entry.network is Line and list(entry.options) == ["width", "num_classes", "bias"]
    assert registry.find_model("line3").network is Line and registry.find_model("plane").network is None
    assert isinstance(registry.create_model("line", width=2), Line)
    assert entry.facts is None and entry.to_dict()["params"] is None and entry.to_dict()["metrics"] == {}
    assert set(list(entry.summary.values())[2:]) == {"-"}
    with pytest.raises(InputError, match="nothing is published of line; register it with published"):
        _ = entry.published


def test_a_row_of_the_table() -> None:
    row = {"name": "plane", "task": "classify", "params": "6", "macs": "-", "input": "1x1x1", "year": "2000"}
    assert registry.find_model("plane").summary == row | {"paper": "none", "weights": "-", "idea": "-"}


def test_a_builder_of_options_says_of_which_class() -> None:
    with pytest.raises(ValueError, match=r"the builder of 'open' takes \*\*options; say of which class"):
        registry.register("open", task="classify")(lambda **options: nn.Identity())


def test_unknown_names_list_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown model 'lin3'; did you mean line3"):
        registry.create_model("lin3")
    with pytest.raises(InputError, match="unknown option of line3 'num_clases'; did you mean num_classes"):
        registry.create_model("line3", num_clases=4)
    with pytest.raises(InputError, match="unknown option of line3 'width'"):
        registry.create_model("line3", width=4)


def test_values_that_the_class_refuses_are_input_errors() -> None:
    with pytest.raises(InputError, match=r"line3 cannot be built with .* num_classes must be below ten"):
        registry.create_model("line3", num_classes=10)
    with pytest.raises(InputError, match="line3 cannot be built with"):
        registry.create_model("line3", num_classes="two")


def test_list_models() -> None:
    assert registry.list_models() == ["line3", "plane"]
    assert registry.list_models("l*") == ["line3"]
    assert registry.list_models("ne") == ["line3", "plane"]
    assert registry.list_models("line[0-9]", task="classify") == ["line3"]
    assert registry.list_models("x") == []
    with pytest.raises(InputError, match="unknown task 'clasify'; did you mean classify"):
        registry.list_models(task="clasify")


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'plane' is registered twice"):
        registry.register("plane", task="classify", published=FACTS)(lambda: nn.Identity())


def test_an_alias_stands_for_the_name() -> None:
    registry.register("wing2", task="classify", published=FACTS, alias="wing")(lambda: nn.Identity())
    assert registry.find_model("wing").name == "wing2" and registry.is_model("wing")
    assert "wing" not in registry.list_models() and not registry.is_model("wings")
    with pytest.raises(InputError, match="unknown model 'wingg'; did you mean wing"):
        registry.find_model("wingg")
    for name, alias in (("wing", None), ("kite", "plane"), ("kite", "wing")):
        with pytest.raises(ValueError, match="registered twice"):
            registry.register(name, task="classify", published=FACTS, alias=alias)(lambda: nn.Identity())


def test_facts_cannot_be_changed() -> None:
    published = Published(paper="none", year=2000, input=(1, 1, 1), params=6, metrics={"mnist accuracy": 99.0})
    with pytest.raises(TypeError):
        published.metrics["mnist accuracy"] = 100.0  # type: ignore[index]


def test_family_is_the_file() -> None:
    assert registry.find_model("plane").family == __name__.rpartition(".")[2]


def test_tasks() -> None:
    assert "classify" in rooms.list_tasks()
    with pytest.raises(InputError, match="unknown task 'detekt'"):
        rooms.find_room("detekt")

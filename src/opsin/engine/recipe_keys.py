"""Every key of a recipe with its type, default and meaning, and the JSON schema that editors read.

Both come from the pydantic models of `opsin.engine.recipe` and of the tasks' own sections, so that they cannot lag.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from pydantic import create_model

from opsin import rooms
from opsin.engine.recipe import Recipe

_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
_LIMITS = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}


@dataclass(frozen=True)
class Key:
    """One key of a recipe. default: a value of JSON; None also where `required`."""

    key: str
    type: str
    default: Any
    meaning: str
    required: bool = False

    @property
    def default_text(self) -> str:
        """The default as it is written in YAML; `required` where there is none."""
        return "required" if self.required else json.dumps(self.default, ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


@dataclass(frozen=True)
class Part:
    """A section of a recipe, "" for the keys that stand outside of any. open: named things' options stand in it too."""

    name: str
    meaning: str
    keys: tuple[Key, ...]
    open: bool = False


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of recipes of every task that is registered, for editors and other programs."""
    sections: dict[str, Any] = {}
    for room in rooms.all_rooms():
        if room.section is not None:
            section: Any = rooms.load(room.section)
            sections[room.task] = (section, section())
    whole = create_model("Recipe", __base__=Recipe, __module__=__name__, **sections)
    schema = whole.model_json_schema()
    schema["title"] = "A recipe of opsin"
    schema["properties"]["task"]["examples"] = rooms.list_tasks()
    return {"$schema": _SCHEMA, **schema}


def list_parts() -> list[Part]:
    """The sections of a recipe in their order, each with its keys."""
    schema = recipe_schema()
    definitions, properties = schema["$defs"], schema["properties"]
    found = {name: _definition(value, definitions) for name, value in properties.items()}
    required = schema.get("required", ())
    plain = [_key(n, properties[n], n in required) for n, inner in found.items() if inner is None]
    parts = [Part("", "Keys that stand outside of any section.", tuple(plain))]
    for name, inner in found.items():
        if inner is not None:
            needed = inner.get("required", ())
            keys = [_key(f"{name}.{n}", one, n in needed) for n, one in inner["properties"].items()]
            parts.append(Part(name, inner["description"], tuple(keys), inner.get("additionalProperties") is True))
    return parts


def list_keys(pattern: str = "*") -> list[Key]:
    """The keys that a pattern matches: part of a key, a shell pattern, or part of a meaning; case-blind."""
    asked = pattern.casefold()
    keys = [key for part in list_parts() for key in part.keys]
    if any(sign in asked for sign in "*?["):
        return [key for key in keys if fnmatchcase(key.key, asked)]
    return [key for key in keys if asked in key.key] or [key for key in keys if asked in key.meaning.casefold()]


def _definition(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any] | None:
    """The section that a property refers to, None for a plain key."""
    return definitions[value["$ref"].rpartition("/")[2]] if "$ref" in value else None


def _key(name: str, value: Mapping[str, Any], required: bool) -> Key:
    return Key(name, " or ".join(_kinds(value)), value.get("default"), value["description"], required)


def _kinds(value: Mapping[str, Any]) -> Iterator[str]:
    """What a key takes, in words, one for each alternative."""
    if "anyOf" in value:
        for one in value["anyOf"]:
            yield from _kinds(one)
    elif "const" in value:
        yield json.dumps(value["const"])
    elif "enum" in value:
        yield from (str(one) for one in value["enum"])
    elif "prefixItems" in value:
        yield f"[{', '.join(' or '.join(_kinds(one)) for one in value['prefixItems'])}]"
    elif value.get("type") == "array":
        yield f"list of {_listed(value.get('items', {}))}"
    elif value.get("type") == "object":
        yield "mapping"
    elif value.get("type") == "null":
        yield "null"
    else:
        limits = [f"{word} {value[name]:g}" for name, word in _LIMITS.items() if name in value]
        yield " ".join([_KINDS.get(value.get("type", ""), "anything"), *(" and ".join(limits),) * bool(limits)])


def _listed(value: Mapping[str, Any]) -> str:
    kinds: Sequence[str] = list(_kinds(value))
    if len(kinds) > 1:
        return f"({' or '.join(kinds)})"
    return kinds[0].replace("number", "numbers", 1) if kinds else "anything"

"""What clients may ask, made of the options that a task declares: read from a request, and described as OpenAPI."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsin.engine.predict import Predictor
from opsin.errors import InputError, unknown
from opsin.rooms import Option
from opsin.serve.given import AUTO
from opsin.serve.limits import Limits

DRAWN, DESCRIBED = "drawn", "described"
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
_TRUE, _FALSE = ("1", "true", "on", "yes"), ("0", "false", "off", "no", "")
_FILE = {"type": "string", "format": "binary"}


@dataclass(frozen=True)
class Asked:
    """What a request asks: the task's options, what its answers shall hold too, and which frames of a video."""

    options: Mapping[str, Any]
    include: Sequence[str]
    every: int | str


def open_options(predictor: Predictor) -> list[Option]:
    """The options of a prediction that a client may give: not those that name files of this machine."""
    return [one for one in predictor.room.options_of("predict") if not (one.local or one.writes)]


def includable(predictor: Predictor) -> list[str]:
    """What an answer can hold beside its plain values."""
    return [DRAWN, DESCRIBED, *predictor.answer_class.arrays]


class Questions:
    """Reads what requests ask of a model. fixed: options that the server was started with; open: what clients give."""

    def __init__(self, predictor: Predictor, fixed: Mapping[str, Any], *, closed: bool = False) -> None:
        self.fixed = dict(fixed)
        self.options = [] if closed else open_options(predictor)
        self.include = includable(predictor)

    def read(self, given: Mapping[str, Sequence[Any]]) -> Asked:
        """The options of a request, by name the values it gave. Raises InputError for what cannot be."""
        known = {one.name: one for one in self.options}
        found, include, every = dict(self.fixed), list[str](), 1
        for name, values in given.items():
            if name == "include":
                include = [part for value in values for part in str(value).split(",") if part]
                if wrong := [part for part in include if part not in self.include]:
                    raise unknown("value of include", wrong[0], self.include)
            elif name == "every":
                every = _read_every(_only(name, values))
            elif name in known:
                option = known[name]
                read = [_read(option, value) for value in values]
                found[name] = option.check(read if option.repeatable else _only(name, read))
            else:
                raise unknown("option", name[:80], ["include", "every", *known])
        return Asked({name: value for name, value in found.items() if value is not None}, include, every)

    def parameters(self) -> list[dict[str, Any]]:
        """As parameters of OpenAPI."""
        own = [_parameter(one.name, one.help, _schema(one)) for one in self.options]
        held = {"type": "array", "items": {"type": "string", "enum": self.include}}
        which = {"oneOf": [{"type": "integer", "minimum": 1}, {"type": "string", "enum": [AUTO]}], "default": 1}
        return [
            *own,
            _parameter("include", "What answers hold too: drawn, the image with its answer drawn on it; described, the "
                       "answer in words; arrays, as {dtype, shape, base64}.", held),
            _parameter("every", "Of a video, of so many frames the first alone; auto for about 60 in all.", which),
        ]  # fmt: skip

    def describe(self) -> list[dict[str, Any]]:
        """For people and pages: name, type, help and limits of each option."""
        return [{"name": one.name, "help": one.help, "metavar": one.metavar, **_schema(one)} for one in self.options]


def _only(name: str, values: Sequence[Any]) -> Any:
    if len(values) != 1:
        raise InputError(f"{name} is given {len(values)} times; it has one value")
    return values[0]


def _read_every(value: Any) -> int | str:
    text = str(value)
    if text == AUTO:
        return AUTO
    if not text.isdecimal() or not int(text[:9]) >= 1 or len(text) > 9:
        raise InputError(f"every is {text[:40]!r}; expected a whole number from 1, or {AUTO}")
    return int(text)


def _read(option: Option, value: Any) -> Any:
    """A value of an option, from text or as JSON has it."""
    if not isinstance(value, str):
        if isinstance(value, dict | list):
            raise InputError(f"{option.name} is no value of type {option.type.__name__}")
        return value
    try:
        if option.type is bool:
            return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}[value.lower()]
        read = option.type(value[:1000])
    except (ValueError, KeyError):
        raise InputError(f"{option.name} is {value[:40]!r}; expected {_TYPES[option.type]}") from None
    if isinstance(read, float) and not math.isfinite(read):
        raise InputError(f"{option.name} is {value[:40]!r}; expected a finite number")
    return read


def _schema(option: Option) -> dict[str, Any]:
    found: dict[str, Any] = {"type": _TYPES.get(option.type, "string")}
    limits = {"minimum": option.minimum, "maximum": option.maximum, "default": option.default}
    found |= {name: value for name, value in limits.items() if value is not None}
    return {"type": "array", "items": found} if option.repeatable else found


def _parameter(name: str, words: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": words, "schema": schema}


def request_body(limits: Limits) -> dict[str, Any]:
    """The body of a prediction, as OpenAPI has it."""
    base64s = {"type": "array", "items": {"type": "string", "contentEncoding": "base64"}, "maxItems": limits.inputs}
    inputs = {"type": "array", "items": {}, "maxItems": limits.inputs}
    form = {"type": "object", "properties": {"files": {"type": "array", "items": _FILE, "maxItems": limits.inputs}}}
    types = ("image/*", "video/*", "application/pdf", "application/octet-stream")
    return {
        "description": f"Images, videos or PDF files, {limits.upload:,} bytes in all; of models that take no images "
        "texts or numbers, as inputs. Options may be fields of the form, or keys of the JSON, as well.",
        "content": {
            "multipart/form-data": {"schema": form},
            **{kind: {"schema": _FILE} for kind in types},
            "application/json": {
                "schema": {"type": "object", "properties": {"images": base64s, "inputs": inputs},
                           "additionalProperties": True},
            },
        },
    }  # fmt: skip


_REASONS = {
    400: "The request, or what it holds, cannot be read.",
    401: "The token is missing or wrong.",
    408: "The body came too slowly.",
    413: "It is too large: in bytes, in pixels, in images or in frames.",
    415: "The content type is not taken.",
    503: "Too much is under way, it took too long, or the server ends; Retry-After says when to come again.",
}


def responses(predictor: Predictor) -> dict[int, dict[str, Any]]:
    """The answers of a prediction, as OpenAPI has them."""
    words = " ".join((predictor.answer_class.__doc__ or "").split())
    answer = {"type": "object", "description": words, "additionalProperties": True}
    said = {"run": {"type": "string"}, "opsin": {"type": "string"}}
    found = {"type": "object", "properties": {"answers": {"type": "array", "items": answer}, **said}}
    reason = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    return {
        200: {"description": "An answer for each input.", "content": {"application/json": {"schema": found}}},
        **{
            status: {"description": why, "content": {"application/json": {"schema": reason}}}
            for status, why in _REASONS.items()
        },
    }

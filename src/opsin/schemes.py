"""Names with a scheme, `timm:convnext_tiny`, `hf:owner/name`: what is another library's or lies in a hub.

One table says which schemes there are, what each gives, and what must be installed for it. Nothing of another library
is imported before a name of its scheme is used, and nothing is fetched that the user did not name: a verb says with
`naming` what its call names, and what a recipe alone says is used where it is here already.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from opsin.errors import InputError


@dataclass(frozen=True)
class Scheme:
    """What `name:` before a name means.

    library: the module that must be installed, and extra: of opsin, which installs it; None where all have it.
    models: "module:function", (rest of the name) -> the entry of a model; names: (task or None) -> the names of all of
    them, without the scheme. data: (rest of the name, task, options of the formats, fetch=, how=) -> an opened source.
    truth: (rest of the name, fetch=, how=) -> what is known of its images, as `opsin.data.formats` say it. runs: (rest
    of the name, fetch=, how=, offline=) -> the local file of a saved model or of weights. fetch: whether it may be
    downloaded; how: what fetches it, for the error where it may not. None: the scheme has none of these.
    """

    name: str
    help: str
    library: str
    extra: str | None = None
    models: str | None = None
    data: str | None = None
    truth: str | None = None
    runs: str | None = None
    names: str | None = None

    def load(self, use: str) -> Any:
        """What serves a use, such as "models". Raises InputError where there is none, or no library."""
        place = getattr(self, use)
        if place is None:
            able = [f"{one.name}:" for one in SCHEMES.values() if getattr(one, use) is not None]
            raise InputError(f"{self.name}: names no {use}; {' and '.join(able)} do")
        if find_spec(self.library) is None:
            extra = f"opsin[{self.extra}]" if self.extra else self.library
            raise InputError(f"{self.name}: needs the package {self.library}: pip install '{extra}'")
        module, _, function = place.partition(":")
        return getattr(importlib.import_module(module), function)


_ROWS = (
    Scheme(
        "hf",
        "a repository of the Hugging Face hub: hf:owner/name",
        library="huggingface_hub",
        extra="hub",
        data="opsin.data.hub_data:open_named",
        truth="opsin.data.hub_data:truth_of",
        runs="opsin.hub:find_file",
    ),
    Scheme(
        "synthetic",
        "images of texts, made here: synthetic:words, synthetic:lines, synthetic:pages",
        library="PIL",
        data="opsin.data.text_engine.source:open_named",
        truth="opsin.data.text_engine.source:truth_of",
    ),
    Scheme(
        "timm",
        "a classification network of timm: timm:convnext_tiny",
        library="timm",
        extra="timm",
        models="opsin.backbones.timm_networks:find",
        names="opsin.backbones.timm_networks:names",
    ),
    Scheme(
        "torchvision",
        "a classification network of torchvision, torchvision:convnext_tiny, or a class of its datasets",
        library="torchvision",
        models="opsin.backbones.torchvision_networks:find",
        names="opsin.backbones.torchvision_networks:names",
        data="opsin.data.torchvision_data:open_named",
        truth="opsin.data.torchvision_data:truth_of",
    ),
)
SCHEMES: dict[str, Scheme] = {row.name: row for row in _ROWS}  # by their names


def split_scheme(name: object) -> tuple[Scheme, str] | None:
    """The scheme of a name and what follows it; None where the name has none of ours."""
    scheme, colon, rest = str(name).partition(":")
    return (SCHEMES[scheme], rest.replace("\\", "/")) if colon and scheme in SCHEMES else None


def find_local(name: object, *, fetch: bool = True, how: str = "", offline: bool | None = None) -> Any:
    """The local file of a saved model or of weights, fetched where it may be; None for a name of no such scheme.

    offline: never touch the network; OPSIN_OFFLINE if None.
    """
    found = split_scheme(name)
    if found is None or found[0].runs is None:
        return None
    return found[0].load("runs")(found[1], fetch=fetch, how=how, offline=offline)


_NAMED: ContextVar[frozenset[str]] = ContextVar("names with a scheme that the call under way names")


@contextmanager
def naming(*given: Any) -> Iterator[None]:
    """Within it, the names with a scheme among these texts, also inside mappings and lists, are the call's own."""
    token = _NAMED.set(_NAMED.get(frozenset()) | {text for one in given for text in _texts(one) if split_scheme(text)})
    try:
        yield
    finally:
        _NAMED.reset(token)


def is_named(name: object) -> bool:
    """Whether the call under way names this itself, so that it may be fetched."""
    return str(name) in _NAMED.get(frozenset())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)

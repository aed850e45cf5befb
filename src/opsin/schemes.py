"""Names with a scheme, `timm:convnext_tiny`, `hf:owner/name`: what is another library's or lies in a hub.

One table says which schemes there are, what each gives, and what must be installed for it. Nothing of another library
is imported before a name of its scheme is used, and nothing is fetched that the user did not name.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from opsin.errors import InputError


@dataclass(frozen=True)
class Scheme:
    """What `name:` before a name means.

    library: the module that must be installed, and extra: of opsin, which installs it; None where all have it.
    models: "module:function", (rest of the name) -> the entry of a model. data: (rest of the name, task, options of
    the formats) -> an opened source. runs: (rest of the name) -> the local folder or file of a saved model. None: the
    scheme has none of these.
    """

    name: str
    help: str
    library: str
    extra: str | None = None
    models: str | None = None
    data: str | None = None
    runs: str | None = None

    def load(self, use: str) -> Any:
        """What serves a use, "models", "data" or "runs". Raises InputError where there is none, or no library."""
        place = getattr(self, use)
        if place is None:
            able = [f"{one.name}:" for one in SCHEMES.values() if getattr(one, use) is not None]
            raise InputError(f"{self.name}: names no {use}; {' and '.join(able)} do")
        if find_spec(self.library) is None:
            extra = f"opsin[{self.extra}]" if self.extra else self.library
            raise InputError(f"{self.name}: needs the package {self.library}: pip install '{extra}'")
        module, _, function = place.partition(":")
        return getattr(importlib.import_module(module), function)


SCHEMES: dict[str, Scheme] = {}  # by their names


def split_scheme(name: str) -> tuple[Scheme, str] | None:
    """The scheme of a name and what follows it; None where the name has none of ours."""
    scheme, colon, rest = str(name).partition(":")
    return (SCHEMES[scheme], rest) if colon and scheme in SCHEMES else None

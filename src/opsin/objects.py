"""Objects in the place of names: what a call in Python was given, and dotted paths into modules that were named.

A recipe holds texts. Where a call was given an object, such as a network, the recipe says `<object module.Class>`, and
the object is lent to everything that the call runs. A text with dots is a path to an object: it resolves within torch
and the modules that `--import` or the call itself named, never by importing what a file alone names.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from opsin import rooms
from opsin.errors import InputError, unknown

_BEGIN = "<object "
# Of torch what a recipe may name: its other functions read files and fetch code.
_TORCH = ("torch.optim", "torch.nn")
_KEYWORDS = {  # key of the recipe -> how the object is given in Python
    "model.name": "model=...",
    "data.source": "data=...",
    "loss.name": "loss=...",
    "optim.name": "optimizer=...",
    "train.callbacks": "callbacks=[...]",
    "metrics": "metrics={...}",
}
_NOTHING: Mapping[str, Any] = {}
_lent: ContextVar[Mapping[str, Any]] = ContextVar("lent", default=_NOTHING)


def describe(given: Any) -> str:
    """What a recipe says of an object: `<object my_package.nets.MyNet>`, of the class of what is no class or function.

    >>> from collections import Counter
    >>> describe(Counter), describe(Counter())
    ('<object collections.Counter>', '<object collections.Counter>')
    """
    named = given if inspect.isclass(given) or inspect.isroutine(given) else type(given)
    return f"{_BEGIN}{named.__module__}.{named.__qualname__}>"


def is_object(name: Any) -> bool:
    """Whether a text of a recipe stands for an object."""
    return isinstance(name, str) and name.startswith(_BEGIN)


def short_name(name: str) -> str:
    """`MyNet` of `<object my_package.nets.MyNet>`; any other text as it is."""
    return name.removeprefix(_BEGIN).removesuffix(">").rpartition(".")[2] if is_object(name) else name


@contextmanager
def lending(objects: Mapping[str, Any]) -> Iterator[None]:
    """Lend objects to what runs inside. objects: key of the recipe, as "loss.name" or "metrics.brier" -> object."""
    token = _lent.set({**_lent.get(), **objects})
    try:
        yield
    finally:
        _lent.reset(token)


def lent(key: str) -> Any:
    """The object lent for a key of the recipe; None where there is none."""
    return _lent.get().get(key)


def find(key: str, name: str) -> Any:
    """The object that a text of a recipe stands for; None of a plain name. key: of the recipe, as "loss.name".

    Raises InputError for an object that this call was not given, and for a path that does not resolve.
    """
    if is_object(name):
        if (found := lent(key)) is None:
            raise missing(key, name)
        return found
    return resolve(name, key) if "." in name else None


def missing(key: str, name: str) -> InputError:
    """The error for an object that a run was made with and this call was not given."""
    what = name.removeprefix(_BEGIN).removesuffix(">")
    return InputError(f"{key} was the object {what}, which no file holds; give it again, in Python: {keyword(key)}")


def keyword(key: str) -> str:
    """How the object of a key of the recipe is given in Python: `loss=...`."""
    return next((how for begin, how in _KEYWORDS.items() if key.startswith(begin)), key)


def resolve(path: str, key: str) -> Any:
    """The object at a dotted path, within torch and the modules that were named. Raises InputError for any other."""
    roots = [root for root in (*_TORCH, *rooms.imported_packages()) if path.startswith(f"{root}.")]
    if not roots:
        advice = f"name its module with --import, or give the object in Python: {keyword(key)}"
        raise InputError(f"{key}={path} is a path into a module that was not named; {advice}")
    root = max(roots, key=len)
    found: Any = importlib.import_module(root)
    for part in path.removeprefix(f"{root}.").split("."):
        found = _step(found, part, root, f"{key}={path}")
    if isinstance(found, ModuleType):
        raise InputError(f"{key}={path} is a module; name something within it")
    return found


def _step(owner: Any, part: str, root: str, shown: str) -> Any:
    """What `owner` has by the name `part`, which is no way out of the module `root`."""
    if part.startswith("_"):
        raise InputError(f"{shown}: {part} is private")
    found = getattr(owner, part, None)
    if found is None and isinstance(owner, ModuleType):
        try:
            return importlib.import_module(f"{owner.__name__}.{part}")
        except ModuleNotFoundError:
            raise unknown(f"name in {owner.__name__}", part, [n for n in vars(owner) if n[0] != "_"]) from None
    if found is None:
        raise InputError(f"{shown}: {getattr(owner, '__name__', owner)} has no {part}")
    if isinstance(found, ModuleType) and not f"{found.__name__}.".startswith(f"{root}."):
        raise InputError(f"{shown}: {found.__name__} is not a part of {root}")
    return found


def name_modules(path: str) -> None:
    """Import the module of a dotted path that a call in Python gave itself; torch's need no such thing."""
    if any(path.startswith(f"{root}.") for root in _TORCH):
        return
    module = path.rpartition(".")[0]
    rooms.import_packages([module])

"""Modules of a package as attributes that are imported when they are first used: `opsin.nn.attention`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def lazy_modules(
    package: str, path: str, late: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package, of its name and its `__file__`, for modules that it does not import.

    late: names that the package offers, each with the module within it that has them.
    """
    late = late or {}
    names = sorted(file.stem for file in Path(path).parent.glob("*.py") if not file.stem.startswith("_"))

    def find(name: str) -> Any:
        if name in late:
            return getattr(importlib.import_module(f"{package}.{late[name]}"), name)
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return importlib.import_module(f"{package}.{name}")

    return find, lambda: sorted({*vars(sys.modules[package]), *names, *late})

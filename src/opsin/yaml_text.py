"""YAML from somebody else: plain values only, and no more of them than the text has room for."""

from __future__ import annotations

import re
from typing import Any

import yaml

from opsin.errors import InputError

_MOST = 100_000  # nodes with every alias written out; the longest list of classes of public data is a fifth of it
_DEEPEST = 100  # levels of nesting


class _Values(yaml.SafeLoader):
    """Plain values. By YAML 1.2, 1e-4 is a number; a date is a text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Values.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load_yaml(text: str, *, texts: bool = False) -> Any:
    """The value that YAML text stands for. texts: whether its scalars stay texts, so that `no` and `012` are names.

    Raises InputError, with the reason alone, for what is no YAML, holds more than plain values, is nested deeper than
    100 levels, or has aliases that multiply to more than 100,000 values.
    """
    try:
        loader = (yaml.BaseLoader if texts else _Values)(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node)
        return loader.construct_document(node)
    except RecursionError:
        raise InputError(f"it is nested deeper than {_DEEPEST} levels") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        raise InputError(" ".join(str(error).split())) from None


def _check(root: yaml.Node) -> None:
    """Raise InputError for a tree that is too deep, refers to itself, or is too large with its aliases written out."""
    sizes: dict[int, int] = {}
    within: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in within:
            raise InputError("an alias stands within what it names")
        if id(node) not in sizes:
            within.add(id(node))
            if len(within) > _DEEPEST:
                raise InputError(f"it is nested deeper than {_DEEPEST} levels")
            inside = node.value if isinstance(node, yaml.CollectionNode) else ()
            parts = [part for one in inside for part in (one if isinstance(one, tuple) else (one,))]
            sizes[id(node)] = 1 + sum(map(size, parts))
            within.discard(id(node))
        return sizes[id(node)]

    if size(root) > _MOST:
        raise InputError(f"its aliases multiply to more than {_MOST:,} values")

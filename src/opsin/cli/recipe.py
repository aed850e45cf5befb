"""`opsin recipe`."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from opsin.cli import completion
from opsin.cli.arguments import AsJson, examples
from opsin.cli.printing import bold, print_json, terminal_width
from opsin.errors import InputError, unknown

if TYPE_CHECKING:
    from opsin.engine.recipe_keys import Key

EXAMPLES = examples(
    "recipe keys", "recipe keys optim", "recipe show lenet5_digits", "recipe schema > recipe.schema.json"
)
PARTS = ("keys", "schema", "show")


def recipe(
    what: Annotated[
        str,
        typer.Argument(
            metavar="keys|schema|show",
            help="keys: each key with its type, default and meaning. schema: all of them as JSON schema, for editors. "
            "show: a recipe of opsin.",
            show_default=False,
            autocompletion=completion.parts_of_recipes,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="PATTERN|NAME",
            help="Of keys: a part of a key, a shell pattern such as 'train.*', or a word of its meaning. Of show: the "
            "recipe.",
            show_default=False,
            autocompletion=completion.recipes,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the keys that a recipe can have, and the recipes that come with opsin."""
    if what not in PARTS:
        raise unknown("part of `opsin recipe`", what, PARTS)
    if what == "show":
        _show(name, as_json)
        return
    from opsin.engine.recipe_keys import list_keys, list_parts, recipe_schema

    if what == "schema":
        if name is not None:
            raise InputError(f"opsin recipe schema takes no name; got {name!r}")
        print_json(recipe_schema())
        return
    keys = list_keys(name or "*")
    if not keys:
        raise unknown("recipe key", name, [key.key for part in list_parts() for key in part.keys])
    if as_json:
        print_json([key.to_dict() for key in keys])
    else:
        print_keys(keys, terminal_width() or shutil.get_terminal_size().columns)


def print_keys(keys: Iterable[Key], width: int) -> None:
    """Each key in bold, with its type and default beside it and its meaning under it."""
    for key in keys:
        facts = f"{key.type}; {'required' if key.required else f'default {key.default_text}'}"
        if len(key.key) + 2 + len(facts) <= width:
            print(f"{bold(key.key)}  {facts}")
        else:
            print(bold(key.key))
            print(textwrap.fill(facts, width, initial_indent="    ", subsequent_indent="    "))
        print(textwrap.fill(key.meaning, width, initial_indent="    ", subsequent_indent="    "))


def _show(name: str | None, as_json: bool) -> None:
    from opsin.engine.recipe import list_recipes, read_recipe

    shipped = list_recipes()
    if name is None:
        raise InputError(f"opsin recipe show takes the name of a recipe, such as {next(iter(shipped))}")
    if name not in shipped:
        raise unknown("recipe", name, shipped)
    if as_json:
        print_json(read_recipe(name))
    else:
        print(shipped[name].read_text(encoding="utf-8"), end="")

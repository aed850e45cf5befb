"""The help of the command and its verbs, in the words of the field: no type of Python stands in it.

Typer's own help names the types of its parameters (`<list[Path]>`), differently in each of its releases, and needs
rich; this is plain text, of which no line is wider than the terminal.
"""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from opsin.cli.printing import bold, colours
from opsin.errors import InputError, nearest

_WIDEST = 100  # longer lines are hard to read
_LABEL = 30  # columns of a flag with its value, beyond which its help starts on the next line


class Verb(TyperCommand):
    """A verb whose help is ours."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Called for `--help`."""
        formatter.write(render(self, ctx))


class Verbs(TyperGroup):
    """The command that has the verbs; one that it does not have is an InputError with the nearest ones."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Called for `--help`."""
        formatter.write(render(self, ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Called with the arguments from the verb on."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not ctx.resilient_parsing:
            near = " or ".join(f"'{name}'" for name in nearest(args[0], known, cutoff=0.6))
            hint = f"did you mean {near}? The" if near else "the"
            raise InputError(f"there is no verb {args[0]!r}; {hint} verbs are {', '.join(known)}")
        return super().resolve_command(ctx, args)


def width() -> int:
    """Columns of the help: COLUMNS or the terminal's, at most 100; 80 where nobody watches."""
    return max(40, min(_WIDEST, shutil.get_terminal_size((80, 24)).columns))


def render(command: Any, ctx: Any) -> str:
    """The whole help of a verb, or of the command itself."""
    columns = width()
    parameters = [one for one in command.get_params(ctx) if not getattr(one, "hidden", False)]
    arguments = [one for one in parameters if one.param_type_name == "argument"]
    usage = " ".join([ctx.command_path, "[OPTIONS]", *map(_in_usage, arguments)])
    verbs = [command.get_command(ctx, name) for name in command.list_commands(ctx)] if _has_verbs(command) else []
    if verbs:
        usage += " VERB ..."
    lines = [*_wrap(f"{bold('Usage:')} {usage}", columns, hang=4), ""]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines += [*_wrap(paragraph, columns), ""]
    panels: dict[str, list[tuple[str, str]]] = {"Arguments": [(_name(one), _meaning(one)) for one in arguments]}
    panels["Verbs"] = [(verb.name, inspect.cleandoc(verb.help or "").split("\n\n")[0]) for verb in verbs]
    for one in parameters:
        if one.param_type_name == "option":
            panel = getattr(one, "rich_help_panel", None) or "Options"
            panels.setdefault(panel, []).append((_flags(one), _meaning(one)))
    for title, rows in panels.items():
        if rows:
            lines += [bold(f"{title}:"), *_table(rows, columns), ""]
    lines += _epilog(command.epilog or "", columns)
    return "\n".join(lines).rstrip() + "\n"


def _has_verbs(command: Any) -> bool:
    return isinstance(command, TyperGroup)


def _in_usage(argument: Any) -> str:
    return _name(argument) if argument.required else f"[{_name(argument)}]"


def _name(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.nargs == 1 or name.endswith("...") else f"{name}..."


def _flags(option: Any) -> str:
    """`-o, --out FOLDER`; a flag without a value has none, and without a short form leaves its place free."""
    short = [flag for flag in option.opts if not flag.startswith("--")]
    names = [*short, *(flag for flag in option.opts if flag.startswith("--")), *option.secondary_opts]
    value = "" if option.is_flag or option.count else f" {option.metavar or option.name.upper()}"
    return f"{'' if short else '    '}{', '.join(names)}{value}"


def _meaning(parameter: Any) -> str:
    text, default = getattr(parameter, "help", None) or "", parameter.default
    stated = isinstance(default, str | int | float) and not isinstance(default, bool)
    if stated and parameter.show_default:
        text += f" [default: {default}]"
    if parameter.required:
        text += " [required]"
    return text.strip()


def _table(rows: Sequence[tuple[str, str]], columns: int) -> Iterator[str]:
    """Names beside their meanings; a long name has a line of its own."""
    fitting = [len(name) for name, _ in rows if len(name) <= min(_LABEL, columns // 2 - 4)]
    left = max(fitting, default=8)
    for name, meaning in rows:
        told = textwrap.wrap(meaning, columns - left - 4, break_long_words=False, break_on_hyphens=False) or [""]
        if len(name) > left:
            yield f"  {bold(name)}"
            name = ""
        padded = name.ljust(left)
        yield f"  {bold(name)}{padded[len(name) :]}  {told[0]}".rstrip()
        yield from (f"{' ' * (left + 4)}{line}" for line in told[1:])


def _wrap(text: str, columns: int, hang: int = 0) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        columns + (_escapes(text) if colours() else 0),
        subsequent_indent=" " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _epilog(text: str, columns: int) -> Iterable[str]:
    """The examples; one that is too long goes on in the next line, as a shell reads it."""
    for line in filter(None, text.splitlines()):
        if len(line) <= columns:
            yield line
            continue
        whole = re.sub(r"( --?[a-z][\w-]*) (?=[^\s-])", "\\1\0", line.strip())  # a flag stays with its value
        parts = textwrap.wrap(
            whole,
            columns - 2,
            initial_indent="  ",
            subsequent_indent=" " * 6,
            break_long_words=False,
            break_on_hyphens=False,
        )
        yield from (f"{part} \\".replace("\0", " ") for part in parts[:-1])
        yield parts[-1].replace("\0", " ")


def _escapes(text: str) -> int:
    """Characters that a terminal does not show."""
    return sum(map(len, re.findall(r"\x1b\[\d+m", text)))

"""The command: which verbs there are, and how errors become one line and an exit status."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer

from opsin import rooms
from opsin.cli import (
    ablate,
    completion,
    data,
    design,
    evaluate,
    explain,
    export,
    models,
    predict,
    push,
    recipe,
    serve,
    train,
    tune,
)
from opsin.cli.arguments import examples, with_options
from opsin.cli.help import Verb, Verbs
from opsin.cli.printing import show_anything
from opsin.cli.which_task import find_room, flag_value, owner_of, why_unknown
from opsin.errors import InputError, JobError, name_too_long, printable
from opsin.rooms import Option, Room
from opsin.version import __version__

# Typer carries click inside or depends on it, by version; its own exceptions lead to the common base either way.
_UsageError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

VERBS: dict[str, tuple[Callable[..., Any], str]] = {
    "train": (train.train, train.EXAMPLES),
    "tune": (tune.tune, tune.EXAMPLES),
    "ablate": (ablate.ablate, ablate.ABLATE_EXAMPLES),
    "race": (ablate.race, ablate.RACE_EXAMPLES),
    "design": (design.design, design.EXAMPLES),
    "eval": (evaluate.evaluate, evaluate.EXAMPLES),
    "predict": (predict.predict, predict.EXAMPLES),
    "serve": (serve.serve, serve.EXAMPLES),
    "export": (export.export, export.EXAMPLES),
    "push": (push.push, push.EXAMPLES),
    "models": (models.models, models.EXAMPLES),
    "explain": (explain.explain, explain.EXAMPLES),
    "data": (data.data, data.EXAMPLES),
    "recipe": (recipe.recipe, recipe.EXAMPLES),
}
OF_A_TASK = {"eval": "eval", "predict": "predict", "serve": "predict", "data": "data"}  # verb -> whose options it has


def create_app(room: Room | None = None, commands: Sequence[Room] = ()) -> typer.Typer:
    """The command, its verbs with the options of one task. commands: the rooms whose own verbs it has too."""
    made = typer.Typer(
        name="opsin",
        cls=Verbs,
        help="Train, evaluate, use and explain vision networks: one command from data to exported model.",
        epilog="Start with: opsin train lenet5_digits",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(root)
    for name, (verb, calls) in VERBS.items():
        if name in OF_A_TASK:
            verb = with_options(verb, () if room is None else _options(name, room), room)
        made.command(name, cls=Verb, epilog=calls)(verb)
    for one in commands:
        for name, place in one.commands.items():
            shown = one.examples.get(name)
            made.command(name, cls=Verb, epilog=examples(*shown) if shown else None)(rooms.load(place))
    return made


def _options(verb: str, room: Room) -> list[Option]:
    """A task's options of a verb; what is written in the end is nothing for a server, which has none."""
    return [one for one in room.options_of(OF_A_TASK[verb]) if verb != "serve" or not one.writes]


def _version(asked: bool) -> None:
    if asked:
        print(f"opsin {__version__}")
        raise typer.Exit()


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    packages: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="PACKAGE",
            help="Import a module that adds tasks, networks or other parts of your own. Repeatable.",
            show_default=False,
        ),
    ] = None,
    install: Annotated[
        bool,
        typer.Option(
            "--install-completion",
            callback=completion.install,
            is_eager=True,
            expose_value=False,
            help="Install completion of verbs, flags and names for this shell; prints which file it writes.",
        ),
    ] = False,
    show: Annotated[
        bool,
        typer.Option(
            "--show-completion",
            callback=completion.show,
            is_eager=True,
            expose_value=False,
            help="Print what --install-completion would write.",
        ),
    ] = False,
) -> None:
    """What all verbs take. The packages of --import are taken from the arguments before these are read."""
    if offline:
        os.environ["OPSIN_OFFLINE"] = "1"
    if debug:
        os.environ["OPSIN_DEBUG"] = "1"


def run() -> NoReturn:
    """What the installed command calls, as a process of its own: `main`, and after a prediction out at once.

    After `serve` too: the model's thread may be in the middle of a batch.

    Python takes torch apart for half a second otherwise, of the two that a small model's answer takes; nothing that a
    prediction writes is open by then. `python -m opsin` may run within another program, and ends as that wants.
    """
    try:
        main()
    except SystemExit as done:
        status = done.code
    if sys.argv[1:2] in (["predict"], ["serve"]) and isinstance(status, int):
        with contextlib.suppress(OSError):  # nobody reads any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def main() -> NoReturn:
    """The entry point: turns errors into one line and an exit status."""
    if completion.asked():
        _complete()
    show_anything()
    room, verb = None, ""
    try:
        arguments, packages = _take_imports(sys.argv[1:])
        rooms.import_inherited()
        rooms.import_packages(packages)
        verb, room = _subject(arguments)
        status = create_app(room, _with_commands(verb))(arguments, standalone_mode=False, prog_name="opsin") or 0
    except InputError as error:
        status = _fail(str(error), 2)
    except _UsageError as error:
        status = 2
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            print(error.format_message())
        else:
            _fail(_explain(error, verb, room, sys.argv[1:]), status)
    except JobError as error:
        status = _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        status = _fail("stopped", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except Exception as error:
        if too_long := name_too_long(error) if isinstance(error, OSError) else "":
            status = _fail(too_long, 2)
        else:
            status = _fail(f"unexpected {type(error).__name__}: {error} (opsin --debug ... shows where)", 1)
    sys.exit(status)


def _complete() -> NoReturn:
    """Answer a shell that asks how a line can go on; nothing where that is not known."""
    try:
        *before, last = completion.words()
        arguments, packages = _take_imports(before)
        rooms.import_inherited()
        rooms.import_packages(packages)
        verb, room = _subject(arguments if last.startswith("-") else arguments[:1], entered=False)
        completion.prepare()
        create_app(room, _with_commands(verb))([], standalone_mode=False, prog_name="opsin")
    except Exception:  # a line on the terminal would break the one that is being written
        if os.environ.get("OPSIN_DEBUG"):
            raise
    sys.exit(1)


def _take_imports(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without every `--import PACKAGE`, wherever it stands, and the packages."""
    kept, packages, words = [], [], iter(arguments)
    for word in words:
        if word.startswith("--import="):
            packages.append(word.partition("=")[2])
        elif word == "--import":
            name = next(words, None)
            if name is None:
                raise InputError("--import takes the name of a module, for example --import my_package.my_module")
            packages.append(name)
        else:
            kept.append(word)
    return kept, packages


def app_for(arguments: Sequence[str]) -> typer.Typer:
    """The command with the options of the task that a call is about."""
    verb, room = _subject(arguments)
    return create_app(room, _with_commands(verb))


def _subject(arguments: Sequence[str], entered: bool = True) -> tuple[str, Room | None]:
    """The verb of a call, "" where there is none, and the task that it is about, where that is known.

    entered: whether the line is complete, so that what it names by a scheme may be downloaded.
    """
    place = next((place for place, word in enumerate(arguments) if not word.startswith("-")), None)
    if place is None:
        return "", None
    verb = arguments[place]
    fetch = entered and not {"-h", "--help", "--offline"} & set(arguments)
    return verb, find_room(verb, arguments[place + 1 :], fetch=fetch) if verb in OF_A_TASK else None


def _with_commands(verb: str) -> list[Room]:
    """The rooms that bring verbs of their own: of other packages only where none of ours has this verb."""
    ours = rooms.built_in_rooms()
    if verb and verb not in VERBS and not any(verb in room.commands for room in ours):
        ours = rooms.all_rooms()
    return [room for room in ours if room.commands]


def _explain(error: Any, verb: str, room: Room | None, arguments: Sequence[str]) -> str:
    """A usage error in words, with the task that an unknown option belongs to, or the value that is no number."""
    flag = getattr(error, "option_name", None)
    if flag and type(error).__name__ == "NoSuchOption":
        unknown = why_unknown(sys.argv[1:]) if room is None else ""  # whose options nobody knows
        return unknown or owner_of(OF_A_TASK.get(verb, verb), flag, room) or error.format_message()
    message = error.format_message()
    number = re.search(r"valid (integer|number|float)|expected (a (?:whole )?number or auto)", message)
    flags: list[str] = getattr(getattr(error, "param", None), "opts", None) or []
    given = next((value for one in flags if (value := flag_value(arguments, one)) is not None), None)
    if given is None:
        return message
    if number is None:
        return f"{message}; got {given!r}"
    kind = number[2] or ("a whole number" if number[1] == "integer" else "a number")
    return f"{flags[-1] if len(flags[-1]) > 2 else flags[0]} takes {kind}; got {given!r}"


def _fail(message: str, status: int) -> int:
    if os.environ.get("OPSIN_DEBUG"):
        import traceback

        traceback.print_exc()
    print(f"opsin: {printable(' '.join(message.split()))}", file=sys.stderr)
    return status

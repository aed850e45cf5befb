"""Completion by the shell: the names that it is offered, and the two flags that set it up.

The shell runs the command with `_OPSIN_COMPLETE` in its environment; typer reads what has been typed and answers.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import typer

from opsin import rooms
from opsin.errors import InputError
from opsin.version import __version__

_VARIABLE = "_OPSIN_COMPLETE"


def asked() -> bool:
    """Whether a shell asks for completion."""
    return bool(os.environ.get(_VARIABLE))


def words() -> list[str]:
    """What has been typed behind the command's name: whole words, and the one that is to be completed."""
    if (line := os.environ.get("COMP_WORDS")) is not None:  # bash
        typed, place = _split(line), int(os.environ["COMP_CWORD"])
        return [*typed[1:place], typed[place] if place < len(typed) else ""]
    line = os.environ.get("_TYPER_COMPLETE_ARGS", "")  # zsh, fish, PowerShell
    return [*_split(line)[1:], *([""] if line.endswith(" ") or len(_split(line)) < 2 else [])]


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # an open quotation mark
        return line.split()


def prepare() -> None:
    """Let typer know the shells."""
    _typer("completion_init")()


def _typer(name: str) -> Any:
    """A function of typer's completion: at this place in every release since 0.15, though not declared as public."""
    from typer import completion

    return getattr(completion, name)


# What the two flags of the command do


def install(given: bool) -> None:
    """Write the script for the shell that runs this, and say where."""
    if given:
        shell, path = _typer("install")(shell=_shell(), prog_name="opsin", complete_var=_VARIABLE)
        print(f"completion for {shell} is in {path}; it works in the next shell that you open")
        raise typer.Exit()


def show(given: bool) -> None:
    """Print the script for the shell that runs this."""
    if given:
        print(_typer("get_completion_script")(prog_name="opsin", complete_var=_VARIABLE, shell=_shell()))
        raise typer.Exit()


_SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def _shell() -> str:
    """The shell around this process, else the one that SHELL names. Raises InputError where neither is known."""
    found = ""
    try:
        import shellingham

        found = shellingham.detect_shell()[0]
    except Exception:  # its own error, or it is not there: typer brings it, but need not for ever
        pass
    for shell in (found, Path(os.environ.get("SHELL", "")).stem):
        if shell in _SHELLS:
            return shell
    raise InputError(f"cannot tell which shell this is; name it by SHELL, for example SHELL=bash; known: {_listed()}")


def _listed() -> str:
    return ", ".join(_SHELLS)


# What is offered


def devices(incomplete: str) -> list[str]:
    """Devices by name."""
    return _starting(["cpu", "cuda", "cuda:0", "cuda:1", "mps"], incomplete)


def export_formats(incomplete: str) -> list[str]:
    """Formats of `opsin export`."""
    return _starting(["onnx", "openvino", "torch"], incomplete)


def tasks(incomplete: str) -> list[str]:
    """Every task."""
    return _starting(rooms.list_tasks(), incomplete)


def models(incomplete: str) -> list[str]:
    """Every model."""
    return _starting(_model_names(), incomplete)


def models_and_recipes(incomplete: str) -> list[str]:
    """What `opsin explain` takes by name."""
    return _starting([*_model_names(), *_recipe_names()], incomplete)


def trainable(incomplete: str) -> list[str]:
    """What `opsin train` takes by name."""
    return _starting([*rooms.list_tasks(), *_recipe_names(), *_model_names()], incomplete)


def recipes(incomplete: str) -> list[str]:
    """Every shipped recipe."""
    return _starting(_recipe_names(), incomplete)


def parts_of_recipes(incomplete: str) -> list[str]:
    """What `opsin recipe` tells of."""
    return _starting(["keys", "schema", "show"], incomplete)


def _starting(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _recipe_names() -> list[str]:
    from opsin.engine.recipe import list_recipes

    return list(list_recipes())


def _model_names() -> list[str]:
    """Names of all models: of the file that keeps them where nothing has changed since, for they cost seconds."""
    from opsin.downloading import home
    from opsin.files import atomic

    path = home() / "completion" / "models.json"
    state = _state()
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["state"] == state:
            return [str(name) for name in kept["models"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    from opsin import registry

    names = registry.list_models()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            temporary.write_text(json.dumps({"state": state, "models": names}), encoding="utf-8")
    except (OSError, InputError):  # the next time it takes as long again
        pass
    return names


def _state() -> list[Any]:
    """What the models that there are depend on."""
    package = Path(__file__).parents[1]
    newest = max(path.stat().st_mtime_ns for path in package.rglob("*.py"))
    return [__version__, str(package), newest, rooms.list_tasks(), rooms.imported_packages()]

"""What can be refused before torch is imported: runs, data, recipes and files that are not there.

A bare name may be that of a model, of built-in data or of a recipe, which only the verb itself knows: it is left to it.
"""

from __future__ import annotations

import os
from pathlib import Path

from opsin.engine.run import missing_run
from opsin.errors import InputError
from opsin.registry import WEIGHT_FILES, not_built
from opsin.schemes import split_scheme


def check_run(run: str | Path) -> None:
    """Raise InputError where the path of a run or a model.safetensors is not there."""
    if _is_path(str(run)) and not Path(run).exists():
        raise missing_run(Path(run))


def check_data(source: str | Path | None) -> None:
    """Raise InputError where a path of data is not there, in the working folder or in that of OPSIN_DATA."""
    if source is None or not _is_path(str(source)):
        return
    path, home = Path(source).expanduser(), os.environ.get("OPSIN_DATA")
    if not path.exists() and not (home and not path.is_absolute() and (Path(home) / path).exists()):
        raise InputError(f"no file or folder at {source}")


def check_recipe(what: str | None) -> None:
    """Raise InputError where the file of a recipe is not there."""
    if what is not None and (_is_path(what) or what.endswith((".yaml", ".yml"))) and not Path(what).exists():
        raise InputError(f"no recipe at {what}; check the path")


def check_weights(what: str | None) -> None:
    """Raise InputError where a file of weights is not there."""
    if what is None or split_scheme(what) is not None or Path(what).exists():
        return
    if Path(what).suffix.lower() in WEIGHT_FILES or len(Path(what).parts) > 1:
        raise InputError(f"no file of weights at {what}")


def check_explained(what: str) -> None:
    """Raise InputError for the path of a run, a model or a recipe that is not there, or of what is never built."""
    if (place := not_built(what)) is not None:
        raise InputError(f"{what}: {place}")
    if _is_path(what) and not Path(what).exists():
        raise InputError(f"no {'file' if Path(what).suffix else 'run or recipe'} at {what}")


def check_files(paths: list[Path] | None) -> None:
    """Raise InputError for the first file that is not there."""
    for path in paths or ():
        if not path.exists():
            raise InputError(f"no file or folder at {path}")


def _is_path(word: str) -> bool:
    """Whether a word can be nothing but a path: it has folders in it, or an ending."""
    if ":" in word and not Path(word).drive:
        return False
    return len(Path(word).parts) > 1 or bool(Path(word).suffix) or word.endswith(("/", os.sep))

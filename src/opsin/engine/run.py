"""The folder of one training."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from opsin.errors import InputError, nearest
from opsin.files import atomic


@dataclass(frozen=True)
class RunFolder:
    """`runs/<name>/`: recipe.yaml, metrics.csv, last.ckpt, best.ckpt, model.safetensors, report.html."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def last(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def previous(self) -> Path:
        """The checkpoint before the last, should that be damaged."""
        return self.path / "previous.ckpt"

    @property
    def best(self) -> Path:
        return self.path / "best.ckpt"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def write_recipe(self, text: str) -> None:
        """Put down the recipe, as YAML."""
        with atomic(self.recipe) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @classmethod
    def create(cls, out: str | Path | None, name: str) -> RunFolder:
        """A new folder: `out`, or the first free of runs/name, runs/name-2, ... InputError if it cannot be used."""
        if out is not None:
            folder = cls(Path(out))
            if folder.recipe.exists():
                raise InputError(f"{out} already holds a run; continue it with --resume {out}, or choose another --out")
        else:
            number = 1
            folder = cls(Path("runs") / name)
            while folder.path.exists():
                number += 1
                folder = cls(Path("runs") / f"{name}-{number}")
        try:
            str(folder.path.absolute()).encode()
        except UnicodeEncodeError:  # torch and safetensors write to no such path
            raise InputError(f"{folder.path.absolute()} has bytes that are no UTF-8; choose another --out") from None
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder.path):
                pass
        except OSError as error:
            raise InputError(
                f"cannot write to the output folder {folder.path}: {error.strerror}; choose another --out"
            ) from None
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The folder of an existing run. Raises InputError if there is none."""
        folder = cls(Path(path))
        if not folder.path.exists():
            near = (
                sorted(p.parent.as_posix() for p in folder.path.parent.glob("*/recipe.yaml"))
                if folder.path.parent.is_dir()
                else []
            )
            hint = f"; runs there: {', '.join(near[:5])}" if near else ""
            raise InputError(f"no run at {path}{hint}")
        if not folder.recipe.exists():
            raise InputError(f"{path} is not a run: it has no recipe.yaml")
        return folder


def is_unfinished(path: Path) -> bool:
    """Whether a path is the folder of a training that goes on or was stopped: a report is its last act."""
    folder = RunFolder(path)
    return folder.last.exists() and not folder.report.exists()


def missing_run(path: Path) -> InputError:
    """The error for a run or a file of weights that is not there, with those of nearly its name, or some that are."""
    kind = "file" if path.suffix else "run or file"
    others = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    if near := [str(path.parent / name) for name in nearest(path.name, others, cutoff=0.7)]:
        return InputError(f"no {kind} at {path}; did you mean {' or '.join(near)}?")
    places = dict.fromkeys((path.parent, path.parent / "runs", Path("runs")))
    runs = [found.parent.as_posix() for place in places for found in sorted(place.glob("*/recipe.yaml"))]
    named = [run for run in runs if Path(run).name == path.name] or runs[:5]
    return InputError(f"no {kind} at {path}" + (f"; runs there: {', '.join(named)}" if named else ""))

"""Data sets of the Hugging Face hub by name, `hf:owner/name`: its files, verified, read by the package `datasets`.

`hf:owner/name@revision` is a branch, tag or commit, `hf:owner/name/configuration` one of several configurations. Once
they are here nothing is asked of the hub. Files that can run code, scripts and pickles, are not downloaded; `datasets`
runs none from version 4 on. The files lie in huggingface_hub's cache, what `datasets` makes of them in
`OPSIN_HOME/data/hf`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from opsin import errors
from opsin.data.source import Source
from opsin.data.torch_dataset import source_of
from opsin.downloading import Say, home, lock
from opsin.errors import InputError
from opsin.hub import HubName, find_folder, is_kept_offline

_BOXES, _LABELS = "boxes", "class labels"  # as formats call what is known of an image
_LEFT_OUT = (".py", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".gitattributes")


def truth_of(rest: str, *, fetch: bool = True, how: str = "") -> str:
    """What is known of the images of a data set, by its columns."""
    splits = _load(rest, fetch, how, errors.say)
    columns = set(next(iter(splits.values())).column_names)
    return _BOXES if columns & {"objects", "boxes"} else _LABELS


def open_named(
    rest: str,
    task: str,
    options: Mapping[str, Any],
    *,
    fetch: bool = True,
    how: str = "",
    say: Say = errors.say,
) -> Source:
    """A data set of the hub as a source. Raises InputError where it is not here and may not be downloaded.

    fetch: whether it may; how: what would, for the error. JobError where the network or a file fails.
    """
    name = HubName.parse(rest, "dataset").repo.rpartition("/")[2]
    opened = source_of(_load(rest, fetch, how, say), task, name=name, **options)
    opened.name, opened.format = name, "Hugging Face"
    return opened


def _load(rest: str, fetch: bool, how: str, say: Say) -> dict[str, Any]:
    """Of each split of ours, or of "all", its data set."""
    name = HubName.parse(rest, "dataset")
    if find_spec("datasets") is None:
        raise InputError(f"{name}: data sets of the hub need the package datasets: pip install 'opsin[hf]'")
    kept = home() / "data" / "hf"
    note = kept / f"{re.sub(r'[^A-Za-z0-9_.-]', '--', rest)}.json"
    if not note.exists() and not (fetch and not is_kept_offline()):
        find_folder(name, note, _choose, fetch=fetch, how=how)  # which refuses, before anything is written
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with lock(note, say):
            folder, configuration = find_folder(name, note, _choose, fetch=fetch, how=how, say=say)
            found = _read(name, folder, configuration, kept)
    except OSError as error:
        raise InputError(f"{name}: {kept} cannot be used: {error.strerror or error}; set OPSIN_HOME") from error
    known = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}
    splits = {known[key]: one for key, one in found.items() if key in known}
    if not splits and len(found) == 1:
        splits = {"all": next(iter(found.values()))}
    if not splits:
        raise InputError(f"{name} has the splits {', '.join(found)}; none is train, validation or test")
    return {"all": splits["train"]} if splits.keys() == {"train"} else splits


def _read(name: HubName, folder: Path, configuration: Mapping[str, Any], kept: Path) -> Mapping[str, Any]:
    """What `datasets` makes of files that are here: of each split a data set."""
    datasets: Any = importlib.import_module("datasets")
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(str(folder), cache_dir=str(kept), **configuration)
    except Exception as error:  # whatever reading a stranger's files raises
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{name} cannot be read by datasets {datasets.__version__}: {what[:300]}") from error
    finally:
        if shown:
            datasets.enable_progress_bars()


def _choose(name: HubName, files: Sequence[str], card: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The files of one configuration, and the keywords of `datasets` that read them. None that can run code.

    They are what the card states for the configuration, else all.
    """
    safe = [file for file in files if not file.lower().endswith(_LEFT_OUT)]
    stated = {str(one.get("config_name")): one for one in card.get("configs") or [] if isinstance(one, Mapping)}
    if name.file and name.file not in stated:
        known = f"it has {', '.join(stated)}" if stated else "its card names none"
        raise InputError(f"{name}: there is no such configuration; {known}")
    wanted = name.file or next((key for key in stated if len(stated) == 1 or key == "default"), "")
    if stated and not wanted:
        raise InputError(
            f"{name} has the configurations {', '.join(stated)}; name one: hf:{name.repo}/{next(iter(stated))}"
        )
    keywords: dict[str, Any] = {}
    if data_files := stated.get(wanted, {}).get("data_files"):
        # The card names the files of other configurations too, which datasets would look for.
        safe = [file for file in safe if any(fnmatchcase(file, one) for one in _patterns(data_files))]
        keywords = {"data_files": _by_split(data_files)}
    if not any(file not in ("README.md", "dataset_infos.json") for file in safe):
        raise InputError(f"{name} has no files of data that can be read without running code")
    return safe, keywords


def _by_split(stated: Any) -> Any:
    """A configuration's `data_files` as `datasets` takes them: of each split its patterns, where it has splits."""
    if isinstance(stated, list) and all(isinstance(one, Mapping) for one in stated):
        return {str(one.get("split", "train")): one.get("path") for one in stated}
    return stated


def _patterns(stated: Any) -> list[str]:
    """The patterns of a configuration's `data_files`, in each of the forms that a card may have them."""
    if isinstance(stated, str):
        return [stated.removeprefix("./").replace("**/", "*")]
    if isinstance(stated, Mapping):
        return [*_patterns(stated.get("path")), *(_patterns(list(stated.values())) if "path" not in stated else [])]
    return [pattern for one in stated for pattern in _patterns(one)] if isinstance(stated, list) else []

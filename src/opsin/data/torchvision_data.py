"""Data sets of torchvision by name, `torchvision:CIFAR10`: downloaded and verified by its own classes.

Any class of `torchvision.datasets` whose examples are (image, label), and VOCDetection, which is read as VOC. What a
class must be given beside its folder follows its name: `torchvision:EMNIST/letters`. Splits are what the class has by
its own `train=` or `split=`. All of it lies in `OPSIN_HOME/data/torchvision`; torchvision holds archives against their
published MD5.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from opsin import errors, rooms
from opsin.data.formats.format import Format
from opsin.data.source import Source
from opsin.data.torch_dataset import source_of
from opsin.downloading import Say, home, is_offline, lock
from opsin.errors import InputError, JobError, unknown

_BOXES, _LABELS = "boxes", "class labels"  # as formats call what is known of an image
_PAGE = "https://pytorch.org/vision/stable/generated/torchvision.datasets.{}.html"
_SPLITS = {  # ours -> what classes call it, the first that one has
    "train": ("train", "trainval", "train-standard"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
# What is published of them, where torchvision says nothing: licence, and megabytes to download.
_KNOWN: Mapping[str, tuple[str, int | None]] = {
    "CIFAR10": ("", 170),
    "CIFAR100": ("", 169),
    "Caltech101": ("CC BY 4.0", 138),
    "Caltech256": ("CC BY 4.0", 1_200),
    "DTD": ("for research only", 625),
    "EMNIST": ("", 562),
    "EuroSAT": ("MIT", 94),
    "FGVCAircraft": ("for non-commercial research only", 2_750),
    "FashionMNIST": ("MIT", 31),
    "Flowers102": ("", 345),
    "Food101": ("", 5_000),
    "Imagenette": ("Apache-2.0", 1_560),
    "KMNIST": ("CC BY-SA 4.0", 21),
    "MNIST": ("CC BY-SA 3.0", 12),
    "OxfordIIITPet": ("CC BY-SA 4.0", 811),
    "Omniglot": ("MIT", 10),
    "PCAM": ("CC0", 8_000),
    "STL10": ("", 2_640),
    "SVHN": ("for non-commercial use only", 246),
    "VOCDetection": ("that of each photograph, from Flickr", 2_000),
}


def truth_of(rest: str, *, fetch: bool = True, how: str = "") -> str:
    """What is known of the images of a data set, by its name alone."""
    return _BOXES if _find(rest)[0].__name__ == "VOCDetection" else _LABELS


def open_named(
    rest: str,
    task: str,
    options: Mapping[str, Any],
    *,
    fetch: bool = True,
    how: str = "",
    say: Say = errors.say,
) -> Source:
    """A data set of torchvision as a source. Raises InputError where it is not here and may not be downloaded.

    fetch: whether it may; how: what would, for the error. JobError where the download fails.
    """
    kind, value = _find(rest)
    name = f"torchvision:{rest}"
    build, describe = (_voc, _open_voc) if truth_of(rest) == _BOXES else (_splits, source_of)
    folder = home() / "data" / "torchvision"
    try:
        made = _here(kind, value, folder, build)
        if made is None:
            made = _download(name, kind, value, folder, build, fetch, how, say)
    except OSError as error:
        raise InputError(f"{name}: {folder} cannot be used: {error.strerror or error}; set OPSIN_HOME") from error
    opened = describe(made, task, name=kind.__name__, **options)
    opened.name, opened.format = kind.__name__, "torchvision"
    return opened


def _find(rest: str) -> tuple[Any, str | None]:
    """The class that a name means, upper and lower case alike, and what follows it. Raises InputError."""
    from torchvision import datasets

    wanted, _, value = rest.partition("/")
    found = {name.lower(): kind for name, kind in vars(datasets).items() if _is_named(name, kind)}
    if wanted.lower() not in found:
        raise unknown("torchvision data set", wanted, sorted(kind.__name__ for kind in found.values()))
    kind = found[wanted.lower()]
    lacking = [one for one in _parameters(kind).values() if one.default is one.empty and one.name != "root"]
    if len(lacking) > 1 or (lacking and not value):
        needed = " and ".join(one.name for one in lacking)
        form = f": torchvision:{kind.__name__}/{needed.upper()}" if len(lacking) == 1 else ", so a name is not enough"
        raise InputError(f"torchvision's {kind.__name__} must be given its {needed} too{form}")
    if value and not lacking:
        raise InputError(f"torchvision's {kind.__name__} takes nothing beside its name; leave /{value} out")
    return kind, value or None


def _is_named(name: str, kind: Any) -> bool:
    """Whether something of torchvision.datasets is a data set of its own, with files of its own."""
    return inspect.isclass(kind) and name[0].isupper() and {"root", "download"} <= _parameters(kind).keys()


def _parameters(kind: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a class, and of that above it where it hands on **kwargs."""
    found: dict[str, inspect.Parameter] = {}
    for one in kind.__mro__[:-1]:
        if "__init__" not in vars(one):
            continue
        own = inspect.signature(one.__init__).parameters
        found = {n: p for n, p in own.items() if n != "self" and p.kind is not p.VAR_KEYWORD} | found
        if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            break
    return found


Build = Callable[[Any, "str | None", Path, bool], Any]


def _splits(kind: Any, value: str | None, root: Path, download: bool) -> dict[str, Any]:
    """Of each split its data set. Raises RuntimeError where files are not there, as torchvision does."""
    parameters = _parameters(kind)
    given: dict[str, Any] = {"root": str(root), "download": download}
    required = next((p.name for p in parameters.values() if p.default is p.empty and p.name != "root"), None)
    if required is not None:
        given[required] = value
    if "train" in parameters:
        return {"train": kind(train=True, **given), "test": kind(train=False, **given)}
    if "split" not in parameters or required == "split":
        return {"all": kind(**given)}
    found: dict[str, Any] = {}
    for ours, names in _SPLITS.items():
        for name in names:
            try:
                found[ours] = kind(split=name, **given)
                break
            except ValueError as error:
                if "split" not in str(error):
                    raise
    return found


def _voc(kind: Any, value: str | None, root: Path, download: bool) -> Path:
    """The folder of VOC, which our own reader opens."""
    kind(root=str(root), download=download)
    return root / "VOCdevkit" / "VOC2012"


def _open_voc(folder: Path, task: str, *, name: str, **options: Any) -> Source:
    formats: list[Format] = [rooms.load(place) for place in rooms.find_room(task).formats]
    found = max(formats, key=lambda one: one.claims(folder))
    return found.open(folder, **{key: value for key, value in options.items() if key in found.options})


def _here(kind: Any, value: str | None, folder: Path, build: Build) -> Any:
    """What a class makes of files that are here; None where they are not."""
    if not folder.is_dir():
        return None
    try:
        return build(kind, value, folder, False)
    except (RuntimeError, FileNotFoundError, NotADirectoryError):  # "not found or corrupted", as torchvision says it
        return None


def _download(
    name: str,
    kind: Any,
    value: str | None,
    folder: Path,
    build: Build,
    fetch: bool,
    how: str,
    say: Say,
) -> Any:
    """What a class makes of files that it downloads: in one process at a time, of several that ask for them."""
    if not fetch:
        advice = f"; to download it: {how}" if how else ""
        raise InputError(f"{name} is not on this machine, and what only a recipe names is not downloaded{advice}")
    if is_offline():
        raise InputError(f"offline, and {name} is not in {folder}: allow the network once, or put its files there")
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / kind.__name__, say):
        if (made := _here(kind, value, folder, build)) is not None:  # another process was first
            return made
        say(f"downloading {name} ({describe(kind)}) to {folder}; torchvision checks it by MD5")
        try:
            return build(kind, value, folder, True)
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise JobError(
                f"{name} could not be downloaded: {what[:300]}; check the network and HTTPS_PROXY, and call it again"
            ) from error


def describe(kind: Any) -> str:
    """How large a data set is and where it is from, as far as known, and its licence."""
    licence, size = _KNOWN.get(kind.__name__, ("", None))
    parts = [] if size is None else [f"about {size:,} MB"]
    if (server := _server(kind)) is not None:
        parts.append(f"from {server}")
    page = _PAGE.format(kind.__name__)
    parts.append(f"licence: {licence}" if licence else f"licence: not stated by torchvision; see {page}")
    return ", ".join(parts)


def _server(kind: Any) -> str | None:
    """The server that a class says it downloads from."""
    for key in ("mirrors", "url", "_URL", "zip_url", "base_url", "_FILE_URL"):
        found = getattr(kind, key, None)
        found = found[0] if isinstance(found, list | tuple) and found else found
        if isinstance(found, str) and (server := urlparse(found).netloc):
            return server
    return None

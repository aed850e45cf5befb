"""Data sets of other libraries as a source: a torch `Dataset`, torchvision's, a split of Hugging Face's `datasets`.

None of them is imported for it: they are known by what they have. `dataset[i]` is read whenever its image is needed,
and no image is kept. What is known of the examples is gathered once: from a column that the data set has ready
(`targets` of torchvision's, a column of Hugging Face's), else from every example in turn. It must stay the same from
then on: an example that is read again with another target is an error, since a transform that moves boxes at random
would part them from ours. `augment` of a recipe moves image and truth together.
"""

from __future__ import annotations

import inspect
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from opsin import rooms
from opsin.data.image_values import from_array, from_tensor, is_array
from opsin.data.images import UnreadableImage, decode, from_pillow, read_image
from opsin.data.inputs import Inputs
from opsin.data.source import Source, Split
from opsin.data.truth import Truth
from opsin.errors import InputError, unknown
from opsin.progress import follow

SPLITS = {"validation": "val", "valid": "val", "dev": "val"}  # other names of ours
_KEYS = ("train", "val", "test", "all")
_IMAGE_KEYS = ("image", "img", "images", "pixel_values")
_PROBED = 3  # examples that are read at once: the first, the last and one between them


@dataclass(frozen=True)
class TargetReader:
    """How a task learns from the targets of a data set; a task names one, see `opsin.rooms.Room.reads`.

    noun: what a target is, in the plural. read: a target as the data set gives it, or a row of its fields without the
    image -> plain values, hashable by their `repr`. column: the targets of all examples where the data set has them
    ready, each as `read` takes it; None where it has not. names: the names of the classes where the data set says
    them. gather: (of each split what `read` gave, class names or None, options) -> of each split its truth. truths, in
    the place of column and gather where targets are too large to be kept: (of each split its examples, class names or
    None, options) -> of each split its truth, which reads them again; `read` then only says whether one can be read.
    Each raises InputError for what cannot be.
    """

    noun: str
    read: Callable[[Any], Any]
    column: Callable[[Examples], Sequence[Any] | None]
    names: Callable[[Examples], Sequence[str] | None]
    gather: Callable[..., Mapping[str, Truth]] | None = None
    truths: Callable[..., Mapping[str, Truth]] | None = None


@dataclass(frozen=True, eq=False)
class Examples:
    """A data set of another library, example by example. name: of it in messages.

    keeps: each thread keeps its last example, for a truth that reads it again after its image.
    """

    dataset: Any
    name: str
    keeps: bool = False
    _last: Any = field(default_factory=threading.local, repr=False)

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def features(self) -> Mapping[str, Any]:
        """Of Hugging Face's: the types of its columns, by their names; nothing of others."""
        found = getattr(self.dataset, "features", None)
        return found if isinstance(found, Mapping) and getattr(self.dataset, "column_names", None) is not None else {}

    def read(self, i: int) -> tuple[Any, Any]:
        """An example's image and its target, as the data set gives them. Raises InputError that names it."""
        if self.keeps and getattr(self._last, "place", None) == i:
            return self._last.example
        found = self._read(i)
        if self.keeps:
            self._last.place, self._last.example = i, found
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return Examples, (self.dataset, self.name, self.keeps)  # without what threads keep

    def _read(self, i: int) -> tuple[Any, Any]:
        try:
            example = self.dataset[i]
        except InputError:
            raise
        except Exception as error:  # whatever the data set's own code raises
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise UnreadableImage(f"{self.name}[{i}]", what) from error
        if isinstance(example, Mapping):
            key = self._image_key(example, i)
            return example[key], {name: value for name, value in example.items() if name != key}
        if isinstance(example, tuple | list) and len(example) >= 2:
            return example[0], example[1]
        raise InputError(
            f"{self.name}[{i}] is {_kind(example)}; expected (image, target), or a dict with the key image"
        )

    def image(self, i: int) -> Tensor:
        """The image of an example, uint8 (C, H, W). Raises UnreadableImage that names it."""
        return self.as_image(self.read(i)[0], i)

    def as_image(self, given: Any, i: int) -> Tensor:
        """An image as the data set gives it, uint8 (C, H, W). Raises UnreadableImage that names it."""
        name = f"{self.name}[{i}]"
        try:
            return _as_image(given, name)
        except UnreadableImage:
            raise
        except InputError as error:
            scaled = isinstance(given, Tensor) and given.is_floating_point()
            hint = "; leave Normalize out of the data set's transform, opsin normalises itself" if scaled else ""
            raise UnreadableImage(name, f"{error}{hint}") from error

    def _image_key(self, example: Mapping[str, Any], i: int) -> str:
        images = [name for name, kind in self.features.items() if type(kind).__name__ == "Image"]
        for key in [*_IMAGE_KEYS, *images]:
            if key in example:
                return key
        raise InputError(f"{self.name}[{i}] has the keys {', '.join(map(str, example))}, and none of them is image")


class DatasetImages(Inputs):
    """The images of a data set of another library, each read when it is asked for.

    places: (N,), which of them; all if None. marks: (len(dataset),) int64, of each target what it was when it was
    gathered, held against what comes with the image; None where targets are read with it anew. read: of a target, see
    `TargetReader`.
    """

    draws = True  # a transform within the data set may

    def __init__(
        self,
        examples: Examples,
        marks: np.ndarray | None,
        read: Callable[[Any], Any],
        places: np.ndarray | None = None,
    ) -> None:
        self.examples, self.marks, self._read = examples, marks, read
        self.places = np.arange(len(examples)) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    def name(self, i: int) -> str:
        return f"{self.examples.name}[{self.places[i]}]"

    def read(self, i: int) -> Tensor:
        place = int(self.places[i])
        image, target = self.examples.read(place)
        if self.marks is not None and mark_of(self._read(target)) != self.marks[place]:
            raise InputError(
                f"{self.name(i)} came with another target than before; leave what changes targets at random, such as a "
                "flip of boxes, to augment"
            )
        return self.examples.as_image(image, place)

    def size(self, i: int) -> tuple[int, int]:
        place = int(self.places[i])
        image = self.examples.read(place)[0]
        height, width = self.examples.as_image(image, place).shape[-2:]
        return height, width

    def select(self, places: np.ndarray) -> DatasetImages:
        return DatasetImages(self.examples, self.marks, self._read, self.places[places])


def source_of(
    given: Any,
    task: str = rooms.DEFAULT_TASK,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    default_classes: Sequence[str] | None = None,
    **options: Any,
) -> Source:
    """A data set of another library, or several as the splits of one, as a source for a task.

    given: a torch `Dataset` with `__len__`, one of torchvision's, a split of Hugging Face's `datasets`; or a mapping of
    "train", "val", "test" to them, as a `DatasetDict` is one. An example is (image, target) or a dict with "image".
    Images: PIL, uint8 or float in [0, 1] tensors (C, H, W), arrays (H, W, C), encoded bytes, paths. Targets: of class
    labels an int, a name, or a row of 0 and 1; of boxes {"boxes": (n, 4) x1 y1 x2 y2, "labels": (n,)} or Hugging Face's
    {"objects": {"bbox": x y width height, "category"}}. name: of the source in messages, else that of the data set.
    classes: their names, in the place of what the data set says; numbers where neither does, and `default_classes` is
    None too. options: as of `opsin.data.open`.
    Raises InputError for what is none, has no length, or is empty, and for a wrong example with its index.
    """
    reads = rooms.find_room(task).reads
    if reads is None:
        raise InputError(f"{task} does not read data sets of Python; give a path or a built-in name")
    reader: TargetReader = rooms.load(reads)
    name = name or name_of(given)
    several = isinstance(given, Mapping)
    parts = {
        key: Examples(_checked(one, called), called, keeps=reader.truths is not None)
        for key, one in name_splits(given, name).items()
        for called in [f"{name}/{key}" if several else name]
    }
    for one in parts.values():
        _probe(one, reader)
    known = classes if classes is not None else next((n for p in parts.values() if (n := reader.names(p))), None)
    known = default_classes if known is None else known
    truths, marks = _gather(parts, reader, _class_names(known), options)
    splits = {key: Split(DatasetImages(one, marks.get(key), reader.read), truths[key]) for key, one in parts.items()}
    for split in splits.values():
        _check_places(split)
    return Source(name, f"{library_of(given)} data set", splits, task=task)


def _gather(
    parts: Mapping[str, Examples], reader: TargetReader, names: list[str] | None, options: Mapping[str, Any]
) -> tuple[Mapping[str, Truth], dict[str, np.ndarray]]:
    """Of each split its truth, and what its targets were when they were gathered, where they were."""
    gather = reader.truths or reader.gather
    assert gather is not None
    taken = inspect.signature(gather).parameters
    own = {key: value for key, value in options.items() if key in taken}
    if reader.truths is not None:
        return gather(parts, names, **own), {}
    values = {key: _values(one, reader) for key, one in parts.items()}
    marks = {key: np.array([mark_of(value) for value in some], np.int64) for key, some in values.items()}
    return gather(values, names, {key: one.name for key, one in parts.items()}, **own), marks


def is_dataset(given: Any) -> bool:
    """Whether something may be a data set of another library, rather than a name or a path."""
    return not isinstance(given, str | Path)


def name_of(given: Any) -> str:
    """What a data set calls itself, else the name of its class."""
    if isinstance(given, Mapping):
        return name_of(next(iter(given.values()))) if given else "data"
    inner = _unwrapped(given)
    info = getattr(inner, "info", None)
    own = getattr(info, "dataset_name", None) or getattr(info, "builder_name", None)
    return str(own or type(inner).__name__)


def library_of(given: Any) -> str:
    """Whose a data set is, in words."""
    one = next(iter(given.values()), None) if isinstance(given, Mapping) else given
    root = type(_unwrapped(one)).__module__.partition(".")[0]
    return {"torchvision": "torchvision", "datasets": "Hugging Face"}.get(root, "torch")


def mark_of(value: Any) -> int:
    """A number that is the same for the same values."""
    return value if isinstance(value, int) else zlib.crc32(repr(value).encode())


def plain(value: Any) -> Any:
    """A tensor, array or NumPy number as lists and numbers; anything else as it is."""
    if isinstance(value, Tensor):
        return value.detach().cpu().tolist()
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def columns_of(dataset: Any, names: Iterable[str]) -> list[Any] | None:
    """What a data set has ready of all its examples, under the first of the names that it has; None where it has not.

    Through torch's `Subset` and `ConcatDataset` too.
    """
    inner, indices = getattr(dataset, "dataset", None), getattr(dataset, "indices", None)
    if inner is not None and indices is not None:
        whole = columns_of(inner, names)
        return None if whole is None else [whole[int(i)] for i in indices]
    if isinstance(parts := getattr(dataset, "datasets", None), list):
        columns = [columns_of(one, names) for one in parts]
        return None if None in columns else [value for column in columns for value in column or ()]
    for name in names:
        found = plain(getattr(dataset, name, None))
        if isinstance(found, list | tuple) and len(found) == len(dataset):
            return list(found)
    return None


def said_by(dataset: Any, name: str) -> Any:
    """An attribute of a data set, or of what a `Subset` or `ConcatDataset` of torch holds; None where there is none."""
    return getattr(_unwrapped(dataset), name, None)


def _unwrapped(dataset: Any) -> Any:
    while True:
        inner, parts = getattr(dataset, "dataset", None), getattr(dataset, "datasets", None)
        if inner is not None and getattr(dataset, "indices", None) is not None:
            dataset = inner
        elif isinstance(parts, list) and parts:
            dataset = parts[0]
        else:
            return dataset


def name_splits(given: Any, name: str) -> dict[str, Any]:
    """Of each split, by our name of it, its data set; a single one is "all". name: of the whole in messages."""
    if not isinstance(given, Mapping):
        return {"all": given}
    found: dict[str, Any] = {}
    for key, one in given.items():
        ours = SPLITS.get(str(key), str(key))
        if ours not in _KEYS:
            raise unknown(f"split of {name}", key, (*_KEYS, *SPLITS))
        found[ours] = one
    if not found:
        raise InputError("the mapping of data sets is empty; give {'train': ..., 'val': ..., 'test': ...}")
    return found


def _checked(dataset: Any, name: str) -> Any:
    """The data set, if it is one. Raises InputError."""
    kind = type(dataset).__name__
    if not callable(getattr(dataset, "__getitem__", None)) or isinstance(dataset, str | bytes):
        lazy = callable(getattr(dataset, "__iter__", None))
        hint = "; a streamed one has no order to resume in: load it without streaming" if lazy else ""
        raise InputError(f"{name} is {_kind(dataset)} and no data set: data[i] must give an example{hint}")
    try:
        length = len(dataset)
    except (TypeError, NotImplementedError):
        raise InputError(
            f"{name} has no length; give {kind} a method __len__ that says how many examples it has"
        ) from None
    if length == 0:
        raise InputError(f"{name} is empty: {kind} has no examples")
    return dataset


def _probed(count: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, _PROBED).astype(int)).tolist()


def _probe(examples: Examples, reader: TargetReader) -> None:
    """Read a few examples whole: what is wrong with all of them is reported before all of them are read."""
    for i in _probed(len(examples)):
        image, target = examples.read(i)
        examples.as_image(image, i)
        _read(reader, target, examples, i)


def _values(examples: Examples, reader: TargetReader) -> list[Any]:
    """The targets of all examples: from a column where that says the same as the examples, else one by one."""
    column = reader.column(examples)
    if column is not None and len(column) == len(examples):
        try:
            ready = [reader.read(value) for value in column]
        except InputError:
            ready = []
        if ready and all(ready[i] == reader.read(examples.read(i)[1]) for i in _probed(len(examples))):
            return ready
    title, count = f"reading the {reader.noun} of {examples.name}", len(examples)
    return [_read(reader, examples.read(i)[1], examples, i) for i in follow(range(count), title, "examples")]


def _read(reader: TargetReader, target: Any, examples: Examples, i: int) -> Any:
    try:
        return reader.read(target)
    except InputError as error:
        raise InputError(f"{examples.name}[{i}]: {error}") from error


def _class_names(given: Sequence[str] | None) -> list[str] | None:
    if given is None:
        return None
    if isinstance(given, str) or not all(isinstance(name, str) for name in given):
        raise InputError(f"classes must be a list of names, got {given!r}")
    twice = sorted({name for name in given if list(given).count(name) > 1})
    if twice:
        raise InputError(f"classes names {', '.join(twice)} twice")
    return list(given)


def _check_places(split: Split) -> None:
    """Refuse boxes that reach out of the few images looked at: x, y, width, height read as x1, y1, x2, y2, or so."""
    assert split.truth is not None
    for i in _probed(len(split)):
        if reason := split.truth.misfit(i, split.inputs.size(i) or (0, 0)):
            raise InputError(f"{split.name(i)}: {reason}")


def _as_image(given: Any, name: str) -> Tensor:
    """An image in any form that data sets have it, uint8 (C, H, W). Raises InputError."""
    if isinstance(given, Image.Image):
        return from_pillow(given, name)
    if isinstance(given, Tensor):
        return from_tensor(given.as_subclass(Tensor))
    if isinstance(given, Mapping) and {"bytes", "path"} & given.keys():  # Hugging Face's, with decode=False
        given = given.get("bytes") or given.get("path")
    if isinstance(given, bytes):
        return decode(given, name)
    if isinstance(given, str | Path):
        return read_image(given)
    if isinstance(given, np.ndarray) or is_array(given):
        return from_array(given)
    raise InputError(f"{_kind(given)} is no image; expected a PIL image, a tensor (C, H, W) or an array (H, W, C)")


def _kind(value: Any) -> str:
    name = type(value).__name__
    if isinstance(value, tuple | list):
        return f"a {name} of {len(value)}"
    return "None" if value is None else f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"

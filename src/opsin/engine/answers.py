"""What a prediction gives: an answer to an input, and a list of them, as objects that are still plain dicts and lists.

An `Answer` is a dict that cannot be changed, so that whatever reads dicts reads it, `json.dumps` too. What every answer
has is here; fields and conversions of one task alone belong to the task's own class, which its `Predictor` names as
`answer_class`. Asking an answer for what another task has is an error that names that task.
"""

from __future__ import annotations

import copy
import csv
import difflib
import importlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, SupportsIndex, overload

import numpy as np
from torch import Tensor

from opsin import rooms
from opsin.data.drawing import save_image, shorten
from opsin.engine.pdf_pages import PdfPage
from opsin.engine.video import open_video
from opsin.errors import InputError
from opsin.files import atomic

_LONGEST = 100  # characters of an answer in a repr


class FieldError(InputError, AttributeError):
    """Answers of this task have no such field or conversion; the message says which have it."""


class Answer(dict[str, Any]):
    """What a model says of one input: a read-only dict of plain values, and what can be done with it.

    It equals the dict of the same values. `dict(answer)` is a copy that can be changed. An answer for an input that
    could not be read has `error`, and fields of its task raise it.
    list_class: of several answers. arrays: keys of what the task answers that are kept beside the dict, so that it and
    its JSON stay small; a subclass has properties for them. forms: the names that `write` knows, the first as drawn.
    local: keys, at any depth, whose values name files of this machine; `opsin serve` leaves them out.
    """

    list_class: ClassVar[type[Answers]]
    arrays: ClassVar[tuple[str, ...]] = ()
    local: ClassVar[tuple[str, ...]] = ("path", "paths", "drawn")
    forms: ClassVar[tuple[str, ...]] = ("drawn",)

    def __init__(
        self,
        values: Mapping[str, Any],
        predictor: Any = None,
        given: str | Path | Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        """predictor: what draws it, without its network. given: the image, or the path of its file or video."""
        super().__init__({key: value for key, value in values.items() if key not in self.arrays})
        self._arrays = {key: values[key] for key in self.arrays if key in values}
        self._predictor, self._given, self._size = predictor, given, size
        self._held: Tensor | None = None

    # What it was given

    @property
    def path(self) -> Path | None:
        """The file that the image or the video is from; None for one that came from memory."""
        return Path(self["path"]) if "path" in self else None

    @property
    def frame(self) -> int | None:
        """The number of the frame of a video, from 0; None for an image."""
        return self.get("frame")

    @property
    def time(self) -> float | None:
        """Seconds from the start of a video to the frame; None for an image."""
        return self.get("time")

    @property
    def error(self) -> str | None:
        """Why the input could not be read; None for one that was."""
        return self.get("error")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image as it was given. Raises InputError for what is no image."""
        self._check_readable()
        if self._size is None:
            raise InputError(f"this answer is of no single image: it has no size ({self!r})")
        return self._size

    @property
    def image(self) -> np.ndarray:
        """The image as it was given, uint8 (H, W, C), C 3 for RGB or 1 for grey.

        One from a file is read again, a frame of a video is looked for again. Raises InputError for what is no image.
        """
        return self._pixels().permute(1, 2, 0).cpu().numpy()

    # What can be done with it

    def describe(self) -> str:
        """It in a few words, as `opsin predict` prints it."""
        self._check_readable()
        return str(self._drawer().describe(self))

    def plot(self) -> Any:
        """The image with the answer drawn on it, a PIL image."""
        return self._drawer().draw(self._pixels(), self)

    def show(self) -> None:
        """Show the image with the answer drawn on it, by the program for images that the system has, or a notebook."""
        from PIL import ImageShow

        if not ImageShow.show(self.plot(), title=str(self.path or "")):
            raise InputError(
                "there is no program here that shows images; write it to a file: answer.save('answer.png')"
            )

    def save(self, path: str | Path) -> Path:
        """Write the image with the answer drawn on it, in the format of the file's ending; folders are made.

        Raises InputError for an ending that is not known, and where it would replace the file that was given.
        """
        path = Path(path)
        if self.path is not None and path.exists() and path.samefile(self.path):
            raise InputError(f"{path} is the image that was given; choose another name for what is drawn")
        return save_image(self.plot(), path)

    def write(self, form: str, path: Path, **options: Any) -> Path:
        """Write it as one of its `forms`, returns the file. path: of the drawn image; another form's ending differs.

        options: Pillow's of the drawn image.
        """
        return save_image(self.plot(), path, **options)

    def to_dict(self) -> dict[str, Any]:
        """A copy as plain values for JSON, which can be changed."""
        return copy.deepcopy(dict(self))

    def rows(self) -> list[dict[str, Any]]:
        """Its lines in a table, flat values by column. A task's own answers may have several, or none."""
        flat = (str, int, float, bool, type(None))
        return [{key: v if isinstance(v, flat) else json.dumps(v, ensure_ascii=False) for key, v in self.items()}]

    def names(self) -> list[str]:
        """What it is counted by in the repr of a list: names of what was found; none here."""
        return []

    # For those who write a task's own

    def value(self, key: str) -> Any:
        """A value of the dict or an array beside it. Raises InputError where the input could not be read."""
        self._check_readable()
        return self._arrays[key] if key in self._arrays else self[key]

    def origin(self) -> dict[str, Any]:
        """Of `path`, `frame` and `time` those that it has."""
        return {key: self[key] for key in ("path", "frame", "time") if key in self}

    def hold(self, image: Tensor | None) -> None:
        """Keep the image at hand while it is there anyway, so that drawing does not read it again; None lets it go."""
        self._held = image

    @property
    def classes(self) -> list[str]:
        """Names of the classes that the model knows, in the order of their ids; none where it has no classes."""
        return self._drawer().classes

    def _drawer(self) -> Any:
        if self._predictor is None:
            raise InputError(f"this {type(self).__name__} was made without a model, which would draw it")
        return self._predictor

    def _check_readable(self) -> None:
        if self.error is not None:
            raise InputError(self.error)

    def _pixels(self) -> Tensor:
        """uint8 (C, H, W)."""
        self._check_readable()
        if self._held is not None:
            return self._held
        given = self._given
        if isinstance(given, Tensor):
            return given
        if given is None or self._size is None:
            raise InputError(f"this answer is of no single image, and none can be drawn ({self!r})")
        if self.frame is None:
            return self._drawer().read(given)
        with open_video(given) as video:
            for one in video:
                if one.index == self.frame:
                    return one.image
        raise InputError(f"{given} has no frame {self.frame} any more")

    # As a dict that cannot be changed

    def __repr__(self) -> str:
        place = "" if self.path is None else f"{self.path.name} "
        if self.frame is not None:
            place += f"frame {self.frame} "
        if self._size is not None:
            place += f"{self._size[1]}x{self._size[0]}"
        if self.error is not None:
            said = self.error
        else:
            said = str(dict(self)) if self._predictor is None else self._predictor.describe(self)
        return f"<{type(self).__name__} {place.strip()}: {shorten(said, _LONGEST)}>".replace(" :", ":")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ({**self, **self._arrays}, self._predictor, self._given, self._size)

    def __getattr__(self, name: str) -> NoReturn:
        raise _missing(type(self), name, lambda room_class: room_class)

    def __setitem__(self, key: str, value: Any) -> NoReturn:
        _refuse()

    def __delitem__(self, key: str) -> NoReturn:
        _refuse()

    def __ior__(self, other: Any) -> NoReturn:  # type: ignore[override]
        _refuse()

    def update(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: an answer is read-only."""
        _refuse()

    def pop(self, *args: Any) -> NoReturn:
        """Refused: an answer is read-only."""
        _refuse()

    def popitem(self) -> NoReturn:
        """Refused: an answer is read-only."""
        _refuse()

    def clear(self) -> NoReturn:
        """Refused: an answer is read-only."""
        _refuse()

    def setdefault(self, *args: Any) -> NoReturn:
        """Refused: an answer is read-only."""
        _refuse()


class Answers(list[Any]):
    """Answers for several inputs, or for the frames of a video: a list, and the forms it can be handed on in.

    forms: names of those that `write` puts all answers together into a file in.
    """

    forms: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        counts = Counter(name for answer in self if answer.error is None for name in answer.names())
        failed = sum(answer.error is not None for answer in self)
        parts = [f"{len(self)} answers" if len(self) != 1 else "1 answer"]
        parts += [f"{count} {name}" for name, count in counts.most_common(5)]
        parts += ["..."] if len(counts) > 5 else []
        parts += [f"{failed} could not be read"] if failed else []
        return f"<{type(self).__name__}: {', '.join(parts)}>"

    def to_list(self) -> list[dict[str, Any]]:
        """A copy as plain values for JSON: a list of dicts."""
        return [answer.to_dict() for answer in self]

    def to_jsonl(self, path: str | Path | None = None) -> str:
        """A line of JSON for each answer; written to a file where a path is given."""
        return _written("".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in self), path)

    def rows(self) -> list[dict[str, Any]]:
        """The lines of a table of all answers, each with the same columns.

        Those of an answer begin with what it is of: `path`, and of a video `frame` and `time`; where any came from
        memory, `image`, its place in the list. What could not be read has one line, with `error`.
        """
        numbered = any(answer.path is None for answer in self)
        found: list[dict[str, Any]] = []
        for place, answer in enumerate(self):
            own = [{**answer.origin(), "error": answer.error}] if answer.error is not None else answer.rows()
            found += [{"image": place, **row} for row in own] if numbered else own
        columns = dict.fromkeys(key for row in found for key in row)
        return [{key: row.get(key) for key in columns} for row in found]

    def to_csv(self, path: str | Path | None = None) -> str:
        """`rows` as text, comma-separated, the columns' names first; written to a file where a path is given."""
        rows, text = self.rows(), io.StringIO()
        columns = list(rows[0]) if rows else self.columns()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return _written(text.getvalue(), path)

    def write(self, form: str, folder: Path) -> Path:
        """Write all of them together, as one of `forms`, into a file in a folder; returns the file."""
        raise InputError(f"answers are not written as {form!r}")

    def columns(self) -> list[str]:
        """The columns of a table without lines."""
        return ["path"]

    def to_pandas(self) -> Any:
        """`rows` as a pandas.DataFrame. Raises InputError where pandas is missing."""
        rows = self.rows()
        return need("pandas", "to_pandas").DataFrame(rows, columns=list(rows[0]) if rows else self.columns())

    @overload
    def __getitem__(self, place: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> Answers: ...
    def __getitem__(self, place: Any) -> Any:
        """An answer, or of a slice the answers in it, with the same conversions."""
        found = super().__getitem__(place)
        return type(self)(found) if isinstance(place, slice) else found

    def __getattr__(self, name: str) -> NoReturn:
        raise _missing(type(self), name, lambda room_class: room_class.list_class)


Answer.list_class = Answers


def wrap(answer_class: type[Answer], values: Mapping[str, Any], predictor: Any, given: Any, image: Any) -> Answer:
    """An answer from the plain values of a task. image: what was read, kept where it cannot be read again."""
    is_image = isinstance(image, Tensor) and image.ndim == 3
    if not is_image:
        return answer_class(values, predictor)
    size = (int(image.shape[-2]), int(image.shape[-1]))
    if isinstance(given, PdfPage):
        return answer_class(values, predictor, given, size)
    again = isinstance(given, str | Path) and Path(given).is_file()
    return answer_class(values, predictor, str(given) if again else image, size)


def lend(answer: Answer, image: Any) -> Iterator[Answer]:
    """The answer once, with its image at hand until the next one is asked for."""
    answer.hold(image if isinstance(image, Tensor) and image.ndim == 3 else None)
    yield answer
    answer.hold(None)


def need(package: str, conversion: str) -> Any:
    """A package that is imported late. Raises InputError with the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"{conversion} needs {package}: pip install {package} ({error})") from None


def write_text(text: str, path: str | Path) -> Path:
    """Write a file that appears whole; folders are made. Raises InputError for a folder's name."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path.parent}: {error.strerror}") from None
    with atomic(path, flush=False) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # half characters as JSON has them
    return path


def safe_name(name: str) -> str:
    """A class's name as that of a file or a folder."""
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", name).strip(". ") or "_"


def coco_dataset(
    answers: Sequence[Answer],
    annotations: Callable[[Answer], Iterable[Mapping[str, Any]]],
    path: str | Path | None = None,
) -> dict[str, Any]:
    """A data set in COCO's json of the images that were read: their annotations, and all classes of the model.

    annotations: those of an answer, without their ids. Ids of images and annotations are from 1, that of a category is
    its class id + 1. Written to a file where a path is given.
    """
    readable = [answer for answer in answers if answer.error is None]
    classes = readable[0].classes if readable else []
    dataset: dict[str, Any] = {
        "images": [_coco_image(number, answer) for number, answer in enumerate(readable, 1)],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
    }
    for number, answer in enumerate(readable, 1):
        for one in annotations(answer):
            dataset["annotations"].append({"id": len(dataset["annotations"]) + 1, "image_id": number, **one})
    if path is not None:
        write_text(json.dumps(dataset, ensure_ascii=False), path)
    return dataset


def _coco_image(number: int, answer: Answer) -> dict[str, Any]:
    height, width = answer.size
    name = f"image-{number}" if answer.path is None else str(answer["path"])
    frame = {} if answer.frame is None else {"frame": answer.frame, "time": answer.time}
    return {"id": number, "file_name": name, "height": height, "width": width, **frame}


def owners_of(name: str, of: Callable[[type[Answer]], type]) -> list[str]:
    """The tasks whose answers have a field or conversion. of: their class -> where it is looked for."""
    classes = {room.task: rooms.load(room.predicts).answer_class for room in _predicting_rooms()}
    return [task for task, one in classes.items() if name in dir(of(one))]


def _predicting_rooms() -> Iterable[Any]:
    return (room for room in rooms.built_in_rooms() if room.predicts is not None)


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        write_text(text, path)
    return text


def _missing(own: type, name: str, of: Callable[[type[Answer]], type]) -> AttributeError:
    """The error for a field that a class has not, with the tasks that have it, or the nearest fields."""
    if name.startswith("_"):
        return AttributeError(name)
    if owners := owners_of(name, of):
        return FieldError(f"{own.__name__} has no {name!r}; answers of {' and '.join(owners)} have it")
    known = [field for field in dir(own) if not field.startswith("_") and field not in dir(list) + dir(dict)]
    near: Sequence[str] = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
    return FieldError(f"{own.__name__} has no {name!r}; it has {', '.join(near)}")


def _refuse() -> NoReturn:
    raise TypeError("an answer is read-only; change a copy of it: dict(answer)")

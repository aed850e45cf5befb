"""Texts in data sets of other libraries: how a target says what an image reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opsin.data.texts import PackedTexts, Texts, alphabet_of
from opsin.data.torch_dataset import Examples, TargetReader, columns_of, plain
from opsin.errors import InputError

_KEYS = ("text", "label", "transcription", "transcript", "words", "word", "sentence", "caption", "target")


def read_text(target: Any) -> str:
    """A target as a string: it is one, or a row that has it. Raises InputError for any other."""
    value = plain(target)
    if isinstance(value, Mapping):
        found = next((value[key] for key in _KEYS if isinstance(value.get(key), str | bytes)), None)
        if found is None:
            shown = ", ".join(map(str, value)) or "nothing"
            raise InputError(f"there is no text beside the image, only {shown}; call it text, as by rename_column")
        value = found
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"the text is not UTF-8, at byte {error.start}") from None
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], str):
        return value[0]
    if not isinstance(value, str):
        raise InputError(f"what an image reads must be a string; got {type(value).__name__} {value!r:.40}")
    return value


def _column(examples: Examples) -> Sequence[Any] | None:
    """All texts, where the data set has them ready."""
    if examples.features:
        key = next((key for key in _KEYS if key in examples.features), None)
        return None if key is None else list(examples.dataset[key])
    return columns_of(examples.dataset, ["texts", "targets", "labels"])


def _gather(values: Mapping[str, list[str]], classes: Any, names: Mapping[str, str]) -> dict[str, Texts]:
    """The texts of each split; the characters are those of all of them together."""
    packed = {key: PackedTexts.pack(texts) for key, texts in values.items()}
    characters = alphabet_of(*packed.values())
    return {key: Texts(texts, characters) for key, texts in packed.items()}


READER = TargetReader("texts", read_text, _column, lambda examples: None, _gather)

"""What every format of cropped words and lines says of them, and how they become a source of texts.

Of a text the blanks at its ends are left out, and it is in Unicode's form NFC. One that is empty is left out and said;
so is a word list that does not hold the text, which is kept.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data.formats.format import Format
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.inputs import Concatenated, ImageFiles, Inputs
from opsin.data.source import Source, Split
from opsin.data.texts import PackedTexts, Texts, alphabet_of
from opsin.data.truth import Problem
from opsin.errors import InputError

SUBSETS = ("", "alphanumeric", "alphanumeric-3")


@dataclass(frozen=True)
class Crop:
    """An image of a word or a line. file: its path, or its name in an archive. place: where its text is said.

    lexicon: words of which the text is one. page: what it was cut from, or who wrote it, which a division keeps
    together. archive: the zip that it is in.
    """

    file: str
    text: str
    place: str
    lexicon: tuple[str, ...] = ()
    page: str = ""
    archive: str = ""


def open_crops(
    name: str,
    format_: str,
    parts: Mapping[str, Sequence[Crop]],
    problems: Sequence[Problem] = (),
    inputs: Callable[[Sequence[Crop]], Inputs] | None = None,
) -> Source:
    """A source of texts. inputs: of crops that are in no files of their own. Raises InputError where there is none."""
    found = list(problems)
    kept = {key: _readable(crops, found) for key, crops in parts.items()}
    packed = {key: PackedTexts.pack(one.text for one in crops) for key, crops in kept.items() if crops}
    if not packed:
        if found:
            raise InputError(f"{found[0].path}: {found[0].reason}; no text is left")
        raise InputError(f"{name} holds no text")
    characters = alphabet_of(*packed.values())
    splits = {}
    for key in [key for key in ("train", "val", "test", "all") if key in packed]:
        crops = kept[key]
        pages = PackedTexts.pack(one.page or one.file for one in crops) if any(one.page for one in crops) else None
        truth = Texts(packed[key], characters, pages=pages).with_lexicons([one.lexicon for one in crops])
        splits[key] = Split((inputs or _files)(crops), truth)
    return Source(name, format_, splits, problems=found)


def _files(crops: Sequence[Crop]) -> Inputs:
    archives = list(dict.fromkeys(one.archive for one in crops))
    if len(archives) == 1:
        return ImageFiles([one.file for one in crops], archives[0] or None)
    within = {archive: [k for k, one in enumerate(crops) if one.archive == archive] for archive in archives}
    parts = [ImageFiles([crops[k].file for k in places], archive or None) for archive, places in within.items()]
    order = np.concatenate([np.array(places, np.int64) for places in within.values()])
    return Concatenated(parts, np.argsort(order, kind="stable"))


def _readable(crops: Sequence[Crop], problems: list[Problem]) -> list[Crop]:
    """The crops with a text, cleaned; what is wrong with others goes into `problems`."""
    kept = []
    for one in crops:
        text = clean(one.text)
        if not text:
            problems.append(Problem("empty_text", one.place, "the text is empty; left out", "warning"))
            continue
        words = tuple(map(clean, one.lexicon))
        if words and text.casefold() not in {word.casefold() for word in words}:
            reason = f"the list of {len(words)} words does not hold the text"
            problems.append(Problem("text_not_in_lexicon", one.place, reason, "warning"))
        kept.append(replace(one, text=text, lexicon=words))
    return kept


def clean(text: str) -> str:
    """A text without blanks at its ends, in Unicode's form NFC."""
    return unicodedata.normalize("NFC", text.strip())


def split_of(path: str) -> str | None:
    """The split that the folders or the name of a file say: "ch4_training_images" is train; None where they do not."""
    words = [word for part in path.lower().replace("\\", "/").split("/") for word in _words(part)]
    found = dict.fromkeys(SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES)
    return next(iter(found)) if len(found) == 1 else None


def _words(part: str) -> list[str]:
    return "".join(sign if sign.isalpha() else " " for sign in part).split()


def with_subset(format_: Format) -> Format:
    """A format whose `open` takes `subset` too: of test texts, those that a published protocol counts; see `keep`."""

    def opened(path: Path, subset: str = "", **options: Any) -> Source:
        return keep(format_.open(path, **options), subset)

    return replace(format_, open=opened, options=(*format_.options, "subset"))


def keep(source: Source, subset: str) -> Source:
    """A source less the test texts that a protocol leaves out; of all splits where there is no test.

    subset: "alphanumeric", texts of ASCII letters and digits alone; "alphanumeric-3", of them those of three characters
    or more, as ICDAR 2003 (860), 2013 (857) and SVT are evaluated; "" for all.
    """
    if subset not in SUBSETS:
        raise InputError(f"subset is {subset!r}; expected {' or '.join(SUBSETS[1:])}")
    if not subset:
        return source
    least = 3 if subset == "alphanumeric-3" else 1
    chosen = ["test"] if "test" in source.splits else list(source.splits)
    splits, problems = dict(source.splits), list(source.problems)
    for key in chosen:
        texts = source.splits[key].kind.texts
        places = [i for i, text in enumerate(texts) if len(text) >= least and text.isascii() and text.isalnum()]
        splits[key] = source.splits[key].subset(places)
        reason = f"{len(places):,} of {len(texts):,} texts are in the subset {subset}"
        problems.append(Problem("subset", f"{source.name} {key}", reason, "note"))
    return replace(source, splits=splits, problems=problems)

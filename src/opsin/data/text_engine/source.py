"""Synthetic texts as data: `synthetic:words`, `synthetic:lines` and `synthetic:pages`, made when they are asked for.

What follows the name is settings, as in `synthetic:words,count=100000,seed=3,fonts=built-in`. An image depends on the
settings, its split and its place alone, whichever process makes it and in which order: a training goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin import rooms
from opsin.data.boxes import Boxes
from opsin.data.inputs import Inputs
from opsin.data.loading import derive_seed
from opsin.data.masks import Outlines
from opsin.data.source import Source, Split
from opsin.data.text_engine.engine import TextEngine
from opsin.data.text_engine.fonts import Choice, choose_fonts
from opsin.data.text_engine.pages import PageEngine
from opsin.data.text_engine.photographs import palettes, photographs
from opsin.data.text_engine.wording import Wording, alphabet
from opsin.data.texts import PackedTexts, Texts
from opsin.errors import InputError, unknown
from opsin.progress import follow
from opsin.structures import Instances

KINDS = ("words", "lines", "pages")
_PARTS = ("train", "val", "test")
_TEXTS, _BOXES = "texts", "boxes"  # as formats call what is known of an image
_MOST = 10_000_000
_ONLY = {"side": ("pages",), "height": ("words", "lines"), "anew": ("words", "lines")}  # settings of some kinds alone


@dataclass(frozen=True)
class Settings:
    """What can follow `synthetic:words`, each as `,name=value`.

    count: images to train on. val, test: of the other splits; a tenth, 1000 at most, unless given. seed: all else
    equal, another gives other texts and images. height: of words and lines in pixels; side: the longer one of pages.
    characters: `ascii`, `letters`, `lower`, `digits`, `alphanumeric`, `gb2312-1`, `gb2312-2`, `gb2312`, or the
    characters themselves; several joined by +. words: a file with one word a line. length: of a text in characters, as
    5 or 3-8. fonts: see `choose_fonts`; test_fonts: those of the test split, which training then never sees. strength:
    of all that makes a text hard to make out, 0 to 1. photographs: a folder of images that colours and textures are
    taken from. anew: whether each epoch draws the same texts in other images.
    """

    kind: str
    count: int = 10_000
    val: int = -1
    test: int = -1
    seed: int = 0
    height: int = 32
    side: int = 800
    characters: str = "ascii"
    words: str = ""
    length: str = ""
    fonts: str = "all"
    test_fonts: str = ""
    strength: float = -1.0
    photographs: str = ""
    anew: bool = False

    @classmethod
    def parse(cls, text: str) -> Settings:
        """Of what follows the scheme, as `words,count=100`. InputError for what there is not, or is out of range."""
        kind, *given = text.split(",")
        if kind not in KINDS:
            raise unknown("synthetic data", kind, KINDS)
        known = {one.name: one for one in fields(cls) if one.name != "kind"}
        values: dict[str, Any] = {}
        for one in given:
            name, equals, value = one.partition("=")
            if name not in known or (name in _ONLY and kind not in _ONLY[name]):
                raise unknown(f"setting of synthetic:{kind}", name, [k for k in known if kind in _ONLY.get(k, KINDS)])
            if not equals or name in values:
                raise InputError(
                    f"synthetic:{kind} has {one!r}{' twice' if equals else ''}; expected {name}=VALUE once"
                )
            values[name] = _value(name, value, type(known[name].default))
        return cls(kind, **values)._complete()

    def _complete(self) -> Settings:
        tenth = max(1, min(1000, self.count // 10))
        found = replace(
            self,
            val=tenth if self.val < 0 else self.val,
            test=tenth if self.test < 0 else self.test,
            strength=self.strength if self.strength >= 0 else 1.0 if self.kind == "words" else 0.5,
        )
        limits = {"count": (1, _MOST), "val": (0, _MOST), "test": (0, _MOST), "seed": (0, 2**63 - 1)}
        limits |= {"height": (12, 512), "side": (200, 4000), "strength": (0, 1)}
        for name, (low, high) in limits.items():
            if not low <= getattr(found, name) <= high:
                raise InputError(f"{name}={getattr(found, name)} of synthetic:{self.kind}; expected {low} to {high}")
        return found

    @property
    def extent(self) -> tuple[int, int] | None:
        """The fewest and the most characters of a text; None where that is open. Raises InputError."""
        if not self.length:
            return None
        low, dash, high = self.length.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or not 1 <= int(low) <= int(high or low) <= 500:
            raise InputError(f"length={self.length} of synthetic:{self.kind}; expected a number or a range as 3-8")
        return int(low), int(high or low)


def _value(name: str, value: str, kind: type) -> Any:
    """A value as a setting of a type. Raises InputError."""
    if kind is bool:
        if value not in ("true", "false"):
            raise InputError(f"{name}={value}; expected true or false")
        return value == "true"
    try:
        found = kind(value)
    except ValueError:
        raise InputError(f"{name}={value}; expected {'a number' if kind is float else 'a whole number'}") from None
    if kind is not str and not found >= 0:  # what is below stands for a setting that is not given; NaN is neither
        raise InputError(f"{name}={value}; expected 0 or more")
    return found


def truth_of(rest: str, *, fetch: bool = True, how: str = "") -> str:
    """What is known of the images: texts of words and lines, boxes of the lines of pages."""
    return _BOXES if Settings.parse(rest).kind == "pages" else _TEXTS


def open_named(rest: str, task: str, options: Mapping[str, Any], *, fetch: bool = True, how: str = "") -> Source:
    """Synthetic data as a source: words and lines with their texts, or with a box for each character; pages with lines.

    Which of both follows from what the task learns from. Raises InputError for wrong settings and for other tasks.
    """
    settings = Settings.parse(rest)
    truths = {rooms.load(place).truth for place in rooms.find_room(task).formats}
    wanted = _TEXTS if settings.kind != "pages" and _TEXTS in truths else _BOXES
    if wanted not in truths:
        lines = "; synthetic:lines has texts" if _TEXTS in truths else ""
        raise InputError(
            f"synthetic:{settings.kind} has {truth_of(rest)}, which the task {task} does not learn from{lines}"
        )
    letters = alphabet(settings.characters)
    if not letters:
        raise InputError(f"characters={settings.characters} of synthetic:{settings.kind} are none; name some")
    # These refuse a folder without images, and workers that are forked then have them.
    (photographs if settings.kind == "pages" else palettes)(settings.photographs)
    wording = Wording(letters, settings.words, settings.extent)
    fonts = dict.fromkeys(_PARTS, choose_fonts(settings.fonts, letters))
    if settings.test_fonts:
        fonts["test"] = choose_fonts(settings.test_fonts, letters)
    splits = {}
    for number, part in enumerate(_PARTS):
        count = {"train": settings.count, "val": settings.val, "test": settings.test}[part]
        seed = derive_seed(settings.seed, number)
        if count and settings.kind == "pages":
            splits[part] = _pages(settings, fonts[part], wording, part, seed, count)
        elif count:
            splits[part] = _texts(settings, fonts[part], wording, part, seed, count, wanted)
    source = Source(f"synthetic_{settings.kind}", "text engine", splits)
    source.problems += dict.fromkeys(one for choice in fonts.values() for one in choice.problems)
    return source


@dataclass(frozen=True, eq=False)
class SyntheticTexts(Inputs):
    """Images of texts, made when they are read. texts: of all of the split; places: which of them these are.

    part: its name, for people. seed: what its images derive from. draws: whether reading draws other images, which
    then derive from torch's generator too.
    """

    engine: TextEngine
    texts: PackedTexts
    places: np.ndarray
    part: str
    seed: int
    draws: bool = False

    def __len__(self) -> int:
        return len(self.places)

    def read(self, i: int) -> Tensor:
        seed = self.seed_of(i)
        if self.draws:
            seed = derive_seed(seed, int(torch.randint(2**62, ())))
        return self.engine.draw(self.texts[int(self.places[i])], seed).image

    def name(self, i: int) -> str:
        return f"{self.part}[{self.places[i]}]"

    def size(self, i: int) -> tuple[int, int] | None:
        return None if self.draws else self.engine.places(self.texts[int(self.places[i])], self.seed_of(i))[0]

    def select(self, places: np.ndarray) -> SyntheticTexts:
        return replace(self, places=self.places[places])

    def seed_of(self, i: int) -> int:
        """What the image of an example derives from."""
        return derive_seed(self.seed, int(self.places[i]))


@dataclass(frozen=True, eq=False)
class SyntheticPages(Inputs):
    """Pages, made when they are read. places: which of the split's; part: its name; seed: what they derive from."""

    engine: PageEngine
    places: np.ndarray
    part: str
    seed: int

    def __len__(self) -> int:
        return len(self.places)

    def read(self, i: int) -> Tensor:
        return self.engine.draw(self.seed_of(i)).image

    def name(self, i: int) -> str:
        return f"{self.part}[{self.places[i]}]"

    def size(self, i: int) -> tuple[int, int]:
        return self.engine.size(self.seed_of(i))

    def select(self, places: np.ndarray) -> SyntheticPages:
        return replace(self, places=self.places[places])

    def seed_of(self, i: int) -> int:
        """What a page derives from."""
        return derive_seed(self.seed, int(self.places[i]))


@dataclass(frozen=True, eq=False)
class CharacterMasks:
    """The pixels of each character of an image that is no space, in the order of the text."""

    inputs: SyntheticTexts

    def select(self, places: np.ndarray) -> CharacterMasks:
        """Those of the images at `places`."""
        return CharacterMasks(self.inputs.select(places))

    def draw(self, i: int, size: tuple[int, int]) -> Tensor:
        """Masks (N, height, width)."""
        text = self.inputs.texts[int(self.inputs.places[i])]
        masks = self.inputs.engine.masks(text, self.inputs.seed_of(i))
        return masks[[not one.isspace() for one in text]]

    def lacking(self, i: int, labels: Tensor) -> bool:
        """Whether a character has no mask: none."""
        return False


def _texts(settings: Settings, fonts: Choice, wording: Wording, part: str, seed: int, count: int, wanted: str) -> Split:
    """A split of words or lines, with their texts or with a box for each character."""
    engine = TextEngine(fonts, settings.height, settings.strength, settings.photographs)
    stream: Iterator[str] = getattr(wording, settings.kind)(seed)
    texts = PackedTexts.pack(fonts.settable(one) for one in islice(stream, count))
    draws = settings.anew and part == "train"
    inputs = SyntheticTexts(engine, texts, np.arange(count), f"synthetic_{settings.kind}/{part}", seed, draws)
    if wanted == _TEXTS:
        spaced = " " in wording.characters or (settings.kind == "lines" and any(" " in one for one in texts))
        return Split(inputs, Texts(texts, wording.characters + " " * spaced))
    if draws:
        raise InputError("anew=true moves the characters in each epoch, and boxes stand still; leave it out")
    labels = {one: k for k, one in enumerate(wording.characters)}
    instances = [_characters(inputs, i, labels) for i in follow(range(count), f"laying out {inputs.part}", "images")]
    return Split(inputs, Boxes.of(instances, list(wording.characters), CharacterMasks(inputs)))


def _characters(inputs: SyntheticTexts, i: int, labels: Mapping[str, int]) -> Instances:
    """The characters of an image that are no spaces, cut at its edges."""
    text = inputs.texts[i]
    (height, width), boxes, _ = inputs.engine.places(text, inputs.seed_of(i))
    kept = torch.tensor([not one.isspace() for one in text])
    edges = torch.tensor([width, height, width, height], dtype=torch.float32)
    found = boxes[kept].clamp(min=0).minimum(edges)
    return Instances(found, torch.tensor([labels[one] for one in text if not one.isspace()], dtype=torch.int64))


def _pages(settings: Settings, fonts: Choice, wording: Wording, part: str, seed: int, count: int) -> Split:
    engine = PageEngine(fonts, wording, settings.side, settings.strength, settings.photographs)
    inputs = SyntheticPages(engine, np.arange(count), f"synthetic_pages/{part}", seed)
    instances, outlines, texts = [], [], []
    for i in follow(range(count), f"laying out {inputs.part}", "pages"):
        _, own, boxes, quads = engine.places(inputs.seed_of(i))
        instances.append(Instances(boxes))
        outlines.append([[quad.reshape(-1).astype(np.float64)] for quad in quads.numpy()])
        texts += own
    return Split(inputs, Boxes.of(instances, ["text"], Outlines(outlines), PackedTexts.pack(texts)))

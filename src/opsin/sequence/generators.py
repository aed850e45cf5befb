"""Sequences made here, by name: `copy:20`, `reverse:20`, `sort:20`, `dates`, `parity:20`, `anbn:20`, `adding:100`.

What follows the colon is the length of the sequences, as 20 (1 to 20) or 5-20; then settings, as in
`copy:20,count=5000,seed=3`. The examples of a split depend on the settings alone; a text is in one split only.

- `copy`, `reverse`, `sort`: letters, and the same letters as they are, backwards, or in the order of the alphabet;
- `dates`: a date as people write it, and the same by ISO 8601: "May 3, 2021" -> "2021-05-03";
- `parity`: zeros and ones, and for each whether the ones so far are odd or even;
- `anbn`: so many a, then as many b, to be continued: Gers and Schmidhuber 2001 asked it of LSTMs; those of val are
  longer than any training text, those of test longer still, up to twice;
- `adding`: numbers in [0, 1), two of them marked, one in each half, and their sum (Hochreiter and Schmidhuber 1997,
  section 5.4, in the form of Arjovsky et al. 2016, arXiv:1511.06464): who always says 1 has an error of 1/6.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from opsin.data.formats.format import Claim, Format
from opsin.data.hash_division import hash_of
from opsin.data.source import Source, Split
from opsin.data.texts import PackedTexts
from opsin.errors import InputError, unknown
from opsin.sequence.inputs import NumberInputs, TextInputs
from opsin.sequence.truth import SequenceTruth

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MOST = 1_000_000  # examples of a split
_LONGEST = 10_000
_PARTS = ("train", "val", "test")
_ENDS = (0.8, 0.9, 1.0)  # below which a text's hash puts it into train, val and test
_ROUNDS = 40  # of drawing, until a split is given up
Random = np.random.RandomState


@dataclass(frozen=True)
class Settings:
    """What can follow the name. shortest, longest: of a sequence. count, val, test: examples of the splits.

    seed: all else equal, another gives other examples. letters: how many different ones there are.
    """

    kind: str
    shortest: int = 1
    longest: int = 20
    count: int = 10_000
    val: int = 1_000
    test: int = 1_000
    seed: int = 0
    letters: int = 26

    @classmethod
    def parse(cls, name: str) -> Settings:
        """Of a name, as `copy:20,count=5000`. Raises InputError for what there is not, or is out of range."""
        head, *given = name.split(",")
        kind, colon, length = head.partition(":")
        if kind not in _KINDS:
            raise unknown("generator of sequences", kind, _KINDS)
        values: dict[str, int] = _lengths(name, kind, length) if colon else dict(_KINDS[kind].lengths)
        known = [one.name for one in fields(cls) if one.name not in ("kind", "shortest", "longest")]
        for one in given:
            key, equals, value = one.partition("=")
            if key not in known:
                raise unknown(f"setting of {kind}", key, known)
            if not equals or key in values or not value.isascii() or not value.isdecimal():
                raise InputError(f"{name}: {one!r}; expected {key}=NUMBER once, a whole number of 0 or more")
            values[key] = int(value)
        return replace(cls(kind), **values)._checked(name)

    def _checked(self, name: str) -> Settings:
        limits = {"count": (1, _MOST), "val": (0, _MOST), "test": (0, _MOST), "letters": (1, len(_LETTERS))}
        limits["seed"] = (0, 2**32 - 1)
        for key, (low, high) in limits.items():
            if not low <= getattr(self, key) <= high:
                raise InputError(f"{name}: {key}={getattr(self, key):,}; expected {low:,} to {high:,}")
        return self


def _lengths(name: str, kind: str, text: str) -> dict[str, int]:
    least = _KINDS[kind].least
    if not least:
        raise InputError(f"{name}: {kind} has no length; leave it out: {kind}")
    low, dash, high = text.partition("-")
    numbers = all(one.isascii() and one.isdecimal() and len(one) < 6 for one in (low, high or "1"))
    if not numbers or (dash and not high):
        raise InputError(f"{name}: the length is {text!r}; expected a number or a range, as {kind}:20 or {kind}:5-20")
    one = _KINDS[kind].fixed and not dash
    shortest, longest = (int(low) if dash or one else least), int(high or low)
    if not least <= shortest <= longest <= _LONGEST:
        raise InputError(f"{name}: lengths of {shortest:,} to {longest:,}; expected {least} to {_LONGEST:,}, in order")
    return {"shortest": shortest, "longest": longest}


# What each makes of settings, how many, and a stream of random numbers: texts, and what is known of each

Made = tuple[list[str], list[str]]  # the second is empty of texts to be continued


def _words(settings: Settings, count: int, random: Random) -> list[str]:
    """So many strings of letters, of lengths that are all as probable."""
    lengths = random.randint(settings.shortest, settings.longest + 1, count)
    letters = np.array(list(_LETTERS[: settings.letters]))
    drawn = letters[random.randint(0, settings.letters, int(lengths.sum()))]
    ends = np.cumsum(lengths)
    return ["".join(drawn[end - n : end]) for n, end in zip(lengths.tolist(), ends.tolist(), strict=True)]


def _changed(change: Callable[[str], str]) -> Callable[..., Made]:
    def make(settings: Settings, count: int, random: Random) -> Made:
        words = _words(settings, count, random)
        return words, [change(word) for word in words]

    return make


_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_WRITTEN: Sequence[Callable[[datetime.date, str, str], str]] = (
    lambda d, month, day: f"{d.day} {month} {d.year}",
    lambda d, month, day: f"{month} {d.day}, {d.year}",
    lambda d, month, day: f"{d.day:02}/{d.month:02}/{d.year}",
    lambda d, month, day: f"{d.day}.{d.month}.{d.year % 100:02}",
    lambda d, month, day: f"{d.day} {month[:3]} {d.year % 100:02}",
    lambda d, month, day: f"{day}, {month} {d.day}, {d.year}",
    lambda d, month, day: f"{day[:3]} {d.day:02} {month[:3]} {d.year}".lower(),
    lambda d, month, day: f"{month[:3].upper()} {d.day} {d.year}",
)


def _dates(settings: Settings, count: int, random: Random) -> Made:
    """Days of 1970 to 2069, so that two digits say the year."""
    first, last = datetime.date(1970, 1, 1).toordinal(), datetime.date(2069, 12, 31).toordinal()
    days = random.randint(first, last + 1, count).tolist()
    forms = random.randint(0, len(_WRITTEN), count).tolist()
    dates = [datetime.date.fromordinal(day) for day in days]
    texts = [
        _WRITTEN[form](date, _MONTHS[date.month - 1], _DAYS[date.weekday()])
        for form, date in zip(forms, dates, strict=True)
    ]
    return texts, [date.isoformat() for date in dates]


def _parity(settings: Settings, count: int, random: Random) -> Made:
    lengths = random.randint(settings.shortest, settings.longest + 1, count).tolist()
    bits = [random.randint(0, 2, n) for n in lengths]
    labels = [" ".join("odd" if odd else "even" for odd in np.cumsum(one) % 2) for one in bits]
    return [" ".join(map(str, one.tolist())) for one in bits], labels


def _a_n_b_n(settings: Settings, count: int, random: Random) -> Made:
    lengths = random.randint(settings.shortest, settings.longest + 1, count).tolist()
    return ["a" * n + "b" * n for n in lengths], []


def _adding(settings: Settings, count: int, random: Random) -> tuple[list[np.ndarray], SequenceTruth]:
    lengths = random.randint(settings.shortest, settings.longest + 1, count).tolist()
    series, sums = [], []
    for n in lengths:
        steps = np.zeros((n, 2), np.float32)
        steps[:, 0] = random.random_sample(n)
        marked = [int(random.randint(0, n // 2)), int(random.randint(n // 2, n))]
        steps[marked, 1] = 1
        series.append(steps)
        sums.append([steps[marked, 0].sum()])
    return series, SequenceTruth("values", count, numbers=np.array(sums, np.float32).reshape(-1, 1))


@dataclass(frozen=True)
class _Kind:
    """make: (settings, count, stream) -> texts and what is known of them; None of numbers. form: of the sequences.

    least: the shortest length; 0 of what has none. fixed: whether one number is the length of all. lengths: where the
    name gives none.
    """

    make: Callable[..., Made] | None
    form: str = "pairs"
    least: int = 1
    fixed: bool = False
    lengths: Mapping[str, int] = field(default_factory=dict)


_UP_TO_20 = {"shortest": 1, "longest": 20}
_KINDS: Mapping[str, _Kind] = {
    "copy": _Kind(_changed(lambda word: word), lengths=_UP_TO_20),
    "reverse": _Kind(_changed(lambda word: word[::-1]), lengths=_UP_TO_20),
    "sort": _Kind(_changed(lambda word: "".join(sorted(word))), lengths=_UP_TO_20),
    "dates": _Kind(_dates, least=0),
    "parity": _Kind(_parity, "labels", lengths=_UP_TO_20),
    "anbn": _Kind(_a_n_b_n, "language", lengths=_UP_TO_20),
    "adding": _Kind(None, "values", 2, True, {"shortest": 100, "longest": 100}),
}
NAMES = ("copy:20", "reverse:20", "sort:20", "dates", "parity:20", "anbn:20", "adding:100")


def make_split(settings: Settings, part: str, count: int) -> Split:
    """The examples of a split, "train", "val" or "test". Raises InputError where there are too few texts for it."""
    seeds = np.random.SeedSequence([settings.seed, _PARTS.index(part), list(_KINDS).index(settings.kind)])
    stream = np.random.RandomState(np.random.MT19937(seeds))  # frozen: the same with every NumPy
    prefix, numbers, kind = f"{settings.kind} {part} ", np.arange(1, count + 1), _KINDS[settings.kind]
    if kind.make is None:
        series, truth = _adding(settings, count, stream)
        return Split(NumberInputs.pack(series, prefix, numbers), truth)
    if settings.kind == "anbn":
        texts, known = kind.make(_further(settings, part), count, stream)
    else:
        texts, known = _drawn(kind.make, settings, part, count, stream)
    truth = SequenceTruth.of_texts(kind.form, known) if known else SequenceTruth(kind.form, count)
    return Split(TextInputs(PackedTexts.pack(texts), prefix, numbers), truth)


def _drawn(make: Callable[..., Made], settings: Settings, part: str, count: int, stream: Random) -> Made:
    """So many texts whose hash puts them into a split, so that none is in two."""
    texts, known, place = list[str](), list[str](), _PARTS.index(part)
    for _ in range(_ROUNDS):
        for text, answer in zip(*make(settings, count, stream), strict=True):
            if sum(hash_of(text, 0) >= end for end in _ENDS) == place:
                texts.append(text)
                known.append(answer)
        if len(texts) >= count:
            return texts[:count], known[:count]
    raise InputError(
        f"{settings.kind} has too few different sequences for {count:,} of {part} that are in no other split; make "
        f"them longer, or set {part}=0"
    )


def _further(settings: Settings, part: str) -> Settings:
    """The lengths of a split, of which each goes on where the one before ended."""
    low = settings.longest + 1
    middle = low + max(0, settings.longest // 4 - 1)
    ends = {"val": (low, middle), "test": (middle + 1, max(2 * settings.longest, middle + 1))}
    shortest, longest = ends.get(part, (settings.shortest, settings.longest))
    return replace(settings, shortest=shortest, longest=longest)


def open_generator(name: str) -> Source:
    """Generated sequences as a source with its own splits. Raises InputError for wrong settings."""
    settings = Settings.parse(name)
    counts = {"train": settings.count, "val": settings.val, "test": settings.test}
    splits = {part: make_split(settings, part, count) for part, count in counts.items() if count}
    return Source(name, "made here", splits)


def _claims(path: Path) -> Claim:
    kind = str(path).split(",")[0].partition(":")[0]
    return 3 if kind in _KINDS and not path.exists() else 0


def _open(path: Path) -> Source:
    return open_generator(str(path))


FORMAT = Format("sequences made here", "sequences", "", _claims, _open, names=NAMES)

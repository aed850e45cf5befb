"""The sequences that are made here: each answer is what its question asks for, and the same every time."""

from __future__ import annotations

import datetime
from collections import Counter

import numpy as np
import pytest

from opsin import data
from opsin.data import Source, Split
from opsin.errors import InputError
from opsin.sequence.generators import NAMES, open_generator
from opsin.sequence.inputs import text_of


def texts(split: Split) -> list[tuple[str, str]]:
    pairs = zip(split.inputs.strings(), split.kind.texts, strict=True)  # type: ignore[attr-defined]
    return list(pairs)


def opened(name: str) -> Source:
    return open_generator(f"{name},count=400,val=30,test=20")


def test_letters_are_copied_reversed_and_sorted() -> None:
    for name, answer in (("copy:9", str), ("reverse:9", lambda s: s[::-1]), ("sort:9", lambda s: "".join(sorted(s)))):
        source = opened(name)
        assert {key: len(split) for key, split in source.splits.items()} == {"train": 400, "val": 30, "test": 20}
        pairs = texts(source.splits["train"])
        assert all(target == answer(text) for text, target in pairs)
        counts = Counter(len(text) for text, _ in pairs)  # every length from 1 to 9, all as probable
        assert sorted(counts) == list(range(1, 10)) and max(counts.values()) < 2.5 * min(counts.values())
        assert len({letter for text, _ in pairs for letter in text}) == 26


def test_dates_are_read_by_the_standard_library_as_they_are_written() -> None:
    forms = ("%d %B %Y", "%B %d, %Y", "%d/%m/%Y", "%d.%m.%y", "%d %b %y", "%A, %B %d, %Y", "%a %d %b %Y", "%b %d %Y")

    def year(date: datetime.date) -> datetime.date:
        return date.replace(year=date.year + 100) if date.year < 1970 else date  # 69 is 2069 here, 1969 there

    seen = Counter[str]()
    for text, iso in texts(opened("dates").splits["train"]):
        for form in forms:
            try:
                found = year(datetime.datetime.strptime(text, form).date())
            except ValueError:
                continue
            assert found.isoformat() == iso
            seen[form] += 1
            break
        else:
            raise AssertionError(f"no form of {text}")
    assert set(seen) == set(forms)


def test_parity_counting_and_adding() -> None:
    for text, labels in texts(opened("parity:7").splits["train"]):
        ones = [text.split()[: k + 1].count("1") for k in range(len(text.split()))]
        assert labels.split() == [("even", "odd")[n % 2] for n in ones]
    counting = opened("anbn:6")
    lengths = {key: {len(s) // 2 for s in part.inputs.strings()} for key, part in counting.splits.items()}  # type: ignore[attr-defined]
    assert lengths == {"train": set(range(1, 7)), "val": {7}, "test": set(range(8, 13))}
    adding = opened("adding:40").splits["train"]
    for i in range(len(adding)):
        steps, target = adding.read(i), adding.kind.numbers[i]
        marked = np.flatnonzero(steps[:, 1].numpy())
        assert steps.shape == (40, 2) and len(marked) == 2 and marked[0] < 20 <= marked[1]
        assert float(steps[marked, 0].sum()) == pytest.approx(float(target[0]))
    sums = open_generator("adding:10,count=5000").splits["train"].kind.numbers
    assert float(((sums - 1) ** 2).mean()) == pytest.approx(1 / 6, rel=0.06)  # who always says 1


def test_the_same_name_gives_the_same_sequences() -> None:
    first = texts(open_generator("reverse:8").splits["test"])
    assert first == texts(open_generator("reverse:8").splits["test"])
    assert first[:2] == [
        ("efkijz", "zjikfe"),
        ("ihocmjyi", "iyjmcohi"),
    ]  # with every NumPy
    assert first != texts(open_generator("reverse:8,seed=1").splits["test"])
    assert text_of(open_generator("copy:5-5,letters=1,val=0,test=0").splits["train"].read(3)) == "aaaaa"


def test_no_text_is_in_two_splits() -> None:
    for name in ("copy:3", "dates", "parity:12", "anbn:8"):
        source = open_generator(f"{name},count=3000,val=300,test=300")
        train, val, test = (set(split.inputs.strings()) for split in source.splits.values())  # type: ignore[attr-defined]
        assert len(train) > 7 and not train & val and not train & test and not val & test
    with pytest.raises(InputError, match="copy has too few different sequences for 1,000 of val"):
        open_generator("copy:5-5,letters=1")


@pytest.mark.parametrize("name", NAMES)
def test_names_open_by_the_task(name: str) -> None:
    source = data.open(name, "sequence")
    assert source.splits["train"].kind.form in ("pairs", "labels", "language", "values")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("copy:0", "expected 1 to 10,000"),
        ("copy:9-3", "lengths of 9 to 3"),
        ("copy:x", "the length is 'x'; expected a number or a range"),
        ("adding:1", "expected 2 to"),
        ("dates:5", "dates has no length; leave it out: dates"),
        ("copy:5,cuont=3", "unknown setting of copy 'cuont'; did you mean count"),
        ("copy:5,count=-3", "expected count=NUMBER once"),
        ("copy:5,count=0", "expected 1 to 1,000,000"),
        ("copy:5,letters=27", "letters=27; expected 1 to 26"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        data.open(name, "sequence")

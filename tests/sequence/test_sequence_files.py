"""Files of sequences: each form by hand, and of bad ones the line with what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opsin import data
from opsin.data import Source, Split
from opsin.data.open_source import recognize_task
from opsin.data.source import check_trainable
from opsin.errors import InputError


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode("latin-1"))
    return root / next(iter(files)) if len(files) == 1 else root


def opened(root: Path, files: Mapping[str, str], **options: Any) -> Source:
    return data.open(write(root, files), "sequence", **options)


def rows(split: Split) -> list[Any]:
    """Source and what is known of it, of each example."""
    inputs, truth = split.inputs, split.kind
    strings = getattr(inputs, "strings", None)
    sources = [inputs.read(i).tolist() for i in range(len(split))] if strings is None else list(strings())
    if truth.texts is not None:
        return list(zip(sources, truth.texts, strict=True))
    if truth.form == "classes":
        return [(one, truth.classes[k]) for one, k in zip(sources, truth.numbers, strict=True)]
    return list(zip(sources, truth.numbers.tolist(), strict=True)) if truth.form == "values" else sources


def test_tables(tmp_path: Path) -> None:
    plain = opened(tmp_path / "a", {"pairs.tsv": "un chat\ta cat\r\ndeux\ttwo\r\n\r\n"})
    assert plain.format == "a table" and rows(plain.splits["all"]) == [("un chat", "a cat"), ("deux", "two")]
    assert plain.splits["all"].name(1).endswith("pairs.tsv line 2")
    named = opened(tmp_path / "b", {"x.tsv": "label\tText\tsplit\ngood\tso nice\ttrain\nbad\tnot so\ttest\n"})
    assert {key: rows(split) for key, split in named.splits.items()} == {
        "train": [("so nice", "good")],
        "test": [("not so", "bad")],
    }
    assert named.splits["test"].kind.classes == ["bad", "good"]  # of both splits, in one order
    forced = opened(tmp_path / "c", {"x.tsv": "so nice\tgood\nnot so\tbad\n"}, form="classes")
    assert rows(forced.splits["all"]) == [("so nice", "good"), ("not so", "bad")]


def test_lines_of_json(tmp_path: Path) -> None:
    pairs = opened(
        tmp_path / "a", {"a.jsonl": '{"src": "x", "target": "y z"}\n\n{"source": "b", "translation": "c"}\n'}
    )
    assert rows(pairs.splits["all"]) == [("x", "y z"), ("b", "c")]
    labels = opened(tmp_path / "b", {"a.jsonl": '{"tokens": ["New", "York", "is"], "labels": ["B", "I", 0]}\n'})
    assert rows(labels.splits["all"]) == [("New York is", "B I 0")] and labels.classes == ["0", "B", "I"]
    series = opened(
        tmp_path / "c", {"a.jsonl": '{"series": [1, 2, 3], "value": 6}\n{"series": [[4]], "value": [4.5]}\n'}
    )
    assert rows(series.splits["all"]) == [([[1.0], [2.0], [3.0]], [6.0]), ([[4.0]], [4.5])]
    named = opened(
        tmp_path / "d", {"a.jsonl": '{"series": [[0, 1]], "label": "walk"}\n{"series": [[1, 0]], "label": "run"}'}
    )
    assert rows(named.splits["all"]) == [([[0.0, 1.0]], "walk"), ([[1.0, 0.0]], "run")]
    texts = opened(tmp_path / "e", {"a.jsonl": '{"text": "once upon"}\n{"text": "a time"}\n'})
    assert rows(texts.splits["all"]) == ["once upon", "a time"]


def test_words_with_labels(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n\nBoo NNP I-NP B-PER\n"
    source = opened(tmp_path, {"train.conll": text, "test.conll": "He O\nran B-V\n"})
    assert rows(source.splits["train"]) == [("EU rejects", "B-ORG O"), ("Boo", "B-PER")]
    assert rows(source.splits["test"]) == [("He ran", "O B-V")] and source.classes == ["B-ORG", "B-PER", "B-V", "O"]
    assert source.splits["train"].name(1).endswith("train.conll line 6")


def test_a_text_in_pieces(tmp_path: Path) -> None:
    source = opened(tmp_path, {"book.txt": "one two three\nfour five\n\nsix seven"}, window=12)
    # Each ends at white space behind the twelfth character; a line is a blank, an empty line a new paragraph.
    assert rows(source.splits["all"]) == ["one two three", "four five\n six", "seven"]
    assert [source.splits["all"].name(i)[-6:] for i in range(3)] == ["line 1", "line 2", "line 4"]


def test_a_table_of_numbers(tmp_path: Path) -> None:
    table = "time,load\n" + "".join(f"{k},{10 * k}\n" for k in range(20))
    source = opened(tmp_path, {"load.csv": table}, window=3, horizon=2)
    splits = {key: rows(split) for key, split in source.splits.items()}
    assert [len(splits[key]) for key in ("train", "val", "test")] == [12, 2, 2]  # in the order of time
    assert splits["train"][0] == ([[0.0, 0.0], [1.0, 10.0], [2.0, 20.0]], [3.0, 30.0, 4.0, 40.0])
    assert splits["test"][-1][1] == [18.0, 180.0, 19.0, 190.0]
    with pytest.raises(InputError, match="has 20 steps, too few for pieces of 30"):
        data.open(tmp_path / "load.csv", "sequence", window=30)


def test_parallel_files(tmp_path: Path) -> None:
    files = {"train.fr": "un\ndeux\n", "train.en": "one\ntwo\n", "val.fr": "trois\n", "val.en": "three\n"}
    source = opened(tmp_path, files)
    assert rows(source.splits["train"]) == [("one", "un"), ("two", "deux")] and source.format.endswith(".en to .fr")
    assert rows(data.open(tmp_path, "sequence", into="en").splits["val"]) == [("trois", "three")]
    with pytest.raises(InputError, match="into is 'de', and the files end in en and fr"):
        data.open(tmp_path, "sequence", into="de")
    with pytest.raises(InputError, match=r"train.src has 3 lines and .*train.tgt 2; line for line"):
        opened(tmp_path / "b", {"train.src": "a\nb\nc\n", "train.tgt": "d\ne\n"})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.tsv": "x\ty\n\nz\tw\n"}, "a.tsv line 2: the line is empty; expected a text, a tab"),
        ({"a.tsv": "x\ty\nz\t \n"}, "a.tsv line 2: the text that belongs to it is empty"),
        ({"a.tsv": "x\ty\n \tw\n"}, "a.tsv line 2: its text is empty"),
        ({"a.tsv": "x\ty\nz\n"}, "a.tsv line 2: 1 columns, parted by tabs; expected 2: source, target"),
        ({"a.tsv": "x\ty\nz\t\xe9\n"}, "a.tsv line 2: is not UTF-8"),
        ({"a.jsonl": '{"text": "x", "label": "y"}\n{"text": "x"'}, "a.jsonl line 2: no JSON"),
        ({"a.jsonl": '{"text": "x", "label": "y"}\n[1]'}, "a.jsonl line 2: a list; expected an object"),
        ({"a.jsonl": '{"text": "x", "label": "y"}\n{"text": "x", "target": "y"}'}, "it is of the form pairs, the rows"),
        ({"a.jsonl": '{"text": "a b", "labels": ["X"]}\n'}, "2 words and 1 labels; each word needs one"),
        ({"a.jsonl": '{"series": [1, NaN], "value": 1}\n'}, "infinite or none"),
        ({"a.jsonl": '{"series": [[1, 2], [3]], "value": 1}\n'}, "its series is no list of numbers"),
        ({"a.jsonl": '{"series": [1, 2], "value": "x"}\n'}, "its value is 'x'; expected a number"),
        ({"a.jsonl": '{"series": [[1, 2]], "value": 1}\n{"series": [1], "value": 1}\n'}, "line 2: 1 numbers a step"),
        ({"a.jsonl": '{"text": "x", "label": "y", "split": "dev"}\n'}, "unknown split 'dev'"),
        ({"a.conll": "word\n"}, "a.conll line 1: 'word'; expected a word and its label"),
        ({"train.src": "a\n\nc\n", "train.tgt": "d\ne\nf\n"}, "train.src line 2: its text is empty"),
        ({"train.tsv": "a\tb\n", "test.tsv": "text\tlabel\na\tx\n"}, "all splits must be of one form"),
        ({"a.tsv": "\n"}, "a.tsv holds no sequence; it is empty"),
        ({"a.csv": "a,b\n1,2\n3\n"}, "a.csv line 3: 1 numbers, the lines before have 2"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as error:
        check_trainable(opened(tmp_path, files, window=2))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_form_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has a text for each text, not a label for each word"):
        opened(tmp_path, {"a.tsv": "source\ttarget\nx\ty\n"}, form="labels")
    with pytest.raises(InputError, match="unknown form of sequences 'pair'; did you mean pairs"):
        opened(tmp_path / "b", {"a.tsv": "x\ty\n"}, form="pair")
    with pytest.raises(InputError, match="no known format"):
        opened(tmp_path / "c", {"a.bin": "x"})


def test_files_of_sequences_are_recognised(tmp_path: Path) -> None:
    for name, text in (("a.tsv", "x\ty\n"), ("a.conll", "x O\n"), ("a.jsonl", '{"text": "x", "label": "y"}\n')):
        assert recognize_task(write(tmp_path / name[2:], {name: text})) == "sequence"
    assert recognize_task("reverse:9") == "sequence"
    labels = write(tmp_path / "crops", {"labels.tsv": "1.png\tRescue\n", "1.png": "x"})
    assert recognize_task(labels) != "sequence"


def test_images_by_rows_and_pixels() -> None:
    digits = data.open("digits").splits["test"]
    image = digits.read(5)
    by_rows = data.open("rows:digits", "sequence").splits["test"]
    by_pixels = data.open("pixels:digits", "sequence").splits["test"]
    np.testing.assert_array_equal(by_rows.read(5).numpy(), image[0].numpy() / np.float32(255))
    assert by_pixels.read(5).shape == (64, 1)
    assert float(by_pixels.read(5)[11, 0]) == pytest.approx(float(image[0, 1, 3]) / 255)
    assert by_rows.kind.numbers.tolist() == digits.kind.labels.tolist()
    with pytest.raises(InputError, match="rows: names no images"):
        data.open("rows:", "sequence")

"""LMDB, read without its library; equal to it where it is there."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opsin.data import open as open_source
from opsin.data import recognize_task
from opsin.data.lmdb_files import Lmdb
from opsin.errors import InputError


def write(folder: Path, pairs: dict[bytes, bytes]) -> None:
    lmdb = pytest.importorskip("lmdb")
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=1 << 26) as database, database.begin(write=True) as transaction:
        for key, value in pairs.items():
            transaction.put(key, value)


def png(width: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, 9)).save(file, "PNG")
    return file.getvalue()


def words(texts: list[str], first: int = 20) -> dict[bytes, bytes]:
    pairs = {b"num-samples": str(len(texts)).encode()}
    for k, text in enumerate(texts, 1):
        pairs |= {b"image-%09d" % k: png(first + k), b"label-%09d" % k: text.encode()}
    return pairs


def test_every_value_is_that_of_the_library(tmp_path: Path) -> None:
    """Some thousand keys are branches of several levels; large values are in pages of their own; some were removed."""
    lmdb = pytest.importorskip("lmdb")
    random = np.random.default_rng(0)
    pairs = {b"key-%06d" % k: random.bytes(int(random.integers(0, 60))) for k in random.permutation(6000).tolist()}
    pairs |= {b"large-%d" % k: random.bytes(5000 * k) for k in range(9)}
    write(tmp_path, pairs)
    gone = [key for k, key in enumerate(pairs) if k % 7 == 0]
    with lmdb.open(str(tmp_path)) as database, database.begin(write=True) as transaction:
        for key in gone:
            transaction.delete(key)
    kept = {key: value for key, value in pairs.items() if key not in set(gone)}
    ours = pickle.loads(pickle.dumps(Lmdb(str(tmp_path / "data.mdb"))))
    assert len(ours) == len(kept)
    assert {key: ours.get(key) for key in kept} == kept
    assert not [key for key in [*gone, b"", b"a", b"zzz", b"key-00000"] if ours.get(key) is not None]


def test_an_empty_database_has_nothing(tmp_path: Path) -> None:
    write(tmp_path, {})
    empty = Lmdb(str(tmp_path / "data.mdb"))
    assert (empty.get(b"a"), len(empty)) == (None, 0)


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 300, b"\0" * 8192])
def test_what_is_no_database_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(InputError, match=r"data\.mdb"):
        Lmdb(str(tmp_path / "data.mdb"))


def test_damage_is_an_error_of_one_line(tmp_path: Path) -> None:
    write(tmp_path, {b"key-%05d" % k: b"x" * (k % 3000) for k in range(400)})
    whole = (tmp_path / "data.mdb").read_bytes()
    random, file = np.random.default_rng(1), tmp_path / "damaged.mdb"
    for _ in range(60):
        data = bytearray(whole[: int(random.integers(100, len(whole)))] if random.random() < 0.3 else whole)
        for place in random.integers(0, len(data), 40).tolist():
            data[place] = int(random.integers(0, 256))
        file.write_bytes(data)
        try:
            found = Lmdb(str(file))
            for k in range(0, 400, 2):
                found.get(b"key-%05d" % k)
        except InputError as error:
            assert "damaged.mdb" in str(error)


def test_a_branch_that_leads_nowhere_is_damage(tmp_path: Path) -> None:
    write(tmp_path, {b"key-%05d" % k: b"x" * 20 for k in range(400)})
    file = tmp_path / "data.mdb"
    data = bytearray(file.read_bytes())
    for page in range(len(data) // 4096):
        flags = struct.unpack_from("<H", data, page * 4096 + 10)[0]
        if page > 1 and flags == 1:  # a branch: where its list of nodes ends is set to where it begins
            struct.pack_into("<H", data, page * 4096 + 12, 16)
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"data\.mdb is damaged: a branch leads nowhere"):
        Lmdb(str(file)).get(b"key-00007")


def test_a_forked_process_reads_what_was_open(tmp_path: Path) -> None:
    write(tmp_path, {b"key-%05d" % k: b"%d" % k for k in range(400)})
    found = Lmdb(str(tmp_path / "data.mdb"))
    (tmp_path / "data.mdb").unlink()
    child = os.fork()
    if child == 0:
        os._exit(0 if found.get(b"key-00321") == b"321" else 1)
    assert os.waitpid(child, 0)[1] == 0 and found.get(b"key-00123") == b"123"


def test_words_of_the_benchmark_and_their_splits(tmp_path: Path) -> None:
    write(tmp_path / "set" / "training" / "MJ" / "MJ_train", words(["one", "two"]))
    write(tmp_path / "set" / "training" / "ST", words(["three"], first=30))
    write(tmp_path / "set" / "validation", words(["four"]))
    write(tmp_path / "set" / "evaluation" / "SVT", words(["中文", " "]))
    assert recognize_task(tmp_path / "set") == "read"
    opened = open_source(tmp_path / "set", "read")
    assert {key: list(split.kind.texts) for key, split in opened.splits.items()} == {
        "train": ["one", "two", "three"],
        "val": ["four"],
        "test": ["中文"],
    }
    train = opened.splits["train"].subset([2, 0])
    assert [train.read(i).shape[-1] for i in range(2)] == [31, 21]
    assert train.inputs.size(0) == (9, 31)
    assert train.name(1).endswith("MJ_train/image-000000001")
    assert [problem.kind for problem in opened.problems] == ["empty_text"]


def test_a_count_that_is_none_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {**words(["one"]), b"num-samples": b"a million"})
    with pytest.raises(InputError, match="num-samples"):
        open_source(tmp_path, "read")


def test_the_real_one(data_dir: Path, tmp_path: Path) -> None:
    toy = data_dir / "text_toy" / "rec_toy_dataset"
    ours, listed = open_source(toy / "imgs.lmdb", "read").splits["all"], open_source(toy, "read").splits["all"]
    assert list(ours.kind.texts) == list(listed.kind.texts)
    assert [ours.read(i).shape for i in range(10)] == [listed.read(i).shape for i in range(10)]
    shutil.copy(toy / "label.lmdb" / "data.mdb", tmp_path)  # of labels alone
    with pytest.raises(InputError, match="no known format"):
        open_source(tmp_path, "read")

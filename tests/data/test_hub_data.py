"""Data sets of the hub by name, from a hub on this machine, held against what was put there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.fake_hub import FakeHub, Repository, fake_hub

from opsin import data
from opsin.errors import InputError, JobError

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")
pytest.importorskip("huggingface_hub")

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 9, 8, 3), np.uint8)
LABELS = [0, 1, 2] * 4


def parquet(columns: dict[str, Any], features: Any) -> bytes:
    buffer = io.BytesIO()
    columns["image"] = [{"bytes": png(one), "path": None} for one in columns["image"]]
    table = pyarrow.Table.from_pydict(columns, schema=datasets.Features(features).arrow_schema)
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def labelled() -> dict[str, bytes]:
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cat"])}
    return {
        "data/train-00000.parquet": parquet({"image": PIXELS[:9], "label": LABELS[:9]}, features),
        "data/test-00000.parquet": parquet({"image": PIXELS[9:], "label": LABELS[9:]}, features),
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, labelled: dict[str, bytes]) -> Iterator[FakeHub]:
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPSIN_OFFLINE", raising=False)
    with fake_hub(monkeypatch, tmp_path / "cache") as running:
        files = {**labelled, "insects.py": b"raise SystemExit", "old/train.pkl": b"?"}
        running.repositories["ada/insects"] = Repository(files, {"license": "cc-by-4.0"}, kind="datasets")
        yield running


def test_a_data_set_is_downloaded_once_and_read(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    source = data.open("hf:ada/insects")
    said = capsys.readouterr().err
    assert "downloading hf:ada/insects (2 files, 0.0 MB, licence: cc-by-4.0; see http://127.0.0.1" in said
    assert sorted(hub.sent) == [
        f"/datasets/ada/insects/resolve/main/data/{split}-00000.parquet" for split in ("test", "train")
    ]
    assert (source.name, source.format, source.classes) == ("insects", "Hugging Face", ["ant", "bee", "cat"])
    assert {key: split.kind.labels.tolist() for key, split in source.splits.items()} == {
        "train": LABELS[:9],
        "test": LABELS[9:],
    }
    assert np.array_equal(source.splits["test"].read(1).numpy().transpose(1, 2, 0), PIXELS[10])
    count = len(hub.asked)
    assert data.recognize_task("hf:ada/insects", fetch=False) == "classify"
    assert len(data.open("hf:ada/insects").splits["train"]) == 9
    assert len(hub.asked) == count


def test_a_recipe_alone_and_offline_download_nothing(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=r"^hf:ada/insects is not on this machine, and .*only a recipe.*: --data hf:ada/insects"
    ):
        data.open("hf:ada/insects", fetch=False)
    monkeypatch.setenv("OPSIN_OFFLINE", "1")
    with pytest.raises(InputError, match=r"^offline, and hf:ada/insects is not in .*--repo-type dataset"):
        data.open("hf:ada/insects")
    assert hub.asked == [] and not (tmp_path / "home").exists()


def test_what_is_not_the_published_file_is_refused(hub: FakeHub) -> None:
    hub.tampered = b"PAR1 another file"
    with pytest.raises(JobError, match="hf:ada/insects is damaged: its SHA-256 is"):
        data.open("hf:ada/insects")


def test_one_configuration_of_several(hub: FakeHub, labelled: dict[str, bytes]) -> None:
    small, large = {f"{size}/train.parquet": labelled["data/train-00000.parquet"] for size in ("small", "large")}
    files = dict.fromkeys((small, large), labelled["data/train-00000.parquet"])
    configs = [{"config_name": size, "data_files": f"{size}/*"} for size in ("small", "large")]
    lines = "".join(f"- config_name: {one['config_name']}\n  data_files: {one['data_files']}\n" for one in configs)
    files["README.md"] = f"---\nconfigs:\n{lines}---\n".encode()
    hub.repositories["ada/sizes"] = Repository(files, {"configs": configs}, kind="datasets")
    with pytest.raises(InputError, match=r"has the configurations small, large; name one: hf:ada/sizes/small"):
        data.open("hf:ada/sizes")
    with pytest.raises(InputError, match=r"there is no such configuration; it has small, large"):
        data.open("hf:ada/sizes/medium")
    assert hub.sent == []
    source = data.open("hf:ada/sizes/large")
    assert {key: len(split) for key, split in source.splits.items()} == {"all": 9}
    assert sorted(path.rpartition("main/")[2] for path in hub.sent) == ["large/train.parquet"]


def test_boxes(hub: FakeHub) -> None:
    objects = {
        "bbox": datasets.Sequence(datasets.Sequence(datasets.Value("float32"), length=4)),
        "category": datasets.Sequence(datasets.ClassLabel(names=["cell"])),
    }
    columns = {
        "image": PIXELS[:2],
        "objects": [{"bbox": [[1, 2, 3, 4]], "category": [0]}, {"bbox": [], "category": []}],
    }
    content = parquet(columns, {"image": datasets.Image(), "objects": objects})
    hub.repositories["ada/cells"] = Repository({"train.parquet": content}, kind="datasets")
    assert data.recognize_task("hf:ada/cells") == "detect"
    truth = data.open("hf:ada/cells", "detect").splits["all"].kind
    assert [one.boxes.tolist() for one in truth.instances] == [[[1, 2, 4, 6]], []]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:ada/nothing", r"there is no http://.*/datasets/ada/nothing, or you may not read it"),
        ("hf:ada/insects@v9", r"has no revision v9"),
        ("hf:insects", r"expected hf:owner/name, .*hf:owner/name/configuration"),
        ("hf:ada/script", r"no files of data that can be read without running code"),
        ("hf:ada/text", r"the keys text, and none of them is image"),
    ],
)
def test_what_the_hub_does_not_have(hub: FakeHub, name: str, message: str) -> None:
    hub.repositories["ada/script"] = Repository({"script.py": b"", "README.md": b""}, kind="datasets")
    hub.repositories["ada/text"] = Repository({"train.csv": b"text\nhello\n"}, kind="datasets")
    with pytest.raises(InputError, match=message):
        data.open(name)

"""Files of the hub by name, from a hub on this machine."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from tests.fake_hub import FakeHub, Repository, fake_hub

from opsin import schemes
from opsin.errors import InputError, JobError
from opsin.hub import HubName, find_file

pytest.importorskip("huggingface_hub")

WEIGHTS = save({"a": torch.arange(4.0)})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.delenv("OPSIN_OFFLINE", raising=False)
    with fake_hub(monkeypatch, tmp_path / "cache") as running:
        running.repositories["ada/net"] = Repository(
            {"model.safetensors": WEIGHTS, "other/net.safetensors": WEIGHTS + b" ", "pytorch_model.bin": b"?"},
            {"license": "mit"},
            revisions=("main", "v1"),
        )
        running.repositories["ada/old"] = Repository({"pytorch_model.bin": pickle.dumps(1), "config.json": b"{}"})
        yield running


@pytest.mark.parametrize(
    ("rest", "parts"),
    [
        ("ada/net", ("ada/net", None, "")),
        ("ada/net@v1.0", ("ada/net", "v1.0", "")),
        ("a-b/n.e_t/x/y.safetensors", ("a-b/n.e_t", None, "x/y.safetensors")),
        ("ada/net@v1/y.safetensors", ("ada/net", "v1", "y.safetensors")),
    ],
)
def test_a_name_has_a_revision_and_a_file(rest: str, parts: tuple) -> None:
    name = HubName.parse(rest)
    assert (name.repo, name.revision, name.file) == parts
    assert str(name) == f"hf:{rest}"


@pytest.mark.parametrize("rest", ["", "net", "ada/", "ada/net@", "ada/../x.safetensors", "ada/net/x y.safetensors"])
def test_what_names_no_repository(rest: str) -> None:
    with pytest.raises(InputError, match="expected hf:owner/name"):
        find_file(rest)


def test_a_file_is_downloaded_once_and_said(hub: FakeHub, tmp_path: Path) -> None:
    said: list[str] = []
    path = find_file("ada/net", say=said.append)
    assert path.read_bytes() == WEIGHTS and tmp_path in path.parents
    assert said == [
        f"downloading hf:ada/net ({len(WEIGHTS) / 1e6:.1f} MB, licence: mit) from {hub.url} to {tmp_path / 'cache'}"
    ]
    assert find_file("ada/net", say=said.append) == path and len(said) == 1
    assert hub.sent == ["/ada/net/resolve/main/model.safetensors"]
    assert find_file("ada/net@v1/other/net.safetensors", say=said.append).read_bytes() == WEIGHTS + b" "
    assert hub.sent[1:] == ["/ada/net/resolve/v1/other/net.safetensors"]


def test_offline_takes_what_is_here(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSIN_OFFLINE", "1")
    with pytest.raises(InputError, match=r"^offline, and hf:ada/net@v1 is not in .*`hf download ada/net .*v1`"):
        find_file("ada/net@v1")
    assert hub.asked == []
    monkeypatch.delenv("OPSIN_OFFLINE")
    with pytest.raises(InputError, match=r"^offline, and hf:ada/net is not in"):
        find_file("ada/net", offline=True)
    path = find_file("ada/net", say=lambda line: None)
    count = len(hub.asked)
    monkeypatch.setenv("OPSIN_OFFLINE", "1")
    assert find_file("ada/net") == path and len(hub.asked) == count


def test_a_recipe_alone_downloads_nothing(hub: FakeHub) -> None:
    with pytest.raises(
        InputError, match=r"hf:ada/net is not on this machine, and .*only a recipe.*; to fetch it: --data x"
    ):
        find_file("ada/net", fetch=False, how="--data x")
    assert hub.asked == []
    path = find_file("ada/net", say=lambda line: None)
    count = len(hub.asked)
    assert find_file("ada/net", fetch=False) == path and len(hub.asked) == count


def test_a_hub_that_cannot_be_asked(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    path = find_file("ada/net", say=lambda line: None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    said: list[str] = []
    assert find_file("ada/net", say=said.append) == path
    assert "cannot be reached" in said[0] and said[0].endswith("the copy that is here is used")
    with pytest.raises(JobError, match=r"hf:ada/net@v1: http://127.0.0.1:9 cannot be reached: .*; check the network"):
        find_file("ada/net@v1")


def test_a_file_that_is_not_what_the_hub_states(hub: FakeHub) -> None:
    hub.tampered = WEIGHTS[:-1] + b"?"
    found = hashlib.sha256(hub.tampered).hexdigest()
    with pytest.raises(JobError, match=rf"hf:ada/net is damaged: its SHA-256 is {found}, the hub states .* deleted"):
        find_file("ada/net", say=lambda line: None)
    hub.tampered = None
    path = find_file("ada/net", say=lambda line: None)
    assert path.read_bytes() == WEIGHTS
    path.resolve().write_bytes(b"?" * len(WEIGHTS))  # later, on the disk
    with pytest.raises(JobError, match="is damaged"):
        find_file("ada/net", fetch=False)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("ada/nothing", r"there is no http://.*/ada/nothing, or you may not read it; .*`hf auth login`"),
        ("ada/net@v9", r"has no revision v9"),
        ("ada/net/x.safetensors", r"has no x.safetensors; it has hf:ada/net/model.safetensors, hf:ada/net/other"),
        ("ada/net/pytorch_model.bin", r"only .safetensors files are loaded, since others may run code"),
        ("ada/old", r"has no safetensors, and pytorch_model.bin is a pickle, which may run code: not loaded"),
    ],
)
def test_what_the_hub_does_not_have(hub: FakeHub, rest: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_file(rest)
    assert hub.sent == []


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemes, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"hf: needs the package huggingface_hub: pip install 'opsin\[hub\]'"):
        schemes.find_local("hf:ada/net")


def test_what_a_call_names() -> None:
    assert not schemes.is_named("hf:ada/net")
    with schemes.naming({"train.init": "hf:ada/net", "x": [{"y": "torchvision:MNIST"}]}, None, "photos:old"):
        assert schemes.is_named("hf:ada/net") and schemes.is_named("torchvision:MNIST")
        assert not schemes.is_named("photos:old") and not schemes.is_named("hf:ada/other")
    assert not schemes.is_named("hf:ada/net")

"""Files of the Hugging Face hub by name, `hf:owner/name`: safetensors alone, verified, and never code.

A name may have a revision, a branch, tag or commit (`hf:owner/name@v1`), and a file (`hf:owner/name/net.safetensors`);
model.safetensors is read without one. They lie in huggingface_hub's own cache, which other tools share: HF_HOME moves
it, and its login reads what is private.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsin import errors
from opsin.downloading import Say, file_digest, is_offline
from opsin.errors import InputError, JobError
from opsin.files import atomic

MODEL = "model.safetensors"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[\w./-]+))?")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class HubName:
    """What `hf:` names: a repository, a revision of it, None for its main one, and a file, "" for none.

    kind: "model" or "dataset", of the repository. Of a data set `file` is its configuration.
    """

    repo: str
    revision: str | None = None
    file: str = ""
    kind: str = "model"

    @property
    def address(self) -> str:
        """Where people read of it."""
        return f"{address()}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repo}{revision}" + (f"/{self.file}" if self.file else "")

    @classmethod
    def parse(cls, rest: str, kind: str = "model") -> HubName:
        """Of what follows `hf:`. Raises InputError."""
        found = _NAME.fullmatch(rest)
        if found is None or ".." in rest:
            raise InputError(
                f"hf:{rest} names no repository; expected hf:owner/name, hf:owner/name@revision or "
                f"hf:owner/name/{'file.safetensors' if kind == 'model' else 'configuration'}"
            )
        return cls(found["repo"], found["revision"], found["file"] or "", kind)


def find_file(
    rest: str, *, fetch: bool = True, how: str = "", offline: bool | None = None, say: Say = errors.say
) -> Path:
    """The local safetensors file that `hf:` and this name: downloaded where it is not here, and its SHA-256 checked.

    fetch: False for what a recipe alone names, which is used if it is here; `how` says what would fetch it. offline:
    None for what `--offline`, OPSIN_OFFLINE and HF_HUB_OFFLINE say. Raises InputError for what is not there or holds no
    safetensors, JobError where the network or a file fails.
    """
    name = HubName.parse(rest)
    file = name.file or MODEL
    if not file.endswith(".safetensors"):
        raise InputError(f"{name}: only .safetensors files are loaded, since others may run code")
    if not fetch or (is_kept_offline() if offline is None else offline):
        path = _cached(name, file)
        if path is None:
            raise _absent(name, fetch, how)
        return _verified(path, _digest_in_name(path), name)
    try:
        size, digest, terms = _look_up(name, file)
    except OSError as error:  # among them every error of the network
        if (path := _cached(name, file)) is None:
            raise JobError(f"{name}: {address()} cannot be reached: {_reason(error)}; check the network") from None
        say(f"{name}: {address()} cannot be reached ({_reason(error)}); the copy that is here is used")
        return _verified(path, _digest_in_name(path), name)
    path = _cached(name, file)
    if path is None or (digest and digest not in (_digest_in_name(path), None)):
        say(f"downloading {name} ({size / 1e6:.1f} MB, licence: {terms}) from {address()} to {_cache()}")
    return _verified(_download(name, file), digest, name)


Choose = Callable[[HubName, Sequence[str], Mapping[str, Any]], tuple[list[str], dict[str, Any]]]
"""(name, the files of a repository, its card) -> those that are wanted, and plain values to keep with them."""


def find_folder(
    name: HubName, note: Path, choose: Choose, *, fetch: bool = True, how: str = "", say: Say = errors.say
) -> tuple[Path, dict[str, Any]]:
    """The local folder of chosen files of a repository, and what was kept with them.

    They are downloaded where they are not here, each SHA-256 checked. note: a file that says, once all of them are
    here, which they are; while it does, nothing is asked of the hub. fetch, how, and errors: as `find_file`.
    """
    if (noted := _noted(note)) is not None:
        return noted
    if not fetch or is_kept_offline():
        raise _absent(name, fetch, how)
    try:
        files, card, tags = _ask(name)
        chosen, kept = choose(name, sorted(files), card)
        size = sum(_facts(files[file])[0] for file in chosen)
        terms = f"licence: {_licence(card, tags)}; see {name.address}"
        say(f"downloading {name} ({len(chosen)} files, {size / 1e6:.1f} MB, {terms}) to {_cache()}")
        places = [_verified(_download(name, file), _facts(files[file])[1], name) for file in chosen]
    except OSError as error:
        raise JobError(f"{name}: {address()} cannot be reached: {_reason(error)}; check the network") from None
    folder = places[0].parents[len(Path(chosen[0]).parts) - 1]
    with atomic(note) as temporary:
        temporary.write_text(json.dumps({"folder": str(folder), "files": chosen, "kept": kept}), encoding="utf-8")
    return folder, kept


def _noted(note: Path) -> tuple[Path, dict[str, Any]] | None:
    """What a note says, if all the files that it names are there."""
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        folder = Path(known["folder"])
        return (folder, dict(known["kept"])) if all((folder / file).is_file() for file in known["files"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_kept_offline() -> bool:
    """Whether opsin or huggingface_hub itself is kept from the network."""
    from huggingface_hub import constants

    return is_offline() or bool(constants.HF_HUB_OFFLINE)


def address() -> str:
    """The hub that is asked: HF_ENDPOINT, or https://huggingface.co."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def _look_up(name: HubName, file: str) -> tuple[int, str | None, str]:
    """The size of a file, its SHA-256 where the hub states one, and the licence of its repository."""
    files, card, tags = _ask(name)
    if file not in files:
        raise _no_file(name, file, sorted(files))
    return *_facts(files[file]), _licence(card, tags)


def _ask(name: HubName) -> tuple[dict[str, Any], Any, list[str]]:
    """The files of a repository by their paths, its card and its tags. OSError where the network fails."""
    from huggingface_hub import HfApi

    with hub_errors(name):
        api = HfApi()
        ask: Any = api.model_info if name.kind == "model" else api.dataset_info
        info: Any = ask(name.repo, revision=name.revision, files_metadata=True, timeout=30)
    card = {} if info.card_data is None else info.card_data.to_dict()
    return {one.rfilename: one for one in info.siblings or []}, card, list(info.tags or [])


def _facts(file: Any) -> tuple[int, str | None]:
    """The size and the SHA-256 of a file, None where the hub states none."""
    return file.size or 0, None if file.lfs is None else file.lfs.sha256


def _licence(card: Mapping[str, Any], tags: Sequence[str]) -> str:
    stated = card.get("license") or next((tag[8:] for tag in tags if tag.startswith("license:")), None)
    return ", ".join(map(str, stated)) if isinstance(stated, list) else str(stated or "not stated")


def _no_file(name: HubName, file: str, there: list[str]) -> InputError:
    weights = [one for one in there if one.endswith(".safetensors")]
    pickles = [one for one in there if one.endswith(_PICKLES)]
    where = HubName(name.repo, name.revision)
    if weights:
        return InputError(f"{where} has no {file}; it has {', '.join(f'{where}/{one}' for one in weights[:5])}")
    if pickles:
        return InputError(f"{where} has no safetensors, and {pickles[0]} is a pickle, which may run code: not loaded")
    return InputError(f"{where} has no {file}; it has {', '.join(there[:5]) or 'no files'}")


def _download(name: HubName, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        with hub_errors(name), quiet_bars():
            return Path(
                hf_hub_download(name.repo, file, repo_type=name.kind, revision=name.revision, library_name="opsin")
            )
    except OSError as error:
        raise JobError(f"{name} could not be downloaded from {address()}: {_reason(error)}") from None


@contextmanager
def hub_errors(name: HubName) -> Iterator[None]:
    """What the hub refuses as one line; errors of the network as OSError."""
    from huggingface_hub import errors as of_hub

    where = name.address
    try:
        yield
    except of_hub.GatedRepoError:
        raise InputError(f"{name}: its terms must be accepted at {where}; then log in with `hf auth login`") from None
    except of_hub.RepositoryNotFoundError:
        raise InputError(
            f"{name}: there is no {where}, or you may not read it; check the name, or log in with `hf auth login`"
        ) from None
    except of_hub.RevisionNotFoundError:
        raise InputError(f"{name}: {where} has no revision {name.revision}") from None
    except of_hub.HFValidationError as error:
        raise InputError(f"{name}: {_reason(error)}") from None
    except OSError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "requests"):
            raise
        raise OSError(_reason(error)) from None  # of newer libraries below huggingface_hub, which are no OSErrors


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Within it, huggingface_hub draws no bars where there is no terminal."""
    from huggingface_hub import utils

    if sys.stderr.isatty() or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


def _cached(name: HubName, file: str) -> Path | None:
    """Where a file lies in the cache; None where it does not."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name.repo, file, revision=name.revision, repo_type=name.kind)
    return Path(found) if isinstance(found, str) else None


def _cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def _digest_in_name(path: Path) -> str | None:
    """The SHA-256 that the cache has named a large file by; None where it did not."""
    name = path.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


def _verified(path: Path, digest: str | None, name: HubName) -> Path:
    """The path of a file that is what was published. A damaged one is deleted."""
    if digest is not None and (found := file_digest(path)) != digest:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise JobError(
            f"{name} is damaged: its SHA-256 is {found}, the hub states {digest}; it was deleted, and the next call "
            "fetches it again"
        )
    return path


def _absent(name: HubName, fetch: bool, how: str) -> InputError:
    if not fetch:
        advice = f"; to fetch it: {how}" if how else ""
        return InputError(f"{name} is not on this machine, and what only a recipe names is not downloaded{advice}")
    revision = f" --revision {name.revision}" if name.revision else ""
    files = name.file or MODEL if name.kind == "model" else "--repo-type dataset"
    call = f"hf download {name.repo} {files}{revision}"
    return InputError(f"offline, and {name} is not in {_cache()}: allow the network once, or run `{call}` with it")


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if text and len(text) <= 200 else f"{type(error).__name__}{f': {text[:200]}...' if text else ''}"

"""Files from the network, and only when a user asked for one by name: resumed, verified, and never half a file.

They lie in `OPSIN_HOME/weights`, each under the last part of its URL. OPSIN_HOME is by default `~/.cache/opsin`
(`$XDG_CACHE_HOME/opsin`) on Linux, `~/Library/Caches/opsin` on macOS, `%LOCALAPPDATA%\\opsin` on Windows. Proxies are
those of the environment, as urllib takes them: HTTPS_PROXY, HTTP_PROXY, NO_PROXY.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from opsin import errors
from opsin.errors import InputError, JobError

Say = Callable[[str], None]

ATTEMPTS = 4  # connections, before a transfer that breaks off is given up
PAUSE = 1.0  # seconds before the second connection, twice as many before each further one
TIMEOUT = 30.0  # seconds without a byte
LARGEST = 100_000_000  # bytes of an image at an address
PATIENCE = 4  # times TIMEOUT, until an image at an address must be here
_BLOCK = 1 << 20


def home() -> Path:
    """The folder of everything that was downloaded: OPSIN_HOME, or the platform's place for caches."""
    if chosen := os.environ.get("OPSIN_HOME"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "opsin"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "opsin"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opsin"


def is_offline() -> bool:
    """Whether OPSIN_OFFLINE forbids the network; `opsin --offline` sets it."""
    return os.environ.get("OPSIN_OFFLINE", "").lower() not in ("", "0", "false", "no")


def place(url: str) -> Path:
    """Where the file of a URL lies, or would lie."""
    return home() / "weights" / urllib.parse.unquote(urllib.parse.urlparse(url).path.rpartition("/")[2])


def fetch(url: str, sha256: str, *, offline: bool | None = None, say: Say = errors.say) -> Path:
    """The file of a URL, verified: from `place(url)` if it is there, else downloaded to it.

    sha256: hexadecimal, whole or its first digits, at least 8. offline: never touch the network; OPSIN_OFFLINE if None.
    say: receives what happens, standard error by default. A transfer that was interrupted goes on where it stopped.

    Raises InputError when the file is missing offline or its folder cannot be written, JobError when the transfer
    fails; both say where the file comes from and where it belongs.
    """
    if not re.fullmatch(r"[0-9a-f]{8,64}", sha256):
        raise ValueError(f"sha256 of {url} is {sha256!r}; expected 8 to 64 hexadecimal digits in lower case")
    offline = is_offline() if offline is None else offline
    path = place(url)
    if path.exists():
        found = _digest_of_kept(path)
        if found.startswith(sha256):
            return path
        wrong = f"{path} is damaged or another file: its SHA-256 is {found}, expected {_shown(sha256)}"
        if offline:
            raise InputError(f"{wrong}; replace it by {url}, or allow the network")
        say(f"{wrong}; downloading it again")
    elif offline:
        raise InputError(f"offline, and {path.name} is not there: download {url} elsewhere and put it at {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path, say):
            if not (path.exists() and _digest_of_kept(path).startswith(sha256)):  # another process may have been first
                _download(url, sha256, path, say)
    except OSError as error:
        raise _not_written(path, error) from error
    return path


def check_online(url: str) -> None:
    """Raise InputError where OPSIN_OFFLINE forbids to fetch an address."""
    if is_offline():
        raise InputError(f"offline, so {url} is not fetched; give a file, or allow the network")


def read_address(url: str, *, largest: int = LARGEST, timeout: float = TIMEOUT) -> bytes:
    """What lies at an http or https address, held in memory: an image that a user gave by its address.

    largest: bytes, both of what the server announces and of what arrives. timeout: seconds without a byte; the whole
    takes at most PATIENCE times as long. Addresses are followed to http and https only. Raises InputError.
    """
    check_online(url)
    request = urllib.request.Request(url, headers={"User-Agent": "opsin"})
    started = time.monotonic()
    try:
        with _opener().open(request, timeout=timeout) as response:
            length = response.headers.get("Content-Length", "")
            announced = int(length) if length.isdecimal() else None
            if announced is not None and announced > largest:
                raise _unread(url, f"it has {_megabytes(announced)}, more than {_megabytes(largest)}")
            data = bytearray()
            while block := response.read1(1 << 16):
                data += block
                if len(data) > largest:
                    raise _unread(url, f"more than {_megabytes(largest)} arrive")
                if time.monotonic() - started > PATIENCE * timeout:
                    raise _unread(url, f"it did not arrive within {PATIENCE * timeout:.0f} seconds")
    except urllib.error.HTTPError as error:
        raise _unread(url, f"the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _unread(url, f"it cannot be reached ({error.reason}); check the network and HTTPS_PROXY") from None
    except TimeoutError:
        raise _unread(url, f"nothing came for {timeout:.0f} seconds") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unread(url, f"the connection failed: {error}") from None
    if announced is not None and len(data) < announced:
        raise _unread(url, f"the connection broke after {len(data):,} of {announced:,} bytes")
    return bytes(data)


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https and nothing else, wherever an address leads: no files, no FTP."""
    opener = urllib.request.OpenerDirector()
    kinds = (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    )
    for kind in kinds:
        opener.add_handler(kind())
    return opener


def _unread(url: str, reason: str) -> InputError:
    return InputError(f"cannot read {url}: {reason}")


def _download(url: str, sha256: str, path: Path, say: Say) -> None:
    part = path.with_name(path.name + ".part")
    resumed = part.exists()
    digest = _transfer(url, path, part, say)
    if resumed and not digest.startswith(sha256):
        say(f"what an earlier transfer left of {path.name} does not belong to it; starting over")
        part.unlink()
        digest = _transfer(url, path, part, say)
    if not digest.startswith(sha256):
        part.unlink()
        raise JobError(
            f"{url} is not the file that was published: its SHA-256 is {digest}, expected {_shown(sha256)}; "
            "it was deleted. A proxy may have answered in its place"
        )
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
    _remember(path, digest)


def _transfer(url: str, path: Path, part: Path, say: Say) -> str:
    """Fill `part` to its end, over as many connections as it takes. Returns its SHA-256."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _connect(url, part, say)
        except urllib.error.HTTPError as error:
            if (error.code < 500 and error.code != 429) or attempt == ATTEMPTS:
                raise JobError(
                    f"{url} answered {error.code} {error.reason}; if you have the file, put it at {path}"
                ) from None
        except urllib.error.URLError as error:  # nobody answers: no second try
            raise JobError(
                f"cannot reach {urllib.parse.urlparse(url).netloc} ({error.reason}); check the network and "
                f"HTTPS_PROXY, or put {url} at {path} by other means"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, _LocalError) or getattr(error, "errno", None) in _LOCAL:
                raise
            if attempt == ATTEMPTS:
                raise JobError(
                    f"{url} broke off after {_held(part)} ({error}); the next call goes on from there"
                ) from None
            say(f"the connection broke after {_held(part)}; going on")
        except KeyboardInterrupt:
            say(f"stopped after {_held(part)} of {path.name}; the next call goes on from there")
            raise
        time.sleep(PAUSE * 2 ** (attempt - 1))
    raise AssertionError("the last attempt returns or raises")


def _connect(url: str, part: Path, say: Say) -> str:
    """One connection: append what is missing, or write it all where the server cannot begin in the middle."""
    size = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "opsin"})
    if request.type not in ("http", "https"):
        raise ValueError(f"{url} is no http or https address")
    if size:
        request.add_header("Range", f"bytes={size}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # "range not satisfiable": there is nothing behind what is here already
            raise
        return file_digest(part)
    with response:
        if size and response.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
            digest, mode = _hash(part), "ab"
        else:
            digest, mode, size = hashlib.sha256(), "wb", 0
        length = response.headers.get("Content-Length")
        total = None if length is None else size + int(length)
        _check_space(part, 0 if total is None else total - size)
        with part.open(mode) as file, _progress(part.name.removesuffix(".part"), url, size, total, say) as advance:
            while block := response.read(_BLOCK):
                _write(file, block)
                digest.update(block)
                size += len(block)
                advance(len(block))
    if total is not None and size < total:
        raise http.client.HTTPException(f"the server closed the connection after {size:,} of {total:,} bytes")
    return digest.hexdigest()


_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOCAL = (*_FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR)


class _LocalError(OSError):
    """A failure to write here, to tell it from one to read there: both are OSErrors."""


def _write(file: IO[bytes], block: bytes) -> None:
    try:
        file.write(block)
        file.flush()
    except OSError as error:
        if error.errno in _FULL:
            with contextlib.suppress(OSError):
                Path(file.name).unlink()  # it would keep the disk full
        raise _LocalError(error.errno, error.strerror) from error


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise _LocalError(errno.ENOSPC, f"it needs {_megabytes(needed)} and {_megabytes(free)} are free")


def _not_written(path: Path, error: OSError) -> InputError | JobError:
    if error.errno in _FULL:
        return JobError(f"the disk of {path.parent} is full: {error.strerror}; free some, or set OPSIN_HOME elsewhere")
    return InputError(
        f"cannot write to {path.parent}: {error.strerror or error}; set OPSIN_HOME to a folder that can be written"
    )


@contextlib.contextmanager
def lock(path: Path, say: Say) -> Iterator[None]:
    """One process at a time makes a file; the lock goes with the process, however that ends."""
    from filelock import FileLock, Timeout

    held = FileLock(path.with_name(path.name + ".lock"), poll_interval=0.2)
    try:
        held.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another process that downloads {path.name}")
        held.acquire()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # while it is held: who waits for it sees that it is gone, and makes another
            Path(held.lock_file).unlink()
        held.release()


def _digest_of_kept(path: Path) -> str:
    """The SHA-256 of a file that may have been verified before: then its size and time of change say that it is so."""
    stat = path.stat()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(_note(path).read_text(encoding="utf-8"))
        if (note["size"], note["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns):
            return str(note["sha256"])
    try:
        digest = file_digest(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    _remember(path, digest)
    return digest


def _remember(path: Path, digest: str) -> None:
    stat = path.stat()
    note = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": digest}
    with contextlib.suppress(OSError):  # a folder that is only read from: it is hashed every time
        _note(path).write_text(json.dumps(note), encoding="utf-8")


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    return _hash(path).hexdigest()


def _hash(path: Path) -> Any:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest


@contextlib.contextmanager
def _progress(name: str, url: str, start: int, total: int | None, say: Say) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; else one line that says what is being fetched."""
    if not sys.stderr.isatty():
        size = "" if total is None else f" ({_megabytes(total)})"
        say(f"downloading {url}{size}" + (f", from {_megabytes(start)} on" if start else ""))
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total, completed=start)
        yield lambda count: bar.advance(task, count)


def _held(part: Path) -> str:
    return _megabytes(part.stat().st_size if part.exists() else 0)


def _shown(sha256: str) -> str:
    return sha256 if len(sha256) == 64 else f"{sha256}..."


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"

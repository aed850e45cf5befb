"""How files are written so that a crash never leaves half of one, and read where they may be anything."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opsin.errors import InputError, JobError

_DEEPEST = 100  # levels of nesting of a JSON text from elsewhere
MAX_BYTES = 1 << 32  # of a file that is read whole; the largest annotations of public data are a tenth of it


def read_regular(path: str | os.PathLike[str], most: int = MAX_BYTES) -> bytes:
    """The content of a regular file.

    most: the largest size, in bytes. Raises OSError, with its reason in `strerror`, also for a device, a pipe or a
    socket, which could block or never end, and for a larger file.
    """
    check_regular(path, most)
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # a Path and a buffer take longer than a small file
        return file.readall()


def check_regular(path: str | os.PathLike[str], most: int = MAX_BYTES) -> None:
    """Raise OSError for what is no regular file, or a larger one; see `read_regular`."""
    try:
        found = os.stat(path)  # noqa: PTH116  # a Path takes five times as long
    except ValueError:  # of a null byte
        raise OSError(errno.EINVAL, "no file can have this name", os.fspath(path)) from None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    if found.st_size > most:
        raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes, more than the {most:,} that are read", str(path))


def load_json(text: str | bytes) -> Any:
    """The value of a JSON text from elsewhere. Raises ValueError for what is none, or nested over 100 levels deep."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels") from None
    level = [value]
    for _ in range(_DEEPEST):
        level = [one for held in level if isinstance(held, dict | list)
                 for one in (held.values() if isinstance(held, dict) else held)]  # fmt: skip
        if not level:
            return value
    raise ValueError(f"it is nested deeper than {_DEEPEST} levels")


@contextlib.contextmanager
def atomic(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well, and is removed when it does not.

    The bytes are on the disk before the name is, so a crash leaves the old file or the new one. flush=False does not
    wait for the disk: what thousands of small files want; only a loss of power can then leave half a file. Raises
    JobError if the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # some writers make files that nobody else may read
        if flush:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise write_failure(path, error) from error
    except Exception as error:
        # safetensors and torch wrap the system's error in types of their own
        if any(word in str(error) for word in ("No space left", "os error 28", "PytorchStreamWriter failed")):
            raise write_failure(path, OSError(errno.ENOSPC, "No space left on device")) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def keep_previous(path: Path, previous: Path) -> None:
    """Let a second name stand for the present content of a file that is about to be replaced. Both exist throughout."""
    if not path.exists():
        return
    temporary = previous.with_name(f".{previous.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.hardlink_to(path)
        except (OSError, NotImplementedError):  # a file system without links
            shutil.copyfile(path, temporary)
        temporary.replace(previous)
    except OSError as error:
        raise write_failure(previous, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_new(folder: Path) -> None:
    """Raise InputError for a folder to write into that is a file or holds something."""
    if folder.is_file() or folder.is_symlink() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} is {'a file' if folder.is_file() else 'not empty'}; name a new folder")


def sweep(folder: Path) -> None:
    """Remove the temporary files in a folder that processes which are no more have left."""
    for path in folder.glob(".*.tmp"):
        process = path.name.split(".")[-2]
        if process.isdecimal() and not _is_alive(int(process)):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_failure(path: Path, error: OSError) -> JobError:
    """The JobError for a file that could not be written."""
    return JobError(f"cannot write {path}: {error.strerror or error}; free some space or choose another --out")

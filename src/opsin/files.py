"""How files are written so that a crash never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from opsin.errors import JobError


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_failure(path: Path, error: OSError) -> JobError:
    """The JobError for a file that could not be written."""
    return JobError(f"cannot write {path}: {error.strerror or error}; free some space or choose another --out")

"""Zip archives, read in place: nothing is unpacked, and every process opens the archive for itself."""

from __future__ import annotations

import os
import zipfile
import zlib
from functools import lru_cache

from opsin.data.images import UnreadableImage
from opsin.errors import InputError

_MAX_BYTES = 1 << 30  # of one member: a zip can hold a terabyte of zeros in a megabyte


def list_members(archive: str) -> tuple[list[str], list[str]]:
    """The files and the folders of an archive. Raises InputError where it is no readable zip."""
    try:
        names = list(_names(archive, os.getpid()))
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"{archive} is not a readable zip: {error}; make it anew") from error
    files = [name for name in names if not name.endswith("/")]
    folders = {name.rstrip("/") for name in names if name.endswith("/")}
    for name in files:
        parts = name.split("/")[:-1]
        folders |= {"/".join(parts[: i + 1]) for i in range(len(parts))}
    return files, sorted(folders)


def read_member(archive: str, name: str) -> bytes:
    """The content of one member. Raises UnreadableImage."""
    path = f"{archive}/{name}"
    try:
        opened = _opened(archive, os.getpid())
        stored = _names(archive, os.getpid())[name]
        if opened.getinfo(stored).file_size > _MAX_BYTES:
            raise UnreadableImage(path, f"it unpacks to more than {_MAX_BYTES:,} bytes")
        return opened.read(stored)
    except KeyError as error:
        raise UnreadableImage(path, "there is no such file in the zip") from error
    except RuntimeError as error:  # zipfile's answer to encrypted members, with NotImplementedError for rare methods
        raise UnreadableImage(path, f"it cannot be unpacked: {error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise UnreadableImage(path, f"damaged in the zip: {error}") from error


def stamp_member(archive: str, name: str) -> tuple[int, int]:
    """The bytes of a member once unpacked, and their checksum, as the archive says; zeros where it does not."""
    try:
        info = _opened(archive, os.getpid()).getinfo(_names(archive, os.getpid())[name])
    except (KeyError, zipfile.BadZipFile, OSError, ValueError):
        return 0, 0
    return info.file_size, info.CRC


@lru_cache(maxsize=16)
def _names(archive: str, process: int) -> dict[str, str]:
    """From the members' paths to their names in the archive, where backslashes may part folders, as Windows has it."""
    return {name.replace("\\", "/"): name for name in _opened(archive, process).namelist()}


@lru_cache(maxsize=16)
def _opened(archive: str, process: int) -> zipfile.ZipFile:
    """The archive's handle of one process: a forked worker must not share its parent's place in the file."""
    return zipfile.ZipFile(archive)

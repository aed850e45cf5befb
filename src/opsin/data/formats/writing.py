"""How a data set is written: into a new folder that is there whole or not at all, its images as they are."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from opsin.data.images import UnreadableImage
from opsin.data.source import Split
from opsin.errors import InputError
from opsin.files import check_new, write_failure
from opsin.image_files import IMAGE_SUFFIXES


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, which is `out` once the block ends well, and is removed when it does not.

    Raises InputError where `out` is a file or holds something, and JobError where it cannot be written.
    """
    check_new(out)
    temporary = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if out.is_dir():
            out.rmdir()
        temporary.rename(out)
    except OSError as error:
        raise write_failure(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class ImageWriter:
    """Copies images under names of their own. link: link to those that are files instead. root: of what is written."""

    def __init__(self, link: bool) -> None:
        self.link = link
        self.taken: set[str] = set()

    def name(self, split: Split, i: int, group: str = "") -> str:
        """A file's name, that no other of the group has, also where case or the ending are no difference."""
        path = re.split(r"[/\\]", split.name(i))[-1]
        stem, dot, ending = path.rpartition(".")
        if not dot or f".{ending.lower()}" not in IMAGE_SUFFIXES:
            stem, ending = path, "png"
        stem = re.sub(r'[\[\]:*?"<>|\x00-\x1f\x7f]+', "_", stem).strip("._ ") or "image"
        own, number = stem, 1
        while _key(f"{group}/{own}") in self.taken:
            number += 1
            own = f"{stem}-{number}"
        self.taken.add(_key(f"{group}/{own}"))
        return f"{own}.{ending}"

    def write(self, split: Split, i: int, target: Path) -> tuple[int, int]:
        """Write an image as it is encoded, or as PNG where it lies in memory; its (height, width).

        Raises InputError for one that cannot be read.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            data = split.inputs.encoded(i)
            if data is None:
                pixels = split.read(i).permute(1, 2, 0).numpy()
                Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(target)
                return pixels.shape[0], pixels.shape[1]
            size = split.inputs.size(i)
        except UnreadableImage as error:
            raise InputError(f"{error.path}: {error.reason}; fix or remove it") from error
        assert size is not None
        source = Path(split.name(i))
        if self.link and source.is_file():
            target.symlink_to(source.resolve())
        else:
            target.write_bytes(data)
        return size


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()

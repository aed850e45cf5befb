"""Digests of a split: what is made from one is known to be of it, whatever its files are called."""

from __future__ import annotations

import hashlib

from opsin.data.source import Split, map_threads


def fingerprint(split: Split) -> str:
    """A split's images in their order, by their bytes: 16 hexadecimal digits. Boxes and labels play no part."""

    def digest(index: int) -> bytes:
        encoded = split.inputs.encoded(index)
        if encoded is not None:
            return hashlib.sha256(encoded).digest()
        image = split.read(index)
        return hashlib.sha256(repr(tuple(image.shape)).encode() + image.numpy().tobytes()).digest()

    return hashlib.sha256(b"".join(map_threads(digest, range(len(split))))).hexdigest()[:16]


def identify(split: Split) -> str:
    """A split's images in their order and all that is known of them: 64 hexadecimal digits."""
    digest = hashlib.sha256(fingerprint(split).encode())
    if split.truth is not None:
        for index in range(len(split)):
            digest.update(split.truth.digest(index))
    return digest.hexdigest()

"""Necks: what brings the scales of a backbone together before a head looks at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from opsin.errors import InputError
from opsin.lazy_modules import lazy_modules
from opsin.necks.asff import ASFF
from opsin.necks.bifpn import BiFPN
from opsin.necks.fpn import FPN
from opsin.necks.mlfpn import MLFPN
from opsin.necks.neck import Laterals, Neck
from opsin.necks.panet import ConcatPANet, PANet
from opsin.nn.naming import build

__getattr__, __dir__ = lazy_modules(__name__, __file__)

__all__ = [
    "ASFF",
    "FPN",
    "MLFPN",
    "BiFPN",
    "ConcatPANet",
    "Laterals",
    "Neck",
    "PANet",
    "create_neck",
    "list_necks",
]

_NECKS: Mapping[str, type[Neck]] = MappingProxyType(
    {
        "fpn": FPN,
        "panet": PANet,
        "panet_concat": ConcatPANet,
        "bifpn": BiFPN,
        "sfam": MLFPN,
        "asff": ASFF,
        "none": Laterals,
    }
)


def list_necks() -> list[str]:
    """Names that `create_neck` knows."""
    return sorted(_NECKS)


def create_neck(name: str | None, channels: Sequence[int], strides: Sequence[int], **options: Any) -> Neck:
    """A neck by name: fpn, panet, panet_concat (YOLOv4's), bifpn, sfam, asff, none (also None).

    channels, strides: of the maps that it is given, finest first: an `Extractor`'s. Every neck takes `out_channels`, of
    each map that it gives, and `extra_levels`, how many coarser maps than it was given. The neck's `channels` and
    `strides` say what comes out.
    Raises InputError for an unknown name or option, with the nearest known ones, and for values that cannot be.
    """
    if name is not None and not isinstance(name, str):
        raise InputError(f"neck must be a name such as 'fpn' or None, got {name!r}")
    return build("neck", _NECKS, name or "none", channels, strides, **options)

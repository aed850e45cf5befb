"""Damage as disks, networks and people do it to files, from a seed."""

from __future__ import annotations

import random
import re

NUMBERS = [
    b"-1",
    b"0",
    b"1e999",
    b"nan",
    b"NaN",
    b"Infinity",
    b"null",
    b'""',
    b"[]",
    b"{}",
    b"9" * 400,
    b"1e-320",
    b"2.5",
]
TEXTS = [
    b"../../etc/passwd",
    b"/dev/zero",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"&x;",
    b"*a",
    b"\x1b]0;x\x07",
    b"\n",
    b"C:\\a",
]


def damage(data: bytes, seed: int) -> bytes:
    """The data with one to three kinds of damage, the same for the same seed."""
    dice = random.Random(seed)
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 3))):
        changed = dice.choice(KINDS)(changed, dice)
    return bytes(changed)


def cut_off(data: bytearray, dice: random.Random) -> bytearray:
    return data[: dice.randrange(len(data) + 1)]


def flip_bits(data: bytearray, dice: random.Random) -> bytearray:
    for _ in range(dice.choice((1, 4, 64))):
        if data:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def zero_out(data: bytearray, dice: random.Random) -> bytearray:
    start = dice.randrange(len(data) + 1)
    length = min(dice.choice((1, 16, 512, 4096)), len(data) - start)
    data[start : start + length] = bytes(length)
    return data


def extreme_bytes(data: bytearray, dice: random.Random) -> bytearray:
    """Lengths and sizes of a header become the largest there are."""
    if data:
        start = dice.randrange(min(len(data), dice.choice((16, 64, 512))))
        length = min(dice.choice((1, 2, 4, 8)), len(data) - start)
        data[start : start + length] = dice.choice((b"\xff", b"\x7f", b"\x80", b"\x00")) * length
    return data


def move(data: bytearray, dice: random.Random) -> bytearray:
    start, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
    piece = data[start:end]
    del data[start:end]
    place = dice.randrange(len(data) + 1)
    return data[:place] + piece + data[place:]


def repeat(data: bytearray, dice: random.Random) -> bytearray:
    start, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:end] * dice.choice((1, 3)) + data[end:]


def other_value(data: bytearray, dice: random.Random) -> bytearray:
    """A number or a text of a text file becomes one that nobody expects."""
    places = list(re.finditer(rb"-?\d+(?:\.\d+)?", data)) + list(re.finditer(rb"[A-Za-z_]{2,}", data))
    if not places:
        return data
    found = dice.choice(places)
    return data[: found.start()] + dice.choice(NUMBERS + TEXTS) + data[found.end() :]


def lose_a_line(data: bytearray, dice: random.Random) -> bytearray:
    lines = data.split(b"\n")
    place = dice.randrange(len(lines))
    if dice.random() < 0.5:
        del lines[place]
    else:
        lines[place] = lines[place][: dice.randrange(len(lines[place]) + 1)]
    return bytearray(b"\n".join(lines))


KINDS = (cut_off, flip_bits, zero_out, extreme_bytes, move, repeat, other_value, other_value, lose_a_line)

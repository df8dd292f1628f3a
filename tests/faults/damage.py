"""Ways in which a file stops being what its writer wrote."""

from __future__ import annotations

import random


def mutate(data: bytes, dice: random.Random) -> bytes:
    """One random change: bits, a cut, a copied piece, a number blown up, lines in another order, half a merge."""
    position = dice.randrange(len(data)) if data else 0
    kind = dice.randrange(9)
    if kind == 0 and data:
        return data[:position] + bytes([data[position] ^ (1 << dice.randrange(8))]) + data[position + 1 :]
    if kind == 1:
        return data[:position]
    if kind == 2:
        return data[:position] + data[dice.randrange(len(data) or 1) :]
    if kind == 3:
        odd = [
            b"9" * 400,
            b"nan",
            b"1e999",
            b"-1",
            b"\x00",
            b"\xff",
            b"null",
            b"[" * 999,
            b"\\ud800",
            b'"',
            b"{}",
        ]
        return data[:position] + dice.choice(odd) + data[position:]
    if kind == 4:
        lines = data.splitlines(keepends=True)
        return b"".join(lines[:1] + dice.sample(lines, len(lines)))
    if kind == 5:
        return dice.randbytes(dice.randrange(1, 4000))
    if kind == 6:
        return data.replace(b"\n", b"\r\n")
    if kind == 7:
        size = dice.randrange(1, 512)  # a block of the disk that reads as zeros
        return data[:position] + b"\0" * min(size, len(data) - position) + data[position + size :]
    return merge(data, position)


def merge(data: bytes, position: int) -> bytes:
    """Half a git merge: both sides and the markers around them."""
    cut = data.rfind(b"\n", 0, position) + 1
    end = data.find(b"\n", position) + 1 or len(data)
    side = data[cut:end]
    return data[:cut] + b"<<<<<<< HEAD\n" + side + b"=======\n" + side + b">>>>>>> theirs\n" + data[end:]


def flip(data: bytes) -> bytes:
    """One bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def truncate(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def empty(data: bytes) -> bytes:
    return b""


def half_merged(data: bytes) -> bytes:
    return merge(data, len(data) // 2)


def windows(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n") if b"\n" in data else data + b"\r\n"


DAMAGES = (flip, truncate, empty, half_merged, windows)

"""Pipelines of both protocols with a few bytes changed, left out or put in, drawn from a seeded generator.

What a server makes of one must not depend on how its bytes are cut into pieces.
"""

from __future__ import annotations

import random

from cluster import encode
from frames import request

__all__ = ["WORDS", "cuts", "mutate", "pipeline"]

WORDS = (b"SET", b"get", b"MGET", b"del", b"EXISTS", b"MSET", b"PING", b"ECHO", b"SELECT", b"DBSIZE", b"nope")
JUNK = (
    b"\r\n",
    b"*",
    b"$",
    b"\0",
    b"-1",
    b"\xff\xff\xff\xff",
    b"*2\r\n$3\r\n",
    b'"',
    b"*0\r\n",
    b"*-1\r\n",
    b"$-1\r\n",
)


def pipeline(dice: random.Random, speak_binary: bool, among: tuple[bytes, ...] = WORDS) -> bytes:
    data = b""
    for _ in range(dice.randint(1, 30)):
        words = [dice.choice(among), *(b"%d" % dice.randint(0, 12) for _ in range(dice.randint(0, 5)))]
        if speak_binary:
            data += request(*words)
        elif dice.random() < 0.2:
            data += b" ".join(words) + b"\r\n"
        else:
            data += encode(tuple(words))
    return data


def mutate(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randint(0, 4)):
        at = dice.randrange(len(changed))
        match dice.randint(0, 3):
            case 0:
                changed[at] = dice.randrange(256)
            case 1:
                del changed[at : at + dice.randint(1, 8)]
            case 2:
                changed[at:at] = dice.choice(JUNK)
            case _:
                changed[at] ^= 1 << dice.randrange(8)
        changed = changed or bytearray(b"\r\n\r\n")
    return bytes(changed)


def cuts(dice: random.Random, size: int) -> list[int]:
    """Sizes of pieces: single bytes, or some random ones; the rest is one piece."""
    return dice.choice(([1] * size, [dice.randint(1, 50) for _ in range(40)]))

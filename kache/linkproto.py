"""Numbers of the protocol between a router and a shard (the link); the drawing is in router/_mux.pyx.

Every message is ``u32 length | u8 kind | …``, little-endian, length counting what follows it.
The compiled code repeats these numbers as C constants; a test compares the two.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 1

HELLO: Final = 1
HELLO_OK: Final = 2
HELLO_NO: Final = 3
RUN: Final = 4
REPLY: Final = 5
DEFERRED: Final = 6
PUSH: Final = 7
CANCEL: Final = 8
NOTICE: Final = 9

RUN_HEADER: Final = 36
"""Bytes of a RUN before its frames, the length field included."""
REPLY_HEADER: Final = 20
"""Bytes of a REPLY before its replies, the length field included."""

FLAG_ATOMIC: Final = 1
FLAG_NO_TOUCH: Final = 2

REPLY_DEFERRED: Final = 0xFFFFFFFF
REPLY_EXPIRED: Final = 0xFFFFFFFE

NOTICE_READY: Final = 1
NOTICE_DRAINING: Final = 2

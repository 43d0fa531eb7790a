"""Types of the compiled wire codecs (see codec.pyx)."""

from typing import Any

DEF_MAX_FRAME: int
DEF_MAX_STRINGS: int
DEF_MAX_BULK: int
DEF_MAX_INLINE: int

class ReplyTooShort(Exception): ...

class Buffer:
    def __len__(self) -> int: ...
    def __bytes__(self) -> bytes: ...
    def write(self, source: bytes | bytearray | memoryview) -> None: ...
    def take(self) -> bytes: ...

class RequestParser:
    count: int
    consumed: int
    error: bytes | None
    max_frame: int
    max_strings: int
    max_bulk: int
    max_inline: int
    def parse(self, data: bytes, kind: str) -> tuple[int, list[bytes] | None, int]: ...

def slot_of_key(key: bytes) -> int: ...
def encode_reply(value: Any, dialect: int) -> bytes: ...
def decode_reply(data: bytes | bytearray | memoryview, start: int = 0) -> tuple[Any, int]: ...

from typing import Final

import msgspec

from kache.errors import KacheError

LOG: Final[int]
BASE: Final[int]
HEADER_SIZE: Final[int]
END_OF_SLOTS: Final[int]
EFFECTS: Final[int]
SHARE: Final[int]
MARK: Final[int]
END: Final[int]
VALUES: Final[int]
PART: Final[int]
BASE_END: Final[int]

class LogError(KacheError):
    path: str
    offset: int
    newer: bool
    def __init__(self, message: str, path: str = "", offset: int = -1, newer: bool = False) -> None: ...

class FileHeader(msgspec.Struct, frozen=True, kw_only=True):
    kind: int
    salt: bytes
    cluster: bytes
    shard: int
    shards: int
    number: int
    first: int
    created_ms: int
    hash_seed: bytes
    boot: bytes = ...
    major: int = ...
    minor: int = ...

def check_of(data: bytes, key: bytes = ...) -> int: ...
def pack_header(header: FileHeader) -> bytes: ...
def read_header(data: bytes, path: str) -> FileHeader: ...
def frame(
    kind: int,
    payload: bytes,
    sequence: int,
    salt: bytes,
    offset: int,
    *,
    now_ms: int = 0,
    behind: int = 0,
    flags: int = 0,
) -> bytes: ...

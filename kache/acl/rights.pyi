"""Types of users' compiled rights (see rights.pyx)."""

from collections.abc import Iterable

from .record import UserRecord

class User:
    name: bytes
    record: UserRecord
    number: int
    enabled: bool
    nopass: bool
    unrestricted: bool
    gone: bool
    paced: bool
    most_clients: int
    most_commands: int
    most_input: int
    most_memory: int
    def __init__(self, record: UserRecord) -> None: ...
    def may_touch(self, key: bytes, wanted: int) -> bool: ...
    def may_hear(self, channel: bytes, literal: bool = False) -> bool: ...
    def may_read_under(self, prefix: bytes) -> bool: ...
    def refusal(
        self, row: int, first: bytes | None, keys: list[tuple[bytes, int]] | None, channel: bytes | None
    ) -> tuple[str, int] | None: ...
    def may_sort(self, row: int) -> bool: ...
    def may_read_all(self) -> bool: ...

class Users:
    by_name: dict[bytes, User]
    by_number: dict[int, User]
    default: User
    metrics: User
    epoch: int
    def __init__(self, records: Iterable[UserRecord] = (), epoch: int = 0) -> None: ...
    def take(self, epoch: int, records: Iterable[UserRecord], removed: Iterable[bytes]) -> None: ...
    def compile_again(self) -> None: ...

def matches(pattern: bytes, text: bytes) -> bool: ...

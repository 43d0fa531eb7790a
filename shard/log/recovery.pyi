from collections.abc import Iterable, Iterator

import msgspec

from ..engine.engine import Store
from .files import Files
from .format import FileHeader
from .manifest import Manifest

class Cut(msgspec.Struct, frozen=True):
    path: str
    offset: int
    dropped: int
    frames: int

class Share(msgspec.Struct, frozen=True):
    transaction: int
    participants: tuple[int, ...]
    sequence: int
    now_ms: int
    settled: bool

class Shares(msgspec.Struct, frozen=True):
    shares: tuple[Share, ...] = ()
    base_ms: int = 0
    last_ms: int = 0

class FrameFile:
    def __init__(
        self, files: Files, path: str, *, kind: int | None = None, limit: int | None = None, salt: str | None = None
    ) -> None: ...
    @property
    def path(self) -> str: ...
    @property
    def header(self) -> FileHeader: ...
    @property
    def size(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def close(self) -> None: ...
    def frames(self) -> Iterator[tuple[int, int, int, int, int, bytes]]: ...
    def beyond(self, offset: int) -> tuple[int, int]: ...

class Recovery:
    def __init__(
        self,
        files: Files,
        directory: str,
        store: Store,
        manifest: Manifest,
        *,
        strict: bool = False,
        skip: Iterable[int] = (),
        cut_at: int = 0,
    ) -> None: ...
    @property
    def directory(self) -> str: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def total(self) -> int: ...
    @property
    def done(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def frames(self) -> int: ...
    @property
    def last_ms(self) -> int: ...
    @property
    def cut(self) -> Cut | None: ...
    @property
    def skipped(self) -> int: ...
    @property
    def keys(self) -> int: ...
    def close(self) -> None: ...
    def step(self, budget_ns: int) -> bool: ...
    def manifest_after(self) -> Manifest: ...

def shares_of(files: Files, directory: str, manifest: Manifest) -> Shares: ...

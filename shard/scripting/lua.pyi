from collections.abc import Callable
from typing import Any, ClassVar, Final

from ..engine.engine import Program
from .interpreter import Runner

class LuaError(Exception): ...

class Native:
    number: int
    def __init__(self, number: int) -> None: ...

class Reference:
    place: Final[int]
    def __call__(self, *args: Argument) -> Any: ...
    def __getitem__(self, name: bytes) -> Any: ...

Argument = bytes | float | bool | Reference | Native | Callable[..., Any] | None

class Lua:
    CALL: ClassVar[int]
    PCALL: ClassVar[int]
    IS_STOPPED: ClassVar[int]
    STOP: ClassVar[int]
    STARVE: ClassVar[int]
    LOOK: ClassVar[int]
    SET_RESP: ClassVar[int]
    base: Final[int]
    runner: Runner | None
    program: Program | None
    elsewhere: Any
    @property
    def used(self) -> int: ...
    def native(self, number: int) -> Native: ...
    def set_limit(self, limit: int) -> None: ...
    def collect(self) -> None: ...
    def close(self) -> None: ...
    def execute(self, source: bytes, *args: Argument, name: bytes = ...) -> Any: ...
    def take(self, names: Reference, begin: Reference, fault: Reference) -> None: ...
    def run_words(
        self, script: Reference, keys: tuple[bytes, ...], args: tuple[bytes, ...], resp: int, *, passed: bool = False
    ) -> tuple[int, Any]: ...

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..engine.engine import Context, Program, ScriptRunner
from .functions import Function
from .lua import Reference
from .scripts import Run, Script

class Owner(Protocol):
    """Who has the scripts or functions."""

    @property
    def check(self) -> Callable[[int, Any, tuple[bytes, ...]], None] | None: ...
    def run_of(self, program: Program, described: Callable[[], tuple[bytes, Sequence[bytes]]], /) -> Run: ...
    def conclude(
        self, ctx: Context, run: Run, outcome: tuple[int, Any], name: bytes, script: Any, tells: bool, /
    ) -> Any: ...

class Evaluator(ScriptRunner):
    def __init__(self, owner: Owner, *, touch: Callable[[bytes], None] | None = None, calls: bool = False) -> None: ...
    def prepare(
        self, name: bytes, script: Script | Function, function: Reference, *, evaluated: bool = False
    ) -> None: ...
    def forget(self, name: bytes | None = None) -> None: ...
    def described(self) -> tuple[bytes, Sequence[bytes]]: ...

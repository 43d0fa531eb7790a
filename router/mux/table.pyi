"""Types of the compiled command table (see table.pyx)."""

from collections.abc import Callable, Mapping
from typing import Any

from kache.commands import Row

class CommandTable:
    def take_rows(self, rows: list[Row]) -> None: ...
    def adapt(self, handlers: Mapping[str, Callable[..., Any]]) -> None: ...
    def lookup(self, words: list[bytes], binary: bool = False) -> str | None: ...
